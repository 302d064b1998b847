// SQLite as its documents "Write-Ahead Logging", "PRAGMA synchronous" and "Memory-Mapped I/O" say:
// journal_mode=WAL with synchronous=FULL syncs the log at each commit; reads go through a memory
// map, so that no page is copied. A connection that meets a locked database waits, as "Set A Busy
// Timeout" says: in WAL mode a reader meets one when the log is being restarted. It has one writer
// at a time; the clients take turns on one connection, since writers on connections of their own
// poll for the lock with growing sleeps, which is slower. Each client reads on a connection of its
// own. A store that is filled commits with synchronous=OFF, a transaction a batch; a checkpoint on
// a connection with synchronous=FULL is its end.
#include <sqlite3.h>

#include <mutex>

#include "benchmarks/kv_peer.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::bench {
namespace {

constexpr int kBusyMs = 60'000;
constexpr char kInsert[] = "INSERT OR REPLACE INTO kv (k, v) VALUES (?, ?)";
constexpr char kDelete[] = "DELETE FROM kv WHERE k = ?";
constexpr char kGet[] = "SELECT v FROM kv WHERE k = ?";
constexpr char kScan[] = "SELECT k, v FROM kv WHERE k >= ? ORDER BY k LIMIT ?";

std::string_view Column(sqlite3_stmt* statement, int column) {
  return {static_cast<const char*>(sqlite3_column_blob(statement, column)),
          static_cast<size_t>(sqlite3_column_bytes(statement, column))};
}

void Bind(sqlite3_stmt* statement, int parameter, std::string_view bytes) {
  sqlite3_bind_blob(statement, parameter, bytes.data(), static_cast<int>(bytes.size()),
                    SQLITE_STATIC);
}

// A connection and its prepared statements.
class Connection {
 public:
  Connection() = default;
  Connection(const Connection&) = delete;
  ~Connection() {
    for (sqlite3_stmt* statement : {insert, erase, get, scan}) sqlite3_finalize(statement);
    sqlite3_close(db_);
  }

  absl::Status Open(const std::filesystem::path& path, uint64_t cache_bytes, uint64_t map_bytes) {
    DYNLIB_RETURN_IF_ERROR(ToStatus(
        sqlite3_open_v2(path.c_str(), &db_,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr),
        SQLITE_OK));
    DYNLIB_RETURN_IF_ERROR(ToStatus(sqlite3_busy_timeout(db_, kBusyMs), SQLITE_OK));
    DYNLIB_RETURN_IF_ERROR(Run("PRAGMA journal_mode=WAL"));
    DYNLIB_RETURN_IF_ERROR(Run("PRAGMA synchronous=FULL"));
    DYNLIB_RETURN_IF_ERROR(Run(Cat("PRAGMA cache_size=-", cache_bytes >> 10)));
    return Run(Cat("PRAGMA mmap_size=", map_bytes));
  }
  absl::Status Prepare() {
    DYNLIB_RETURN_IF_ERROR(Prepare(kInsert, &insert));
    DYNLIB_RETURN_IF_ERROR(Prepare(kDelete, &erase));
    DYNLIB_RETURN_IF_ERROR(Prepare(kGet, &get));
    return Prepare(kScan, &scan);
  }
  absl::Status Run(const std::string& sql) {
    return ToStatus(sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, nullptr), SQLITE_OK);
  }
  // A statement that gives no rows.
  absl::Status Step(sqlite3_stmt* statement) {
    const absl::Status status = ToStatus(sqlite3_step(statement), SQLITE_DONE);
    sqlite3_reset(statement);
    return status;
  }
  absl::Status ToStatus(int code, int wanted) {
    return code == wanted ? absl::OkStatus()
                          : absl::InternalError(Cat("sqlite: ", sqlite3_errmsg(db_)));
  }

  sqlite3_stmt* insert = nullptr;
  sqlite3_stmt* erase = nullptr;
  sqlite3_stmt* get = nullptr;
  sqlite3_stmt* scan = nullptr;

 private:
  absl::Status Prepare(const char* sql, sqlite3_stmt** statement) {
    return ToStatus(sqlite3_prepare_v2(db_, sql, -1, statement, nullptr), SQLITE_OK);
  }

  sqlite3* db_ = nullptr;
};

