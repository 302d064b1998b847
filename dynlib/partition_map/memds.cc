#include "dynlib/partition_map/memds.h"

#include <algorithm>
#include <utility>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/partition_map/perkle_snapshot.h"

namespace dynlib::partition_map {
namespace {

template <typename T>
absl::Status CheckRange(std::string_view name, T value, T min, T max, std::string_view unit) {
  if (value >= min && value <= max) return absl::OkStatus();
  return absl::InvalidArgumentError(Cat(name, " is ", value, unit, ": ", min, " to ", max, unit));
}

absl::Status CheckSeconds(std::string_view name, Duration value, int64_t min, int64_t max) {
  const double seconds = std::chrono::duration<double>(value).count();
  return CheckRange(name, seconds, static_cast<double>(min), static_cast<double>(max), " s");
}

absl::Status Validate(const MemDsOptions& options) {
  DYNLIB_RETURN_IF_ERROR(CheckSeconds("warm_up", options.warm_up, 0, 3600));
  DYNLIB_RETURN_IF_ERROR(CheckRange<size_t>(
      "sync_message_bytes_max", options.sync_message_bytes_max, 64 << 10, 16 << 20, " bytes"));
  DYNLIB_RETURN_IF_ERROR(CheckRange<size_t>("sources_max", options.sources_max, 1, 1'000'000, ""));
  return CheckSeconds("source_gone_after", options.source_gone_after, 1, 24 * 3600);
}

SyncAnswer AnswerBranch(const Perkle& entries, const SyncAsk& ask) {
  SyncAnswer answer;
  const std::optional<Perkle::Branch> branch = entries.BranchAt(ask.path);
  if (!branch.has_value()) return answer;
  answer.branch = branch->path;
  if (branch->entry.has_value()) {
    answer.entries.push_back({branch->entry->key, std::string(branch->entry->value)});
  }
  for (const Perkle::Subtree& child : branch->children) {
    answer.children.push_back({static_cast<uint8_t>(child.path.At(child.path.nibbles - 1)),
                               ShortDigest(child.digest), child.entries});
  }
  return answer;
}

// At least one entry, if there is one, and then as many as fit.
SyncAnswer AnswerList(const Perkle& entries, const SyncAsk& ask, size_t bytes_max) {
  SyncAnswer answer{.list = true};
  size_t bytes = SyncBytes(answer);
  const auto after = ask.after.empty() ? std::nullopt : std::make_optional(ask.after);
  entries.ScanSubtree(ask.path, after, [&](std::string_view key, std::string_view value) {
    SyncEntry entry{std::string(key), std::string(value)};
    bytes += SyncBytes(entry);
    answer.more = !answer.entries.empty() && bytes > bytes_max;
    if (!answer.more) answer.entries.push_back(std::move(entry));
    return !answer.more;
  });
  return answer;
}

}  // namespace

absl::StatusOr<std::unique_ptr<MemDs>> MemDs::Create(const MemDsOptions& options, Instant now) {
  DYNLIB_RETURN_IF_ERROR(Validate(options));
  DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<PartitionMap> map, PartitionMap::Create(options.map));
  return std::unique_ptr<MemDs>(new MemDs(options, std::move(map), now));
}

absl::StatusOr<std::unique_ptr<MemDs>> MemDs::Create(const MemDsOptions& options, Instant now,
                                                     std::string_view snapshot) {
  DYNLIB_RETURN_IF_ERROR(Validate(options));
  DYNLIB_ASSIGN_OR_RETURN(Perkle entries, DecodeSnapshot(snapshot));
  const size_t count = entries.size();
  DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<PartitionMap> map,
                          PartitionMap::Create(options.map, std::move(entries)));
  std::unique_ptr<MemDs> memds(new MemDs(options, std::move(map), now));
  memds->totals_.from_snapshot = count;
  return memds;
}

absl::Status MemDs::WriteSnapshot(absl::FunctionRef<absl::Status(std::string_view)> write) const {
  return partition_map::WriteSnapshot(view()->entries(), write);
}

MemDs::MemDs(const MemDsOptions& options, std::unique_ptr<PartitionMap> map, Instant now)
    : options_(options), map_(std::move(map)), ready_at_(now + options.warm_up) {}

bool MemDs::ready(Instant now) const {
  return now >= ready_at_ || synced_.load(std::memory_order_acquire);
}

LookUpAnswer MemDs::Answer(const PartitionMapView& view, TableId table, PartitionPtr found,
                           Instant now) const {
  if (found != nullptr) return {LookUpOutcome::kFound, std::move(found)};
  const std::optional<TableRecord> known = view.FindTable(table);
  if (known.has_value() && known->dropped) return {LookUpOutcome::kDropped, nullptr};
  if (!ready(now)) return {LookUpOutcome::kNotReady, nullptr};
  return {known.has_value() ? LookUpOutcome::kNoPartition : LookUpOutcome::kNoTable, nullptr};
}

LookUpAnswer MemDs::LookUp(TableId table, std::string_view key, Instant now) const {
  const std::shared_ptr<const PartitionMapView> view = this->view();
  return Answer(*view, table, view->Find(table, key), now);
}

std::vector<LookUpAnswer> MemDs::LookUpBatch(std::span<const LookUpKey> keys, Instant now) const {
  const std::shared_ptr<const PartitionMapView> view = this->view();
  std::vector<LookUpAnswer> answers;
  answers.reserve(keys.size());
  std::vector<PartitionPtr> found = view->FindBatch(keys);
  for (size_t i = 0; i < keys.size(); ++i) {
    answers.push_back(Answer(*view, keys[i].table, std::move(found[i]), now));
  }
  return answers;
}

