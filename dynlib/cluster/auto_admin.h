// The auto admin: keeps every partition on as many healthy replicas as it should have.
//
//   AutoAdmin admin({.router = {...}}, config, &rpc, executor, &clock, metrics,
//                   [&] { return node->LeadsCatalogue(); });
//   admin.Start();
//
// One runs beside each replica of the catalogue, and acts only while that replica leads: so it is
// as available as a partition. It keeps nothing. Each round it asks every node what it has, reads
// the catalogue, lets PlanAdmin say what is next (admin_planner.h), and asks for it; what fails is
// seen, and tried again, in a later round. Rounds follow one another quickly while there is
// something to do, and at `interval` otherwise, with the same work in each: nodes asked, catalogue
// read, tables told to metadata nodes.
//
// Besides, it tidies up after creations of tables (table_admin.h). One whose entry nobody has
// written for `give_up_after` is given up, as if its table had been deleted. Replicas of tables
// that the catalogue does not know any more are dropped (orphan_replicas.h says when that is safe).
//
// Two that act at a time, for a leader that does not know yet that it was deposed, harm nothing:
// see the planner.
//
// Counted: "admin.rounds", "admin.actions", "admin.failed_actions". Events, for people and for
// measuring: "admin.node_dead", "admin.node_back", "admin.move_planned", "admin.learner_made",
// "admin.members_changed", "admin.split", "admin.merge", "admin.replica_dropped",
// "admin.table_changed", "admin.table_removed".
//
// Threads: everything on `executor`. Ownership: what is given by pointer outlives it.
#ifndef DYNLIB_CLUSTER_AUTO_ADMIN_H_
#define DYNLIB_CLUSTER_AUTO_ADMIN_H_

#include <chrono>
#include <cstddef>
#include <memory>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/time.h"
#include "dynlib/cluster/node_location.h"
#include "dynlib/cluster/planner_options.h"
#include "dynlib/cluster/router_options.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/runtime/rpc.h"

namespace dynlib::cluster {

struct AutoAdminOptions {
  RouterOptions router;  // for the catalogue; with a client id of its own
  PlannerOptions planner;
  Duration interval = std::chrono::milliseconds(500);  // between rounds at rest; 10 ms to 10 min
  Duration busy_interval = std::chrono::milliseconds(50);  // with something to do; 1 ms to interval
  // A node that for this long has answered nothing, or that its log takes nothing (a disk that
  // hangs, is full, or failed), is as good as dead: its replicas are replaced. At least twice the
  // interval, up to 1 hour.
  Duration death_after = std::chrono::seconds(2);
  // A creation of which nothing was heard for so long is given up. 1 s to 24 h.
  Duration give_up_after = std::chrono::minutes(1);
  Duration call_timeout = std::chrono::milliseconds(500);  // of one request; 1 ms to 10 min
  size_t actions_max = 1000;                               // a round; 1 to 10,000
};
// kInvalidArgument naming the field, its value and what is allowed.
absl::Status Validate(const AutoAdminOptions& options);

class AutoAdmin {
 public:
  // `options` must be valid (DYNLIB_CHECK). `may_act` is asked before each round and each action.
  AutoAdmin(AutoAdminOptions options, ClusterConfig config, Rpc* rpc, Executor* executor,
            const Clock* clock, MetricsSink* metrics, absl::AnyInvocable<bool()> may_act);
  ~AutoAdmin();

  void Start();

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_AUTO_ADMIN_H_
