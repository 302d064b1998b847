// Creates and deletes tables. Creating makes every replica before the table is shown, so that every
// table that routers see can be used.
//
//   TableAdmin admin(config, {.client = ..., .catalogue_nodes = config.catalogue_nodes}, &rpc,
//                    executor, clock);
//   admin.CreateTable({.name = "users", .schema = schema, .partitions = 4},
//                     [](absl::Status status) { ... });
//
// Creation, step by step:
//  1. The catalogue is asked for the name, and every node for what it has.
//  2. The partitions are placed on nodes that answered (table_placement.h), and an id is drawn for
//     the table (table_ids.h), never used before or after.
//  3. The table is entered as one being created, which nobody but admins sees: from here on its
//     replicas are wanted.
//  4. The nodes make the replicas. One that lost two requests in a row is placed around, from step
//  1
//     on, under another id, if its zone has another node, or there is a zone to spare.
//  5. The entry becomes that of a table, if it still is what step 3 wrote.
//  6. The metadata nodes are told of the table, so that a router finds it at once; those that do
//  not
//     answer hear of it from the auto admin.
// A creation that was cut is gone on with by whoever asks for the same table; asked for another
// table of the name, it takes the place of the one that was cut. Of two at once that differ the
// later wins. If nobody asks, the auto admin gives it up (auto_admin.h). What was made for an entry
// that is no more is dropped when a node shows it (orphan_replicas.h).
//
// Deleting marks the table in the catalogue: routers that read it there find it no more, and the
// auto admin drops the replicas and then the entry. Until then no table of the name can be created.
// Nodes that are dead are not waited for: they drop what they have when they come back.
//
// Errors of CreateTable: kInvalidArgument (see Validate of a TableSpec), kAlreadyExists (a table of
// that name with another schema, throughput or, when it was not split or merged since, number of
// partitions: which of them, and both values, are in the message; the same again is OK),
// kUnavailable (it is being deleted), kDeadlineExceeded (not finished within the options' timeout:
// ask again), kFailedPrecondition (a node refused a replica), kCancelled (destroyed).
//
// Threads: everything on `executor`; callbacks run there, exactly once, never inline.
#ifndef DYNLIB_CLUSTER_TABLE_ADMIN_H_
#define DYNLIB_CLUSTER_TABLE_ADMIN_H_

#include <memory>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "dynlib/cluster/node_location.h"
#include "dynlib/cluster/router.h"
#include "dynlib/cluster/router_options.h"
#include "dynlib/cluster/table_placement.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/runtime/rpc.h"

namespace dynlib::cluster {

class TableAdmin {
 public:
  // `options` are those of the router that it uses for the catalogue; the client id must be its
  // own. What is given by pointer outlives it.
  TableAdmin(ClusterConfig config, RouterOptions options, Rpc* rpc, Executor* executor,
             const Clock* clock);
  // Creations that are under way end with kCancelled.
  ~TableAdmin();

  void CreateTable(TableSpec spec, absl::AnyInvocable<void(absl::Status)> done);
  // OK when the table is marked, also if it was before; a creation under way is given up.
  // kNotFound: no table is called so; kAborted: its entry was changed by others between every one
  // of ten reads and writes.
  void DeleteTable(std::string name, absl::AnyInvocable<void(absl::Status)> done);

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_TABLE_ADMIN_H_
