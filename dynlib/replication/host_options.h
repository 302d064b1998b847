// Options of a group host.
#ifndef DYNLIB_REPLICATION_HOST_OPTIONS_H_
#define DYNLIB_REPLICATION_HOST_OPTIONS_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "dynlib/base/time.h"
#include "dynlib/replication/faults_for_test.h"
#include "dynlib/replication/group_core.h"
#include "dynlib/replication/liveness.h"

namespace dynlib::replication {

struct HostOptions {
  GroupOptions group;
  LivenessOptions liveness;
  uint64_t seed = 1;  // for election jitter; any number, best different on each node
  size_t waiting_proposals_max = 100'000;  // a group
  size_t waiting_reads_max = 100'000;      // a group
  // Reads go by the leader's lease, without any message. False, or while no lease is held: by
  // asking a quorum whether it still leads, one round trip that reads share, which relies on no
  // clock.
  bool lease_reads = true;
  Duration read_wait =
      std::chrono::milliseconds(500);  // for the lease and for the read point to be applied
  Duration log_overdue =
      std::chrono::seconds(1);  // a sync that takes longer ends support for this node (R8)
  Duration log_probe = std::chrono::milliseconds(
      500);  // an idle log is written this often, so that a hung disk shows
  Duration session_expiry =
      std::chrono::hours(1);  // a silent client's results are kept at least this long
  Duration rest_after =
      std::chrono::seconds(1);  // a group that nothing was asked of for so long is kept as a small
                                // record, if it may rest; 0: at once; up to 1 hour
  size_t wakes_at_once = 512;   // groups at rest whose leader's node was lost elect another so many
                                // at a time, and those at once that something is asked of
  size_t entry_memory_kept =
      32
      << 20;  // bytes of the log in memory, for all groups, that are kept when they are let go of
  size_t entry_memory_at_start =
      0;  // of that, what is there from the start: no commit waits for the system to give it
  uint64_t reads_version = 1;  // the highest version of commands that the state machines here read:
                               // see StateMachine::version; at least 1
  FaultsForTest faults;        // also handed to the groups and to liveness
};
absl::Status Validate(const HostOptions& options);

}  // namespace dynlib::replication

#endif  // DYNLIB_REPLICATION_HOST_OPTIONS_H_
