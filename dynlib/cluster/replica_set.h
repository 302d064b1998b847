// The replicas on a storage node: found, made, and taken part with in their groups.
//
// Each has a tree in the page file, which keeps its description, and a stream in the node log.
//
// Threads: Load and MakeDurable block on files, before the node runs; everything else on the node's
// executor.
#ifndef DYNLIB_CLUSTER_REPLICA_SET_H_
#define DYNLIB_CLUSTER_REPLICA_SET_H_

#include <map>
#include <memory>
#include <set>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/cluster/replica.h"
#include "dynlib/replication/group_host.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/store/node_log.h"
#include "dynlib/store/page_file.h"

namespace dynlib::cluster {

using ReplicaMap = std::map<PartitionId, std::shared_ptr<Replica>>;

class ReplicaSet : public std::enable_shared_from_this<ReplicaSet> {
 public:
  using Done = absl::AnyInvocable<void(absl::Status)>;

  struct Parts {
    NodeId self{};
    store::PageFile* pages = nullptr;
    replication::GroupHost* host = nullptr;
    Executor* executor = nullptr;
    Executor* file_executor = nullptr;
    Executor* apply_executor = nullptr;
  };

  explicit ReplicaSet(Parts parts) : parts_(parts) {}

  // Reads what every tree of the page file says of its replica. kDataLoss if one does not.
  absl::Status Load();
  // Makes a replica's tree and a checkpoint with it, unless it is there.
  absl::Status MakeDurable(std::string description);
  // Lets every replica take part in its group, with what the log had of it.
  absl::Status AddGroups(store::NodeLog::Recovery recovery);

  // Makes a replica and lets it take part once it is durable: a vote of a replica that is forgotten
  // would be a lost vote (rule R3). OK again for the same description.
  //   kInvalidArgument  the description, or it does not name this node
  //   kAlreadyExists    the partition is here with another description
  //   kUnavailable      it is being made
  //   kCancelled        stopped meanwhile
  void Create(const std::string& description, Done done);

  std::shared_ptr<Replica> Find(PartitionId partition) const;
  const ReplicaMap& replicas() const { return replicas_; }

  void Stop() { stopped_ = true; }

 private:
  absl::StatusOr<std::shared_ptr<Replica>> MakeTree(std::string description);
  absl::Status FinishCreate(PartitionId partition, absl::StatusOr<std::shared_ptr<Replica>> made);
  absl::Status AddGroup(Replica& replica, const replication::RecoveredStream& recovered);

  const Parts parts_;
  ReplicaMap replicas_;
  std::set<PartitionId> creating_;
  bool stopped_ = false;
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_REPLICA_SET_H_
