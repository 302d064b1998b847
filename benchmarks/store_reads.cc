// Reads and scans of stores that were filled once and fit in their caches.
//
//   read/V/N      N threads, each reading one row after the other, chosen evenly
//   scan100/V/1   one thread; 100 rows from a place chosen evenly. An operation is a scan
//   limit:sorted_array   the same rows in one sorted array: std::lower_bound, no store about it
#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "benchmarks/harness.h"
#include "benchmarks/load.h"
#include "benchmarks/store_workloads.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::bench {
namespace {

constexpr int kReadsPerCall = 64;
constexpr int kRowsPerScan = 100;
// Reads are so short that a run of them needs less time than one of syncs.
constexpr double kTimeShare = 0.25;

struct Read {
  Rows rows;
  int clients;
  bool in_quick_set;
};

// One a cache line, so that clients do not share one.
struct alignas(128) Client {
  uint64_t random = 0;
  uint64_t seen = 0;

  uint64_t Row(const Rows& rows) { return Mix(++random) % rows.count; }
  // As a caller who uses the value would.
  void Use(std::string_view value) {
    seen += static_cast<unsigned char>(value.front()) + static_cast<unsigned char>(value.back());
  }
};

std::vector<Client> Clients(int count) {
  std::vector<Client> clients(static_cast<size_t>(count));
  for (size_t i = 0; i < clients.size(); ++i) clients[i].random = (i + 1) << 40;
  return clients;
}

absl::StatusOr<RunResult> RunReads(KvPeer& store, const Rows& rows, int count, double seconds) {
  std::vector<Client> clients = Clients(count);
  return RunTightLoop(count, seconds, kReadsPerCall, [&](int client) {
    Client& me = clients[static_cast<size_t>(client)];
    for (int i = 0; i < kReadsPerCall; ++i) {
      const uint64_t row = me.Row(rows);
      size_t bytes = 0;
      DYNLIB_RETURN_IF_ERROR(store.Get(client, RowKey(row).view(), [&](std::string_view value) {
        bytes = value.size();
        me.Use(value);
      }));
      if (bytes != rows.value_bytes) return absl::DataLossError(Cat("row ", row));
    }
    return absl::OkStatus();
  });
}

absl::StatusOr<RunResult> RunScans(KvPeer& store, const Rows& rows, double seconds) {
  std::vector<Client> clients = Clients(1);
  return RunTightLoop(1, seconds, 1, [&](int) {
    Client& me = clients[0];
    return store.Scan(0, RowKey(me.Row(rows)).view(), kRowsPerScan,
                      [&](std::string_view key, std::string_view value) {
                        me.Use(key);
                        me.Use(value);
                      });
  });
}

// All rows in key order, one behind the other.
class SortedArray {
 public:
  explicit SortedArray(const Rows& rows)
      : rows_(rows), row_bytes_(kKeyBytes + rows.value_bytes), bytes_(rows.bytes(), '\0') {
    char* to = bytes_.data();
    for (const uint32_t row : InKeyOrder(rows.count)) {
      std::memcpy(to, RowKey(row).view().data(), kKeyBytes);
      std::memcpy(to + kKeyBytes, rows.Value(row).data(), rows.value_bytes);
      to += row_bytes_;
    }
  }

  // The first row whose key is at least `key`.
  uint64_t Find(std::string_view key) const {
    uint64_t first = 0;
    for (uint64_t count = rows_.count; count > 0;) {
      const uint64_t half = count / 2;
      const bool below = std::memcmp(Row(first + half), key.data(), kKeyBytes) < 0;
      first += below ? half + 1 : 0;
      count = below ? count - half - 1 : half;
    }
    return first;
  }
  const char* Row(uint64_t i) const { return bytes_.data() + i * row_bytes_; }
  std::string_view Key(uint64_t i) const { return {Row(i), kKeyBytes}; }
  std::string_view Value(uint64_t i) const { return {Row(i) + kKeyBytes, rows_.value_bytes}; }

