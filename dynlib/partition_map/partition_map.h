// The partition map: for every table the partition of every key, made of records that arrive in any
// order.
//
// The map is a join. For each key, of all the records received that contain it, the one that
// IsNewer() prefers holds; the records that the map shows are the longest runs of keys with one
// holder. So the contents depend on the set of records received and on nothing else: not on their
// order, nor on how often they came, nor on which other map they came through. In particular
//   - the children of a split, arriving one at a time, take their ranges out of the parent, and the
//     rest of the parent keeps the parent's members under a narrower range: look-ups meet no gap;
//   - a merged partition is a record of a higher generation that spans several;
//   - a move, a new leader or a new configuration is a record of the same partition with a higher
//     epoch or ballot, and changes what of the partition is left, and no more;
//   - a dropped table stays dropped: its tombstone is final, and late records of it are refused.
//
//   DYNLIB_ASSIGN_OR_RETURN(auto map, PartitionMap::Create({}));
//   DYNLIB_ASSIGN_OR_RETURN(Upserted result, map->Upsert(record));
//   PartitionRecord holder;                                            // to be used again and
//   again if (map->Find(table, key, holder)) Send(holder.leader, ...);       // from any thread
//
// All is kept in one Perkle tree, so equal maps have equal digests, and sync_session.h finds what
// two maps do not share.
//
// Threads: Find... and view() from any thread, without locks, and never waiting for a change that
// is being made (published.h). Changes by one thread at a time.
#ifndef DYNLIB_PARTITION_MAP_PARTITION_MAP_H_
#define DYNLIB_PARTITION_MAP_PARTITION_MAP_H_

#include <cstddef>
#include <cstdint>
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
#include "dynlib/partition_map/partition_record.h"
#include "dynlib/partition_map/perkle.h"
#include "dynlib/partition_map/published.h"

namespace dynlib::partition_map {

struct PartitionMapOptions {
  // Records beyond these are refused with kResourceExhausted, and the map stays as it was. Two maps
  // at their bounds need not converge. 1 to 1e9.
  size_t partitions_max = 20'000'000;
  // Those dropped included.
  size_t tables_max = 10'000'000;
};

using PartitionPtr = std::shared_ptr<const PartitionRecord>;

struct PartitionKey {
  TableId table{};
  std::string_view key;
};

// One version of the map: immutable, cheap to copy, kept alive by whoever holds it. Threads: any.
class PartitionMapView {
 public:
  PartitionMapView() = default;

  // The record that holds for `key`, or nullptr when none is known: of an unknown or dropped table,
  // or in a gap. Its range always contains the key.
  PartitionPtr Find(TableId table, std::string_view key) const;
  // The same, into a record whose memory is used again: the hot path. False: nothing holds, and the
  // record is any.
  bool Find(TableId table, std::string_view key, PartitionRecord& record) const;
  // As many answers as keys; those for which nothing holds are nullptr. Side by side, which takes
  // half the time that as many single look-ups take in a map that the processor's caches do not
  // hold.
  std::vector<PartitionPtr> FindBatch(std::span<const PartitionKey> keys) const;
  // The newest record of the table, tombstones included.
  std::optional<TableRecord> FindTable(TableId table) const;
  // Of the tables of that name that are not dropped, the one with the greatest id.
  std::optional<TableRecord> FindTable(std::string_view name) const;

  // The records of a table in key order, from the one that holds for `from` on. False ends it.
  void ForEachPartition(TableId table, std::string_view from,
                        absl::FunctionRef<bool(const PartitionRecord&)> visit) const;
  void ForEachTable(absl::FunctionRef<bool(const TableRecord&)> visit) const;

  // The first keys of a table, from `from` on, for which no record holds: what a table that is
  // served in full has none of. An empty `end` means no upper bound.
  struct Gap {
    std::string first;
    std::string end;
  };
  std::optional<Gap> FirstGap(TableId table, std::string_view from = {}) const;

  size_t partitions() const { return partitions_; }
  size_t tables() const { return tables_; }    // not dropped
  size_t dropped() const { return dropped_; }  // tombstones
  Digest128 digest() const { return entries_.digest(); }
  // Tables and partitions, under the keys of map_entry.h: what two maps compare.
  const Perkle& entries() const { return entries_; }

