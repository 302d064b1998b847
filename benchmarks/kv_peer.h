// An embedded key-value store as the benchmarks see it: the same few calls for dynlib and for each
// peer.
//
// Every peer is set up as its own documents advise, in its own file kv_<peer>.cc: for durability (a
// put that returned survives the loss of power), for filling an empty store, and with the same
// budget of memory for its cache.
//
//   DYNLIB_ASSIGN_OR_RETURN(auto store, OpenLevelDb({.folder = folder, .clients = 2}));
//   DYNLIB_RETURN_IF_ERROR(store->Put(/*client=*/0, "k", "v"));
//   DYNLIB_RETURN_IF_ERROR(store->Get(/*client=*/1, "k", [](std::string_view value) { ... }));
//
// Threads: `client` is from 0 to the `clients` given to Open; each client's calls come from one
// thread at a time. Calls without a client: from one thread, while clients may be at work. Fill and
// Delete: from one thread, nothing else meanwhile.
#ifndef DYNLIB_BENCHMARKS_KV_PEER_H_
#define DYNLIB_BENCHMARKS_KV_PEER_H_

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace dynlib::bench {

struct KvRow {
  std::string_view key;
  std::string_view value;
};

struct KvOptions {
  std::filesystem::path folder;
  int clients = 1;
  uint64_t cache_bytes = uint64_t{1} << 30;
  // The store is empty, and is to be filled: by Fill alone, then Sync.
  enum class Fill { kNo, kSorted, kAnyOrder };
  Fill fill = Fill::kNo;
  // No checkpoint and no flush of a memtable by itself, for some hundred MB: Checkpoint does it.
  bool checkpoints_by_itself = true;
};

class KvPeer {
 public:
  using Use = absl::FunctionRef<void(std::string_view value)>;
  using Visitor = absl::FunctionRef<void(std::string_view key, std::string_view value)>;

  virtual ~KvPeer() = default;

  // Returns when the pair is durable.
  virtual absl::Status Put(int client, std::string_view key, std::string_view value) = 0;
  // `done` is called in any thread when the pair is durable. kUnimplemented where there is no such
  // call.
  virtual absl::Status PutAsync(int client, std::string_view key, std::string_view value,
                                absl::AnyInvocable<void(absl::Status)> done);
  // All rows or none, durable on return.
  virtual absl::Status Write(int client, std::span<const KvRow> rows) = 0;
  // As Write, for a store that was opened to be filled; durable with Sync.
  virtual absl::Status Fill(std::span<const KvRow> rows) = 0;
  // Together; durable with Sync or later.
  virtual absl::Status Delete(std::span<const std::string> keys) = 0;

  // Calls use(value): where the value lies in the store's own memory if it offers that, else in a
  // buffer that is used again. kNotFound.
  virtual absl::Status Get(int client, std::string_view key, Use use) = 0;
  // Up to `count` pairs in key order, from the first key >= `start`.
  virtual absl::Status Scan(int client, std::string_view start, int count, Visitor visit) = 0;

  // All that was written before is durable.
  virtual absl::Status Sync() = 0;
  // All that was written before is in the data files, and the log is let go as far as it goes.
  virtual absl::Status Checkpoint() = 0;
  // What the documents advise for files that shall get small: a compaction, a vacuum.
  virtual absl::Status Compact() { return Checkpoint(); }
};

using OpenKvPeer = std::function<absl::StatusOr<std::unique_ptr<KvPeer>>(const KvOptions& options)>;

absl::StatusOr<std::unique_ptr<KvPeer>> OpenLevelDb(const KvOptions& options);
absl::StatusOr<std::unique_ptr<KvPeer>> OpenLmdb(const KvOptions& options);
absl::StatusOr<std::unique_ptr<KvPeer>> OpenRocksDb(const KvOptions& options);
absl::StatusOr<std::unique_ptr<KvPeer>> OpenSqlite(const KvOptions& options);
absl::StatusOr<std::unique_ptr<KvPeer>> OpenWiredTiger(const KvOptions& options);

struct NamedKvPeer {
  std::string name;
  OpenKvPeer open;
};

// All of them, by name.
std::vector<NamedKvPeer> KvPeers();

}  // namespace dynlib::bench

#endif  // DYNLIB_BENCHMARKS_KV_PEER_H_
