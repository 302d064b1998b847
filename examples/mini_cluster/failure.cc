#include "examples/mini_cluster/failure.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/key.h"
#include "examples/mini_cluster/latencies.h"

namespace dynlib::mini_cluster {
namespace {

constexpr Duration kPoll = std::chrono::milliseconds(10);
constexpr Duration kRecoverLimit = std::chrono::seconds(30);
constexpr Duration kCatchUpLimit = std::chrono::seconds(60);

// The node that holds the lease of the partition.
absl::StatusOr<NodeId> LeaderOf(Client& client, PartitionId partition) {
  const Instant deadline = client.clock().Now() + kRecoverLimit;
  while (client.clock().Now() < deadline) {
    Client::States states = client.GetStates();
    for (const ReplicaState& state : states[partition]) {
      if (state.holds_lease) return state.node;
    }
    std::this_thread::sleep_for(kPoll);
  }
  return absl::UnavailableError(Cat("partition ", partition, " has no leader"));
}

class Drill {
 public:
  Drill(MiniCluster& cluster, Client& client, const cluster::TableInfo& table, MixedLoad& load,
        Duration duration)
      : cluster_(cluster), client_(client), table_(table), load_(load), phase_(duration / 3) {}

  absl::Status Run(FailureReport& report) {
    std::this_thread::sleep_for(phase_);
    DYNLIB_ASSIGN_OR_RETURN(report.node, LeaderOf(client_, report.partition));
    load_.MarkFailure();
    const Instant off = client_.clock().Now();
    cluster_.PowerOff(report.node);
    DYNLIB_RETURN_IF_ERROR(WaitForWrites(report.partition));
    std::this_thread::sleep_for(phase_);
    report.down = client_.clock().Now() - off;
    const Instant on = client_.clock().Now();
    DYNLIB_RETURN_IF_ERROR(cluster_.Restart(report.node));
    DYNLIB_RETURN_IF_ERROR(client_.WaitUntilCaughtUp(table_, kCatchUpLimit));
    report.caught_up = client_.clock().Now() - on;
    std::this_thread::sleep_for(phase_);
    return absl::OkStatus();
  }

 private:
  absl::Status WaitForWrites(PartitionId partition) {
    const Instant deadline = client_.clock().Now() + kRecoverLimit;
    while (client_.clock().Now() < deadline) {
      if (load_.WritesAgain(partition)) return absl::OkStatus();
      std::this_thread::sleep_for(kPoll);
    }
    return absl::UnavailableError(Cat("partition ", partition, " took no write within ",
                                      Milliseconds(kRecoverLimit), " after its leader lost power"));
  }

  MiniCluster& cluster_;
  Client& client_;
  const cluster::TableInfo& table_;
  MixedLoad& load_;
  const Duration phase_;
};

}  // namespace

absl::StatusOr<FailureReport> FailUnderLoad(MiniCluster& cluster, Client& client,
                                            const cluster::TableInfo& table,
                                            std::vector<SampleItem> sample,
                                            const MixedLoad::Options& options, Duration duration) {
  FailureReport report;
  // One that the load writes to.
  DYNLIB_ASSIGN_OR_RETURN(std::string key,
                          cluster::EncodeItemKey(table.schema, sample[sample.size() / 2].item));
  report.partition = table.PartitionOf(key).id;
  MixedLoad load(&client, table, std::move(sample), options);
  load.Start();
  const absl::Status drilled = Drill(cluster, client, table, load, duration).Run(report);
  report.load = load.Stop();
  DYNLIB_RETURN_IF_ERROR(drilled);
  report.unavailable = report.load.longest_gap[report.partition];
  return report;
}

}  // namespace dynlib::mini_cluster
