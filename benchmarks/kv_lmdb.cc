// LMDB as lmdb.h says of mdb_env_open: without MDB_NOSYNC or MDB_NOMETASYNC each mdb_txn_commit is
// durable. Writers take turns on its one write lock; it has no group commit.
#include <lmdb.h>

#include "benchmarks/kv_peer.h"
#include "dynlib/base/strings.h"

namespace dynlib::bench {
namespace {

absl::Status ToStatus(int code) {
  return code == 0 ? absl::OkStatus() : absl::InternalError(Cat("lmdb: ", mdb_strerror(code)));
}

MDB_val Value(std::string_view bytes) { return {bytes.size(), const_cast<char*>(bytes.data())}; }

class Lmdb : public KvPeer {
 public:
  ~Lmdb() override { mdb_env_close(env_); }

  absl::Status Open(const std::filesystem::path& folder) {
    constexpr size_t kMapBytes = size_t{8} << 30;
    int code = mdb_env_create(&env_);
    if (code == 0) code = mdb_env_set_mapsize(env_, kMapBytes);
    if (code == 0) code = mdb_env_open(env_, folder.c_str(), 0, 0644);
    return code == 0 ? OpenTable() : ToStatus(code);
  }

  absl::Status Put(int, std::string_view key, std::string_view value) override {
    MDB_txn* transaction = nullptr;
    if (const int code = mdb_txn_begin(env_, nullptr, 0, &transaction); code != 0)
      return ToStatus(code);
    MDB_val k = Value(key);
    MDB_val v = Value(value);
    if (const int code = mdb_put(transaction, table_, &k, &v, 0); code != 0) {
      mdb_txn_abort(transaction);
      return ToStatus(code);
    }
    return ToStatus(mdb_txn_commit(transaction));
  }

 private:
  absl::Status OpenTable() {
    MDB_txn* transaction = nullptr;
    if (const int code = mdb_txn_begin(env_, nullptr, 0, &transaction); code != 0)
      return ToStatus(code);
    if (const int code = mdb_dbi_open(transaction, nullptr, 0, &table_); code != 0) {
      mdb_txn_abort(transaction);
      return ToStatus(code);
    }
    return ToStatus(mdb_txn_commit(transaction));
  }

  MDB_env* env_ = nullptr;
  MDB_dbi table_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<KvPeer>> OpenLmdb(const std::filesystem::path& folder, int) {
  auto peer = std::make_unique<Lmdb>();
  if (const absl::Status status = peer->Open(folder); !status.ok()) return status;
  return peer;
}

}  // namespace dynlib::bench