 private:
  friend class PartitionMap;
  static bool Read(const Perkle::Hit& hit, TableId table, std::string_view key,
                   PartitionRecord& record);

  Perkle entries_;
  Perkle names_;  // the live tables by name; follows from entries_, so it is never exchanged
  size_t partitions_ = 0;
  size_t tables_ = 0;
  size_t dropped_ = 0;
};

enum class UpsertOutcome {
  kApplied,    // the map changed
  kUnchanged,  // it says already what the record says, at least for a part of its range
  kStale,      // newer records hold for all of its range, or the table is dropped
};

struct Upserted {
  UpsertOutcome outcome = UpsertOutcome::kUnchanged;
  // When stale: the record that holds for the first key of the refused one, so that its sender
  // learns what is newer; nullptr when the table is dropped.
  PartitionPtr newest;
};

class PartitionMap {
 public:
  // kInvalidArgument for an option out of its range.
  static absl::StatusOr<std::unique_ptr<PartitionMap>> Create(const PartitionMapOptions& options);
  // With the entries of another one's view, as a snapshot kept them (perkle_snapshot.h).
  //   kDataLoss           they are not what a map has: the message says which
  //   kResourceExhausted  more than the bounds
  static absl::StatusOr<std::unique_ptr<PartitionMap>> Create(const PartitionMapOptions& options,
                                                              Perkle entries);
  PartitionMap(const PartitionMap&) = delete;
  PartitionMap& operator=(const PartitionMap&) = delete;

  //   kInvalidArgument    Validate(record) says why
  //   kResourceExhausted  the map is at its bound
  absl::StatusOr<Upserted> Upsert(const PartitionRecord& record);
  // Each for itself, in their order, and all published as one version: readers see none of them or
  // all. As many results as records.
  std::vector<absl::StatusOr<Upserted>> UpsertAll(std::span<const PartitionRecord> records);
  // The records of one change, in key order: both children of a split, a merged partition, a table
  // with all its partitions, a move. All or nothing, and readers see it at once.
  //   kInvalidArgument     they are not of one table, or leave a gap or overlap: the message says
  //                        where; or Validate says why
  //   kFailedPrecondition  a newer record holds for a key of theirs, or the table is dropped
  //   kResourceExhausted   the map is at its bound
  absl::Status Replace(std::span<const PartitionRecord> records);
  absl::StatusOr<UpsertOutcome> Upsert(const TableRecord& record);
  // Removes the table's partitions and leaves a tombstone: the same as a TableRecord with `dropped`
  // and neither name nor descriptor. O(partitions of the table).
  absl::StatusOr<UpsertOutcome> DropTable(TableId table, uint64_t version);

  PartitionPtr Find(TableId table, std::string_view key) const {
    return Reader(published_)->view->Find(table, key);
  }
  bool Find(TableId table, std::string_view key, PartitionRecord& record) const {
    return Reader(published_)->view->Find(table, key, record);
  }
  std::optional<TableRecord> FindTable(std::string_view name) const {
    return Reader(published_)->view->FindTable(name);
  }
  // The newest version, for several questions to one state. Never null.
  std::shared_ptr<const PartitionMapView> view() const;

 private:
  struct Version {
    std::shared_ptr<const PartitionMapView> view;
  };
  using Reader = Published<Version>::Reader;

  explicit PartitionMap(const PartitionMapOptions& options);
  const PartitionMapView& newest() const { return *published_.newest().view; }
  void Publish(PartitionMapView next);
  static std::optional<Upserted> JoinInPlace(const PartitionRecord& record, PartitionMapView& next);
  absl::StatusOr<Upserted> Join(const PartitionRecord& record, PartitionMapView& next) const;
  static void RemovePartitions(TableId table, PartitionMapView& next);
  absl::Status Adopt(Perkle entries);

  const PartitionMapOptions options_;
  Published<Version> published_;
};

}  // namespace dynlib::partition_map

#endif  // DYNLIB_PARTITION_MAP_PARTITION_MAP_H_
