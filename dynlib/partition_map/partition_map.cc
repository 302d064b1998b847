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
  PartitionRecord record{.table = *TableOfPartitionKey(cursor.key())};
  record.first = cursor.key().substr(kPartitionKeyPrefixBytes);
  DYNLIB_CHECK(ReadPartitionValue(cursor.value(), record));
  return record;
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
void Exchange(const std::vector<PartitionRecord>& old, const std::vector<PartitionRecord>& fresh,
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

// The keys of records in key order, as ranges that do not touch. Overlaps are fused, too.
using Ranges = std::vector<std::pair<std::string_view, std::string_view>>;
Ranges KeysOf(const std::vector<PartitionRecord>& records) {
  Ranges keys;
  for (const PartitionRecord& record : records) {
    const bool apart = keys.empty() || (!keys.back().second.empty() &&
                                        keys.back().second < std::string_view(record.first));
    if (apart) {
      keys.emplace_back(record.first, record.end);
    } else if (EndsBefore(keys.back().second, record.end)) {
      keys.back().second = record.end;
    }
  }
  return keys;
}

// The invariants of each change: ranges are in order, not empty, and do not overlap; the keys that
// have a holder are those that had one, and the record's. So no change makes a gap.
bool IsSound(std::vector<PartitionRecord> old, const PartitionRecord& record,
             const std::vector<PartitionRecord>& joined) {
  for (size_t i = 0; i < joined.size(); ++i) {
    if (!Reaches(joined[i].end, joined[i].first)) return false;
    if (i > 0 && Reaches(joined[i - 1].end, joined[i].first)) return false;
  }
  const auto at = std::find_if(old.begin(), old.end(), [&](const PartitionRecord& piece) {
    return piece.first > record.first;
  });
  old.insert(at, record);
  return KeysOf(old) == KeysOf(joined);
}

// Whether a neighbour is of the same partition: only then may it become one record with it.
bool MayBeOf(const PerkleCursor& neighbour, const PartitionRecord& record) {
  return IsPartitionOf(neighbour, record.table) &&
         PartitionOfValue(neighbour.value()) == record.partition;
}

// Records of one table, each beginning where the one before it ends.
absl::Status CheckAdjacent(std::span<const PartitionRecord> records) {
  for (size_t i = 0; i < records.size(); ++i) {
    DYNLIB_RETURN_IF_ERROR(Validate(records[i]));
    if (i == 0) continue;
    const PartitionRecord& before = records[i - 1];
    if (records[i].table != before.table) {
      return absl::InvalidArgumentError(
          Cat("records of tables ", before.table, " and ", records[i].table, ": one table's"));
    }
    if (records[i].first == before.end) continue;
    const bool gap = EndsBefore(before.end, records[i].first);
    return absl::InvalidArgumentError(
        Cat("partition ", records[i].partition, " begins at ", Escape(records[i].first), ": ",
            gap ? "a gap after" : "an overlap with", " partition ", before.partition,
            ", which ends at ", before.end.empty() ? "the end of the table" : Escape(before.end)));
  }
  return absl::OkStatus();
}

}  // namespace

bool PartitionMapView::Read(const Perkle::Hit& hit, TableId table, std::string_view key,
                            PartitionRecord& record) {
  // Another table's, or none.
  if (!hit.found() || hit.matched() < kPartitionKeyPrefixBytes) return false;
  // What is in the tree was valid when it was put there.
  if (hit.value_rest().empty()) {
    DYNLIB_CHECK(ReadPartitionValue(hit.value_head(), record));
  } else {
    record.first.clear();
    hit.AppendValue(record.first);
    DYNLIB_CHECK(ReadPartitionValue(record.first, record));
  }
  record.table = table;
  hit.ReadKey(record.first);
  record.first.erase(0, kPartitionKeyPrefixBytes);
  return record.Contains(key);
}

bool PartitionMapView::Find(TableId table, std::string_view key, PartitionRecord& record) const {
  return Read(entries_.FloorHit(EntryKey(table, key)), table, key, record);
}

