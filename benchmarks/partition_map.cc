// The partition map: floor look-ups, updates with digests, memory, and the bytes of a sync.
//
//   floor/N                     the greatest entry <= a key of a random table, and its partition
//   floor_batch32/N             the same, 32 keys at a time; "dynlib_single" is one at a time
//   floor_while_updating/N      the same of the newest version, while another thread publishes
//                               10,000 updates a second; latencies of each look-up
//   update/N                    a record replaced by a newer one, with digests, published as a new
//                               version; peers write in place, without digests or versions
//   upsert/N                    the same through PartitionMap::Upsert
//   find/N                      PartitionMap::Find, the record read into fields
//   bytes_per_entry/N           memory in use by the allocator for one entry
//   sync_D_of_N                 what two MemDS that differ in D entries exchange
//
// partition_map_data.h says what the entries are; every system answers the same queries, and must
// give the same answers.
#include "dynlib/partition_map/partition_map.h"

#include <malloc.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "benchmarks/harness.h"
#include "benchmarks/load.h"
#include "benchmarks/partition_map_data.h"
#include "benchmarks/partition_map_peers.h"
#include "benchmarks/stats.h"
#include "dynlib/base/check.h"
#include "dynlib/base/coding.h"
#include "dynlib/base/huge_heap.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/random.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/base/time.h"
#include "dynlib/partition_map/memds.h"
#include "dynlib/partition_map/partition_record.h"
#include "dynlib/partition_map/perkle.h"
#include "dynlib/partition_map/published.h"
#include "dynlib/partition_map/sync_message.h"
#include "dynlib/partition_map/sync_session.h"

