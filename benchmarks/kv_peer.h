// An embedded key-value store as the benchmarks see it: the same few calls for dynlib and for each
// peer.
//
// Every peer is set up for durability as its own documents say, in its own file kv_<peer>.cc: a put
// that returned survives the loss of power.
//
// Threads: `client` is from 0 to the `clients` given to Open; each client's calls come from one
// thread at a time.
#ifndef DYNLIB_BENCHMARKS_KV_PEER_H_
#define DYNLIB_BENCHMARKS_KV_PEER_H_

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace dynlib::bench {

class KvPeer {
 public:
  virtual ~KvPeer() = default;

  // Returns when the pair is durable.
  virtual absl::Status Put(int client, std::string_view key, std::string_view value) = 0;
};

using OpenKvPeer = std::function<absl::StatusOr<std::unique_ptr<KvPeer>>(
    const std::filesystem::path& folder, int clients)>;

absl::StatusOr<std::unique_ptr<KvPeer>> OpenLevelDb(const std::filesystem::path& folder,
                                                    int clients);
absl::StatusOr<std::unique_ptr<KvPeer>> OpenLmdb(const std::filesystem::path& folder, int clients);
absl::StatusOr<std::unique_ptr<KvPeer>> OpenRocksDb(const std::filesystem::path& folder,
                                                    int clients);
absl::StatusOr<std::unique_ptr<KvPeer>> OpenSqlite(const std::filesystem::path& folder,
                                                   int clients);
absl::StatusOr<std::unique_ptr<KvPeer>> OpenWiredTiger(const std::filesystem::path& folder,
                                                       int clients);

struct NamedKvPeer {
  std::string name;
  OpenKvPeer open;
};

// All of them, by name.
std::vector<NamedKvPeer> KvPeers();

}  // namespace dynlib::bench

#endif  // DYNLIB_BENCHMARKS_KV_PEER_H_
