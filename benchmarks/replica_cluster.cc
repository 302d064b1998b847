#include "benchmarks/replica_cluster.h"

#include <algorithm>
#include <chrono>
#include <future>
#include <utility>

#include "benchmarks/load.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::bench {
namespace {

using std::chrono::milliseconds;

// A client gives up on a node that does not answer, and asks another.
constexpr milliseconds kAttempt{100};
constexpr milliseconds kRetry{1};

}  // namespace

absl::Status ReplicaCluster::StartNode(
    size_t node, uint64_t groups,
    const std::function<replication::GroupSetup(size_t node)>& setup) {
  replication::HostOptions host;
  host.seed = node + 1;
  DYNLIB_ASSIGN_OR_RETURN(std::shared_ptr<ReplicaNode> started,
                          ReplicaNode::Open({.id = NodeId{node + 1},
                                             .folder = folder_ / Cat("node-", node + 1),
                                             .network = &network_,
                                             .host = host,
                                             .metrics = &metrics_}));
  for (uint64_t group = 1; group <= groups; ++group) {
    DYNLIB_RETURN_IF_ERROR(started->AddGroup(PartitionId{group}, setup(node)));
  }
  DYNLIB_RETURN_IF_ERROR(started->Begin());
  const std::lock_guard lock(mutex_);
  if (nodes_.size() <= node) nodes_.resize(node + 1);
  nodes_[node] = std::move(started);
  return absl::OkStatus();
}

// From here on it says and hears nothing, whoever still holds on to it.
void ReplicaCluster::Kill(size_t node) {
  network_.Detach(NodeId{node + 1});
  std::shared_ptr<ReplicaNode> killed;
  {
    const std::lock_guard lock(mutex_);
    killed = std::move(nodes_[node]);
  }
  // Its files are free once nobody asks it any more.
  while (killed.use_count() > 1) std::this_thread::sleep_for(kRetry);
}

std::shared_ptr<ReplicaNode> ReplicaCluster::At(size_t node) const {
  const std::lock_guard lock(mutex_);
  return node < nodes_.size() ? nodes_[node] : nullptr;
}

std::optional<replication::GroupStatus> ReplicaCluster::Status(size_t node, PartitionId group) {
  const std::shared_ptr<ReplicaNode> at = At(node);
  std::optional<replication::GroupStatus> status;
  if (at != nullptr) at->Run([&] { status = at->host().Status(group); });
  return status;
}

absl::StatusOr<size_t> ReplicaCluster::AwaitLeader(PartitionId group, double seconds) {
  const uint64_t limit_ns = NowNs() + static_cast<uint64_t>(seconds * 1e9);
  while (NowNs() < limit_ns) {
    // One that was deposed may not have heard of it.
    std::optional<size_t> leader;
    replication::Ballot highest;
    for (size_t node = 0; node < nodes_.size(); ++node) {
      const auto status = Status(node, group);
      if (!status.has_value() || status->role != replication::Role::kLeader) continue;
      if (!status->holds_lease || status->promised <= highest) continue;
      leader = node;
      highest = status->promised;
    }
    if (leader.has_value()) return *leader;
    std::this_thread::sleep_for(kRetry);
  }
  return absl::DeadlineExceededError(Cat("group ", group, " has no leader"));
}

absl::Status ReplicaCluster::AwaitCaughtUp(size_t node, PartitionId group, double seconds) {
  const uint64_t limit_ns = NowNs() + static_cast<uint64_t>(seconds * 1e9);
  DYNLIB_ASSIGN_OR_RETURN(const size_t leader, AwaitLeader(group, seconds));
  const Slot chosen = Status(leader, group)->chosen;
  while (NowNs() < limit_ns) {
    const auto status = Status(node, group);
    if (status->leader.has_value() && status->applied >= chosen) return absl::OkStatus();
    std::this_thread::sleep_for(kRetry);
  }
  return absl::DeadlineExceededError(Cat("node ", node + 1, " does not catch up"));
}

void ReplicaCluster::Checkpoint(PartitionId group) {
  for (size_t node = 0; node < nodes_.size(); ++node) {
    const std::shared_ptr<ReplicaNode> at = At(node);
    if (at == nullptr) continue;
    at->executor()->Post([host = &at->host(), group] {
      if (const auto status = host->Status(group)) host->Checkpointed(group, status->applied);
    });
  }
}