namespace dynlib::bench {
namespace {

using partition_map::MemDs;
using partition_map::PartitionMap;
using partition_map::PartitionRecord;
using partition_map::Perkle;
using partition_map::Published;

// Whether there is a reason to prepare a workload.
bool Wants(const Harness& harness, const std::string& workload, bool in_quick_set) {
  const Flags& flags = harness.flags();
  return workload.find(flags.only) != std::string::npos && (in_quick_set || !flags.quick);
}

constexpr size_t kQueries = 1 << 20;
constexpr size_t kBatch = 32;
constexpr uint64_t kUpdatesPerSecond = 10'000;

size_t MemoryInUse() {
  const struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd + HugeHeap::GetStats().chunk_bytes;
}

Perkle BuildPerkle(const Entries& entries) {
  std::vector<std::string> values;
  values.reserve(entries.size());
  for (size_t i = 0; i < entries.size(); ++i) values.push_back(entries.Value(i));
  std::vector<std::pair<std::string_view, std::string_view>> pairs;
  pairs.reserve(entries.size());
  for (size_t i = 0; i < entries.size(); ++i) pairs.emplace_back(entries.keys[i].view(), values[i]);
  absl::StatusOr<Perkle> tree = Perkle::FromSorted(pairs);
  DYNLIB_CHECK(tree.ok());
  return *std::move(tree);
}

// A field of what was found, as the peers read one.
uint64_t PartitionOf(const Perkle::Hit& hit) {
  if (!hit.found()) return 0;
  ByteReader in(hit.value_head());
  in.Fixed8();
  return in.Varint();
}

uint64_t Floor(const Perkle& tree, const EntryKey& key) {
  return PartitionOf(tree.FloorHit(key.view()));
}

// Keeps the compiler from leaving the work out.
std::atomic<uint64_t> sink;

// Calls `work(first)` for `step` queries from `first` on, again and again, for so long.
template <typename Work>
RunResult RunQueries(double seconds, size_t step, Work work) {
  static std::atomic<size_t> turn{0};
  RunResult result;
  size_t at = turn.fetch_add(7919 * 64) % kQueries / step * step;
  const uint64_t warm = NowNs() + static_cast<uint64_t>(WarmUpSeconds(seconds) * 1e9);
  uint64_t sum = 0;
  auto pass = [&] {
    for (size_t i = 0; i < 1024 / step; ++i) {
      sum += work(at);
      at = at + step == kQueries ? 0 : at + step;
    }
  };
  while (NowNs() < warm) pass();
  const uint64_t begin = NowNs();
  const uint64_t end = begin + static_cast<uint64_t>(seconds * 1e9);
  uint64_t now = begin;
  for (; now < end; now = NowNs(), result.operations += 1024) pass();
  result.seconds = static_cast<double>(now - begin) * 1e-9;
  sink += sum;
  return result;
}

template <typename Peer>
Runner FloorRunner(const Peer& peer, const std::vector<EntryKey>& queries) {
  return [&](const RunContext& context) -> absl::StatusOr<RunResult> {
    return RunQueries(context.seconds, 1, [&](size_t i) { return peer.Floor(queries[i]); });
  };
}

struct PerklePeer {
  Perkle tree;
  uint64_t Floor(const EntryKey& key) const { return bench::Floor(tree, key); }
};

absl::StatusOr<RunResult> RunBatches(const Perkle& tree, const std::vector<EntryKey>& queries,
                                     double seconds) {
  std::array<std::string_view, kBatch> keys;
  std::array<Perkle::Hit, kBatch> hits;
  return RunQueries(seconds, kBatch, [&](size_t at) {
    for (size_t i = 0; i < kBatch; ++i) keys[i] = queries[at + i].view();
    tree.FloorHits(keys, hits);
    uint64_t sum = 0;
    for (const Perkle::Hit& hit : hits) sum += PartitionOf(hit);
    return sum;
  });
}

template <typename Peer>
void CheckAnswers(const PerklePeer& ours, const Peer& peer, const std::vector<EntryKey>& queries) {
  for (size_t i = 0; i < 20'000; ++i) {
    DYNLIB_CHECK(ours.Floor(queries[i]) == peer.Floor(queries[i]));
  }
}

// Builds a peer, and says what it takes of memory.
template <typename Peer>
std::unique_ptr<Peer> Build(const Entries& entries, double& bytes_per_entry) {
  const size_t before = MemoryInUse();
  auto peer = std::make_unique<Peer>(entries);
  bytes_per_entry =
      static_cast<double>(MemoryInUse() - before) / static_cast<double>(entries.size());
  return peer;
}

void MeasureFloors(Harness& harness, const char* size, const Entries& entries) {
  const bool small = entries.size() <= 1'000'000;
  const std::string floor = Cat("floor/", size), bytes = Cat("bytes_per_entry/", size),
                    batch = Cat("floor_batch32/", size);
  if (!Wants(harness, floor, small) && !Wants(harness, bytes, false) &&
      !Wants(harness, batch, false))
    return;
  const std::vector<EntryKey> queries = MakeQueries(entries, kQueries, 2);
  double ours_bytes = 0, btree_bytes = 0, map_bytes = 0, array_bytes = 0;
  const size_t before = MemoryInUse();
  const PerklePeer ours{BuildPerkle(entries)};
  ours_bytes = static_cast<double>(MemoryInUse() - before) / static_cast<double>(entries.size());
  const auto btree = Build<AbslBtreePeer>(entries, btree_bytes);
  const auto map = Build<StdMapPeer>(entries, map_bytes);
  const auto array = Build<EytzingerPeer>(entries, array_bytes);
  CheckAnswers(ours, *btree, queries);
  CheckAnswers(ours, *map, queries);
  CheckAnswers(ours, *array, queries);
  harness.Measure(floor,
                  {{kOurs, FloorRunner(ours, queries)},
                   {"absl_btree_map", FloorRunner(*btree, queries)},
                   {"std_map", FloorRunner(*map, queries)},
                   {"eytzinger", FloorRunner(*array, queries)}},
                  small);
  harness.Measure(
      batch,
      {{kOurs,
        [&](const RunContext& context) { return RunBatches(ours.tree, queries, context.seconds); }},
       {"dynlib_single", FloorRunner(ours, queries)}},
      false);
  const std::pair<const char*, double> figures[] = {{kOurs, ours_bytes},
                                                    {"absl_btree_map", btree_bytes},
                                                    {"std_map", map_bytes},
                                                    {"eytzinger", array_bytes}};
  for (const auto& [system, figure] : figures) {
    harness.MeasureQuantity(
        bytes, system, "bytes", false,
        [figure = figure]() -> absl::StatusOr<double> { return figure; }, false);
  }
}

// Replaces records by newer ones, a random one at a time.
class Updater {
 public:
  Updater(const Entries& entries, Published<Perkle>& published, uint64_t seed)
      : entries_(entries), published_(published), random_(seed) {}

