// Ordered maps beside the Perkle tree: each built from the same entries, each answering which
// partition has a key.
#ifndef DYNLIB_BENCHMARKS_PARTITION_MAP_PEERS_H_
#define DYNLIB_BENCHMARKS_PARTITION_MAP_PEERS_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "absl/container/btree_map.h"
#include "benchmarks/partition_map_data.h"

namespace dynlib::bench {

// absl::btree_map and std::map, filled in key order, which packs their nodes best.
template <typename Map>
class SortedMapPeer {
 public:
  explicit SortedMapPeer(const Entries& entries) {
    for (size_t i = 0; i < entries.size(); ++i) {
      map_.emplace_hint(map_.end(), entries.keys[i], entries.records[i]);
    }
  }
  uint64_t Floor(const EntryKey& key) const {
    auto at = map_.upper_bound(key);
    return at == map_.begin() ? 0 : (--at)->second.partition;
  }
  EntryRecord& Find(const EntryKey& key) { return map_.find(key)->second; }

 private:
  Map map_;
};
using AbslBtreePeer = SortedMapPeer<absl::btree_map<EntryKey, EntryRecord>>;
using StdMapPeer = SortedMapPeer<std::map<EntryKey, EntryRecord>>;

// A sorted array in the order of a breadth-first walk of a binary tree (Khuong and Morin, "Array
// layouts for comparison-based searching", 2017): no pointers, no branches that depend on data, and
// the level after next fetched ahead. Read only.
class EytzingerPeer {
 public:
  explicit EytzingerPeer(const Entries& entries)
      : keys_(entries.size() + 1), records_(entries.size() + 1) {
    size_t next = 0;
    Fill(entries, 1, next);
  }
  uint64_t Floor(const EntryKey& key) const {
    const size_t size = keys_.size() - 1;
    size_t at = 1;
    while (at <= size) {
      __builtin_prefetch(&keys_[std::min(4 * at, size)]);
      at = 2 * at + (key < keys_[at] ? 0 : 1);
    }
    // The last turn to the right was at the floor.
    while (at > 0 && at % 2 == 0) at /= 2;
    at /= 2;
    return at == 0 ? 0 : records_[at].partition;
  }

 private:
  void Fill(const Entries& entries, size_t at, size_t& next) {
    if (at >= keys_.size()) return;
    Fill(entries, 2 * at, next);
    keys_[at] = entries.keys[next];
    records_[at] = entries.records[next++];
    Fill(entries, 2 * at + 1, next);
  }

  std::vector<EntryKey> keys_;
  std::vector<EntryRecord> records_;
};

}  // namespace dynlib::bench

#endif  // DYNLIB_BENCHMARKS_PARTITION_MAP_PEERS_H_
