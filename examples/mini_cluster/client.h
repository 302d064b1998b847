// A client of the mini-cluster: an endpoint of its own on the network, a router on it, and waiting
// forms of what a program with a thread to spare wants to do.
//
//   Client client(cluster.get(), {.id = NodeId{1000}, .client = ClientId{random}});
//   absl::Status made = client.CreateTable({.name = "users", .schema = schema, .partitions = 4});
//   client.executor().Post([&] { client.router().Put(...); });
//
// Threads: router() and rpc() on executor(); the waiting forms on any other thread.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_CLIENT_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_CLIENT_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/cluster/catalogue.h"
#include "dynlib/cluster/item.h"
#include "dynlib/cluster/key.h"
#include "dynlib/cluster/router.h"
#include "dynlib/cluster/router_options.h"
#include "dynlib/cluster/router_types.h"
#include "dynlib/cluster/table_admin.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/posix/thread_executor.h"
#include "dynlib/runtime/rpc.h"
#include "dynlib/runtime/transport.h"
#include "examples/mini_cluster/counters.h"
#include "examples/mini_cluster/mini_cluster.h"
#include "examples/mini_cluster/switches.h"

namespace dynlib::mini_cluster {

// What a node says of one of its replicas.
struct ReplicaState {
  NodeId node{};
  PartitionId partition{};
  TableId table{};
  ReplicaId replica{};
  uint64_t epoch = 0;  // of the members that it knows
  std::vector<cluster::PartitionMember> members;
  std::string first;
  std::string end;
  bool leads = false;      // it won the last election that it knows of
  bool supported = false;  // by a quorum; a leader that nobody asks for anything may not
  bool failed = false;
  bool removed = false;  // its group goes on without it
  bool copying = false;  // its tree is not whole yet
  bool log = false;      // it has no tree
  bool ended = false;    // its partition was split or merged
  uint64_t chosen = 0;
  uint64_t applied = 0;
  // Of a leader.
  double read_units = 0;   // a second
  double write_units = 0;  // a second
  uint64_t throttled = 0;  // requests, since the node's start
};

// What a scrub found, over all partitions that it compared.
struct ScrubReport {
  size_t partitions = 0;
  uint64_t items = 0;
  uint64_t bytes = 0;
  uint64_t differences = 0;
  uint64_t repaired = 0;
  uint64_t unrepaired = 0;
  std::vector<std::string> failures;  // partitions that could not be compared, and why
};

class Client {
 public:
  struct Options {
    NodeId id{1000};    // its address; no node's
    ClientId client{};  // never used before
    size_t max_in_flight = 1000;
    Duration timeout = std::chrono::seconds(20);  // other work may keep the machine busy
    uint64_t seed = 1;
    Switches switches = {};
  };

  Client(MiniCluster* cluster, const Options& options);
  ~Client();

  Executor& executor() { return executor_; }
  cluster::Router& router() { return *router_; }
  const Clock& clock() const { return *cluster_->clock(); }

  absl::Status CreateTable(const cluster::TableSpec& spec);
  absl::StatusOr<std::optional<cluster::Item>> Get(const std::string& table,
                                                   cluster::PrimaryKey key);
  absl::StatusOr<cluster::QueryPage> RunQuery(cluster::Query query);

  // As the catalogue has the table now.
  absl::StatusOr<cluster::TableInfo> ReadTable(const std::string& table);

  // What each node that answers says of its replicas.
  std::vector<ReplicaState> GetReplicas();
  // The same by partition.
  using States = std::map<PartitionId, std::vector<ReplicaState>>;
  States GetStates();

  // Waits until each partition of the table, as the catalogue has it by then, has a leader and
  // three storage replicas on nodes that answer, with all applied that was chosen when they were
  // first seen so. Returns the table.
  absl::StatusOr<cluster::TableInfo> WaitUntilWhole(const std::string& table, Duration limit);
  // The same of a table whose partitions stay where they are.
  absl::Status WaitUntilCaughtUp(const cluster::TableInfo& table, Duration limit);

  struct MetadataState {
    uint64_t look_ups = 0;        // of all metadata nodes together, since each was started
    uint64_t partitions_min = 0;  // that the one that knows the fewest knows
    uint64_t tables_min = 0;
  };
  absl::StatusOr<MetadataState> GetMetadataState();
  // How often the router counted this; see router.h.
  int64_t Counted(const std::string& name) const { return counters_.Value(name); }

  // Compares the replicas of a partition, or of all for PartitionId{0}, and repairs what is bad.
  absl::StatusOr<ScrubReport> ScrubNow(PartitionId partition);

  // Every item of the partition that this one replica has, in the order of the storage keys.
  absl::Status ScanReplica(
      const cluster::PartitionInfo& partition, NodeId node,
      absl::FunctionRef<void(const std::string& key, const std::string& item)> visit);

 private:
  absl::StatusOr<std::string> Call(NodeId node, Rpc::Method method, std::string request,
                                   Duration timeout);

  MiniCluster* const cluster_;
  Counters counters_;
  ThreadExecutor executor_;
  std::unique_ptr<Transport> transport_;
  std::unique_ptr<Rpc> rpc_;
  std::unique_ptr<cluster::Router> router_;
  std::unique_ptr<cluster::TableAdmin> admin_;
};

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_CLIENT_H_
