// WiredTiger as its manual says: "Commit-level durability" with log=(enabled=true) and
// transaction_sync=(enabled=true,method=fsync), so that each commit is synced; sessions that commit
// at the same time share a sync. A session and a cursor for each client; values are looked at in
// the cache. A store that is filled has no log and is made durable by a checkpoint ("Checkpoint
// durability"). A bulk cursor would fill it faster, but knows no batches that are in whole or not
// at all.
#include <wiredtiger.h>

#include "benchmarks/kv_peer.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::bench {
namespace {

constexpr char kTable[] = "table:kv";

absl::Status ToStatus(int code) {
  if (code == WT_NOTFOUND) return absl::NotFoundError("wiredtiger");
  return code == 0 ? absl::OkStatus()
                   : absl::InternalError(Cat("wiredtiger: ", wiredtiger_strerror(code)));
}

WT_ITEM Item(std::string_view bytes) {
  WT_ITEM item{};
  item.data = bytes.data();
  item.size = bytes.size();
  return item;
}

std::string_view View(const WT_ITEM& item) {
  return {static_cast<const char*>(item.data), item.size};
}

class WiredTiger : public KvPeer {
 public:
  ~WiredTiger() override {
    if (connection_ != nullptr) connection_->close(connection_, nullptr);
  }

  absl::Status Open(const KvOptions& options) {
    const bool fill = options.fill != KvOptions::Fill::kNo;
    std::string config = Cat("create,cache_size=", options.cache_bytes >> 20,
                             "MB,session_max=", options.clients + 20);
    if (!fill) {
      config += ",log=(enabled=true),transaction_sync=(enabled=true,method=fsync)";
      if (options.checkpoints_by_itself) config += ",checkpoint=(log_size=64MB)";
    }
    DYNLIB_RETURN_IF_ERROR(
        ToStatus(wiredtiger_open(options.folder.c_str(), nullptr, config.c_str(), &connection_)));
    DYNLIB_RETURN_IF_ERROR(
        ToStatus(connection_->open_session(connection_, nullptr, nullptr, &session_)));
    DYNLIB_RETURN_IF_ERROR(
        ToStatus(session_->create(session_, kTable, "key_format=u,value_format=u")));
    DYNLIB_RETURN_IF_ERROR(OpenCursor(session_, &cursor_));
    clients_.resize(static_cast<size_t>(options.clients));
    for (Client& client : clients_) {
      DYNLIB_RETURN_IF_ERROR(
          ToStatus(connection_->open_session(connection_, nullptr, nullptr, &client.session)));
      DYNLIB_RETURN_IF_ERROR(OpenCursor(client.session, &client.cursor));
    }
    return absl::OkStatus();
  }

  absl::Status Put(int client, std::string_view key, std::string_view value) override {
    return Insert(clients_[static_cast<size_t>(client)].cursor,
                  {key, value});  // a transaction of its own
  }

  absl::Status Write(int client, std::span<const KvRow> rows) override {
    Client& writer = clients_[static_cast<size_t>(client)];
    return InTransaction(writer.session, [&] {
      for (const KvRow& row : rows) DYNLIB_RETURN_IF_ERROR(Insert(writer.cursor, row));
      return absl::OkStatus();
    });
  }

  absl::Status Fill(std::span<const KvRow> rows) override {
    return InTransaction(session_, [&] {
      for (const KvRow& row : rows) DYNLIB_RETURN_IF_ERROR(Insert(cursor_, row));
      return absl::OkStatus();
    });
  }

  absl::Status Delete(std::span<const std::string> keys) override {
    return InTransaction(session_, [&] {
      for (const std::string& key : keys) {
        const WT_ITEM k = Item(key);
        cursor_->set_key(cursor_, &k);
        const int code = cursor_->remove(cursor_);
        if (code != WT_NOTFOUND) DYNLIB_RETURN_IF_ERROR(ToStatus(code));
      }
      return absl::OkStatus();
    });
  }

  absl::Status Get(int client, std::string_view key, Use use) override {
    WT_CURSOR* const cursor = clients_[static_cast<size_t>(client)].cursor;
    const WT_ITEM k = Item(key);
    cursor->set_key(cursor, &k);
    DYNLIB_RETURN_IF_ERROR(ToStatus(cursor->search(cursor)));
    WT_ITEM v{};
    DYNLIB_RETURN_IF_ERROR(ToStatus(cursor->get_value(cursor, &v)));
    use(View(v));
    return ToStatus(cursor->reset(cursor));
  }

  absl::Status Scan(int client, std::string_view start, int count, Visitor visit) override {
    WT_CURSOR* const cursor = clients_[static_cast<size_t>(client)].cursor;
    const WT_ITEM from = Item(start);
    cursor->set_key(cursor, &from);
    int nearby = 0;
    int code = cursor->search_near(cursor, &nearby);
    if (code == 0 && nearby < 0) code = cursor->next(cursor);
    for (; code == 0; code = cursor->next(cursor)) {
      WT_ITEM k{};
      WT_ITEM v{};
      DYNLIB_RETURN_IF_ERROR(ToStatus(cursor->get_key(cursor, &k)));
      DYNLIB_RETURN_IF_ERROR(ToStatus(cursor->get_value(cursor, &v)));
      visit(View(k), View(v));
      if (--count == 0) break;
    }
    cursor->reset(cursor);
    return code == WT_NOTFOUND ? absl::OkStatus() : ToStatus(code);
  }

  absl::Status Sync() override { return Checkpoint(); }
  absl::Status Checkpoint() override { return ToStatus(session_->checkpoint(session_, nullptr)); }
  absl::Status Compact() override {
    for (Client& client : clients_) client.cursor->reset(client.cursor);
    cursor_->reset(cursor_);
    DYNLIB_RETURN_IF_ERROR(ToStatus(session_->compact(session_, kTable, nullptr)));
    return Checkpoint();
  }

 private:
  struct Client {
    WT_SESSION* session = nullptr;
    WT_CURSOR* cursor = nullptr;
  };

  static absl::Status OpenCursor(WT_SESSION* session, WT_CURSOR** cursor) {
    return ToStatus(session->open_cursor(session, kTable, nullptr, nullptr, cursor));
  }

  static absl::Status Insert(WT_CURSOR* cursor, const KvRow& row) {
    const WT_ITEM k = Item(row.key);
    const WT_ITEM v = Item(row.value);
    cursor->set_key(cursor, &k);
    cursor->set_value(cursor, &v);
    return ToStatus(cursor->insert(cursor));
  }

  static absl::Status InTransaction(WT_SESSION* session, absl::FunctionRef<absl::Status()> work) {
    DYNLIB_RETURN_IF_ERROR(ToStatus(session->begin_transaction(session, nullptr)));
    if (const absl::Status status = work(); !status.ok()) {
      session->rollback_transaction(session, nullptr);
      return status;
    }
    return ToStatus(session->commit_transaction(session, nullptr));
  }

  WT_CONNECTION* connection_ = nullptr;  // closes sessions and cursors
  WT_SESSION* session_ = nullptr;
  WT_CURSOR* cursor_ = nullptr;
  std::vector<Client> clients_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<KvPeer>> OpenWiredTiger(const KvOptions& options) {
  auto peer = std::make_unique<WiredTiger>();
  DYNLIB_RETURN_IF_ERROR(peer->Open(options));
  return peer;
}

}  // namespace dynlib::bench
