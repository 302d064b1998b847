#include "benchmarks/replication_failover.h"

#include <algorithm>
#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "benchmarks/cleanup.h"
#include "benchmarks/load.h"
#include "benchmarks/replica_cluster.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::bench {
namespace {

using replication::GroupSetup;
using std::chrono::milliseconds;

constexpr PartitionId kGroup{1};
constexpr size_t kNodes = 3;
constexpr int kKills = 50;
constexpr int kTransfers = 20;
constexpr int kHangs = 5;
constexpr uint64_t kManyGroups = 10'000;
constexpr double kLoad = 0.9;

GroupSetup StorageReplica(size_t node) {
  return {.configuration = MembersOn({NodeId{1}, NodeId{2}, NodeId{3}}),
          .self = ReplicaId{node + 1}};
}

absl::Status StartThree(ReplicaCluster& cluster, uint64_t groups) {
  for (size_t node = 0; node < kNodes; ++node)
    DYNLIB_RETURN_IF_ERROR(cluster.StartNode(node, groups, StorageReplica));
  return cluster.AwaitLeader(kGroup).status();
}

void Sleep(milliseconds time) { std::this_thread::sleep_for(time); }

// So long that a node that was started again supports the others, and they it.
constexpr milliseconds kSettled{1000};

using Figures = std::vector<double>;

// ---- One group: `harm` is done to its leader, `mend` puts it right ----

absl::StatusOr<Figures> SecondsWithoutWrites(
    const std::filesystem::path& folder, int times,
    const std::function<void(ReplicaCluster&, size_t leader)>& harm,
    const std::function<absl::Status(ReplicaCluster&, size_t leader)>& mend) {
  ReplicaCluster cluster(folder);
  DYNLIB_RETURN_IF_ERROR(StartThree(cluster, 1));
  ProbingWriter writer(&cluster, kGroup);
  Figures figures;
  for (int i = 0; i < times; ++i) {
    Sleep(kSettled);
    DYNLIB_ASSIGN_OR_RETURN(const size_t leader, cluster.AwaitLeader(kGroup));
    // Not always at the same time after the last heartbeat.
    Sleep(milliseconds(Mix(static_cast<uint64_t>(i)) % 100));
    const uint64_t since_ns = NowNs();
    harm(cluster, leader);
    DYNLIB_ASSIGN_OR_RETURN(const double seconds, writer.SecondsWithoutWrites(since_ns));
    figures.push_back(seconds);
    DYNLIB_RETURN_IF_ERROR(mend(cluster, leader));
    DYNLIB_RETURN_IF_ERROR(cluster.AwaitCaughtUp(leader, kGroup));
  }
  return figures;
}

absl::Status StartAgain(ReplicaCluster& cluster, size_t node) {
  return cluster.StartNode(node, 1, StorageReplica);
}

absl::StatusOr<Figures> Kill(const std::filesystem::path& folder, int times) {
  return SecondsWithoutWrites(
      folder, times, [](ReplicaCluster& cluster, size_t leader) { cluster.Kill(leader); },
      StartAgain);
}

absl::StatusOr<Figures> Transfer(const std::filesystem::path& folder, int times) {
  return SecondsWithoutWrites(
      folder, times,
      [](ReplicaCluster& cluster, size_t leader) {
        ReplicaNode& node = cluster.Node(leader);
        node.Run([&] { node.host().TransferLeadership(kGroup); });
      },
      [](ReplicaCluster&, size_t) { return absl::OkStatus(); });
}

struct Hung {
  Figures another_leads_s;
  Figures without_writes_s;
};

absl::StatusOr<double> SecondsUntilAnotherLeads(ReplicaCluster& cluster, size_t hung,
                                                uint64_t since_ns) {
  while (NowNs() - since_ns < 20'000'000'000) {
    DYNLIB_ASSIGN_OR_RETURN(const size_t leader, cluster.AwaitLeader(kGroup));
    if (leader != hung) return static_cast<double>(NowNs() - since_ns) * 1e-9;
    Sleep(milliseconds(1));
  }
  return absl::DeadlineExceededError("no other node leads");
}

// The writes go on while the old leader is still there: the other two are a quorum.
absl::StatusOr<Hung> HangDisk(const std::filesystem::path& folder) {
  ReplicaCluster cluster(folder);
  DYNLIB_RETURN_IF_ERROR(StartThree(cluster, 1));
  ProbingWriter writer(&cluster, kGroup);
  Hung figures;
  for (int i = 0; i < kHangs; ++i) {
    Sleep(kSettled);
    DYNLIB_ASSIGN_OR_RETURN(const size_t leader, cluster.AwaitLeader(kGroup));
    const uint64_t since_ns = NowNs();
    cluster.Node(leader).Hang(true);
    DYNLIB_ASSIGN_OR_RETURN(const double another,
                            SecondsUntilAnotherLeads(cluster, leader, since_ns));
    figures.another_leads_s.push_back(another);
    // Some writes by the new leader, so that the time before the first of them counts.
    Sleep(milliseconds(200));
    DYNLIB_ASSIGN_OR_RETURN(const double without, writer.SecondsWithoutWrites(since_ns));
    figures.without_writes_s.push_back(without);
    cluster.Kill(leader);
    DYNLIB_RETURN_IF_ERROR(StartAgain(cluster, leader));
    DYNLIB_RETURN_IF_ERROR(cluster.AwaitCaughtUp(leader, kGroup));
  }
  return figures;
}

// ---- Many groups ----

constexpr uint64_t kPreparationLimitNs = 120'000'000'000;

// The groups that the first node does not lead. Any other node that leads one gives it up, and
// whoever is elected next is asked again: where the disk is slow not all elections are won by the
// node that was started first.
uint64_t NotLedByFirst(ReplicaCluster& cluster) {
  uint64_t led = 0;
  for (size_t i = 0; i < kNodes; ++i) {
    ReplicaNode& node = cluster.Node(i);
    node.Run([&] {
      for (const replication::GroupStatus& status : node.host().AllStatus()) {
        if (status.role != replication::Role::kLeader) continue;
        if (i == 0) {
          ++led;
        } else {
          node.host().TransferLeadership(status.group);
        }
      }
    });
  }
  return kManyGroups - led;
}

absl::Status LeadByFirst(ReplicaCluster& cluster, uint64_t limit_ns) {
  while (const uint64_t others = NotLedByFirst(cluster)) {
    if (NowNs() > limit_ns)
      return absl::DeadlineExceededError(Cat(others, " groups are not led by the first node"));
    Sleep(milliseconds(300));  // Longer than an election.
  }
  return absl::OkStatus();
}

// Groups that hold no log rest in a while.
absl::Status PutToRest(ReplicaCluster& cluster, uint64_t limit_ns) {
  size_t awake = 1;
  while (awake > 0 && NowNs() < limit_ns) {
    awake = 0;
    for (size_t i = 0; i < kNodes; ++i) {
      ReplicaNode& node = cluster.Node(i);
      node.Run([&] {
        for (uint64_t group = 1; group <= kManyGroups; ++group) {
          const auto status = node.host().Status(PartitionId{group});
          if (status->leader.has_value() && status->released < status->applied)
            node.host().Checkpointed(PartitionId{group}, status->applied);
        }
        awake += node.host().Status().awake;
      });
    }
    Sleep(milliseconds(500));
  }
  if (awake == 0) return absl::OkStatus();
  return absl::DeadlineExceededError(Cat(awake, " groups do not rest"));
}

// All are led by the first node, and rest.
absl::Status PrepareManyGroups(ReplicaCluster& cluster) {
  const uint64_t limit_ns = NowNs() + kPreparationLimitNs;
  do {
    DYNLIB_RETURN_IF_ERROR(LeadByFirst(cluster, limit_ns));
    DYNLIB_RETURN_IF_ERROR(PutToRest(cluster, limit_ns));
  } while (NotLedByFirst(cluster) > 0);  // Elections went on meanwhile.
  return absl::OkStatus();
}

// One write to each group that `written` does not name yet, at the node; waits for the answers.
void WriteToEach(ReplicaNode& node, uint64_t client, std::vector<char>& written) {
  struct Round {
    std::promise<void> done;
    size_t left = 1;
  } round;
  node.executor()->Post([&] {
    for (uint64_t group = 1; group <= kManyGroups; ++group) {
      if (written[group] != 0) continue;
      ++round.left;
      node.host().Propose(PartitionId{group},
                          {.client = ClientId{client},
                           .sequence = 1,
                           .acknowledged = 0,
                           .issued = {},
                           .command = "x"},
                          [&, group](replication::ProposalResult result) {
                            if (result.status.ok()) written[group] = 1;
                            if (--round.left == 0) round.done.set_value();
                          });
    }
    if (--round.left == 0) round.done.set_value();
  });
  round.done.get_future().wait();
}

absl::StatusOr<double> KillUnderManyGroups(const std::filesystem::path& folder) {
  ReplicaCluster cluster(folder);
  DYNLIB_RETURN_IF_ERROR(StartThree(cluster, kManyGroups));
  DYNLIB_RETURN_IF_ERROR(PrepareManyGroups(cluster));
  std::vector<char> written(kManyGroups + 1, 0);
  const uint64_t began_ns = NowNs();
  cluster.Kill(0);
  while (std::count(written.begin() + 1, written.end(), 0) > 0) {
    if (NowNs() - began_ns > 60'000'000'000)
      return absl::DeadlineExceededError("not all groups took a write within 60 s");
    for (size_t node = 1; node < kNodes; ++node) WriteToEach(cluster.Node(node), 1 + node, written);
    Sleep(milliseconds(20));
  }
  return static_cast<double>(NowNs() - began_ns) * 1e-9;
}

// ---- Elections at load ----

// Keeps proposals coming to the leader: as many in flight as there are, or at a rate.
class Proposer {
 public:
  explicit Proposer(ReplicaNode* node) : node_(node) {}

  absl::StatusOr<double> RateOf(int in_flight, double seconds) {
    end_ns_ = NowNs() + static_cast<uint64_t>(seconds * 1e9);
    again_ = true;
    node_->executor()->Post([this, in_flight] {
      for (int i = 0; i < in_flight; ++i) ProposeOne();
    });
    AwaitNone(seconds);
    again_ = false;
    DYNLIB_RETURN_IF_ERROR(failure_);
    return static_cast<double>(done_.load()) / seconds;
  }

  // Calls `every_second` as often, from here.
  absl::Status Sustain(double rate, double seconds, const std::function<void()>& every_second) {
    const uint64_t began_ns = NowNs();
    uint64_t next_ns = began_ns;
    end_ns_ = began_ns + static_cast<uint64_t>(seconds * 1e9);
    double proposed = 0;
    for (uint64_t now_ns = NowNs(); now_ns < end_ns_ && !failed_; now_ns = NowNs()) {
      const double due = rate * static_cast<double>(now_ns - began_ns) * 1e-9;
      const int count = static_cast<int>(due - proposed);
      proposed += count;
      node_->executor()->Post([this, count] {
        for (int i = 0; i < count; ++i) ProposeOne();
      });
      if (now_ns >= next_ns) {
        every_second();
        next_ns += 1'000'000'000;
      }
      Sleep(milliseconds(1));
    }
    AwaitNone(0);
    return failure_;
  }

 private:
  void ProposeOne() {
    ++in_flight_;
    ++sequence_;
    node_->host().Propose(kGroup,
                          {.client = ClientId{2},
                           .sequence = sequence_,
                           .acknowledged = sequence_ > 4000 ? sequence_ - 4000 : 0,
                           .issued = {},
                           .command = std::string(900, 'v')},
                          [this](replication::ProposalResult result) {
                            if (result.status.ok()) {
                              ++done_;
                            } else if (!absl::IsResourceExhausted(result.status)) {
                              failure_ = std::move(result.status);
                              failed_ = true;
                            }
                            if (again_ && !failed_ && NowNs() < end_ns_) ProposeOne();
                            --in_flight_;
                          });
  }
  void AwaitNone(double seconds) {
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
    do Sleep(milliseconds(5));
    while (in_flight_ > 0);
  }

  ReplicaNode* const node_;
  std::atomic<uint64_t> end_ns_{0};
  std::atomic<bool> again_{false};
  std::atomic<bool> failed_{false};
  std::atomic<uint64_t> done_{0};
  std::atomic<int> in_flight_{0};
  uint64_t sequence_ = 0;
  absl::Status failure_;  // Set before failed_.
};

absl::StatusOr<double> ElectionsAtLoad(const std::filesystem::path& folder, double seconds) {
  ReplicaCluster cluster(folder);
  DYNLIB_RETURN_IF_ERROR(StartThree(cluster, 1));
  DYNLIB_ASSIGN_OR_RETURN(const size_t leader, cluster.AwaitLeader(kGroup));
  Proposer proposer(&cluster.Node(leader));
  DYNLIB_ASSIGN_OR_RETURN(const double rate, proposer.RateOf(64, 2));
  const int64_t before = cluster.metrics().Of("replication.election_started");
  const absl::Status sustained =
      proposer.Sustain(kLoad * rate, seconds, [&] { cluster.Checkpoint(kGroup); });
  const int64_t elections = cluster.metrics().Of("replication.election_started") - before;
  if (elections > 0 || !sustained.ok())
    std::fprintf(stderr, "elections since the start:%s\n", cluster.Elections().c_str());
  DYNLIB_RETURN_IF_ERROR(sustained);
  return static_cast<double>(elections);
}

// ---- A measurement in a folder of its own, reported or failed ----

void ReportFrom(Harness& harness, const std::string& workload, const std::string& unit,
                const std::function<absl::StatusOr<Figures>(const std::filesystem::path&)>& run) {
  if (!harness.Wants(workload, /*in_quick_set=*/false) || !harness.Wants(kOurs)) return;
  const absl::StatusOr<Figures> figures = [&]() -> absl::StatusOr<Figures> {
    DYNLIB_ASSIGN_OR_RETURN(const TemporaryFolder folder,
                            TemporaryFolder::Create(harness.flags().dir));
    return run(folder.path());
  }();
  if (!figures.ok()) return harness.Failed(workload, kOurs, figures.status());
  harness.Report(workload, {unit, false}, {{kOurs, *figures}});
  if (figures->size() > 1) {
    harness.Report(Cat(workload, "/worst"), {unit, false},
                   {{kOurs, {*std::max_element(figures->begin(), figures->end())}}});
  }
}

}  // namespace

void MeasureFailover(Harness& harness) {
  using Folder = std::filesystem::path;
  ReportFrom(harness, "failover/kill", "s", [](const Folder& f) { return Kill(f, kKills); });
  ReportFrom(harness, "failover/kill/10000groups", "s",
             [](const Folder& f) -> absl::StatusOr<Figures> {
               DYNLIB_ASSIGN_OR_RETURN(const double seconds, KillUnderManyGroups(f));
               return Figures{seconds};
             });
  ReportFrom(harness, "failover/transfer", "s",
             [](const Folder& f) { return Transfer(f, kTransfers); });
  ReportFrom(harness, "failover/hung_disk", "s", [&](const Folder& f) -> absl::StatusOr<Figures> {
    DYNLIB_ASSIGN_OR_RETURN(Hung hung, HangDisk(f));
    harness.Report("failover/hung_disk/without_writes", {"s", false},
                   {{kOurs, std::move(hung.without_writes_s)}});
    return std::move(hung.another_leads_s);
  });
  const double seconds = std::max(20.0, harness.flags().seconds);
  ReportFrom(harness, "failover/elections_at_load",
             Cat("elections in ", static_cast<int>(seconds), " s"),
             [seconds](const Folder& f) -> absl::StatusOr<Figures> {
               DYNLIB_ASSIGN_OR_RETURN(const double elections, ElectionsAtLoad(f, seconds));
               return Figures{elections};
             });
}

}  // namespace dynlib::bench
