// What the benchmarks of the partition map look up: tables with random ids of 16 bytes, cut into
// one to nine partitions (five on average) at random keys of 16 bytes; three replicas each, on
// 10,000 nodes in three zones.
#ifndef DYNLIB_BENCHMARKS_PARTITION_MAP_DATA_H_
#define DYNLIB_BENCHMARKS_PARTITION_MAP_DATA_H_

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "dynlib/partition_map/partition_record.h"

namespace dynlib::bench {

// Table and first key. The first partition of a table begins at zeros.
struct EntryKey {
  std::array<unsigned char, 32> bytes;

  std::string_view view() const {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  // The first eight bytes as a number first: few comparisons go beyond.
  friend bool operator<(const EntryKey& a, const EntryKey& b) {
    const uint64_t in_a = Head(a), in_b = Head(b);
    if (in_a != in_b) return in_a < in_b;
    return std::memcmp(a.bytes.data() + 8, b.bytes.data() + 8, 24) < 0;
  }

 private:
  static uint64_t Head(const EntryKey& key) {
    uint64_t head;
    std::memcpy(&head, key.bytes.data(), sizeof(head));
    return __builtin_bswap64(head);
  }
};

// A record as the peers keep it: the fields, side by side, 40 bytes. The end of the range is the
// next entry's key.
struct EntryRecord {
  uint64_t partition;
  uint32_t nodes[3];
  uint32_t epoch;
  uint32_t leader_ballot;
  uint16_t generation;
  uint8_t leader;  // the index of its node
  uint8_t zones[3];
  uint8_t kinds[3];
};
static_assert(sizeof(EntryRecord) == 40);

struct Entries {
  std::vector<EntryKey> keys;  // ascending
  std::vector<EntryRecord> records;

  size_t size() const { return keys.size(); }
  // The value that the tree keeps: the record, and the end of its range.
  std::string Value(size_t i) const;
};

// The same for the same count.
Entries MakeEntries(size_t count);

// Keys of random tables of these, at random places.
std::vector<EntryKey> MakeQueries(const Entries& entries, size_t count, uint64_t seed);

// The i-th of many records for the map itself, whose tables have ids of eight bytes.
partition_map::PartitionRecord MapRecord(const Entries& entries, size_t i);

}  // namespace dynlib::bench

#endif  // DYNLIB_BENCHMARKS_PARTITION_MAP_DATA_H_
