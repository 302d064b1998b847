// The node log of the store block, as the replica log that the replication block asks for.
#ifndef DYNLIB_CLUSTER_NODE_LOG_ADAPTER_H_
#define DYNLIB_CLUSTER_NODE_LOG_ADAPTER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/replication/replica_log.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/store/node_log.h"
#include "dynlib/store/node_log_record.h"

namespace dynlib::cluster {

// Threads: one executor's.
class NodeLogAdapter : public replication::ReplicaLog {
 public:
  // `appended` is called with the bytes of each append.
  NodeLogAdapter(store::NodeLog* log, size_t append_bytes_max, Executor* executor,
                 std::function<void(size_t)> appended);

  size_t append_bytes_max() const override { return append_bytes_max_; }
  void Append(std::vector<replication::LogFrame> frames,
              absl::AnyInvocable<void(absl::Status)> done) override;
  void Release(PartitionId group, Slot through) override;
  std::optional<Instant> OldestPendingSince() const override;

 private:
  store::NodeLog* const log_;
  const size_t append_bytes_max_;
  Executor* const executor_;
  const std::function<void(size_t)> appended_;
};

// Where the log keeps what a partition's replica writes.
store::StreamId StreamOf(PartitionId group);

// Each partition's stream, and the node's own under PartitionId{0}; empty if the log has none.
replication::RecoveredStream TakeStream(store::NodeLog::Recovery& recovery, PartitionId group);

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_NODE_LOG_ADAPTER_H_
