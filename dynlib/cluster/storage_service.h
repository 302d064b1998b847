// The requests that a storage node answers about its replicas' items.
//
// It checks what comes from the network, asks admission control, asks the group for a write or a
// lease read, and turns what happened into the Outcome of a reply.
//
// Threads: everything on the node's executor; the bodies of reads run on the apply executor.
#ifndef DYNLIB_CLUSTER_STORAGE_SERVICE_H_
#define DYNLIB_CLUSTER_STORAGE_SERVICE_H_

#include <memory>
#include <string>
#include <string_view>

#include "dynlib/base/ids.h"
#include "dynlib/cluster/node_admission_control.h"
#include "dynlib/cluster/replica.h"
#include "dynlib/cluster/replica_set.h"
#include "dynlib/cluster/routing_record.h"
#include "dynlib/replication/group_host.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/runtime/rpc.h"

namespace dynlib::cluster {

class StorageService {
 public:
  StorageService(const ReplicaSet* replicas, replication::GroupHost* host,
                 const RoutingRecords* records, NodeAdmissionControl* admission, Executor* executor,
                 Executor* apply_executor, bool condition_at_leader_for_test);

  // Registers kWrite, kRead and kQuery.
  void Register(Rpc* rpc);
  // From now on every request is answered with CANCELLED.
  void Stop() { stopped_ = true; }

 private:
  void Write(const std::string& bytes, Rpc::Reply reply);
  void Read(const std::string& bytes, Rpc::Reply reply);
  void Query(const std::string& bytes, Rpc::Reply reply);
  absl::StatusOr<std::shared_ptr<Replica>> Find(uint64_t partition) const;
  NodeId LeaderOf(PartitionId partition) const;
  std::string Newest(uint64_t partition, uint64_t table, std::string_view key) const;

  const ReplicaSet* const replicas_;
  replication::GroupHost* const host_;
  const RoutingRecords* const records_;
  NodeAdmissionControl* const admission_;
  Executor* const executor_;
  Executor* const apply_executor_;
  const bool condition_at_leader_;
  bool stopped_ = false;
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_STORAGE_SERVICE_H_
