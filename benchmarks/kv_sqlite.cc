// SQLite as its documents "Write-Ahead Logging" and "PRAGMA synchronous" say: journal_mode=WAL with
// synchronous=FULL syncs the log at each commit. It has one writer at a time; the clients take
// turns on one connection, since writers on connections of their own poll for the lock with growing
// sleeps, which is slower.
#include <sqlite3.h>

#include <mutex>

#include "benchmarks/kv_peer.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::bench {
namespace {

class Sqlite : public KvPeer {
 public:
  ~Sqlite() override {
    sqlite3_finalize(insert_);
    sqlite3_close(db_);
  }

  absl::Status Open(const std::filesystem::path& folder) {
    DYNLIB_RETURN_IF_ERROR(ToStatus(sqlite3_open((folder / "db").c_str(), &db_), SQLITE_OK));
    for (const char* statement :
         {"PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL",
          "CREATE TABLE kv (k BLOB PRIMARY KEY, v BLOB NOT NULL) WITHOUT ROWID"}) {
      DYNLIB_RETURN_IF_ERROR(
          ToStatus(sqlite3_exec(db_, statement, nullptr, nullptr, nullptr), SQLITE_OK));
    }
    constexpr char kInsert[] = "INSERT OR REPLACE INTO kv (k, v) VALUES (?, ?)";
    return ToStatus(sqlite3_prepare_v2(db_, kInsert, -1, &insert_, nullptr), SQLITE_OK);
  }

  absl::Status Put(int, std::string_view key, std::string_view value) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    sqlite3_bind_blob(insert_, 1, key.data(), static_cast<int>(key.size()), SQLITE_STATIC);
    sqlite3_bind_blob(insert_, 2, value.data(), static_cast<int>(value.size()), SQLITE_STATIC);
    const absl::Status status = ToStatus(sqlite3_step(insert_), SQLITE_DONE);
    sqlite3_reset(insert_);
    return status;
  }

 private:
  absl::Status ToStatus(int code, int wanted) {
    return code == wanted ? absl::OkStatus()
                          : absl::InternalError(Cat("sqlite: ", sqlite3_errmsg(db_)));
  }

  std::mutex mutex_;
  sqlite3* db_ = nullptr;
  sqlite3_stmt* insert_ = nullptr;
};

}  // namespace

absl::StatusOr<std::unique_ptr<KvPeer>> OpenSqlite(const std::filesystem::path& folder, int) {
  auto peer = std::make_unique<Sqlite>();
  DYNLIB_RETURN_IF_ERROR(peer->Open(folder));
  return peer;
}

}  // namespace dynlib::bench