PartitionPtr PartitionMapView::Find(TableId table, std::string_view key) const {
  auto record = std::make_shared<PartitionRecord>();
  if (!Find(table, key, *record)) return nullptr;
  return record;
}

std::vector<PartitionPtr> PartitionMapView::FindBatch(std::span<const PartitionKey> keys) const {
  std::vector<std::string> bytes;
  bytes.reserve(keys.size());
  for (const PartitionKey& key : keys) bytes.push_back(EntryKey(key.table, key.key));
  const std::vector<std::string_view> sought(bytes.begin(), bytes.end());
  std::vector<Perkle::Hit> hits(keys.size());
  entries_.FloorHits(sought, hits);
  std::vector<PartitionPtr> found;
  found.reserve(keys.size());
  for (size_t i = 0; i < keys.size(); ++i) {
    auto record = std::make_shared<PartitionRecord>();
    const bool holds = Read(hits[i], keys[i].table, keys[i].key, *record);
    found.push_back(holds ? std::move(record) : nullptr);
  }
  return found;
}

std::optional<TableRecord> PartitionMapView::FindTable(TableId table) const {
  const std::string key = EntryKey(table);
  const std::optional<std::string> value = entries_.Find(key);
  if (!value.has_value()) return std::nullopt;
  return TableAt(key, *value);
}

