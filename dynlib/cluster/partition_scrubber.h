// One scrub of one partition over its storage replicas, from the marker to the repairs.
//
// Internal to cluster: see scrubber.h. Threads: everything on the executor.
#ifndef DYNLIB_CLUSTER_PARTITION_SCRUBBER_H_
#define DYNLIB_CLUSTER_PARTITION_SCRUBBER_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/time.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/node_statuses.h"
#include "dynlib/cluster/scrubber.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/runtime/rpc.h"
#include "dynlib/scrub/scrub_session.h"
#include "dynlib/scrub/types.h"

namespace dynlib::cluster {

class PartitionScrubber : public std::enable_shared_from_this<PartitionScrubber> {
 public:
  struct Parts {
    ScrubberOptions options;
    std::vector<NodeId> nodes;
    Rpc* rpc = nullptr;
    Executor* executor = nullptr;
    const Clock* clock = nullptr;
    MetricsSink* metrics = nullptr;
    // A new id for each marker, higher than those before.
    absl::AnyInvocable<uint64_t()> next_scrub;
  };

  PartitionScrubber(Parts parts, PartitionId partition,
                    absl::AnyInvocable<void(PartitionScrub)> done);
  void Start();
  // Nothing happens any more; `done` is not called.
  void Close();

 private:
  struct Member {
    ReplicaId replica{};
    NodeId node{};
  };
  // The items and ranges of one bad copy that one good copy can put right.
  using RepairKey = std::pair<NodeId, NodeId>;  // bad, good
  using Repairs = std::map<RepairKey, wire::RepairRequest>;

  template <typename Callback>
  auto Guard(Callback callback);
  void Begin();
  // False if the partition cannot be scrubbed.
  absl::Status Choose(const NodeStatuses& statuses);
  void Mark();
  void OnMarked(absl::StatusOr<std::string> result);
  void Compare(Slot marker);
  void Pump();
  void Send(const scrub::Request& request);
  void OnAnswer(uint64_t request, NodeId node, absl::StatusOr<std::string> result);
  void OnFinding(const scrub::Finding& finding);
  void ReportFinding(const scrub::Finding& finding);
  void PlanRepair(const scrub::Finding& finding);
  void EndSession(absl::Status status);
  void RepairNext();
  void OnRepaired(const RepairKey& key, absl::StatusOr<std::string> result, uint64_t parts);
  void Release();
  void AfterSession();
  void Again(const absl::Status& why);
  void Finish(absl::Status status);
  NodeId NodeOf(ReplicaId replica) const;
  void Event(std::string_view name, std::vector<EventField> fields);
  void RunIn(Duration delay, void (PartitionScrubber::*what)());

  Parts parts_;
  absl::AnyInvocable<void(PartitionScrub)> done_;
  PartitionScrub result_;
  bool closed_ = false;
  Executor::TimerId timer_ = Executor::kNoTimer;

  uint32_t markers_ = 0;
  uint64_t scrub_ = 0;
  NodeId leader_{};
  std::vector<Member> members_;
  std::string first_;
  std::string end_;
  uint64_t expected_bytes_ = 0;

  scrub::ScrubCursor cursor_;
  std::unique_ptr<scrub::ScrubSession> session_;
  uint64_t turn_ = 0;  // tells a session's answers from earlier ones
  absl::Status session_status_;
  size_t differences_reported_ = 0;
  std::set<std::string> damage_reported_;
  Repairs repairs_;
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_PARTITION_SCRUBBER_H_