TableAnswer MemDs::LookUpTable(std::string_view name, Instant now) const {
  std::optional<TableRecord> record = view()->FindTable(name);
  if (record.has_value()) return {LookUpOutcome::kFound, std::move(record)};
  return {ready(now) ? LookUpOutcome::kNoTable : LookUpOutcome::kNotReady, std::nullopt};
}

TableAnswer MemDs::LookUpTable(TableId table, Instant now) const {
  std::optional<TableRecord> record = view()->FindTable(table);
  if (record.has_value() && record->dropped) return {LookUpOutcome::kDropped, std::nullopt};
  if (record.has_value()) return {LookUpOutcome::kFound, std::move(record)};
  return {ready(now) ? LookUpOutcome::kNoTable : LookUpOutcome::kNotReady, std::nullopt};
}

PushResult MemDs::Push(NodeId from, std::span<const PartitionRecord> records, Instant now) {
  PushResult result;
  std::vector<absl::StatusOr<Upserted>> results = map_->UpsertAll(records);
  for (size_t i = 0; i < records.size(); ++i) {
    absl::StatusOr<Upserted>& upserted = results[i];
    if (!upserted.ok()) {
      if (result.refused++ == 0) result.first_refusal = upserted.status();
      continue;
    }
    result.applied += upserted->outcome == UpsertOutcome::kApplied;
    result.unchanged += upserted->outcome == UpsertOutcome::kUnchanged;
    if (upserted->outcome != UpsertOutcome::kStale) continue;
    ++result.stale;
    if (upserted->newest != nullptr) {
      result.newer.push_back(std::move(upserted->newest));
    } else {
      result.dropped.push_back(records[i].table);
    }
  }
  Heard(from, now);
  Count(result);
  return result;
}

PushResult MemDs::PushTables(std::span<const TableRecord> records) {
  PushResult result;
  for (const TableRecord& record : records) {
    const absl::StatusOr<UpsertOutcome> outcome = map_->Upsert(record);
    if (!outcome.ok()) {
      if (result.refused++ == 0) result.first_refusal = outcome.status();
      continue;
    }
    result.applied += *outcome == UpsertOutcome::kApplied;
    result.unchanged += *outcome == UpsertOutcome::kUnchanged;
    if (*outcome != UpsertOutcome::kStale) continue;
    ++result.stale;
    if (map_->view()->FindTable(record.table)->dropped) result.dropped.push_back(record.table);
  }
  Count(result);
  return result;
}

SyncReply MemDs::AnswerSync(const SyncRequest& request) {
  PushResult joined;
  for (const SyncEntry& entry : request.entries) {
    const absl::StatusOr<UpsertOutcome> outcome = JoinEntry(*map_, entry.key, entry.value);
    joined.refused += !outcome.ok();
    joined.applied += outcome.ok() && *outcome == UpsertOutcome::kApplied;
    joined.unchanged += outcome.ok() && *outcome == UpsertOutcome::kUnchanged;
    joined.stale += outcome.ok() && *outcome == UpsertOutcome::kStale;
  }
  Count(joined);
  const std::shared_ptr<const PartitionMapView> now = view();
  SyncReply reply{.digest = now->digest()};
  if (reply.digest == request.digest) return reply;
  size_t bytes = kSyncHeaderBytesMax;
  for (const SyncAsk& ask : request.asks) {
    const size_t left = options_.sync_message_bytes_max - bytes;
    SyncAnswer answer =
        ask.list ? AnswerList(now->entries(), ask, left) : AnswerBranch(now->entries(), ask);
    const size_t size = SyncBytes(answer);
    if (size > left) break;
    bytes += size;
    reply.answers.push_back(std::move(answer));
  }
  return reply;
}

SyncSession MemDs::StartSync() {
  return SyncSession(map_.get(), {.message_bytes_max = options_.sync_message_bytes_max});
}

void MemDs::OnSynced(NodeId peer, const SyncSession& session, Instant now) {
  totals_.applied += session.counts().applied;
  totals_.refused += session.counts().refused;
  if (!session.in_step()) {
    ++totals_.syncs_incomplete;
    return;
  }
  ++totals_.syncs_in_step;
  in_step_at_[peer] = now;
  synced_.store(true, std::memory_order_release);
}

void MemDs::Heard(NodeId from, Instant now) {
  sources_[from] = now;
  if (sources_.size() <= options_.sources_max) return;
  sources_.erase(std::min_element(sources_.begin(), sources_.end(),
                                  [](auto& a, auto& b) { return a.second < b.second; }));
}

void MemDs::Count(const PushResult& result) {
  totals_.applied += result.applied;
  totals_.unchanged += result.unchanged;
  totals_.stale += result.stale;
  totals_.refused += result.refused;
}

MemDsStatus MemDs::status(Instant now) const {
  MemDsStatus status = totals_;
  const std::shared_ptr<const PartitionMapView> view = this->view();
  status.partitions = view->partitions();
  status.tables = view->tables();
  status.dropped = view->dropped();
  status.digest = view->digest();
  status.ready = ready(now);
  for (const auto& [peer, at] : in_step_at_) {
    status.since_in_step = std::min(status.since_in_step.value_or(now - at), now - at);
  }
  for (const auto& [node, at] : sources_) {
    const Duration age = now - at;
    if (age > options_.source_gone_after) continue;
    ++status.sources;
    if (status.sources == 1 || age > status.oldest_source_age) {
      status.oldest_source = node;
      status.oldest_source_age = age;
    }
  }
  return status;
}

}  // namespace dynlib::partition_map