std::optional<TableRecord> PartitionMapView::FindTable(std::string_view name) const {
  std::optional<TableRecord> found;
  if (name.size() > kTableNameBytesMax) return found;
  const std::string prefix = NamePrefix(name);
  names_.ScanPrefix(prefix, ScanOrder::kReverse, [&](std::string_view key, std::string_view) {
    const std::string_view entry_key = key.substr(prefix.size());
    const std::optional<std::string> value = entries_.Find(entry_key);
    DYNLIB_CHECK(value.has_value());
    found = TableAt(entry_key, *value);
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

absl::StatusOr<std::unique_ptr<PartitionMap>> PartitionMap::Create(
    const PartitionMapOptions& options, Perkle entries) {
  DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<PartitionMap> map, Create(options));
  DYNLIB_RETURN_IF_ERROR(map->Adopt(std::move(entries)));
  return map;
}

// What follows from the entries is made anew; what does not follow is not believed.
absl::Status PartitionMap::Adopt(Perkle entries) {
  PartitionMapView next;
  PartitionRecord before;
  PerkleCursor cursor(entries);
  for (cursor.SeekFirst(); cursor.valid(); cursor.Next()) {
    DYNLIB_ASSIGN_OR_RETURN(const MapEntry entry, DecodeEntry(cursor.key(), cursor.value()));
    if (const auto* table = std::get_if<TableRecord>(&entry)) {
      ++(table->dropped ? next.dropped_ : next.tables_);
      if (!table->dropped) MustPut(next.names_, NameKey(*table), "");
      continue;
    }
    const auto& record = std::get<PartitionRecord>(entry);
    if (record.table == before.table && Reaches(before.end, record.first)) {
      return absl::DataLossError(Cat("partitions ", before.partition, " and ", record.partition,
                                     " overlap at ", Escape(record.first)));
    }
    before = record;
    ++next.partitions_;
  }
  if (next.partitions_ > options_.partitions_max) {
    return AtBound("partitions", options_.partitions_max);
  }
  if (next.tables_ + next.dropped_ > options_.tables_max) {
    return AtBound("tables", options_.tables_max);
  }
  next.entries_ = std::move(entries);
  Publish(std::move(next));
  return absl::OkStatus();
}

PartitionMap::PartitionMap(const PartitionMapOptions& options)
    : options_(options),
      published_(std::make_unique<Version>(Version{std::make_shared<const PartitionMapView>()})) {}

std::shared_ptr<const PartitionMapView> PartitionMap::view() const {
  return Reader(published_)->view;
}

void PartitionMap::Publish(PartitionMapView next) {
  published_.Publish(std::make_unique<Version>(
      Version{std::make_shared<const PartitionMapView>(std::move(next))}));
}

// The usual record: of a range that the map has just so, beside neighbours that are not to become
// one with it. As there is a record of its table, that is not dropped. Nothing when it is another
// record. A third of the time of the general way.
std::optional<Upserted> PartitionMap::JoinInPlace(const PartitionRecord& record,
                                                  PartitionMapView& next) {
  const std::string key = EntryKey(record.table, record.first);
  PerkleCursor cursor(next.entries_);
  cursor.SeekFloor(key);
  if (!cursor.valid() || cursor.key() != key) return std::nullopt;
  PartitionRecord old = PartitionAt(cursor);
  if (old.end != record.end) return std::nullopt;
  const std::strong_ordering order = CompareVersions(record, old);
  if (order == 0) return Upserted{UpsertOutcome::kUnchanged, nullptr};
  if (order < 0) {
    return Upserted{UpsertOutcome::kStale, std::make_shared<PartitionRecord>(std::move(old))};
  }
  const PerkleCursor at = cursor;
  cursor.Previous();
  if (MayBeOf(cursor, record)) return std::nullopt;
  cursor = at;
  cursor.Next();
  if (MayBeOf(cursor, record)) return std::nullopt;
  MustPut(next.entries_, key, EncodeValue(record));
  return Upserted{UpsertOutcome::kApplied, nullptr};
}

absl::StatusOr<Upserted> PartitionMap::Join(const PartitionRecord& record,
                                            PartitionMapView& next) const {
  DYNLIB_RETURN_IF_ERROR(Validate(record));
  if (std::optional<Upserted> done = JoinInPlace(record, next)) return *std::move(done);
  const std::optional<TableRecord> table = next.FindTable(record.table);
  if (table.has_value() && table->dropped) return Upserted{UpsertOutcome::kStale, nullptr};

  const std::vector<PartitionRecord> old = Around(next.entries_, record);
  const Overlaid joined = Overlay(old, record);
  DYNLIB_CHECK(IsSound(old, record, joined.records));
  if (joined.records == old) {
    if (joined.holds) return Upserted{UpsertOutcome::kUnchanged, nullptr};
    return Upserted{UpsertOutcome::kStale, next.Find(record.table, record.first)};
  }
  const size_t partitions = next.partitions_ - old.size() + joined.records.size();
  if (partitions > options_.partitions_max && partitions > next.partitions_) {
    return AtBound("partitions", options_.partitions_max);
  }
  Exchange(old, joined.records, next.entries_);
  next.partitions_ = partitions;
  return Upserted{UpsertOutcome::kApplied, nullptr};
}

absl::StatusOr<Upserted> PartitionMap::Upsert(const PartitionRecord& record) {
  return std::move(UpsertAll({&record, 1})[0]);
}

std::vector<absl::StatusOr<Upserted>> PartitionMap::UpsertAll(
    std::span<const PartitionRecord> records) {
  PartitionMapView next = newest();
  bool changed = false;
  std::vector<absl::StatusOr<Upserted>> results;
  results.reserve(records.size());
  for (const PartitionRecord& record : records) {
    results.push_back(Join(record, next));
    changed |= results.back().ok() && results.back()->outcome == UpsertOutcome::kApplied;
  }
  if (changed) Publish(std::move(next));
  return results;
}

absl::Status PartitionMap::Replace(std::span<const PartitionRecord> records) {
  DYNLIB_RETURN_IF_ERROR(CheckAdjacent(records));
  PartitionMapView next = newest();
  for (const PartitionRecord& record : records) {
    const absl::StatusOr<Upserted> joined = Join(record, next);
    DYNLIB_RETURN_IF_ERROR(joined.status());
    PartitionRecord holder;
    const bool holds = next.Find(record.table, record.first, holder) &&
                       SameHolder(holder, record) && !EndsBefore(holder.end, record.end);
    if (!holds) {
      return absl::FailedPreconditionError(Cat("partition ", record.partition, " from ",
                                               Escape(record.first),
                                               ": a newer record holds for keys of it"));
    }
  }
  Publish(std::move(next));
  return absl::OkStatus();
}

absl::StatusOr<UpsertOutcome> PartitionMap::Upsert(const TableRecord& record) {
  DYNLIB_RETURN_IF_ERROR(Validate(record));
  PartitionMapView next = newest();
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
