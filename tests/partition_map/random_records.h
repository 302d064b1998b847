// Records for the tests of the map: over few keys, so that they overlap in every way.
#ifndef TESTS_PARTITION_MAP_RANDOM_RECORDS_H_
#define TESTS_PARTITION_MAP_RANDOM_RECORDS_H_

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "dynlib/base/ids.h"
#include "dynlib/base/random.h"
#include "dynlib/partition_map/partition_record.h"

namespace dynlib::partition_map {

// The keys that ranges begin and end with: "", "a", ... "p".
inline constexpr uint64_t kTestKeys = 17;
inline std::string TestKey(uint64_t index) {
  return index == 0 ? "" : std::string(1, static_cast<char>('a' + index - 1));
}

inline PartitionRecord MakeRecord(uint64_t partition, std::string first, std::string end,
                                  uint64_t generation, uint64_t epoch = 0, uint64_t ballot = 0) {
  return {.table = TableId{1},
          .partition = PartitionId{partition},
          .first = std::move(first),
          .end = std::move(end),
          .generation = generation,
          .epoch = epoch,
          .members = {{ReplicaId{1}, NodeId{1}, MemberKind::kStorage},
                      {ReplicaId{2}, NodeId{2}, MemberKind::kStorage},
                      {ReplicaId{3}, NodeId{3}, MemberKind::kLog}},
          .leader = NodeId{1},
          .leader_ballot = ballot};
}

// Any record, also such as no sound cluster makes: partitions of one generation that overlap,
// partitions whose range varies.
inline PartitionRecord RandomRecord(Random& random) {
  const uint64_t first = random.Below(kTestKeys);
  const uint64_t end = first + 1 + random.Below(kTestKeys - first);
  PartitionRecord record =
      MakeRecord(1 + random.Below(6), TestKey(first), end == kTestKeys ? "" : TestKey(end),
                 random.Below(4), random.Below(3), random.Below(3));
  record.table = TableId{1 + random.Below(2)};
  record.leader = NodeId{random.Below(3)};
  return record;
}

// The records of a sound lineage: one partition, then splits and merges of neighbours, each with
// some changes of configuration and leader. What holds in the end is `last`, in key order.
struct Lineage {
  std::vector<PartitionRecord> all;
  std::vector<PartitionRecord> last;
};
inline Lineage RandomLineage(Random& random, int steps) {
  Lineage lineage;
  uint64_t next_id = 1;
  lineage.last = {MakeRecord(next_id++, "", "", 1)};
  lineage.all = lineage.last;
  for (int step = 0; step < steps; ++step) {
    const size_t at = random.Below(lineage.last.size());
    PartitionRecord& record = lineage.last[at];
    const uint64_t choice = random.Below(4);
    if (choice == 0) {
      record.epoch += 1 + random.Below(5);
      record.members[random.Below(3)].node = NodeId{10 + random.Below(5)};
    } else if (choice == 1) {
      record.leader_ballot += 1 + random.Below(5);
      record.leader = record.members[random.Below(3)].node;
    } else if (choice == 2) {
      const std::string middle = TestKey(1 + random.Below(kTestKeys - 1));
      if (!record.Contains(middle) || middle == record.first) continue;
      PartitionRecord right = MakeRecord(next_id++, middle, record.end, record.generation + 1);
      record = MakeRecord(next_id++, record.first, middle, record.generation + 1);
      lineage.all.push_back(record);
      lineage.last.insert(lineage.last.begin() + static_cast<int64_t>(at) + 1, right);
      lineage.all.push_back(right);
      continue;
    } else {
      if (at + 1 == lineage.last.size()) continue;
      const PartitionRecord& right = lineage.last[at + 1];
      record = MakeRecord(next_id++, record.first, right.end,
                          1 + std::max(record.generation, right.generation));
      lineage.last.erase(lineage.last.begin() + static_cast<int64_t>(at) + 1);
      lineage.all.push_back(lineage.last[at]);
      continue;
    }
    lineage.all.push_back(record);
  }
  return lineage;
}

}  // namespace dynlib::partition_map

#endif  // TESTS_PARTITION_MAP_RANDOM_RECORDS_H_
