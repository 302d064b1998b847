// LMDB as lmdb.h says of mdb_env_open: without MDB_NOSYNC or MDB_NOMETASYNC each mdb_txn_commit is
// durable. Writers take turns on its one write lock; it has no group commit. Readers renew a
// transaction each (MDB_NOTLS) and look at values in the map; the map is the kernel's cache, so the
// budget of memory does not bind it. A store that is filled commits without sync, sorted rows with
// MDB_APPEND; mdb_env_sync is its end.
#include <lmdb.h>

#include "benchmarks/kv_peer.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::bench {
namespace {

absl::Status ToStatus(int code) {
  if (code == MDB_NOTFOUND) return absl::NotFoundError("lmdb");
  return code == 0 ? absl::OkStatus() : absl::InternalError(Cat("lmdb: ", mdb_strerror(code)));
}

MDB_val Value(std::string_view bytes) { return {bytes.size(), const_cast<char*>(bytes.data())}; }
std::string_view View(const MDB_val& value) {
  return {static_cast<const char*>(value.mv_data), value.mv_size};
}

class Lmdb : public KvPeer {
 public:
  explicit Lmdb(const KvOptions& options) : clients_(static_cast<size_t>(options.clients)) {}

  ~Lmdb() override {
    for (Client& client : clients_) {
      if (client.cursor != nullptr) mdb_cursor_close(client.cursor);
      if (client.reading != nullptr) mdb_txn_abort(client.reading);
    }
    mdb_env_close(env_);
  }

  absl::Status Open(const KvOptions& options) {
    constexpr size_t kMapBytes = size_t{8} << 30;
    fill_ = options.fill;
    const unsigned flags =
        MDB_NOTLS | (fill_ == KvOptions::Fill::kNo ? 0u : static_cast<unsigned>(MDB_NOSYNC));
    DYNLIB_RETURN_IF_ERROR(ToStatus(mdb_env_create(&env_)));
    DYNLIB_RETURN_IF_ERROR(ToStatus(mdb_env_set_mapsize(env_, kMapBytes)));
    DYNLIB_RETURN_IF_ERROR(ToStatus(mdb_env_open(env_, options.folder.c_str(), flags, 0644)));
    return InWrite(
        [&](MDB_txn* transaction) { return mdb_dbi_open(transaction, nullptr, 0, &table_); });
  }

  absl::Status Put(int, std::string_view key, std::string_view value) override {
    const KvRow row{key, value};
    return WriteRows({&row, 1}, 0);
  }

  absl::Status Write(int, std::span<const KvRow> rows) override { return WriteRows(rows, 0); }
  absl::Status Fill(std::span<const KvRow> rows) override {
    return WriteRows(rows, fill_ == KvOptions::Fill::kSorted ? MDB_APPEND : 0);
  }

  absl::Status Delete(std::span<const std::string> keys) override {
    return InWrite([&](MDB_txn* transaction) {
      for (const std::string& key : keys) {
        MDB_val k = Value(key);
        const int code = mdb_del(transaction, table_, &k, nullptr);
        if (code != 0 && code != MDB_NOTFOUND) return code;
      }
      return 0;
    });
  }

  absl::Status Get(int client, std::string_view key, Use use) override {
    DYNLIB_ASSIGN_OR_RETURN(Client * reader, Read(client));
    MDB_val k = Value(key);
    MDB_val v{};
    const int code = mdb_get(reader->reading, table_, &k, &v);
    if (code == 0) use(View(v));
    return ToStatus(code);
  }

  absl::Status Scan(int client, std::string_view start, int count, Visitor visit) override {
    DYNLIB_ASSIGN_OR_RETURN(Client * reader, Read(client));
    DYNLIB_RETURN_IF_ERROR(ToStatus(reader->cursor == nullptr
                                        ? mdb_cursor_open(reader->reading, table_, &reader->cursor)
                                        : mdb_cursor_renew(reader->reading, reader->cursor)));
    MDB_val k = Value(start);
    MDB_val v{};
    int code = mdb_cursor_get(reader->cursor, &k, &v, MDB_SET_RANGE);
    for (; code == 0; code = mdb_cursor_get(reader->cursor, &k, &v, MDB_NEXT)) {
      visit(View(k), View(v));
      if (--count == 0) break;
    }
    return code == MDB_NOTFOUND ? absl::OkStatus() : ToStatus(code);
  }

  absl::Status Sync() override { return ToStatus(mdb_env_sync(env_, 1)); }
  absl::Status Checkpoint() override { return Sync(); }

 private:
  struct Client {
    MDB_txn* reading = nullptr;
    MDB_cursor* cursor = nullptr;
  };

  // A view of the newest version; the one before ends.
  absl::StatusOr<Client*> Read(int client) {
    Client& reader = clients_[static_cast<size_t>(client)];
    if (reader.reading == nullptr) {
      DYNLIB_RETURN_IF_ERROR(ToStatus(mdb_txn_begin(env_, nullptr, MDB_RDONLY, &reader.reading)));
    } else {
      mdb_txn_reset(reader.reading);
      DYNLIB_RETURN_IF_ERROR(ToStatus(mdb_txn_renew(reader.reading)));
    }
    return &reader;
  }

  absl::Status InWrite(absl::FunctionRef<int(MDB_txn*)> work) {
    MDB_txn* transaction = nullptr;
    DYNLIB_RETURN_IF_ERROR(ToStatus(mdb_txn_begin(env_, nullptr, 0, &transaction)));
    if (const int code = work(transaction); code != 0) {
      mdb_txn_abort(transaction);
      return ToStatus(code);
    }
    return ToStatus(mdb_txn_commit(transaction));
  }

  absl::Status WriteRows(std::span<const KvRow> rows, unsigned flags) {
    return InWrite([&](MDB_txn* transaction) {
      for (const KvRow& row : rows) {
        MDB_val k = Value(row.key);
        MDB_val v = Value(row.value);
        if (const int code = mdb_put(transaction, table_, &k, &v, flags); code != 0) return code;
      }
      return 0;
    });
  }

  MDB_env* env_ = nullptr;
  MDB_dbi table_ = 0;
  KvOptions::Fill fill_ = KvOptions::Fill::kNo;
  std::vector<Client> clients_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<KvPeer>> OpenLmdb(const KvOptions& options) {
  auto peer = std::make_unique<Lmdb>(options);
  if (const absl::Status status = peer->Open(options); !status.ok()) return status;
  return peer;
}

}  // namespace dynlib::bench
