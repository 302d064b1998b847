#include "dynlib/partition_map/partition_map.h"

#include <algorithm>
#include <utility>

#include "dynlib/base/check.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/partition_map/map_entry.h"

namespace dynlib::partition_map {
namespace {

constexpr size_t kBoundMax = 1'000'000'000;

absl::Status CheckBound(std::string_view name, size_t value) {
  if (value >= 1 && value <= kBoundMax) return absl::OkStatus();
  return absl::InvalidArgumentError(Cat(name, " is ", value, ": 1 to ", kBoundMax));
}

absl::Status AtBound(std::string_view what, size_t bound) {
  return absl::ResourceExhaustedError(Cat("the map holds ", bound, " ", what, ", its bound"));
}

// What is in the tree was valid when it was put there.
PartitionRecord PartitionAt(const PerkleCursor& cursor) {
  absl::StatusOr<PartitionRecord> record = DecodePartitionEntry(cursor.key(), cursor.value());
  DYNLIB_CHECK(record.ok());
  return *std::move(record);
}
TableRecord TableAt(std::string_view key, std::string_view value) {
  absl::StatusOr<TableRecord> record = DecodeTableEntry(key, value);
  DYNLIB_CHECK(record.ok());
  return *std::move(record);
}
void MustPut(Perkle& tree, std::string_view key, std::string_view value) {
  DYNLIB_CHECK(tree.Put(key, value).ok());
}

bool IsPartitionOf(const PerkleCursor& cursor, TableId table) {
  return cursor.valid() && TableOfPartitionKey(cursor.key()) == table;
}

// The length first, so that no name is taken for the beginning of a longer one.
std::string NamePrefix(std::string_view name) {
  std::string key;
  key.push_back(static_cast<char>(name.size()));
  key += name;
  return key;
}
std::string NameKey(const TableRecord& record) {
  return NamePrefix(record.name) + EntryKey(record.table);
}

// Ends of ranges, where empty is after all keys.
bool EndsBefore(std::string_view end, std::string_view other) {
  return !end.empty() && (other.empty() || end < other);
}
std::string_view EarlierEnd(std::string_view a, std::string_view b) {
  return EndsBefore(a, b) ? a : b;
}
// Whether a range that ends at `end` has keys from `first` on.
bool Reaches(std::string_view end, std::string_view first) { return end.empty() || first < end; }

// The records of one table, in key order, each with a range of its own and unlike its neighbour.
class Run {
 public:
  // Adds the keys in [first, end) with the holder of `record`; nothing when there are none.
  void Add(const PartitionRecord& record, std::string_view first, std::string_view end) {
    if (!Reaches(end, first)) return;
    if (!records_.empty() && records_.back().end == first && SameHolder(records_.back(), record)) {
      records_.back().end = end;
      return;
    }
    records_.push_back(record);
    records_.back().first = first;
    records_.back().end = end;
  }
  std::vector<PartitionRecord> Take() { return std::move(records_); }

