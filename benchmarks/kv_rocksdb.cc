// RocksDB as its wiki ("Basic Operations", "WAL Performance") says: WriteOptions::sync = true and
// several writers, of which the first in line writes and syncs for the group. Debian's build
// computes crc32c without the processor's instruction for it.
#include <utility>

#include "benchmarks/kv_peer.h"
#include "dynlib/base/strings.h"
#include "rocksdb/db.h"

namespace dynlib::bench {
namespace {

absl::Status ToStatus(const rocksdb::Status& status) {
  return status.ok() ? absl::OkStatus() : absl::InternalError(Cat("rocksdb: ", status.ToString()));
}

class RocksDb : public KvPeer {
 public:
  explicit RocksDb(std::unique_ptr<rocksdb::DB> db) : db_(std::move(db)) { durable_.sync = true; }

  absl::Status Put(int, std::string_view key, std::string_view value) override {
    return ToStatus(db_->Put(durable_, {key.data(), key.size()}, {value.data(), value.size()}));
  }

 private:
  const std::unique_ptr<rocksdb::DB> db_;
  rocksdb::WriteOptions durable_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<KvPeer>> OpenRocksDb(const std::filesystem::path& folder, int) {
  rocksdb::Options options;
  options.create_if_missing = true;
  rocksdb::DB* db = nullptr;
  if (const rocksdb::Status status = rocksdb::DB::Open(options, folder.string(), &db);
      !status.ok()) {
    return ToStatus(status);
  }
  return std::make_unique<RocksDb>(std::unique_ptr<rocksdb::DB>(db));
}

}  // namespace dynlib::bench