class Sqlite : public KvPeer {
 public:
  absl::Status Open(const KvOptions& options) {
    const std::filesystem::path path = options.folder / "db";
    // Pages that were read are in the map; a cache a connection is for what it writes.
    const uint64_t cache_bytes =
        options.cache_bytes / 2 / static_cast<uint64_t>(options.clients + 1);
    DYNLIB_RETURN_IF_ERROR(writer_.Open(path, options.cache_bytes / 2, options.cache_bytes / 2));
    DYNLIB_RETURN_IF_ERROR(writer_.Run(
        "CREATE TABLE IF NOT EXISTS kv (k BLOB PRIMARY KEY, v BLOB NOT NULL) WITHOUT ROWID"));
    if (options.fill != KvOptions::Fill::kNo)
      DYNLIB_RETURN_IF_ERROR(writer_.Run("PRAGMA synchronous=OFF"));
    if (!options.checkpoints_by_itself)
      DYNLIB_RETURN_IF_ERROR(writer_.Run("PRAGMA wal_autocheckpoint=0"));
    DYNLIB_RETURN_IF_ERROR(writer_.Prepare());
    DYNLIB_RETURN_IF_ERROR(checkpointer_.Open(path, 0, 0));
    for (int client = 0; client < options.clients; ++client) {
      auto reader = std::make_unique<Connection>();
      DYNLIB_RETURN_IF_ERROR(reader->Open(path, cache_bytes, options.cache_bytes / 2));
      DYNLIB_RETURN_IF_ERROR(reader->Prepare());
      readers_.push_back(std::move(reader));
    }
    return absl::OkStatus();
  }

  absl::Status Put(int, std::string_view key, std::string_view value) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    return Insert({key, value});
  }

  absl::Status Write(int, std::span<const KvRow> rows) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    DYNLIB_RETURN_IF_ERROR(writer_.Run("BEGIN"));
    for (const KvRow& row : rows) DYNLIB_RETURN_IF_ERROR(Insert(row));
    return writer_.Run("COMMIT");
  }
  absl::Status Fill(std::span<const KvRow> rows) override { return Write(0, rows); }

  absl::Status Delete(std::span<const std::string> keys) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    DYNLIB_RETURN_IF_ERROR(writer_.Run("BEGIN"));
    for (const std::string& key : keys) {
      Bind(writer_.erase, 1, key);
      DYNLIB_RETURN_IF_ERROR(writer_.Step(writer_.erase));
    }
    return writer_.Run("COMMIT");
  }

  absl::Status Get(int client, std::string_view key, Use use) override {
    Connection& reader = *readers_[static_cast<size_t>(client)];
    Bind(reader.get, 1, key);
    const int code = sqlite3_step(reader.get);
    if (code == SQLITE_DONE) {
      sqlite3_reset(reader.get);
      return absl::NotFoundError("sqlite");
    }
    DYNLIB_RETURN_IF_ERROR(reader.ToStatus(code, SQLITE_ROW));
    use(Column(reader.get, 0));
    sqlite3_reset(reader.get);
    return absl::OkStatus();
  }

  absl::Status Scan(int client, std::string_view start, int count, Visitor visit) override {
    Connection& reader = *readers_[static_cast<size_t>(client)];
    Bind(reader.scan, 1, start);
    sqlite3_bind_int(reader.scan, 2, count);
    int code = sqlite3_step(reader.scan);
    for (; code == SQLITE_ROW; code = sqlite3_step(reader.scan))
      visit(Column(reader.scan, 0), Column(reader.scan, 1));
    const absl::Status status = reader.ToStatus(code, SQLITE_DONE);
    sqlite3_reset(reader.scan);
    return status;
  }

  absl::Status Sync() override { return Checkpoint(); }
  absl::Status Checkpoint() override { return checkpointer_.Run("PRAGMA wal_checkpoint(PASSIVE)"); }
  absl::Status Compact() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    DYNLIB_RETURN_IF_ERROR(writer_.Run("VACUUM"));
    return writer_.Run("PRAGMA wal_checkpoint(TRUNCATE)");
  }

 private:
  absl::Status Insert(const KvRow& row) {
    Bind(writer_.insert, 1, row.key);
    Bind(writer_.insert, 2, row.value);
    return writer_.Step(writer_.insert);
  }

  std::mutex mutex_;
  Connection writer_;  // guarded by mutex_
  Connection checkpointer_;
  std::vector<std::unique_ptr<Connection>> readers_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<KvPeer>> OpenSqlite(const KvOptions& options) {
  auto peer = std::make_unique<Sqlite>();
  DYNLIB_RETURN_IF_ERROR(peer->Open(options));
  return peer;
}

}  // namespace dynlib::bench