 private:
  const Rows rows_;
  const size_t row_bytes_;
  std::string bytes_;
};

// Made when first needed, kept for all rounds.
using LazyArray = std::shared_ptr<std::unique_ptr<SortedArray>>;

const SortedArray& Get(const LazyArray& array, const Rows& rows) {
  if (*array == nullptr) *array = std::make_unique<SortedArray>(rows);
  return **array;
}

Runner ArrayReads(const LazyArray& lazy, const Read& workload) {
  return [=](const RunContext& context) {
    const SortedArray& array = Get(lazy, workload.rows);
    std::vector<Client> clients = Clients(workload.clients);
    return RunTightLoop(workload.clients, context.seconds * kTimeShare, kReadsPerCall,
                        [&](int client) {
                          Client& me = clients[static_cast<size_t>(client)];
                          for (int i = 0; i < kReadsPerCall; ++i) {
                            const RowKey key(me.Row(workload.rows));
                            me.Use(array.Value(array.Find(key.view())));
                          }
                          return absl::OkStatus();
                        });
  };
}

Runner ArrayScans(const LazyArray& lazy, const Rows& rows) {
  return [=](const RunContext& context) {
    const SortedArray& array = Get(lazy, rows);
    std::vector<Client> clients = Clients(1);
    return RunTightLoop(1, context.seconds * kTimeShare, 1, [&](int) {
      Client& me = clients[0];
      const uint64_t first = array.Find(RowKey(me.Row(rows)).view());
      const uint64_t end = std::min(rows.count, first + kRowsPerScan);
      for (uint64_t i = first; i < end; ++i) {
        me.Use(array.Key(i));
        me.Use(array.Value(i));
      }
      return absl::OkStatus();
    });
  };
}

void MeasureReadsOf(Harness& harness, KvFixtures& fixtures, const LazyArray& array,
                    const Read& workload) {
  std::vector<System> systems;
  for (const NamedKvPeer& store : Stores()) {
    systems.push_back(
        {store.name, [=, &fixtures](const RunContext& context) -> absl::StatusOr<RunResult> {
           DYNLIB_ASSIGN_OR_RETURN(KvPeer * filled, fixtures.Filled(store, workload.rows));
           return RunReads(*filled, workload.rows, workload.clients, context.seconds * kTimeShare);
         }});
  }
  systems.push_back({"limit:sorted_array", ArrayReads(array, workload)});
  harness.Measure(Cat("read/", workload.rows.value_bytes, "/", workload.clients),
                  std::move(systems), workload.in_quick_set);
}

void MeasureScansOf(Harness& harness, KvFixtures& fixtures, const LazyArray& array,
                    const Rows& rows, bool in_quick_set) {
  std::vector<System> systems;
  for (const NamedKvPeer& store : Stores()) {
    systems.push_back(
        {store.name, [=, &fixtures](const RunContext& context) -> absl::StatusOr<RunResult> {
           DYNLIB_ASSIGN_OR_RETURN(KvPeer * filled, fixtures.Filled(store, rows));
           return RunScans(*filled, rows, context.seconds * kTimeShare);
         }});
  }
  systems.push_back({"limit:sorted_array", ArrayScans(array, rows)});
  harness.Measure(Cat("scan", kRowsPerScan, "/", rows.value_bytes, "/1"), std::move(systems),
                  in_quick_set);
}

}  // namespace

void MeasureReads(Harness& harness, KvFixtures& fixtures) {
  for (const Rows& rows : {SmallRows(), LargeRows(harness)}) {
    const bool quick = rows.value_bytes == SmallRows().value_bytes;
    const auto array = std::make_shared<std::unique_ptr<SortedArray>>();
    MeasureReadsOf(harness, fixtures, array, {rows, 1, quick});
    MeasureReadsOf(harness, fixtures, array, {rows, 2, false});
    MeasureScansOf(harness, fixtures, array, rows, quick);
    if (quick) fixtures.Clear();
  }
}

}  // namespace dynlib::bench
