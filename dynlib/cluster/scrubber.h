// The scrubber: compares the storage replicas of every partition, in turn and for ever, names the
// bad copy of what differs, and has it repaired.
//
//   Scrubber scrubber({.interval = 24h}, nodes, &rpc, executor, &clock, metrics,
//                     [&] { return node->LeadsCatalogue(); });
//   scrubber.Start();
//   scrubber.ScrubNow(partition, [](ScrubResult result) { ... });
//
// One is beside each auto admin, and acts only while that one does. A scrub of a partition: its
// leader logs a marker, each storage replica pins its version at just that slot (rule R12), a
// ScrubSession compares the pinned versions, and what differs is repaired on the node with the bad
// copy from one with a good copy. Log replicas have nothing to compare. A partition with fewer than
// two storage replicas that are whole is passed over until its next turn.
//
// When a replica lost its pin (it was restarted), or leaves, the scrub goes on from its cursor with
// a new marker and the members of that time.
//
// Times of the last scrubs are not kept: a scrubber that begins to act spreads the partitions
// evenly over one interval.
//
// Events, for people and for measuring:
//   "scrub.started"     {partition, members, marker}
//   "scrub.difference"  {partition, key, bad, node, why}   bad: replica; node: of it; both empty
//                                                     when nobody is to blame
//   "scrub.damage"      {partition, node, what}            a page; names file and offset
//   "scrub.repaired"    {partition, node, items}
//   "scrub.rebuild"     {partition, node}                  that replica will be replaced as a whole
//   "scrub.repair_failed" {partition, node, why}
//   "scrub.finished"    {partition, replicas, items, differences, repaired, status}
// Counted: "scrub.partitions", "scrub.items", "scrub.bytes", "scrub.differences", "scrub.repaired",
// "scrub.unrepaired", "scrub.vanished" (ranges that differed when digested and did not when
// listed: a replica that reads different things at different times), "scrub.failed".
//
// Threads: everything on `executor`. Ownership: what is given by pointer outlives it.
#ifndef DYNLIB_CLUSTER_SCRUBBER_H_
#define DYNLIB_CLUSTER_SCRUBBER_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/time.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/runtime/rpc.h"

namespace dynlib::cluster {

struct ScrubberOptions {
  bool enabled = true;                         // false: only when asked by ScrubNow
  bool repair = true;                          // false: what differs is reported and left as it is
  Duration interval = std::chrono::hours(24);  // between scrubs of a partition; 100 ms to 100 days
  uint64_t bytes_per_second = 16 << 20;        // that each replica reads; 1,024 to 100 GB
  Duration call_timeout = std::chrono::seconds(10);  // of one request; 10 ms to 10 min
  Duration retry_delay = std::chrono::seconds(1);    // after one that failed; 1 ms to 10 min
  uint32_t markers_max = 5;  // of one scrub, as replicas lose theirs; 1 to 100
};
// kInvalidArgument naming the field, its value and what is allowed.
absl::Status Validate(const ScrubberOptions& options);

// What came of one partition.
struct PartitionScrub {
  PartitionId partition{};
  // OK: everything was compared. kFailedPrecondition: there are no two whole storage replicas, or
  // the partition ended; else what went wrong.
  absl::Status status;
  Slot marker = 0;      // the last
  size_t replicas = 0;  // compared with each other to the end
  uint64_t items = 0;
  uint64_t bytes = 0;
  uint64_t differences = 0;
  uint64_t vanished = 0;
  uint64_t repaired = 0;
  uint64_t unrepaired = 0;  // differences that are left, whatever the reason
};

struct ScrubResult {
  // kFailedPrecondition: another node's scrubber acts. kNotFound: no such partition.
  // kResourceExhausted: too many wait. kCancelled: destroyed.
  absl::Status status;
  std::vector<PartitionScrub> partitions;
};

class Scrubber {
 public:
  using Done = absl::AnyInvocable<void(ScrubResult)>;

  // `options` must be valid (DYNLIB_CHECK). `may_act` is asked before each scrub.
  Scrubber(ScrubberOptions options, std::vector<NodeId> nodes, Rpc* rpc, Executor* executor,
           const Clock* clock, MetricsSink* metrics, absl::AnyInvocable<bool()> may_act);
  // Who waits for ScrubNow gets kCancelled.
  ~Scrubber();

  // Serves kScrubNow.
  void Register(Rpc* rpc);
  void Start();

  // Scrubs a partition, or all for PartitionId{0}, behind what is under way.
  void ScrubNow(PartitionId partition, Done done);

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_SCRUBBER_H_
