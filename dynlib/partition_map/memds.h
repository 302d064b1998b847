// One node of the routing directory: all routing metadata in memory, looked up by routers, pushed
// by storage nodes, kept in step with its peers (MemDS of Elhemali et al., 2022).
//
// A pure object: calls and the time in, answers out. A node that starts does so from a snapshot
// that it wrote before, if it has one, and then fetches from a peer what has changed since; without
// one it fetches all (an empty map lists the peer's in bulk). From the storage nodes it hears all
// again within a push period.
//
//   DYNLIB_ASSIGN_OR_RETURN(auto memds, MemDs::Create({}, clock.Now()));
//   PushResult result = memds->Push(from, records, clock.Now());       // what storage nodes send
//   LookUpAnswer answer = memds->LookUp(table, key, clock.Now());      // what routers ask
//   SyncReply reply = memds->AnswerSync(request);                      // what peers ask
//   SyncSession session = memds->StartSync();                          // now and then, with each
//   ... memds->OnSynced(peer, session, clock.Now());                   // peer in turn
//
// Threads: LookUp..., view() and WriteSnapshot from any thread, never waiting for a change.
// Everything else on one executor.
//
// What a look-up may say of a key that it does not find depends on whether the node is ready: since
// a session with a peer ended in step, or since `warm_up` after its start. Before that it says
// kNotReady, and the caller asks another node.
#ifndef DYNLIB_PARTITION_MAP_MEMDS_H_
#define DYNLIB_PARTITION_MAP_MEMDS_H_

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/checksum.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/partition_map/partition_map.h"
#include "dynlib/partition_map/partition_record.h"
#include "dynlib/partition_map/sync_message.h"
#include "dynlib/partition_map/sync_session.h"

namespace dynlib::partition_map {

struct MemDsOptions {
  PartitionMapOptions map;
  // After this time every storage node has pushed all that it leads, several times over: more than
  // two push periods. 0 s to 1 h.
  Duration warm_up = std::chrono::seconds(15);
  // Bound of each sync message, either way. 65,536 to 16 MiB.
  size_t sync_message_bytes_max = 256 << 10;
  // Storage nodes whose last push is remembered; beyond it the one heard least recently is
  // forgotten (its records stay). 1 to 1e6.
  size_t sources_max = 10'000;
  // A storage node not heard for so long no longer counts in the status. 1 s to 24 h.
  Duration source_gone_after = std::chrono::minutes(10);
};

enum class LookUpOutcome {
  kFound,
  kNoTable,      // no table of that id or name
  kDropped,      // there was one
  kNoPartition,  // the table is known, who holds the key is not
  kNotReady,     // not found, and this node may not know everything yet
};

struct LookUpAnswer {
  LookUpOutcome outcome = LookUpOutcome::kNotReady;
  PartitionPtr record;  // when found
};

struct TableAnswer {
  LookUpOutcome outcome = LookUpOutcome::kNotReady;
  std::optional<TableRecord> record;  // when found
};

using LookUpKey = PartitionKey;

struct PushResult {
  uint64_t applied = 0;
  uint64_t unchanged = 0;
  uint64_t stale = 0;
  uint64_t refused = 0;  // invalid, or beyond a bound of the map
  // For what was stale: the records that hold now, and the tables that are dropped, so that a
  // storage node that missed a change learns of it.
  std::vector<PartitionPtr> newer;
  std::vector<TableId> dropped;
  // Why the first refused record was.
  absl::Status first_refusal;
};

struct MemDsStatus {
  size_t partitions = 0;
  size_t tables = 0;
  size_t dropped = 0;
  Digest128 digest;
  bool ready = false;
  // Records that came from a snapshot at the start.
  size_t from_snapshot = 0;
  // How long ago this node was last seen equal to a peer; nothing when it never was. What was
  // pushed to peers alone since then may be missing here.
  std::optional<Duration> since_in_step;
  // Storage nodes heard, and how long ago the one that was heard least recently. What it leads may
  // have changed since then.
  size_t sources = 0;
  NodeId oldest_source{};
  Duration oldest_source_age{};
  // Since the start, pushes and sync together.
  uint64_t applied = 0;
  uint64_t unchanged = 0;
  uint64_t stale = 0;
  uint64_t refused = 0;
  // Sessions that this node led.
  uint64_t syncs_in_step = 0;
  uint64_t syncs_incomplete = 0;
};

class MemDs {
 public:
  // kInvalidArgument naming the option that is out of its range.
  static absl::StatusOr<std::unique_ptr<MemDs>> Create(const MemDsOptions& options, Instant now);
  // With what a snapshot has. That may be old, so it does not make the node ready; but what it
  // finds it answers at once. kDataLoss when it is damaged: start without it then.
  static absl::StatusOr<std::unique_ptr<MemDs>> Create(const MemDsOptions& options, Instant now,
                                                       std::string_view snapshot);
  MemDs(const MemDs&) = delete;
  MemDs& operator=(const MemDs&) = delete;

  LookUpAnswer LookUp(TableId table, std::string_view key, Instant now) const;
  // All from one version of the map; as many answers as keys, in their order.
  std::vector<LookUpAnswer> LookUpBatch(std::span<const LookUpKey> keys, Instant now) const;
  TableAnswer LookUpTable(std::string_view name, Instant now) const;
  TableAnswer LookUpTable(TableId table, Instant now) const;
  bool ready(Instant now) const;

  // What `from` says of the partitions that it leads. Each record stands for itself: those that are
  // refused do not keep the others out.
  PushResult Push(NodeId from, std::span<const PartitionRecord> records, Instant now);
  PushResult PushTables(std::span<const TableRecord> records);

  // Joins the request's entries and answers its asks.
  SyncReply AnswerSync(const SyncRequest& request);
  SyncSession StartSync();
  // To be told of a session that is done, or was given up.
  void OnSynced(NodeId peer, const SyncSession& session, Instant now);
  // For each peer that was ever seen equal: when last.
  const std::map<NodeId, Instant>& in_step_at() const { return in_step_at_; }

  // All that it knows, piece by piece (perkle_snapshot.h). Any thread, at any time, for as long as
  // it takes: changes go on meanwhile.
  absl::Status WriteSnapshot(absl::FunctionRef<absl::Status(std::string_view)> write) const;

  MemDsStatus status(Instant now) const;
  std::shared_ptr<const PartitionMapView> view() const { return map_->view(); }

 private:
  MemDs(const MemDsOptions& options, std::unique_ptr<PartitionMap> map, Instant now);
  LookUpAnswer Answer(const PartitionMapView& view, TableId table, PartitionPtr found,
                      Instant now) const;
  void Heard(NodeId from, Instant now);
  void Count(const PushResult& result);

  const MemDsOptions options_;
  const std::unique_ptr<PartitionMap> map_;
  const Instant ready_at_;
  std::atomic<bool> synced_{false};
  std::map<NodeId, Instant> sources_;
  std::map<NodeId, Instant> in_step_at_;
  MemDsStatus totals_;  // its counters alone
};

}  // namespace dynlib::partition_map

#endif  // DYNLIB_PARTITION_MAP_MEMDS_H_
