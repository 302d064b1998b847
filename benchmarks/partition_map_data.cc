#include "benchmarks/partition_map_data.h"

#include <algorithm>
#include <cmath>

#include "dynlib/base/ids.h"
#include "dynlib/base/random.h"

namespace dynlib::bench {
namespace {

constexpr size_t kTableBytes = 16;
constexpr uint32_t kNodes = 10'000;

void Fill(Random& random, unsigned char* to) {
  for (size_t i = 0; i < 16; i += 8) {
    const uint64_t number = random.Next();
    std::memcpy(to + i, &number, sizeof(number));
  }
}

// From 1 to `max`, small ones as often as large ones: each power of two alike.
uint32_t LogUniform(Random& random, double max) {
  return static_cast<uint32_t>(std::exp(random.Unit() * std::log(max)));
}

EntryRecord MakeRecord(Random& random) {
  EntryRecord record{};
  record.partition = 1 + random.Below(1 << 24);
  for (uint32_t i = 0; i < 3; ++i) {
    record.nodes[i] = 1 + 3 * static_cast<uint32_t>(random.Below(kNodes / 3)) + i;
    record.zones[i] = static_cast<uint8_t>(i + 1);
    record.kinds[i] = 1;
  }
  record.epoch = LogUniform(random, 20'000);
  record.leader_ballot = LogUniform(random, 100'000);
  record.generation = static_cast<uint16_t>(1 + random.Below(8));
  record.leader = static_cast<uint8_t>(random.Below(3));
  return record;
}

bool SameTable(const EntryKey& a, const EntryKey& b) {
  return std::memcmp(a.bytes.data(), b.bytes.data(), kTableBytes) == 0;
}

partition_map::PartitionRecord FromRecord(const EntryRecord& from) {
  partition_map::PartitionRecord record{.table = TableId{1},
                                        .partition = PartitionId{from.partition},
                                        .first = {},
                                        .end = {},
                                        .generation = from.generation,
                                        .epoch = from.epoch,
                                        .members = {},
                                        .leader = NodeId{from.nodes[from.leader]},
                                        .leader_ballot = from.leader_ballot};
  for (size_t i = 0; i < 3; ++i) {
    record.members.push_back({ReplicaId{i + 1}, NodeId{from.nodes[i]},
                              partition_map::MemberKind{from.kinds[i]}, from.zones[i]});
  }
  return record;
}

}  // namespace

std::string Entries::Value(size_t i) const {
  partition_map::PartitionRecord record = FromRecord(records[i]);
  if (i + 1 < size() && SameTable(keys[i], keys[i + 1])) {
    record.end = keys[i + 1].view().substr(kTableBytes);
  }
  return partition_map::EncodeValue(record);
}

Entries MakeEntries(size_t count) {
  Random random(1);
  Entries entries;
  entries.keys.reserve(count + 9);
  while (entries.keys.size() < count) {
    EntryKey key{};
    Fill(random, key.bytes.data());
    for (uint64_t more = random.Below(9) + 1; more > 0; --more) {
      entries.keys.push_back(key);
      Fill(random, key.bytes.data() + kTableBytes);
    }
  }
  entries.keys.resize(count);
  std::sort(entries.keys.begin(), entries.keys.end());
  entries.records.reserve(count);
  while (entries.records.size() < count) entries.records.push_back(MakeRecord(random));
  return entries;
}

std::vector<EntryKey> MakeQueries(const Entries& entries, size_t count, uint64_t seed) {
  Random random(seed);
  std::vector<EntryKey> queries(count);
  for (EntryKey& query : queries) {
    query = entries.keys[random.Below(entries.size())];
    Fill(random, query.bytes.data() + kTableBytes);
  }
  return queries;
}

partition_map::PartitionRecord MapRecord(const Entries& entries, size_t i) {
  partition_map::PartitionRecord record = FromRecord(entries.records[i]);
  auto first = [&](size_t at) {
    const std::string_view bytes = entries.keys[at].view().substr(kTableBytes);
    return bytes.find_first_not_of('\0') == bytes.npos ? std::string() : std::string(bytes);
  };
  uint64_t table;
  std::memcpy(&table, entries.keys[i].bytes.data(), sizeof(table));
  record.table = TableId{table | 1};
  record.first = first(i);
  if (i + 1 < entries.size() && SameTable(entries.keys[i], entries.keys[i + 1])) {
    record.end = first(i + 1);
  }
  return record;
}

}  // namespace dynlib::bench
