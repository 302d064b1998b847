#include <algorithm>
#include <chrono>
#include <fstream>
#include <future>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "benchmarks/cleanup.h"
#include "benchmarks/load.h"
#include "benchmarks/plain_copy.h"
#include "benchmarks/replica_cluster.h"
#include "benchmarks/replication_failover.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::bench {
namespace {

using replication::GroupSetup;
using replication::Member;
using replication::MemberKind;

constexpr char kWorkload[] = "log_replica/256MB";
constexpr PartitionId kGroup{1};
constexpr uint64_t kLogBytes = 256 << 20;
constexpr uint64_t kEntryBytes = 256 << 10;
constexpr int kInFlight = 16;
constexpr int kRuns = 5;
// The replica on the dead node, and the log replica that takes its place, on a fourth.
constexpr size_t kDead = 2;
constexpr size_t kNew = 3;
constexpr Member kLogReplica{.replica = ReplicaId{4}, .node = NodeId{4}, .kind = MemberKind::kLog};

GroupSetup ReplicaOn(size_t node) {
  GroupSetup setup{.configuration = MembersOn({NodeId{1}, NodeId{2}, NodeId{3}}),
                   .self = ReplicaId{node + 1}};
  setup.learner = node == kNew;
  if (node == kNew) setup.kind = MemberKind::kLog;
  return setup;
}

absl::Status Fill(ReplicaNode& leader) {
  struct State {
    std::promise<absl::Status> done;
    uint64_t proposed = 0;
    int in_flight = 0;
    absl::Status failure;
  } state;
  std::function<void()> propose = [&] {
    while (state.failure.ok() && state.in_flight < kInFlight &&
           state.proposed < kLogBytes / kEntryBytes) {
      ++state.in_flight;
      const uint64_t sequence = ++state.proposed;
      leader.host().Propose(kGroup,
                            {.client = ClientId{1},
                             .sequence = sequence,
                             .acknowledged = sequence > 64 ? sequence - 64 : 0,
                             .issued = {},
                             .command = std::string(RandomBytes(sequence, kEntryBytes))},
                            [&](replication::ProposalResult result) {
                              --state.in_flight;
                              if (!result.status.ok()) state.failure = std::move(result.status);
                              propose();
                              if (state.in_flight == 0) state.done.set_value(state.failure);
                            });
    }
  };
  leader.executor()->Post([&] { propose(); });
  return state.done.get_future().get();
}

// Has the leader feed the log replica, and make it a member as soon as it may be.
absl::Status Replace(ReplicaCluster& cluster, ReplicaNode& leader) {
  const uint64_t limit_ns = NowNs() + 60'000'000'000;
  bool fed = false;
  while (NowNs() < limit_ns) {
    absl::StatusOr<replication::LearnerStatus> fed_to = absl::UnavailableError("");
    std::promise<void> answered;
    leader.Run([&] {
      leader.host().AddLearner(kGroup, kLogReplica, /*from=*/0, [&](auto status) {
        fed_to = std::move(status);
        answered.set_value();
      });
    });
    answered.get_future().get();
    if (!fed_to.ok()) return fed_to.status();
    fed = fed_to->caught_up && fed_to->match >= fed_to->chosen;
    if (fed) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  if (!fed) return absl::DeadlineExceededError("the log replica does not catch up");
  std::promise<absl::Status> changed;
  leader.Run([&] {
    std::vector<Member> members = leader.host().Status(kGroup)->configuration.members;
    members[kDead] = kLogReplica;
    leader.host().ChangeMembers(kGroup, 0, members, [&](absl::StatusOr<uint64_t> epoch) {
      changed.set_value(epoch.status());
    });
  });
  return changed.get_future().get();
}

struct Times {
  double replaced_s = 0;
  double copied_s = 0;
};

absl::StatusOr<Times> RunOnce(const std::filesystem::path& folder) {
  ReplicaCluster cluster(folder);
  for (size_t node = 0; node < 3; ++node)
    DYNLIB_RETURN_IF_ERROR(cluster.StartNode(node, 1, ReplicaOn));
  DYNLIB_ASSIGN_OR_RETURN(size_t leader, cluster.AwaitLeader(kGroup));
  if (leader == kDead) return absl::InternalError("the first node is to lead");
  DYNLIB_RETURN_IF_ERROR(Fill(cluster.Node(leader)));
  const std::filesystem::path log = cluster.Node(leader).log_folder();
  DYNLIB_RETURN_IF_ERROR(cluster.StartNode(kNew, 0, ReplicaOn));
  Times times;
  DYNLIB_ASSIGN_OR_RETURN(times.copied_s, SecondsToCopy(log, folder / "copy", kLogBytes));
  std::filesystem::remove_all(folder / "copy");
  // The copy's writes are on disk: what follows has the disk to itself.
  cluster.Kill(kDead);
  const uint64_t began_ns = NowNs();
  DYNLIB_RETURN_IF_ERROR(cluster.Node(kNew).AddGroup(kGroup, ReplicaOn(kNew)));
  DYNLIB_RETURN_IF_ERROR(Replace(cluster, cluster.Node(leader)));
  times.replaced_s = static_cast<double>(NowNs() - began_ns) * 1e-9;
  return times;
}

}  // namespace

void MeasureLogReplica(Harness& harness) {
  if (!harness.Wants(kWorkload, /*in_quick_set=*/false) || !harness.Wants(kOurs)) return;
  std::vector<double> replaced, copied, over;
  for (int i = 0; i < kRuns; ++i) {
    const absl::StatusOr<Times> times = [&]() -> absl::StatusOr<Times> {
      DYNLIB_ASSIGN_OR_RETURN(const TemporaryFolder folder,
                              TemporaryFolder::Create(harness.flags().dir));
      return RunOnce(folder.path());
    }();
    if (!times.ok()) return harness.Failed(kWorkload, kOurs, times.status());
    replaced.push_back(times->replaced_s);
    copied.push_back(times->copied_s);
    over.push_back(times->replaced_s - times->copied_s);
  }
  harness.Report(kWorkload, {"s", false}, {{kOurs, replaced}, {"limit:plain_copy", copied}});
  harness.Report(Cat(kWorkload, "/over_copy"), {"s", false}, {{kOurs, over}});
}

}  // namespace dynlib::bench
