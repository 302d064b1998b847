#include "examples/mini_cluster/admission_stage.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/catalogue.h"
#include "dynlib/cluster/table_admin.h"
#include "examples/mini_cluster/hammer.h"
#include "examples/mini_cluster/latencies.h"
#include "examples/mini_cluster/names.h"
#include "examples/mini_cluster/report.h"

namespace dynlib::mini_cluster {
namespace {

constexpr Duration kPoll = std::chrono::milliseconds(50);
constexpr Duration kWholeLimit = std::chrono::seconds(60);
constexpr Duration kSplitLimit = std::chrono::seconds(30);
constexpr size_t kHotItemBytes = 32'000;
constexpr uint64_t kHotItemUnits = 8;  // read units: one for each 4 KiB begun
constexpr Duration kSettle = std::chrono::milliseconds(700);
constexpr uint64_t kMeteredUnits = 200;

// Over `time`.
Hammer::Counts Measure(const Stage& stage, const Hammer& hammer, Duration time) {
  const Hammer::Counts before = hammer.counts();
  std::this_thread::sleep_for(time);
  const Hammer::Counts after = hammer.counts();
  return {.served = after.served - before.served,
          .throttled = after.throttled - before.throttled,
          .retry_after_max = after.retry_after_max};
}

class HotPartition {
 public:
  explicit HotPartition(Stage& stage)
      : stage_(stage),
        hammer_(stage.clients, {.table = kHotTable, .items = 200, .item_bytes = kHotItemBytes}) {}

  absl::Status Run() {
    DYNLIB_RETURN_IF_ERROR(stage_.client().CreateTable(
        {.name = kHotTable, .schema = Hammer::Schema(), .partitions = 1}));
    DYNLIB_ASSIGN_OR_RETURN(cluster::TableInfo table,
                            stage_.client().WaitUntilWhole(kHotTable, kWholeLimit));
    partitions_ = table.partitions.size();
    DYNLIB_RETURN_IF_ERROR(hammer_.Fill());
    hammer_.Start();
    const absl::Status shown = Show();
    const absl::Status stopped = hammer_.Stop();
    DYNLIB_RETURN_IF_ERROR(shown);
    return stopped;
  }

 private:
  absl::Status Show() {
    const Instant start = stage_.Now();
    // What a partition saves up in a second goes first.
    std::this_thread::sleep_for(kSettle);
    const Hammer::Counts one = Measure(stage_, hammer_, std::chrono::seconds(1));
    Say("admission   table '", kHotTable, "', ", partitions_, " partition",
        partitions_ == 1 ? "" : "s", " of ", WithCommas(static_cast<uint64_t>(kPartitionReadUnits)),
        " read units a second: strong reads of ", kHotItemUnits,
        " units, as many as are let: ", Rate(one.served, std::chrono::seconds(1)), " served, ",
        Rate(one.throttled, std::chrono::seconds(1)), " throttled, told to come back in up to ",
        Milliseconds(one.retry_after_max));
    if (!stage_.switches.admission) {
      Say("            without admission control a hot partition takes what the node gives, and "
          "nothing says that it should be split");
      return absl::OkStatus();
    }
    if (one.throttled == 0) return absl::InternalError("a hot partition was not throttled");
    if (!stage_.switches.split) {
      Say("            without splits it stays at what one partition may serve");
      return absl::OkStatus();
    }
    DYNLIB_RETURN_IF_ERROR(WaitForSplit());
    const Duration split = stage_.Now() - start;
    std::this_thread::sleep_for(kSettle);
    const Hammer::Counts two = Measure(stage_, hammer_, std::chrono::seconds(1));
    // It may have been split again meanwhile.
    DYNLIB_ASSIGN_OR_RETURN(const cluster::TableInfo table, stage_.client().ReadTable(kHotTable));
    Say("            split for its heat after ", Seconds(split),
        "; routers followed: ", Rate(two.served, std::chrono::seconds(1)), " served, ",
        Rate(two.throttled, std::chrono::seconds(1)), " throttled; by now each of its ",
        table.partitions.size(), " partitions serves ", UnitsOf(table), " read units a second");
    return absl::OkStatus();
  }

  absl::Status WaitForSplit() {
    const Instant start = stage_.Now();
    while (true) {
      DYNLIB_ASSIGN_OR_RETURN(const cluster::TableInfo table, stage_.client().ReadTable(kHotTable));
      if (table.partitions.size() > partitions_) return absl::OkStatus();
      if (stage_.Now() - start > kSplitLimit)
        return absl::DeadlineExceededError(
            Cat("the hot partition was not split within ", Seconds(kSplitLimit)));
      std::this_thread::sleep_for(kPoll);
    }
  }

  std::string UnitsOf(const cluster::TableInfo& table) {
    Client::States states = stage_.client().GetStates();
    std::string text;
    for (const cluster::PartitionInfo& partition : table.partitions) {
      double units = 0;
      for (const ReplicaState& state : states[partition.id])
        units = std::max(units, state.leads ? state.read_units : 0);
      text += Cat(text.empty() ? "" : ", ", WithCommas(static_cast<uint64_t>(units)));
    }
    return text;
  }

  Stage& stage_;
  Hammer hammer_;
  size_t partitions_ = 0;
};

uint64_t RefusedByRouters(const Stage& stage) {
  int64_t refused = 0;
  for (Client* client : stage.clients) refused += client->Counted("router.throttled");
  return static_cast<uint64_t>(refused);
}

absl::Status ShowMetered(Stage& stage) {
  DYNLIB_RETURN_IF_ERROR(stage.client().CreateTable(
      {.name = kMeteredTable,
       .schema = Hammer::Schema(),
       .partitions = 2,
       .throughput = {
           .on_demand = false, .read_units = kMeteredUnits, .write_units = kMeteredUnits}}));
  DYNLIB_RETURN_IF_ERROR(stage.client().WaitUntilWhole(kMeteredTable, kWholeLimit).status());
  Hammer hammer(stage.clients,
                {.table = kMeteredTable, .items = 200, .item_bytes = 500, .write = true});
  hammer.Start();
  // Until every router has reported its demand and got its share.
  std::this_thread::sleep_for(std::chrono::seconds(3));
  const uint64_t before = RefusedByRouters(stage);
  const Hammer::Counts counts = Measure(stage, hammer, stage.pace);
  const uint64_t refused = RefusedByRouters(stage) - before;
  DYNLIB_RETURN_IF_ERROR(hammer.Stop());
  Say("            table '", kMeteredTable, "', ", kMeteredUnits,
      " write units a second in all: ", stage.clients.size(), " routers let ",
      Rate(counts.served, stage.pace), " through and refused ", Rate(refused, stage.pace),
      " themselves");
  return absl::OkStatus();
}

}  // namespace

absl::Status ShowAdmission(Stage& stage) {
  Progress("admission: a hot partition, and a table with a limit");
  DYNLIB_RETURN_IF_ERROR(HotPartition(stage).Run());
  if (!stage.switches.admission) return absl::OkStatus();
  return ShowMetered(stage);
}

}  // namespace dynlib::mini_cluster
