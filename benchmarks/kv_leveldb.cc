// LevelDB as doc/index.md ("Synchronous Writes") says: sync = true, several threads on one DB,
// whose queue groups what waits into one write and one sync.
#include <utility>

#include "benchmarks/kv_peer.h"
#include "dynlib/base/strings.h"
#include "leveldb/db.h"

namespace dynlib::bench {
namespace {

absl::Status ToStatus(const leveldb::Status& status) {
  return status.ok() ? absl::OkStatus() : absl::InternalError(Cat("leveldb: ", status.ToString()));
}

class LevelDb : public KvPeer {
 public:
  explicit LevelDb(std::unique_ptr<leveldb::DB> db) : db_(std::move(db)) { durable_.sync = true; }

  absl::Status Put(int, std::string_view key, std::string_view value) override {
    return ToStatus(db_->Put(durable_, {key.data(), key.size()}, {value.data(), value.size()}));
  }

 private:
  const std::unique_ptr<leveldb::DB> db_;
  leveldb::WriteOptions durable_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<KvPeer>> OpenLevelDb(const std::filesystem::path& folder, int) {
  leveldb::Options options;
  options.create_if_missing = true;
  leveldb::DB* db = nullptr;
  if (const leveldb::Status status = leveldb::DB::Open(options, folder.string(), &db);
      !status.ok()) {
    return ToStatus(status);
  }
  return std::make_unique<LevelDb>(std::unique_ptr<leveldb::DB>(db));
}

}  // namespace dynlib::bench
