// The requests that a storage node answers about its replicas themselves: made, dropped, fed, their
// groups' members changed, split and merged, and what they are doing. The auto admin asks them.
//
// What has to be done by a group's leader is refused elsewhere with FAILED_PRECONDITION. All may be
// repeated: what is so already is OK.
//
// Internal to the cluster.
//
// Threads: everything on the node's executor.
#ifndef DYNLIB_CLUSTER_REPLICA_SERVICE_H_
#define DYNLIB_CLUSTER_REPLICA_SERVICE_H_

#include <map>
#include <memory>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/node_location.h"
#include "dynlib/cluster/replica_set.h"
#include "dynlib/replication/group_host.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/runtime/rpc.h"
#include "dynlib/store/page_file.h"
#include "dynlib/store/range_stats.h"

namespace dynlib::cluster {

class ReplicaService : public std::enable_shared_from_this<ReplicaService> {
 public:
  struct Parts {
    NodeId self{};
    const ClusterConfig* config = nullptr;
    uint64_t incarnation = 0;  // tells this life of the node from others
    ReplicaSet* replicas = nullptr;
    replication::GroupHost* host = nullptr;
    store::PageFile* pages = nullptr;
    Executor* executor = nullptr;
    Executor* file_executor = nullptr;
    const Clock* clock = nullptr;
  };
  // Adds what it knows of the load on a partition that this node leads.
  using LoadOf = absl::AnyInvocable<void(PartitionId, wire::ReplicaStatus&)>;

  explicit ReplicaService(Parts parts) : parts_(parts) {}

  void Register(Rpc* rpc);
  void SetLoad(LoadOf load) { load_ = std::move(load); }
  void Stop() { stopped_ = true; }

 private:
  // How large a led partition is; refreshed no more often than once a second.
  struct Size {
    store::RangeStats stats;
    Instant at;
    bool measuring = false;
  };

  template <typename Request, typename Reply>
  void Handle(Rpc* rpc, Rpc::Method method,
              void (ReplicaService::*handler)(const Request&, Rpc::Reply));
  void CreateReplica(const wire::CreateReplicaRequest& request, Rpc::Reply reply);
  void DropReplica(const wire::DropReplicaRequest& request, Rpc::Reply reply);
  void AddLearner(const wire::AddLearnerRequest& request, Rpc::Reply reply);
  void ChangeMembers(const wire::ChangeMembersRequest& request, Rpc::Reply reply);
  void RaiseVersion(const wire::RaiseVersionRequest& request, Rpc::Reply reply);
  void Split(const wire::SplitRequest& request, Rpc::Reply reply);
  void Merge(const wire::MergeRequest& request, Rpc::Reply reply);
  absl::StatusOr<google::protobuf::RepeatedPtrField<wire::Member>> MergedMembers(
      const wire::MergeRequest& request, const replication::Configuration& own, const Replica& left,
      const Replica& right) const;
  template <typename ReplyMessage>
  void ProposeEnd(const Replica& replica, const wire::WriteCommand& command, Rpc::Reply reply);
  void NodeStatus(const wire::NodeStatusRequest& request, Rpc::Reply reply);
  void Describe(const Replica& replica, wire::ReplicaStatus& to);
  const Size& SizeOf(const Replica& replica);

  const Parts parts_;
  LoadOf load_;
  std::map<PartitionId, Size> sizes_;
  bool stopped_ = false;
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_REPLICA_SERVICE_H_
