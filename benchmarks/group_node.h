// A node that replicates maps: the replication block alone over a node log on real files, on one
// event loop.
//
// The log's writes are the loop's blocking tasks, so a commit needs no hand-over between threads on
// a node; see dynlib/runtime/posix/event_loop.h.
#ifndef DYNLIB_BENCHMARKS_GROUP_NODE_H_
#define DYNLIB_BENCHMARKS_GROUP_NODE_H_

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "benchmarks/replicated_map.h"
#include "dynlib/base/ids.h"
#include "dynlib/cluster/node_log_adapter.h"
#include "dynlib/replication/group_host.h"
#include "dynlib/runtime/posix/event_loop.h"
#include "dynlib/runtime/posix/posix_disk.h"
#include "dynlib/runtime/posix/system_clock.h"
#include "dynlib/runtime/rpc.h"
#include "dynlib/runtime/transport.h"
#include "dynlib/store/node_log.h"

namespace dynlib::bench {

inline constexpr uint64_t kGroupNodes = 3;
inline constexpr NodeId kGroupClient{1000};
inline constexpr Channel kReplicationChannel{1};
inline constexpr Channel kClientChannel{2};
inline constexpr Rpc::Method kPropose{1};

// What is asked of a node by rpc; the answer is empty, or the status of the proposal. A node that
// does not lead the group names the one that may in its message (GroupHost).
struct ProposeRequest {
  PartitionId group{};
  replication::Command command;
};
std::string EncodePropose(const ProposeRequest& request);
ProposeRequest DecodePropose(std::string_view bytes);

// Groups 1 to `groups`, each with a replica on each of nodes 1 to 3. Destroying it is the end of a
// process: nothing is synced.
//
// Threads: the host and the maps are the loop's executor's.
class GroupNode {
 public:
  struct Options {
    int groups = 1;
    // As much as may be written: the log's segments hold zeros, and the maps and the log in memory
    // have their memory, before the node serves. A node that has run for a while recycles all
    // three; one that is new would write zeros to the disk, and have pages cleared, just while it
    // is measured.
    uint64_t prepared_bytes = 128 << 20;
  };
  // `transport` is given the loop to run on. Started from a thread that may block.
  using MakeTransport = std::function<absl::StatusOr<std::unique_ptr<Transport>>(EventLoop*)>;
  static absl::StatusOr<std::unique_ptr<GroupNode>> Start(NodeId id,
                                                          const std::filesystem::path& folder,
                                                          const Options& options,
                                                          const MakeTransport& make_transport);
  ~GroupNode();

  NodeId id() const { return id_; }
  EventLoop& loop() { return loop_; }
  const Clock& clock() const { return clock_; }
  replication::GroupHost& host() { return *host_; }
  ReplicatedMap& map(PartitionId group) { return *maps_[ToUint(group) - 1]; }

 private:
  explicit GroupNode(NodeId id) : id_(id), loop_({.name = "node-" + std::to_string(ToUint(id))}) {}
  absl::Status Open(const std::filesystem::path& folder, const Options& options);
  absl::Status AddGroups(store::NodeLog::Recovery& recovery, const Options& options);
  void Serve();

  const NodeId id_;
  const SystemClock clock_;
  EventLoop loop_;
  std::unique_ptr<Transport> transport_;
  std::unique_ptr<PosixDisk> disk_;
  std::unique_ptr<store::NodeLog> log_;
  std::unique_ptr<cluster::NodeLogAdapter> replica_log_;
  std::unique_ptr<Arena> arena_;
  std::vector<std::unique_ptr<ReplicatedMap>> maps_;
  std::unique_ptr<replication::GroupHost> host_;
  std::unique_ptr<Rpc> rpc_;
};

// Has the allocator keep what is freed, and take memory in large pieces: else it gives a batch's
// memory back to the system, and asks for it again for the next, a page at a time. To be called
// first.
void KeepFreedMemory();

// A transport of node `self` on the loop, among nodes 1 to 3, whose ports come first, and the
// client, whose port is the last.
absl::StatusOr<std::unique_ptr<Transport>> GroupTransport(NodeId self,
                                                          const std::vector<int>& ports,
                                                          EventLoop* loop);

// The command line that makes this program a node of one group: for ChildProcess.
std::vector<std::string> GroupNodeArguments(NodeId id, const std::filesystem::path& folder,
                                            uint64_t prepared_bytes, const std::vector<int>& ports);
// First in main: if this process was started with GroupNodeArguments, serves until it is killed and
// never returns.
void ServeIfGroupNode(int argc, char** argv);

}  // namespace dynlib::bench

#endif  // DYNLIB_BENCHMARKS_GROUP_NODE_H_