 private:
  std::vector<PartitionRecord> records_;
};

struct Overlaid {
  std::vector<PartitionRecord> records;
  bool holds = false;  // the record, or one equal to it, for some key
};

// The join: for each key the newer of what holds for it in `old` and `record`. `old` is in key
// order.
Overlaid Overlay(const std::vector<PartitionRecord>& old, const PartitionRecord& record) {
  Run run;
  bool holds = false;
  std::string_view at = record.first;  // the record's keys before it are settled
  bool settled = false;                // all of them
  for (const PartitionRecord& piece : old) {
    if (piece.first < record.first) {
      run.Add(piece, piece.first, EarlierEnd(piece.end, record.first));
    }
    if (!settled && at < piece.first) {
      const std::string_view until = EarlierEnd(record.end, piece.first);
      run.Add(record, at, until);
      holds = true;
      at = until;
    }
    const std::string_view first = std::max<std::string_view>(piece.first, record.first);
    const std::string_view end = EarlierEnd(piece.end, record.end);
    if (Reaches(end, first)) {
      const bool wins = CompareVersions(record, piece) >= 0;
      run.Add(wins ? record : piece, first, end);
      holds |= wins;
      at = end;
      settled = end.empty();
    }
    if (!record.end.empty()) {
      run.Add(piece, std::max<std::string_view>(piece.first, record.end), piece.end);
    }
  }
  if (!settled && Reaches(record.end, at)) {
    run.Add(record, at, record.end);
    holds = true;
  }
  return {run.Take(), holds};
}

// The records of the map that share keys with `record` or touch its range: those that it can
// change, or become one with.
std::vector<PartitionRecord> Around(const Perkle& entries, const PartitionRecord& record) {
  std::vector<PartitionRecord> around;
  const std::string key = EntryKey(record.table, record.first);
  PerkleCursor cursor(entries);
  cursor.SeekLess(key);
  if (IsPartitionOf(cursor, record.table)) {
    PartitionRecord before = PartitionAt(cursor);
    if (before.end.empty() || before.end >= record.first) around.push_back(std::move(before));
  }
  for (cursor.SeekCeiling(key); IsPartitionOf(cursor, record.table); cursor.Next()) {
    PartitionRecord next = PartitionAt(cursor);
    if (!record.end.empty() && next.first > record.end) break;
    around.push_back(std::move(next));
  }
  return around;
}

// Both in key order.
void Replace(const std::vector<PartitionRecord>& old, const std::vector<PartitionRecord>& fresh,
             Perkle& entries) {
  auto in = fresh.begin();
  for (const PartitionRecord& piece : old) {
    while (in != fresh.end() && in->first < piece.first) ++in;
    if (in == fresh.end() || in->first != piece.first) {
      entries.Erase(EntryKey(piece.table, piece.first));
    }
  }
  for (const PartitionRecord& piece : fresh) {
    MustPut(entries, EntryKey(piece.table, piece.first), EncodeValue(piece));
  }
}

}  // namespace

PartitionPtr PartitionMapView::Find(TableId table, std::string_view key) const {
  PerkleCursor cursor(entries_);
  cursor.SeekFloor(EntryKey(table, key));
  if (!IsPartitionOf(cursor, table)) return nullptr;
  auto record = std::make_shared<PartitionRecord>(PartitionAt(cursor));
  if (!record->Contains(key)) return nullptr;
  return record;
}

std::optional<TableRecord> PartitionMapView::FindTable(TableId table) const {
  const std::string key = EntryKey(table);
  const std::optional<std::string_view> value = entries_.Find(key);
  if (!value.has_value()) return std::nullopt;
  return TableAt(key, *value);
}

std::optional<TableRecord> PartitionMapView::FindTable(std::string_view name) const {
  std::optional<TableRecord> found;
  if (name.size() > kTableNameBytesMax) return found;
  const std::string prefix = NamePrefix(name);
  names_.ScanPrefix(prefix, ScanOrder::kReverse, [&](std::string_view key, std::string_view) {
    const std::string_view entry_key = key.substr(prefix.size());
    found = TableAt(entry_key, *entries_.Find(entry_key));
    return false;
  });
  return found;
}

void PartitionMapView::ForEachPartition(
    TableId table, std::string_view from,
    absl::FunctionRef<bool(const PartitionRecord&)> visit) const {
  const std::string key = EntryKey(table, from);
  PerkleCursor cursor(entries_);
  cursor.SeekFloor(key);
  if (!IsPartitionOf(cursor, table) || !PartitionAt(cursor).Contains(from)) cursor.SeekCeiling(key);
  for (; IsPartitionOf(cursor, table); cursor.Next()) {
    if (!visit(PartitionAt(cursor))) return;
  }
}

void PartitionMapView::ForEachTable(absl::FunctionRef<bool(const TableRecord&)> visit) const {
  entries_.ScanPrefix(
      kTableKeys, ScanOrder::kForward,
      [&](std::string_view key, std::string_view value) { return visit(TableAt(key, value)); });
}

std::optional<PartitionMapView::Gap> PartitionMapView::FirstGap(TableId table,
                                                                std::string_view from) const {
  Gap gap{.first = std::string(from)};
  bool found = true;
  ForEachPartition(table, from, [&](const PartitionRecord& record) {
    if (record.first > gap.first) {
      gap.end = record.first;
      return false;
    }
    gap.first = record.end;
    found = !record.end.empty();
    return found;
  });
  if (!found) return std::nullopt;
  return gap;
}

absl::StatusOr<std::unique_ptr<PartitionMap>> PartitionMap::Create(
    const PartitionMapOptions& options) {
  DYNLIB_RETURN_IF_ERROR(CheckBound("partitions_max", options.partitions_max));
  DYNLIB_RETURN_IF_ERROR(CheckBound("tables_max", options.tables_max));
  return std::unique_ptr<PartitionMap>(new PartitionMap(options));
}

PartitionMap::PartitionMap(const PartitionMapOptions& options)
    : options_(options), view_(std::make_shared<PartitionMapView>()) {}

std::shared_ptr<const PartitionMapView> PartitionMap::view() const {
  std::lock_guard lock(mutex_);
  return view_;
}

void PartitionMap::Publish(PartitionMapView next) {
  auto published = std::make_shared<const PartitionMapView>(std::move(next));
  std::lock_guard lock(mutex_);
  view_.swap(published);
  // `published`, now the old version, is destroyed after the lock is released: declared before it.
}

absl::StatusOr<Upserted> PartitionMap::Upsert(const PartitionRecord& record) {
  DYNLIB_RETURN_IF_ERROR(Validate(record));
  const std::shared_ptr<const PartitionMapView> now = view();
  // What is pushed every few seconds and says nothing new.
  if (now->entries_.Find(EntryKey(record.table, record.first)) == EncodeValue(record)) {
    return Upserted{UpsertOutcome::kUnchanged, nullptr};
  }
  const std::optional<TableRecord> table = now->FindTable(record.table);
  if (table.has_value() && table->dropped) return Upserted{UpsertOutcome::kStale, nullptr};

  const std::vector<PartitionRecord> old = Around(now->entries_, record);
  const Overlaid joined = Overlay(old, record);
  if (joined.records == old) {
    if (joined.holds) return Upserted{UpsertOutcome::kUnchanged, nullptr};
    return Upserted{UpsertOutcome::kStale, now->Find(record.table, record.first)};
  }
  const size_t partitions = now->partitions_ - old.size() + joined.records.size();
  if (partitions > options_.partitions_max && partitions > now->partitions_) {
    return AtBound("partitions", options_.partitions_max);
  }
  PartitionMapView next = *now;
  Replace(old, joined.records, next.entries_);
  next.partitions_ = partitions;
  Publish(std::move(next));
  return Upserted{UpsertOutcome::kApplied, nullptr};
}

absl::StatusOr<UpsertOutcome> PartitionMap::Upsert(const TableRecord& record) {
  DYNLIB_RETURN_IF_ERROR(Validate(record));
  PartitionMapView next = *view();
  const std::optional<TableRecord> old = next.FindTable(record.table);
  if (old.has_value() && !IsNewer(record, *old)) {
    return record == *old ? UpsertOutcome::kUnchanged : UpsertOutcome::kStale;
  }
  if (!old.has_value() && next.tables_ + next.dropped_ >= options_.tables_max) {
    return AtBound("tables", options_.tables_max);
  }
  if (old.has_value()) --(old->dropped ? next.dropped_ : next.tables_);
  if (old.has_value() && !old->dropped) next.names_.Erase(NameKey(*old));
  MustPut(next.entries_, EntryKey(record.table), EncodeValue(record));
  ++(record.dropped ? next.dropped_ : next.tables_);
  if (record.dropped) {
    RemovePartitions(record.table, next);
  } else {
    MustPut(next.names_, NameKey(record), "");
  }
  Publish(std::move(next));
  return UpsertOutcome::kApplied;
}

absl::StatusOr<UpsertOutcome> PartitionMap::DropTable(TableId table, uint64_t version) {
  return Upsert(TableRecord{.table = table, .version = version, .dropped = true});
}

void PartitionMap::RemovePartitions(TableId table, PartitionMapView& next) {
  std::vector<std::string> keys;
  next.entries_.ScanPrefix(EntryKey(table, {}), ScanOrder::kForward,
                           [&](std::string_view key, std::string_view) {
                             keys.emplace_back(key);
                             return true;
                           });
  for (const std::string& key : keys) next.entries_.Erase(key);
  next.partitions_ -= keys.size();
}

}  // namespace dynlib::partition_map