  void Update() {
    const size_t i = random_.Below(entries_.size());
    std::string value = entries_.Value(i);
    // Another leader: as large as before, or a byte more.
    value[0] = static_cast<char>((value[0] & 15) | (1 + random_.Below(3)) << 4);
    auto next = std::make_unique<Perkle>(published_.newest());
    DYNLIB_CHECK(next->Put(entries_.keys[i].view(), value).ok());
    published_.Publish(std::move(next));
  }

 private:
  const Entries& entries_;
  Published<Perkle>& published_;
  Random random_;
};

// Each look-up timed, with or without updates beside it.
RunResult RunBesideUpdates(const Entries& entries, Published<Perkle>& published,
                           const std::vector<EntryKey>& queries, double seconds, bool updating) {
  std::atomic<bool> done{false};
  std::thread writer([&] {
    if (!updating) return;
    Updater updater(entries, published, 3);
    const uint64_t begin = NowNs();
    for (uint64_t made = 0; !done.load(); ++made) {
      updater.Update();
      const uint64_t due = begin + made * 1'000'000'000 / kUpdatesPerSecond;
      const uint64_t now = NowNs();
      if (due > now) std::this_thread::sleep_for(std::chrono::nanoseconds(due - now));
    }
  });
  RunResult result;
  result.latencies_ns.reserve(static_cast<size_t>(seconds * 5e6));
  uint64_t sum = 0;
  const uint64_t begin = NowNs();
  const uint64_t end = begin + static_cast<uint64_t>(seconds * 1e9);
  uint64_t now = begin;
  for (size_t i = 0; now < end; i = (i + 1) % kQueries) {
    sum += Floor(*Published<Perkle>::Reader(published), queries[i]);
    const uint64_t after = NowNs();
    result.latencies_ns.push_back(after - now);
    now = after;
  }
  result.seconds = static_cast<double>(now - begin) * 1e-9;
  result.operations = result.latencies_ns.size();
  sink += sum;
  done = true;
  writer.join();
  return result;
}

void MeasureUpdates(Harness& harness, const Entries& entries) {
  if (Wants(harness, "floor_while_updating/1M", false)) {
    const std::vector<EntryKey> queries = MakeQueries(entries, kQueries, 2);
    Published<Perkle> published(std::make_unique<Perkle>(BuildPerkle(entries)));
    auto run = [&](bool updating) {
      return [&, updating](const RunContext& context) -> absl::StatusOr<RunResult> {
        return RunBesideUpdates(entries, published, queries, context.seconds, updating);
      };
    };
    harness.Measure("floor_while_updating/1M",
                    {{kOurs, run(true)}, {"dynlib_without_updates", run(false)}}, false);
    harness.MeasureQuantity(
        "floor_while_updating/1M", "dynlib/dynlib_without_updates", "p99_ratio", false,
        [&]() -> absl::StatusOr<double> {
          const double seconds = harness.flags().seconds;
          RunResult with = RunBesideUpdates(entries, published, queries, seconds, true);
          RunResult without = RunBesideUpdates(entries, published, queries, seconds, false);
          return static_cast<double>(Quantile(with.latencies_ns, 0.99)) /
                 static_cast<double>(Quantile(without.latencies_ns, 0.99));
        },
        false);
  }
  if (!Wants(harness, "update/1M", false)) return;
  Published<Perkle> published(std::make_unique<Perkle>(BuildPerkle(entries)));
  Updater updater(entries, published, 4);
  AbslBtreePeer btree(entries);
  Random random(5);
  harness.Measure("update/1M",
                  {{kOurs,
                    [&](const RunContext& context) -> absl::StatusOr<RunResult> {
                      return RunQueries(context.seconds, 1, [&](size_t) {
                        updater.Update();
                        return uint64_t{0};
                      });
                    }},
                   {"absl_btree_map_in_place",
                    [&](const RunContext& context) -> absl::StatusOr<RunResult> {
                      return RunQueries(context.seconds, 1, [&](size_t) {
                        const size_t i = random.Below(entries.size());
                        return ++btree.Find(entries.keys[i]).epoch;
                      });
                    }}},
                  false);
}

std::unique_ptr<MemDs> BuildMemDs(const Entries& entries) {
  auto memds = *MemDs::Create({}, Instant());
  std::vector<PartitionRecord> records;
  for (size_t i = 0; i < entries.size(); ++i) {
    records.push_back(MapRecord(entries, i));
    if (records.size() < 1000 && i + 1 < entries.size()) continue;
    DYNLIB_CHECK(memds->Push(NodeId{1}, records, Instant()).refused == 0);
    records.clear();
  }
  return memds;
}

// The bytes that two nodes exchange until they are equal.
absl::StatusOr<size_t> Synchronise(MemDs& asker, MemDs& answerer) {
  size_t bytes = 0;
  partition_map::SyncSession session = asker.StartSync();
  while (std::optional<partition_map::SyncRequest> request = session.Next()) {
    bytes += Encode(*request).size();
    const partition_map::SyncReply reply = answerer.AnswerSync(*request);
    bytes += Encode(reply).size();
    DYNLIB_RETURN_IF_ERROR(session.OnReply(reply));
  }
  if (!session.in_step()) return absl::InternalError("the nodes are not in step");
  return bytes;
}

void MeasureMap(Harness& harness, const Entries& entries) {
  const bool wanted = Wants(harness, "sync_100_of_1M", false) || Wants(harness, "find/1M", false) ||
                      Wants(harness, "upsert/1M", false);
  if (!wanted) return;
  const auto here = BuildMemDs(entries), there = BuildMemDs(entries);
  Random random(6);
  auto newer = [&] {
    PartitionRecord record = MapRecord(entries, random.Below(entries.size()));
    record.epoch = 20'001 + random.Below(1'000'000);
    record.members[0].node = NodeId{1 + random.Below(10'000)};
    return record;
  };
  size_t entry_bytes = 0;
  for (size_t i = 0; i < 1000; ++i) entry_bytes += Encode(MapRecord(entries, i)).size();
  auto bytes = [&]() -> absl::StatusOr<double> {
    for (int i = 0; i < 100; ++i) {
      (i % 2 == 0 ? here : there)->Push(NodeId{1}, {{newer()}}, Instant());
    }
    DYNLIB_ASSIGN_OR_RETURN(const size_t exchanged, Synchronise(*here, *there));
    return static_cast<double>(exchanged);
  };
  harness.MeasureQuantity("sync_100_of_1M", kOurs, "bytes", false, bytes, false);
  harness.MeasureQuantity(
      "sync_100_of_1M", kOurs, "entries", false,
      [&]() -> absl::StatusOr<double> {
        DYNLIB_ASSIGN_OR_RETURN(const double exchanged, bytes());
        return exchanged * 1000 / static_cast<double>(entry_bytes);
      },
      false);

  absl::StatusOr<std::unique_ptr<PartitionMap>> map = PartitionMap::Create({});
  for (size_t i = 0; i < entries.size(); ++i) {
    DYNLIB_CHECK((*map)->Upsert(MapRecord(entries, i)).ok());
  }
  PartitionRecord found;
  harness.Measure("find/1M",
                  {{kOurs,
                    [&](const RunContext& context) -> absl::StatusOr<RunResult> {
                      return RunQueries(context.seconds, 1, [&](size_t) {
                        const EntryKey& key = entries.keys[random.Below(entries.size())];
                        uint64_t table;
                        std::memcpy(&table, key.bytes.data(), sizeof(table));
                        (*map)->Find(TableId{table | 1}, key.view().substr(16), found);
                        return ToUint(found.leader);
                      });
                    }}},
                  false);
  harness.Measure("upsert/1M",
                  {{kOurs,
                    [&](const RunContext& context) -> absl::StatusOr<RunResult> {
                      return RunQueries(context.seconds, 1, [&](size_t) {
                        DYNLIB_CHECK((*map)->Upsert(newer()).ok());
                        return uint64_t{0};
                      });
                    }}},
                  false);
}

void MeasureAll(Harness& harness) {
  {
    const Entries entries = MakeEntries(1'000'000);
    MeasureFloors(harness, "1M", entries);
    MeasureUpdates(harness, entries);
    MeasureMap(harness, entries);
  }
  const bool large = Wants(harness, "floor/10M", false) ||
                     Wants(harness, "floor_batch32/10M", false) ||
                     Wants(harness, "bytes_per_entry/10M", false);
  if (large) MeasureFloors(harness, "10M", MakeEntries(10'000'000));
}

}  // namespace
}  // namespace dynlib::bench

int main(int argc, char** argv) {
  dynlib::bench::Harness harness("partition_map", argc, argv);
  dynlib::bench::MeasureAll(harness);
  return harness.Finish();
}