std::string ReplicaCluster::Elections() {
  std::string text;
  for (size_t node = 0; node < nodes_.size(); ++node) {
    const std::shared_ptr<ReplicaNode> at = At(node);
    if (at == nullptr) continue;
    replication::HostStatus status;
    at->Run([&] { status = at->host().Status(); });
    for (size_t cause = 0; cause < replication::kElectionCauses; ++cause) {
      if (status.elections[cause] == 0) continue;
      text += Cat(" ", status.elections[cause], " on node ", node + 1, ": ",
                  replication::CauseName(static_cast<replication::ElectionCause>(cause)), ";");
    }
  }
  for (const char* name :
       {"event replication.log_overdue", "event replication.log_closed", "replication.log_full",
        "event replication.peer_lost", "event replication.released", "transport.dropped"}) {
    const int64_t count = metrics_.Of(name);
    if (count > 0) text += Cat(" ", count, " ", name, ";");
  }
  return text;
}

replication::ProposalResult ReplicaCluster::Propose(size_t node, PartitionId group,
                                                    replication::Command command,
                                                    milliseconds timeout) {
  const std::shared_ptr<ReplicaNode> at = At(node);
  if (at == nullptr) return {.status = absl::UnavailableError("the node is down")};
  // Outlives a node that never answers.
  const auto answered = std::make_shared<std::promise<replication::ProposalResult>>();
  auto future = answered->get_future();
  at->executor()->Post([host = &at->host(), group, command = std::move(command), answered] {
    host->Propose(group, command, [answered](replication::ProposalResult result) {
      answered->set_value(std::move(result));
    });
  });
  if (future.wait_for(timeout) == std::future_status::ready) return future.get();
  return {.status = absl::DeadlineExceededError("no answer")};
}

ProbingWriter::ProbingWriter(ReplicaCluster* cluster, PartitionId group)
    : cluster_(cluster), group_(group), thread_([this] { Run(); }) {}

ProbingWriter::~ProbingWriter() {
  stop_ = true;
  thread_.join();
}

void ProbingWriter::Run() {
  for (uint64_t sequence = 1; !stop_; ++sequence) WriteOne(sequence);
}

void ProbingWriter::WriteOne(uint64_t sequence) {
  const uint64_t began_ns = NowNs();
  while (!stop_) {
    const replication::ProposalResult result = cluster_->Propose(target_, group_,
                                                                 {.client = ClientId{1},
                                                                  .sequence = sequence,
                                                                  .acknowledged = sequence - 1,
                                                                  .issued = {},
                                                                  .command = std::string(900, 'v')},
                                                                 kAttempt);
    if (result.status.ok()) {
      const std::lock_guard lock(mutex_);
      last_began_ns_ = began_ns;
      acknowledged_ns_.push_back(NowNs());
      return;
    }
    const size_t hint =
        result.leader_hint.has_value() ? ToUint(result.leader_hint->node) - 1 : cluster_->size();
    // Not back to one that was just found dead, whoever believes in it.
    const bool dead = absl::IsDeadlineExceeded(result.status) || absl::IsUnavailable(result.status);
    const bool go_there = !dead && hint < cluster_->size() && cluster_->Up(hint);
    target_ = go_there && hint != target_ ? hint : (target_ + 1) % cluster_->size();
    std::this_thread::sleep_for(kRetry);
  }
}

absl::StatusOr<double> ProbingWriter::SecondsWithoutWrites(uint64_t since_ns,
                                                           double give_up_after_s) {
  const uint64_t limit_ns = since_ns + static_cast<uint64_t>(give_up_after_s * 1e9);
  while (NowNs() < limit_ns) {
    {
      const std::lock_guard lock(mutex_);
      if (last_began_ns_ > since_ns) {
        auto from = std::upper_bound(acknowledged_ns_.begin(), acknowledged_ns_.end(), since_ns);
        if (from != acknowledged_ns_.begin()) --from;
        uint64_t longest_ns = 0;
        for (auto next = from + 1; next != acknowledged_ns_.end(); ++from, ++next)
          longest_ns = std::max(longest_ns, *next - *from);
        return static_cast<double>(longest_ns) * 1e-9;
      }
    }
    std::this_thread::sleep_for(kRetry);
  }
  return absl::DeadlineExceededError("no write was acknowledged again");
}

}  // namespace dynlib::bench
