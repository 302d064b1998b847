// LevelDB as doc/index.md says: "Synchronous Writes" with sync = true from several threads on one
// DB, whose queue groups what waits into one write and one sync; a block cache of the budget and a
// bloom filter of 10 bits a key ("Cache", "Filters"). A store that is filled has a write buffer of
// 64 MiB (options.h: larger values help bulk loads) and writes without sync; a sync write is its
// end.
#include <utility>

#include "benchmarks/kv_peer.h"
#include "dynlib/base/strings.h"
#include "leveldb/cache.h"
#include "leveldb/db.h"
#include "leveldb/filter_policy.h"
#include "leveldb/write_batch.h"

namespace dynlib::bench {
namespace {

absl::Status ToStatus(const leveldb::Status& status) {
  if (status.IsNotFound()) return absl::NotFoundError("leveldb");
  return status.ok() ? absl::OkStatus() : absl::InternalError(Cat("leveldb: ", status.ToString()));
}

leveldb::Slice ToSlice(std::string_view bytes) { return {bytes.data(), bytes.size()}; }

class LevelDb : public KvPeer {
 public:
  absl::Status Open(const KvOptions& kv) {
    leveldb::Options options;
    options.create_if_missing = true;
    options.block_cache = cache_.get();
    options.filter_policy = filter_.get();
    if (kv.fill != KvOptions::Fill::kNo) options.write_buffer_size = 64 << 20;
    if (!kv.checkpoints_by_itself) options.write_buffer_size = 1 << 30;
    leveldb::DB* db = nullptr;
    const leveldb::Status status = leveldb::DB::Open(options, kv.folder.string(), &db);
    db_.reset(db);
    return ToStatus(status);
  }

  explicit LevelDb(const KvOptions& options)
      : cache_(leveldb::NewLRUCache(options.cache_bytes)),
        filter_(leveldb::NewBloomFilterPolicy(10)),
        buffers_(static_cast<size_t>(options.clients)) {
    durable_.sync = true;
  }

  absl::Status Put(int, std::string_view key, std::string_view value) override {
    return ToStatus(db_->Put(durable_, ToSlice(key), ToSlice(value)));
  }

  absl::Status Write(int, std::span<const KvRow> rows) override {
    return WriteRows(durable_, rows);
  }
  absl::Status Fill(std::span<const KvRow> rows) override { return WriteRows({}, rows); }

  absl::Status Delete(std::span<const std::string> keys) override {
    leveldb::WriteBatch batch;
    for (const std::string& key : keys) batch.Delete(key);
    return ToStatus(db_->Write({}, &batch));
  }

  absl::Status Get(int client, std::string_view key, Use use) override {
    std::string& buffer = buffers_[static_cast<size_t>(client)];
    const leveldb::Status status = db_->Get({}, ToSlice(key), &buffer);
    if (status.ok()) use(buffer);
    return ToStatus(status);
  }

  absl::Status Scan(int, std::string_view start, int count, Visitor visit) override {
    const std::unique_ptr<leveldb::Iterator> at(db_->NewIterator({}));
    for (at->Seek(ToSlice(start)); count > 0 && at->Valid(); at->Next(), --count) {
      visit({at->key().data(), at->key().size()}, {at->value().data(), at->value().size()});
    }
    return ToStatus(at->status());
  }

  absl::Status Sync() override {
    leveldb::WriteBatch nothing;
    return ToStatus(db_->Write(durable_, &nothing));
  }

  absl::Status Checkpoint() override { return Compact(); }

  absl::Status Compact() override {
    db_->CompactRange(nullptr, nullptr);
    return absl::OkStatus();
  }

 private:
  absl::Status WriteRows(const leveldb::WriteOptions& how, std::span<const KvRow> rows) {
    leveldb::WriteBatch batch;
    for (const KvRow& row : rows) batch.Put(ToSlice(row.key), ToSlice(row.value));
    return ToStatus(db_->Write(how, &batch));
  }

  const std::unique_ptr<leveldb::Cache> cache_;
  const std::unique_ptr<const leveldb::FilterPolicy> filter_;
  std::vector<std::string> buffers_;
  std::unique_ptr<leveldb::DB> db_;
  leveldb::WriteOptions durable_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<KvPeer>> OpenLevelDb(const KvOptions& options) {
  auto peer = std::make_unique<LevelDb>(options);
  if (const absl::Status status = peer->Open(options); !status.ok()) return status;
  return peer;
}

}  // namespace dynlib::bench
