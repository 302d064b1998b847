// Creates tables: places their partitions, makes the replicas, and enters the table into the
// catalogue, in that order, so that every table in the catalogue can be used.
//
//   TableAdmin admin(config, {.client = ...}, &rpc, executor, clock);
//   admin.CreateTable({.name = "users", .schema = schema, .partitions = 4}, [](absl::Status status)
//   { ... });
//
// Placement: each partition gets one replica in each of three zones (of one when the cluster has
// one node), spread over the nodes of each zone; the first member, which leads at first, rotates.
//
// Ids: a table's id and its partitions' ids are drawn from the name (a hash), so that a creation
// that was cut can be repeated by anybody: every step is idempotent.
//
// Errors: kInvalidArgument (name of 3 to 255 characters of a-z A-Z 0-9 _ - . as DynamoDB's, schema,
// 1 to 256 partitions, fewer than three zones in the cluster), kAlreadyExists (a table of that name
// with another schema or partition count; the same again is OK), kDeadlineExceeded (not finished:
// ask again).
//
// Threads: everything on `executor`; callbacks run there, exactly once, never inline.
#ifndef DYNLIB_CLUSTER_TABLE_ADMIN_H_
#define DYNLIB_CLUSTER_TABLE_ADMIN_H_

#include <cstddef>
#include <memory>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "dynlib/cluster/node_location.h"
#include "dynlib/cluster/router.h"
#include "dynlib/cluster/table_schema.h"

namespace dynlib::cluster {

struct TableSpec {
  std::string name;
  TableSchema schema;
  size_t partitions = 1;
};

class TableAdmin {
 public:
  // `options` are those of the router that it uses for the catalogue; the client id must be its
  // own.
  TableAdmin(ClusterConfig config, RouterOptions options, Rpc* rpc, Executor* executor,
             const Clock* clock);
  ~TableAdmin();

  void CreateTable(TableSpec spec, absl::AnyInvocable<void(absl::Status)> done);

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_TABLE_ADMIN_H_
