// Stores that were filled once, and are then measured by many workloads.
//
//   KvFixtures fixtures(harness.flags().dir, /*clients=*/16);
//   DYNLIB_ASSIGN_OR_RETURN(KvPeer * store, fixtures.Filled(peer, rows));
//   fixtures.Clear();
//
// A store is filled (sorted), closed, opened again with the clients, and read once whole, so that
// what fits its cache is in it. It stays open, so that rounds of several systems can alternate.
#ifndef DYNLIB_BENCHMARKS_KV_FIXTURES_H_
#define DYNLIB_BENCHMARKS_KV_FIXTURES_H_

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "benchmarks/cleanup.h"
#include "benchmarks/kv_peer.h"
#include "benchmarks/kv_rows.h"

namespace dynlib::bench {

class KvFixtures {
 public:
  KvFixtures(std::filesystem::path dir, int clients) : dir_(std::move(dir)), clients_(clients) {}

  // The store of that system with these rows; filled when first asked for.
  absl::StatusOr<KvPeer*> Filled(const NamedKvPeer& system, const Rows& rows);
  // Closes and removes all.
  void Clear() { stores_.clear(); }

 private:
  struct Store {
    TemporaryFolder folder;
    std::unique_ptr<KvPeer> peer;  // closed before the folder goes
  };

  absl::StatusOr<Store> Fill(const NamedKvPeer& system, const Rows& rows) const;

  const std::filesystem::path dir_;
  const int clients_;
  std::map<std::pair<std::string, size_t>, Store> stores_;  // by name and value_bytes
};

}  // namespace dynlib::bench

#endif  // DYNLIB_BENCHMARKS_KV_FIXTURES_H_
