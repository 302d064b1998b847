// What a host tells its metrics sink of, and counts: the events of its groups and of the nodes that
// it hears. docs/impl/replication.md lists them; event_trace.h makes lines of them.
//
// Threads: one executor's.
#ifndef DYNLIB_REPLICATION_HOST_EVENTS_H_
#define DYNLIB_REPLICATION_HOST_EVENTS_H_

#include <array>
#include <cstdint>

#include "absl/status/status.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/metrics.h"
#include "dynlib/replication/group_core.h"
#include "dynlib/replication/liveness.h"

namespace dynlib::replication {

class HostEvents {
 public:
  HostEvents(MetricsSink* metrics, NodeId self) : metrics_(metrics), self_(self) {}

  void Of(PartitionId group, const GroupCore::Event& event);
  void OfPeer(const Liveness::Event& event);
  void ReplicaFailed(PartitionId group, const absl::Status& why);
  void ReplicaLost(PartitionId group);
  void LogClosed(const absl::Status& why);
  // Said at each look; told when it changes (R8).
  void LogHealthIs(bool healthy);
  // The peer's clock breaks the declared bound: no lease by its grants.
  void ClockIsFast(NodeId peer);

  // By ElectionCause, since the object was made.
  const std::array<uint64_t, kElectionCauses>& elections() const { return elections_; }

 private:
  MetricsSink* const metrics_;
  const NodeId self_;
  bool log_healthy_ = true;
  std::array<uint64_t, kElectionCauses> elections_{};
};

}  // namespace dynlib::replication

#endif  // DYNLIB_REPLICATION_HOST_EVENTS_H_
