// WiredTiger as its manual ("Commit-level durability") says: log=(enabled=true) with
// transaction_sync=(enabled=true,method=fsync), so that each commit is synced; sessions that commit
// at the same time share a sync. A session and a cursor for each client.
#include <wiredtiger.h>

#include "benchmarks/kv_peer.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::bench {
namespace {

absl::Status ToStatus(int code) {
  return code == 0 ? absl::OkStatus()
                   : absl::InternalError(Cat("wiredtiger: ", wiredtiger_strerror(code)));
}

WT_ITEM Item(std::string_view bytes) {
  WT_ITEM item{};
  item.data = bytes.data();
  item.size = bytes.size();
  return item;
}

class WiredTiger : public KvPeer {
 public:
  ~WiredTiger() override {
    if (connection_ != nullptr) connection_->close(connection_, nullptr);
  }

  absl::Status Open(const std::filesystem::path& folder, int clients) {
    const std::string config =
        Cat("create,cache_size=1GB,session_max=", clients + 20,
            ",log=(enabled=true),transaction_sync=(enabled=true,method=fsync)");
    DYNLIB_RETURN_IF_ERROR(
        ToStatus(wiredtiger_open(folder.c_str(), nullptr, config.c_str(), &connection_)));
    for (int client = 0; client < clients; ++client) DYNLIB_RETURN_IF_ERROR(OpenClient());
    return absl::OkStatus();
  }

  absl::Status Put(int client, std::string_view key, std::string_view value) override {
    WT_CURSOR* const cursor = cursors_[static_cast<size_t>(client)];
    const WT_ITEM k = Item(key);
    const WT_ITEM v = Item(value);
    cursor->set_key(cursor, &k);
    cursor->set_value(cursor, &v);
    return ToStatus(cursor->insert(cursor));  // a transaction of its own
  }

 private:
  absl::Status OpenClient() {
    WT_SESSION* session = nullptr;
    DYNLIB_RETURN_IF_ERROR(
        ToStatus(connection_->open_session(connection_, nullptr, nullptr, &session)));
    if (cursors_.empty()) {
      DYNLIB_RETURN_IF_ERROR(
          ToStatus(session->create(session, "table:kv", "key_format=u,value_format=u")));
    }
    WT_CURSOR* cursor = nullptr;
    DYNLIB_RETURN_IF_ERROR(
        ToStatus(session->open_cursor(session, "table:kv", nullptr, nullptr, &cursor)));
    cursors_.push_back(cursor);
    return absl::OkStatus();
  }

  WT_CONNECTION* connection_ = nullptr;
  std::vector<WT_CURSOR*> cursors_;  // closed with the connection
};

}  // namespace

absl::StatusOr<std::unique_ptr<KvPeer>> OpenWiredTiger(const std::filesystem::path& folder,
                                                       int clients) {
  auto peer = std::make_unique<WiredTiger>();
  DYNLIB_RETURN_IF_ERROR(peer->Open(folder, clients));
  return peer;
}

}  // namespace dynlib::bench
