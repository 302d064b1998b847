// Creates and deletes tables. Creating places their partitions, makes the replicas, and enters the
// table into the catalogue, in that order, so that every table in the catalogue can be used.
//
//   TableAdmin admin(config, {.client = ..., .catalogue_nodes = config.catalogue_nodes}, &rpc,
//                    executor, clock);
//   admin.CreateTable({.name = "users", .schema = schema, .partitions = 4},
//                     [](absl::Status status) { ... });
//
// Placement: each partition gets one replica in each of three zones (one replica when the cluster
// has one node), on different nodes of each zone in turn; the first member, which leads at first,
// rotates over the zones.
//
// Ids: a table's id and its partitions' ids are drawn from its name, schema, number of partitions,
// and the id of the table that last had the name and was deleted (a hash), so that a creation that
// was cut can be repeated by anybody, every step being idempotent, and one that was cut and given
// up does not stand in the way of another.
//
// Before a creation is answered the metadata nodes are told of the table, so that a router finds it
// at once; those that do not answer hear of it from the auto admin.
//
// Deleting marks the table in the catalogue: routers that read it there find it no more, and the
// auto admin drops the replicas and then the entry. Until then no table of the name can be created.
//
// Errors of CreateTable: kInvalidArgument (a name that is not 3 to 255 characters of a-z A-Z 0-9 _
// - . as DynamoDB's, or is "catalogue"; a bad schema or throughput; not 1 to 2,000 partitions;
// neither one node nor three zones in the cluster), kAlreadyExists (a table of that name with
// another schema, throughput or, when it was not split or merged since, number of partitions: which
// of them, and both values, are in the message; the same again is OK), kUnavailable (it is being
// deleted), kDeadlineExceeded (not finished within the options' timeout: ask again),
// kFailedPrecondition (a node refused a replica), kCancelled (destroyed).
//
// Threads: everything on `executor`; callbacks run there, exactly once, never inline.
#ifndef DYNLIB_CLUSTER_TABLE_ADMIN_H_
#define DYNLIB_CLUSTER_TABLE_ADMIN_H_

#include <cstddef>
#include <memory>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/cluster/catalogue.h"
#include "dynlib/cluster/node_location.h"
#include "dynlib/cluster/router.h"
#include "dynlib/cluster/router_options.h"
#include "dynlib/cluster/table_schema.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/runtime/rpc.h"

namespace dynlib::cluster {

inline constexpr size_t kTablePartitionsMax = 2000;

struct TableSpec {
  std::string name;
  TableSchema schema;
  size_t partitions = 1;
  Throughput throughput;
};

// Where the table's partitions go in this cluster: a function of both, and of the table that last
// had the name, 0 for none. kInvalidArgument as above.
absl::StatusOr<TableInfo> PlaceTable(const ClusterConfig& config, const TableSpec& spec,
                                     TableId predecessor = {});

class TableAdmin {
 public:
  // `options` are those of the router that it uses for the catalogue; the client id must be its
  // own. What is given by pointer outlives it.
  TableAdmin(ClusterConfig config, RouterOptions options, Rpc* rpc, Executor* executor,
             const Clock* clock);
  // Creations that are under way end with kCancelled.
  ~TableAdmin();

  void CreateTable(TableSpec spec, absl::AnyInvocable<void(absl::Status)> done);
  // OK when the table is marked, also if it was before. kNotFound: no table is called so; kAborted:
  // its entry was changed by others between every one of ten reads and writes.
  void DeleteTable(std::string name, absl::AnyInvocable<void(absl::Status)> done);

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_TABLE_ADMIN_H_
