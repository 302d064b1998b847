#include "dynlib/store/store_recovery.h"

#include <algorithm>
#include <utility>
#include <variant>
#include <vector>

#include "dynlib/base/ids.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/store/store_catalogue.h"

namespace dynlib::store {
namespace {

// Gathered at least and at most, whatever the memory: keys in no order that go to the pages
// together copy each page once, and 200 MB of them in portions of 8 MiB took twice as long as in
// one.
constexpr uint64_t kGatherBytesMin = 8 << 20;
constexpr uint64_t kGatherBytesMax = 256 << 20;
constexpr uint64_t kTellBytes = 1 << 20;

}  // namespace

Store::Replay::Replay(const Options& options, PageFile* pages, NodeLog* log,
                      const LogReader* reader, NodeLog::Recovery* logged, Store::Recovery* found)
    : fetch_rows_(options.fetch_rows),
      gather_bytes_(std::clamp(options.pages.memory_bytes / 4, kGatherBytesMin, kGatherBytesMax)),
      pages_(*pages),
      catalogue_(*pages->FindTree(kCatalogueTree)),
      log_(log),
      reader_(reader),
      logged_(*logged),
      found_(*found) {}

absl::Status Store::Replay::Run() {
  found_.clean_close = logged_.clean_close;
  found_.notes.insert(found_.notes.end(), logged_.notes.begin(), logged_.notes.end());
  through_ = last_ = catalogue_.position();
  const NodeLog::RecoveredStream& stream = logged_.streams[kStoreStream];
  if (stream.lost_batch) {
    DYNLIB_RETURN_IF_ERROR(
        Meet(absl::DataLossError(Cat("a batch of the log is missing: ", FirstNote()))));
  }
  cut_ = CutAt(stream);
  if (cut_ != UINT64_MAX && !logged_.DataLoss().ok()) {
    DYNLIB_RETURN_IF_ERROR(Meet(logged_.DataLoss()));
  }
  if (!pages_.fallback().ok()) DYNLIB_RETURN_IF_ERROR(FallBack());
  count_ = stream.lost_batch || !pages_.fallback().ok();
  DYNLIB_RETURN_IF_ERROR(LoadNames());
  const absl::Status read = ReadLog();
  if (!read.ok()) DYNLIB_RETURN_IF_ERROR(absl::IsDataLoss(read) ? Meet(read) : read);
  DYNLIB_RETURN_IF_ERROR(Flush());
  if (reader_ != nullptr) return absl::OkStatus();
  DYNLIB_RETURN_IF_ERROR(DropOrphans());
  for (const auto& unknown : stream.unknown) last_ = std::max(last_, unknown.slot);
  if (cut_ != UINT64_MAX) DYNLIB_RETURN_IF_ERROR(ForgetThrough(last_));
  owed_.position = catalogue_.position();
  return absl::OkStatus();
}

// A torn end of the log was never acknowledged, or is damaged: the newest checkpoint may have had
// what was in it, and who has only the one before it cannot tell.
absl::Status Store::Replay::FallBack() {
  const std::string_view why = ToStd(pages_.fallback().message());
  if (cut_ != UINT64_MAX || !logged_.notes.empty()) {
    return Meet(absl::DataLossError(
        Cat(why, "; the log after the checkpoint before it is not whole: ", FirstNote())));
  }
  found_.notes.push_back(Cat(why, "; opened the checkpoint before it, and the log from there on"));
  return absl::OkStatus();
}

// The error of an Open for writing; who only reads goes on.
absl::Status Store::Replay::Meet(const absl::Status& damage) {
  if (reader_ == nullptr) return damage;
  if (damage_.ok()) damage_ = damage;
  found_.notes.emplace_back(ToStd(damage.message()));
  return absl::OkStatus();
}

absl::Status Store::Replay::LoadNames() {
  absl::StatusOr<Catalogue> catalogue = ReadCatalogue(catalogue_.snapshot());
  if (absl::IsDataLoss(catalogue.status())) {
    DYNLIB_RETURN_IF_ERROR(Meet(catalogue.status()));
    DYNLIB_ASSIGN_OR_RETURN(catalogue, ReadWholeCatalogueRows(catalogue_.snapshot()));
    for (TreeId id : pages_.Trees()) {
      if (ToUint(id) >= kFirstNamedTree) names_[id] = Cat("#", id);  // Unless its name is there.
    }
  }
  if (!catalogue.ok()) return catalogue.status();
  for (const auto& [name, id] : catalogue->trees) names_[id] = name;
  return absl::OkStatus();
}

absl::Status Store::Replay::ReadLog() {
  const auto take = [this](const LogRecord& entry) {
    last_ = entry.slot;
    if (entry.slot < cut_) return ApplyEntry(entry);
    ++found_.cut_batches;
    return absl::OkStatus();
  };
  if (reader_ != nullptr) return reader_->ReadEntries(kStoreStream, last_, take);
  return log_->ReadEntries(kStoreStream, last_, take);
}

// The first sequence that cannot be read and that no checkpoint has.
uint64_t Store::Replay::CutAt(const NodeLog::RecoveredStream& stream) {
  uint64_t cut = UINT64_MAX;
  for (const auto& unknown : stream.unknown) {
    if (unknown.slot <= catalogue_.position()) continue;
    cut = std::min(cut, unknown.slot);
    ++found_.cut_batches;
  }
  return cut;
}

absl::Status Store::Replay::ApplyEntry(const LogRecord& entry) {
  DYNLIB_ASSIGN_OR_RETURN(LoggedGroup group, DecodeGroup(entry.payload));
  if (count_ && entry.slot - group.writes != through_) {
    return absl::DataLossError(Cat("writes ", through_ + 1, " to ", entry.slot - group.writes,
                                   " are not in the log: ", FirstNote(), " ",
                                   ToStd(pages_.fallback().message())));
  }
  if (count_) count_ = logged_.streams[kStoreStream].lost_batch;
  through_ = entry.slot;
  for (LoggedChange& change : group.changes) {
    DYNLIB_RETURN_IF_ERROR(ApplyChange(change, entry.slot));
  }
  found_.replayed_batches += group.writes;
  if (gathered_bytes_ >= gather_bytes_) DYNLIB_RETURN_IF_ERROR(Flush());
  return Tell(entry.payload.size() + NodeLog::kRecordOverheadBytes);
}

absl::Status Store::Replay::Tell(uint64_t bytes) {
  applied_bytes_ += bytes;
  if (progress_ == nullptr || applied_bytes_ - told_bytes_ < kTellBytes) return absl::OkStatus();
  told_bytes_ = applied_bytes_;
  if (progress_(applied_bytes_)) return absl::OkStatus();
  return absl::CancelledError("the opening was ended by its caller");
}

absl::Status Store::Replay::ApplyChange(LoggedChange& change, uint64_t slot) {
  if (auto* apply = std::get_if<LoggedChange::Apply>(&change.what)) {
    if (pages_.FindTree(change.tree) == nullptr) {
      return Meet(absl::DataLossError(
          Cat("write ", slot, " of the log is in tree ", change.tree, ", which is not there")));
    }
    gathered_bytes_ += apply->batch.bytes() + apply->batch.size() * sizeof(WriteBatch::Operation);
    batches_[change.tree].Append(std::move(apply->batch));
    return absl::OkStatus();
  }
  if (const auto* create = std::get_if<LoggedChange::Create>(&change.what)) {
    // The checkpoint may have caught it before the catalogue had its name.
    const absl::Status made = pages_.CreateTree(change.tree).status();
    if (!made.ok() && !absl::IsAlreadyExists(made)) return made;
    AddTreeRow(create->name, change.tree, rows_);
    names_[change.tree] = create->name;
    return absl::OkStatus();
  }
  auto name = names_.find(change.tree);
  if (name == names_.end()) {
    return Meet(absl::DataLossError(
        Cat("write ", slot, " of the log drops tree ", change.tree, ", which is not there")));
  }
  DeleteTreeRow(name->second, rows_);
  names_.erase(name);
  for (auto* writes : {&batches_, &owed_.batches}) writes->erase(change.tree);
  lost_.erase(change.tree);
  return absl::OkStatus();
}

absl::Status Store::Replay::Flush() {
  if (through_ <= catalogue_.position()) return absl::OkStatus();
  if (reader_ != nullptr) rows_.Clear();  // The names are known; the catalogue may be damaged.
  for (const auto& [id, ranges] : lost_) {
    for (const Snapshot::Unreadable& range : ranges) {
      SetAside(range.first, range.end, batches_[id], owed_.batches[id]);
    }
  }
  while (true) {
    std::vector<PageFile::TreeBatch> batches = {{&catalogue_, &rows_}};
    for (const auto& [id, batch] : batches_) batches.push_back({pages_.FindTree(id), &batch});
    const absl::Status applied = pages_.ApplyTogether(batches, through_);
    if (applied.ok()) break;
    if (!absl::IsDataLoss(applied)) return applied;
    DYNLIB_RETURN_IF_ERROR(MendFor(applied));
  }
  batches_.clear();
  rows_.Clear();
  gathered_bytes_ = 0;
  return absl::OkStatus();
}

// `damage` if there is nothing to be done about it.
absl::Status Store::Replay::MendFor(const absl::Status& damage) {
  // What is owed is not to be missing from a page that can be read after all, the next time.
  pages_.RememberDamage();
  bool mended = false;
  for (auto& [id, batch] : batches_) DYNLIB_RETURN_IF_ERROR(MendTree(id, batch, &mended));
  return mended ? absl::OkStatus() : damage;
}

absl::Status Store::Replay::MendTree(TreeId id, WriteBatch& batch, bool* mended) {
  Tree& tree = *pages_.FindTree(id);
  DYNLIB_ASSIGN_OR_RETURN(const std::vector<Snapshot::Unreadable> damaged,
                          DamageInTheWay(tree, batch));
  for (const Snapshot::Unreadable& range : damaged) {
    *mended = true;
    absl::Status replaced = absl::NotFoundError("Options::fetch_rows is not set");
    if (fetch_rows_ != nullptr) replaced = ReplaceDamaged(NameOf(id), tree, range, fetch_rows_);
    if (replaced.ok()) {
      found_.notes.push_back(Cat(ToStd(range.status.message()), "; replaced by a good copy"));
      continue;
    }
    const absl::Status why = NotReplaced(range.status, replaced);
    found_.notes.emplace_back(ToStd(why.message()));
    if (owed_.empty()) owed_.why = why;
    SetAside(range.first, range.end, batch, owed_.batches[id]);
    lost_[id].push_back(range);
  }
  return absl::OkStatus();
}

// For who fetches rows while the store is being opened: nothing but a name.
NamedTree Store::Replay::NameOf(TreeId id) const {
  if (id == kDefaultTree) return NamedTree();
  auto entry = std::make_shared<NamedTree::Entry>();
  entry->id = id;
  const auto name = names_.find(id);
  if (name != names_.end()) entry->name = name->second;
  return NamedTree(std::move(entry));
}

// Trees that the catalogue does not name: those that were being made or dropped.
absl::Status Store::Replay::DropOrphans() {
  DYNLIB_ASSIGN_OR_RETURN(const Catalogue catalogue, ReadCatalogue(catalogue_.snapshot()));
  for (TreeId id : pages_.Trees()) {
    if (id == kCatalogueTree || id == kDefaultTree) continue;
    const bool named = std::any_of(catalogue.trees.begin(), catalogue.trees.end(),
                                   [&](const auto& row) { return row.second == id; });
    if (!named) DYNLIB_RETURN_IF_ERROR(pages_.DropTree(id));
  }
  return absl::OkStatus();
}

// What was cut must not come back behind later writes: the trees move past it, in both checkpoints,
// and the log lets go of it. A crash in between cuts again.
absl::Status Store::Replay::ForgetThrough(uint64_t last) {
  DYNLIB_RETURN_IF_ERROR(catalogue_.Apply(WriteBatch(), last));
  if (!owed_.empty()) return absl::OkStatus();  // Who pays does it, before the next write.
  DYNLIB_RETURN_IF_ERROR(pages_.CheckpointTwice());
  log_->Release(kStoreStream, last);
  return absl::OkStatus();
}

}  // namespace dynlib::store
