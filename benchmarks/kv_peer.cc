#include "benchmarks/kv_peer.h"

namespace dynlib::bench {

std::vector<NamedKvPeer> KvPeers() {
  return {{"leveldb", OpenLevelDb},
          {"lmdb", OpenLmdb},
          {"rocksdb", OpenRocksDb},
          {"sqlite", OpenSqlite},
          {"wiredtiger", OpenWiredTiger}};
}

}  // namespace dynlib::bench
