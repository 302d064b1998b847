// RocksDB as its wiki says: WriteOptions::sync = true and several writers, of which the first in
// line writes and syncs for the group ("Basic Operations", "WAL Performance"); a block cache of the
// budget, bloom filters of 10 bits a key, index and filters pinned ("Setup Options and Basic
// Tuning", "RocksDB Bloom Filter"); values pinned in the cache instead of copied (PinnableSlice);
// an iterator kept and refreshed. A store that is filled writes without sync; SyncWAL is its end.
// Debian's build computes crc32c without the processor's instruction for it.
#include <utility>

#include "benchmarks/kv_peer.h"
#include "dynlib/base/strings.h"
#include "rocksdb/db.h"
#include "rocksdb/filter_policy.h"
#include "rocksdb/table.h"

namespace dynlib::bench {
namespace {

absl::Status ToStatus(const rocksdb::Status& status) {
  if (status.IsNotFound()) return absl::NotFoundError("rocksdb");
  return status.ok() ? absl::OkStatus() : absl::InternalError(Cat("rocksdb: ", status.ToString()));
}

rocksdb::Slice ToSlice(std::string_view bytes) { return {bytes.data(), bytes.size()}; }

class RocksDb : public KvPeer {
 public:
  explicit RocksDb(const KvOptions& options) : clients_(static_cast<size_t>(options.clients)) {
    durable_.sync = true;
  }

  absl::Status Open(const KvOptions& kv) {
    rocksdb::BlockBasedTableOptions table;
    table.block_cache = rocksdb::NewLRUCache(kv.cache_bytes);
    table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
    rocksdb::Options options;
    options.create_if_missing = true;
    options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
    if (!kv.checkpoints_by_itself) {
      options.write_buffer_size = 1 << 30;
      options.max_total_wal_size = uint64_t{8} << 30;
      options.avoid_flush_during_recovery = true;
    }
    rocksdb::DB* db = nullptr;
    const rocksdb::Status status = rocksdb::DB::Open(options, kv.folder.string(), &db);
    db_.reset(db);
    return ToStatus(status);
  }

  absl::Status Put(int, std::string_view key, std::string_view value) override {
    return ToStatus(db_->Put(durable_, ToSlice(key), ToSlice(value)));
  }

  absl::Status Write(int, std::span<const KvRow> rows) override {
    return WriteRows(durable_, rows);
  }
  absl::Status Fill(std::span<const KvRow> rows) override { return WriteRows({}, rows); }

  absl::Status Delete(std::span<const std::string> keys) override {
    rocksdb::WriteBatch batch;
    for (const std::string& key : keys) batch.Delete(key);
    return ToStatus(db_->Write({}, &batch));
  }

  absl::Status Get(int client, std::string_view key, Use use) override {
    rocksdb::PinnableSlice& pinned = clients_[static_cast<size_t>(client)].pinned;
    pinned.Reset();
    const rocksdb::Status status = db_->Get({}, db_->DefaultColumnFamily(), ToSlice(key), &pinned);
    if (status.ok()) use({pinned.data(), pinned.size()});
    return ToStatus(status);
  }

  absl::Status Scan(int client, std::string_view start, int count, Visitor visit) override {
    std::unique_ptr<rocksdb::Iterator>& at = clients_[static_cast<size_t>(client)].iterator;
    if (at == nullptr) {
      at.reset(db_->NewIterator({}));
    } else if (const rocksdb::Status status = at->Refresh(); !status.ok()) {
      return ToStatus(status);
    }
    for (at->Seek(ToSlice(start)); count > 0 && at->Valid(); at->Next(), --count) {
      visit({at->key().data(), at->key().size()}, {at->value().data(), at->value().size()});
    }
    return ToStatus(at->status());
  }

  absl::Status Sync() override { return ToStatus(db_->SyncWAL()); }
  absl::Status Checkpoint() override { return ToStatus(db_->Flush({})); }
  absl::Status Compact() override { return ToStatus(db_->CompactRange({}, nullptr, nullptr)); }

 private:
  struct Client {
    rocksdb::PinnableSlice pinned;
    std::unique_ptr<rocksdb::Iterator> iterator;
  };

  absl::Status WriteRows(const rocksdb::WriteOptions& how, std::span<const KvRow> rows) {
    rocksdb::WriteBatch batch;
    for (const KvRow& row : rows) batch.Put(ToSlice(row.key), ToSlice(row.value));
    return ToStatus(db_->Write(how, &batch));
  }

  std::unique_ptr<rocksdb::DB> db_;
  std::vector<Client> clients_;  // declared behind db_: ends before it
  rocksdb::WriteOptions durable_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<KvPeer>> OpenRocksDb(const KvOptions& options) {
  auto peer = std::make_unique<RocksDb>(options);
  if (const absl::Status status = peer->Open(options); !status.ok()) return status;
  return peer;
}

}  // namespace dynlib::bench
