#include "examples/mini_cluster/power_stage.h"

#include <chrono>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/catalogue.h"
#include "examples/mini_cluster/latencies.h"
#include "examples/mini_cluster/names.h"
#include "examples/mini_cluster/report.h"

namespace dynlib::mini_cluster {
namespace {

constexpr Duration kPoll = std::chrono::milliseconds(10);
constexpr Duration kRecoverLimit = std::chrono::seconds(30);
constexpr Duration kCatchUpLimit = std::chrono::seconds(60);

// The node that leads the partition, with a quorum behind it.
absl::StatusOr<NodeId> LeaderOf(Client& client, PartitionId partition) {
  const Instant deadline = client.clock().Now() + kRecoverLimit;
  while (client.clock().Now() < deadline) {
    Client::States states = client.GetStates();
    for (const ReplicaState& state : states[partition]) {
      if (state.supported) return state.node;
    }
    std::this_thread::sleep_for(kPoll);
  }
  return absl::UnavailableError(Cat("partition ", partition, " has no leader"));
}

absl::Status WaitForWrites(Stage& stage, PartitionId partition) {
  const Instant deadline = stage.Now() + kRecoverLimit;
  while (stage.Now() < deadline) {
    if (stage.load.WritesAgain(partition)) return absl::OkStatus();
    std::this_thread::sleep_for(kPoll);
  }
  return absl::UnavailableError(Cat("partition ", partition, " took no write within ",
                                    Milliseconds(kRecoverLimit), " after its leader lost power"));
}

}  // namespace

absl::Status ShowPowerCut(Stage& stage) {
  Progress("the power of a leader is cut");
  DYNLIB_ASSIGN_OR_RETURN(const cluster::TableInfo table, stage.client().ReadTable(kRecordsTable));
  const PartitionId partition = table.PartitionOf(stage.load.BusyKey()).id;
  DYNLIB_ASSIGN_OR_RETURN(const NodeId node, LeaderOf(stage.client(), partition));
  stage.load.MarkFailure();
  const Instant off = stage.Now();
  stage.cluster.PowerOff(node);
  DYNLIB_RETURN_IF_ERROR(WaitForWrites(stage, partition));
  const Duration unavailable = stage.load.LongestGap(partition);
  std::this_thread::sleep_for(stage.pace / 4);
  const Instant on = stage.Now();
  DYNLIB_RETURN_IF_ERROR(stage.cluster.Restart(node));
  DYNLIB_RETURN_IF_ERROR(stage.client().WaitUntilWhole(kRecordsTable, kCatchUpLimit).status());
  Say("power cut   node ", node, ", leader of partition ", Hex(ToUint(partition)),
      ": its writes were unavailable for ", Milliseconds(unavailable), "; without power for ",
      Seconds(on - off), "; caught up ", Seconds(stage.Now() - on), " after its return");
  return absl::OkStatus();
}

}  // namespace dynlib::mini_cluster
