// The replication block: Multi-Paxos groups with leader leases over one shared log. See
// group_host.h for the tour.
#ifndef DYNLIB_REPLICATION_REPLICATION_H_
#define DYNLIB_REPLICATION_REPLICATION_H_

#include "dynlib/replication/event_trace.h"    // IWYU pragma: export
#include "dynlib/replication/group_host.h"     // IWYU pragma: export
#include "dynlib/replication/replica_log.h"    // IWYU pragma: export
#include "dynlib/replication/state_machine.h"  // IWYU pragma: export
#include "dynlib/replication/types.h"          // IWYU pragma: export

#endif  // DYNLIB_REPLICATION_REPLICATION_H_
