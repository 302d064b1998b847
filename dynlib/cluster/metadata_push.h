// Tells the metadata nodes which partitions this storage node leads.
//
//   MetadataPush push({}, config.metadata_nodes, source, &rpc, executor, clock, metrics);
//   push.OnChange(partition);     // its role, leader, configuration or end changed here
//
// A change goes to every metadata node within `coalesce`. And every push_interval everything that
// this node leads goes to every one of them, whether anything changed or not: so a lost message, a
// metadata node that was away, or a bug that lost a record heals by itself within a period, and the
// load is the same on a quiet day and on the worst one. A metadata node whose replies show a new
// incarnation has forgotten everything, and gets all at once.
//
// Bounds: a message has batch_bytes of records at most (or one record); one message is under way to
// each metadata node; a partition waits once for each, however often it changes.
//
// A message that is not answered is sent once more, with what the records say then; if that fails
// too, its records wait for the next push of all.
//
// Counted: "push.batches", "push.records", "push.failures" (not answered), "push.refused"
// (answered, but some record was refused).
//
// Threads: everything on `executor`. Ownership: what is given by pointer outlives it.
#ifndef DYNLIB_CLUSTER_METADATA_PUSH_H_
#define DYNLIB_CLUSTER_METADATA_PUSH_H_

#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/time.h"
#include "dynlib/partition_map/partition_record.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/runtime/rpc.h"

namespace dynlib::cluster {

struct MetadataPushOptions {
  Duration push_interval = std::chrono::seconds(5);        // 10 ms to 10 min
  Duration coalesce = std::chrono::milliseconds(20);       // 0 to push_interval
  Duration call_timeout = std::chrono::milliseconds(500);  // 1 ms to 10 min
  size_t batch_bytes = 64 << 10;                           // 1 KiB to 1 MiB
};
// kInvalidArgument naming the field, its value and what is allowed.
absl::Status Validate(const MetadataPushOptions& options);

class MetadataPush {
 public:
  // What is to be told of the node's partitions, as of now.
  struct Source {
    // The partitions that this node leads (with its lease) and whose log has not ended.
    absl::AnyInvocable<std::vector<PartitionId>()> led;
    // The record of one of them; nothing if it is not, or not any more.
    absl::AnyInvocable<std::optional<partition_map::PartitionRecord>(PartitionId)> record;
  };

  // `options` must be valid (DYNLIB_CHECK).
  MetadataPush(const MetadataPushOptions& options, const std::vector<NodeId>& metadata_nodes,
               Source source, Rpc* rpc, Executor* executor, const Clock* clock,
               MetricsSink* metrics = MetricsSink::None());
  ~MetadataPush();

  void OnChange(PartitionId partition);

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_METADATA_PUSH_H_
