// Admission control of a storage node: each request about items is admitted by its partition, by
// the node, and, for writes beyond a partition's own capacity, by the nodes of the other replicas
// (dynlib/admission has the rules).
//
//   DYNLIB_ASSIGN_OR_RETURN(auto control, NodeAdmissionControl::Create(options, parts));
//   control->Start(&rpc);
//   ...
//   absl::StatusOr<AdmittedRequest> request = control->AdmitRead(partition, key, strong);
//   if (!request.ok()) return Send(reply, request.status());   // RetryAfter(status) says when
//   ... read ...
//   outcome.set_consumed_milliunits(request->Finish(item.size()));
//
// Costs (request_units.h): a write its item's bytes before the log sees it, a deletion one unit; a
// read one unit or half of one beforehand, and what it really read afterwards. The table
// "catalogue" is never throttled: the cluster is run through it. A write is admitted where its
// group is led; elsewhere it passes, and is refused for that.
//
// Peers. Every peers_interval a node tells each node that it shares written partitions with how
// much it made that node's replicas write, which takes it from the node's bucket there, and hears
// what is left, which bounds what its own partitions' bursts may add until the next time
// (kNodeLoad). A node that is not heard is not asked: it writes nothing.
//
// Counted: "node.throttled".
//
// Internal to the cluster.
//
// Threads: the node's executor; an AdmittedRequest may be finished on any thread.
#ifndef DYNLIB_CLUSTER_NODE_ADMISSION_CONTROL_H_
#define DYNLIB_CLUSTER_NODE_ADMISSION_CONTROL_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/admission/node_admission.h"
#include "dynlib/admission/partition_admission.h"
#include "dynlib/admission/request_units.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/time.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/node_admission_options.h"
#include "dynlib/cluster/partition_load.h"
#include "dynlib/cluster/replica_set.h"
#include "dynlib/replication/group_host.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/runtime/rpc.h"

namespace dynlib::cluster {

// A request that was let in. One of the two is to be called, once.
class AdmittedRequest {
 public:
  // It was carried out; a read read `bytes`. Returns what it cost, in thousandths of a unit.
  uint64_t Finish(uint64_t bytes = 0);
  // It was not: nothing was logged or read.
  void Undo();

 private:
  friend class NodeAdmissionControl;
  std::shared_ptr<PartitionLoad> load_;  // null: it costs nothing here
  const Clock* clock_ = nullptr;
  admission::Admission admission_;
  admission::Consistency consistency_ = admission::Consistency::kStrong;
  uint64_t hash_ = 0;
};

class NodeAdmissionControl : public std::enable_shared_from_this<NodeAdmissionControl> {
 public:
  struct Parts {
    NodeId self{};
    const ReplicaSet* replicas = nullptr;
    const replication::GroupHost* host = nullptr;
    Executor* executor = nullptr;
    const Clock* clock = nullptr;
    MetricsSink* metrics = nullptr;
  };

  // Errors: `options`, as Validate.
  static absl::StatusOr<std::shared_ptr<NodeAdmissionControl>> Create(
      const NodeAdmissionOptions& options, Parts parts);

  // Answers kNodeLoad, and asks it. `rpc` lives until Stop.
  void Start(Rpc* rpc);
  void Stop();

  // kResourceExhausted, with a time to come back: throttled, by what the message names.
  // `item_bytes`: 0 for a deletion.
  absl::StatusOr<AdmittedRequest> AdmitWrite(PartitionId partition, std::string_view key,
                                             uint64_t item_bytes);
  absl::StatusOr<AdmittedRequest> AdmitRead(PartitionId partition, std::string_view key,
                                            bool strong);

  // The replica came or went, or its group has another leader or other members.
  void OnChange(PartitionId partition);
  // For ReplicaService::SetLoad.
  void Describe(PartitionId partition, wire::ReplicaStatus& to);

 private:
  struct Entry {
    std::shared_ptr<PartitionLoad> load;
    bool leads = false;
    std::vector<NodeId> peers;   // of a leader: the other members that are heard
    int64_t written_halves = 0;  // as of when the peers were last charged
  };
  // Another node, as a leader here sees it.
  struct Peer {
    admission::PeerNode* bucket = nullptr;
    int64_t written_halves = 0;  // by its replicas for leaders here, not yet told
    Instant last_written;
    Instant last_asked;
    bool asking = false;
  };

  NodeAdmissionControl(const NodeAdmissionOptions& options, Parts parts,
                       std::shared_ptr<admission::NodeAdmission> node);
  absl::StatusOr<AdmittedRequest> Admit(PartitionId partition, admission::Operation operation,
                                        admission::RequestUnits units,
                                        admission::Consistency consistency, std::string_view key);
  absl::Status Refusal(PartitionId partition, const Entry& entry,
                       const admission::Admission& refused);
  void Tick();
  void ChargePeers(Entry& entry, Instant now);
  void Ask(NodeId node, Peer& peer);
  void NodeLoad(const std::string& bytes, Rpc::Reply reply);

  const NodeAdmissionOptions options_;
  const Parts parts_;
  const std::shared_ptr<admission::NodeAdmission> node_;
  std::map<PartitionId, Entry> entries_;
  std::map<NodeId, Peer> peers_;
  Rpc* rpc_ = nullptr;
  Executor::TimerId timer_ = Executor::kNoTimer;
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_NODE_ADMISSION_CONTROL_H_
