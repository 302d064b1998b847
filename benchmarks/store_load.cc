// Filling an empty store, in batches of 1,000 rows, until all of it is durable.
//
//   load_sorted/100   a million rows in key order
//   load_random/100   the same rows in no order
//   limit:sequential_write   the same bytes written to one file, and synced
//
// A figure is rows a second; making the rows does not count. Before each run memory is touched and
// given back (TouchMemory).
#include <string>
#include <utility>
#include <vector>

#include "benchmarks/harness.h"
#include "benchmarks/limits.h"
#include "benchmarks/load.h"
#include "benchmarks/store_workloads.h"
#include "dynlib/base/status_macros.h"

namespace dynlib::bench {
namespace {

constexpr size_t kTouchedBytes = 512 << 20;  // before each run: what a load of 120 MB may need

absl::StatusOr<double> RowsPerSecond(const NamedKvPeer& system, const Rows& rows, bool sorted,
                                     const std::filesystem::path& folder) {
  TouchMemory(kTouchedBytes);
  const KvOptions::Fill fill = sorted ? KvOptions::Fill::kSorted : KvOptions::Fill::kAnyOrder;
  DYNLIB_ASSIGN_OR_RETURN(const std::unique_ptr<KvPeer> store,
                          system.open({.folder = folder, .fill = fill}));
  double seconds = 0;
  DYNLIB_RETURN_IF_ERROR(FillStore(*store, rows, sorted, &seconds));
  return static_cast<double>(rows.count) / seconds;
}

void MeasureLoad(Harness& harness, const std::string& workload, const Rows& rows, bool sorted) {
  std::vector<FigureSystem> systems;
  for (const NamedKvPeer& store : Stores()) {
    systems.push_back({store.name, [=](const RunContext& context) {
                         return RowsPerSecond(store, rows, sorted, context.folder);
                       }});
  }
  systems.push_back(
      {"limit:sequential_write", [rows](const RunContext& context) -> absl::StatusOr<double> {
         TouchMemory(kTouchedBytes);
         DYNLIB_ASSIGN_OR_RETURN(const double seconds,
                                 SequentialWrite(context.folder, rows.bytes()));
         return static_cast<double>(rows.count) / seconds;
       }});
  harness.MeasureFigures(workload, {"rows/s", true}, std::move(systems), /*in_quick_set=*/false);
}

}  // namespace

void MeasureLoads(Harness& harness) {
  MeasureLoad(harness, "load_sorted/100", SmallRows(), true);
  MeasureLoad(harness, "load_random/100", SmallRows(), false);
}

}  // namespace dynlib::bench
