#include "benchmarks/kv_peer.h"

namespace dynlib::bench {

absl::Status KvPeer::PutAsync(int, std::string_view, std::string_view,
                              absl::AnyInvocable<void(absl::Status)>) {
  return absl::UnimplementedError("no asynchronous put");
}

std::vector<NamedKvPeer> KvPeers() {
  return {{"leveldb", OpenLevelDb},
          {"lmdb", OpenLmdb},
          {"rocksdb", OpenRocksDb},
          {"sqlite", OpenSqlite},
          {"wiredtiger", OpenWiredTiger}};
}

}  // namespace dynlib::bench
