#include "dynlib/store/page_file.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <span>
#include <utility>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/store/checkpoint_writer.h"
#include "dynlib/store/node_store.h"

namespace dynlib::store {
namespace {

absl::Status CheckBytes(std::string_view name, uint64_t value, uint64_t min, uint64_t max) {
  if (value >= min && value <= max && value % kUnitBytes == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(Cat("PageFile::Options.", name, " is ", value,
                                        "; a multiple of 4096 from ", min, " to ", max));
}

absl::Status CheckOptions(const PageFile::Options& options) {
  constexpr uint64_t kMin = 64 << 10;
  constexpr uint64_t kMax = 1 << 30;
  DYNLIB_RETURN_IF_ERROR(CheckBytes("growth_bytes_min", options.growth_bytes_min, kMin, kMax));
  DYNLIB_RETURN_IF_ERROR(
      CheckBytes("growth_bytes_max", options.growth_bytes_max, options.growth_bytes_min, kMax));
  DYNLIB_RETURN_IF_ERROR(
      CheckBytes("write_bytes_max", options.write_bytes_max, kUnitBytes, 16 << 20));
  DYNLIB_RETURN_IF_ERROR(
      CheckBytes("busy_write_bytes", options.busy_write_bytes, kUnitBytes, 16 << 20));
  if (options.compression_level < 1 || options.compression_level > 19) {
    return absl::InvalidArgumentError(Cat("PageFile::Options.compression_level is ",
                                          options.compression_level, "; from 1 to 19"));
  }
  return CheckBytes("memory_bytes", options.memory_bytes, 1 << 20, uint64_t{1} << 44);
}

// Free space that takes space on the disk may come to this share of what is used.
constexpr uint64_t kIdleShare = 64;
// Made between two looks at what is free.
constexpr size_t kHolesAtOnce = 64;

std::string_view FolderOf(std::string_view path) {
  size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? std::string_view() : path.substr(0, slash);
}

absl::Status InFile(std::string_view path, const absl::Status& status) {
  return absl::Status(status.code(), ToAbsl(Cat(path, ": ", ToStd(status.message()))));
}

// The superblocks that are intact, by index, and what is wrong with one that is not. An error when
// neither is, or one is of a newer format.
absl::StatusOr<std::array<std::optional<Superblock>, 2>> ReadSuperblocks(File& file,
                                                                         absl::Status* damaged) {
  DYNLIB_ASSIGN_OR_RETURN(uint64_t size, file.Size());
  if (size < kSuperblockUnits * kSuperblockBytes) {
    return absl::InvalidArgumentError(Cat("not a dynlib page file: ", size, " bytes long"));
  }
  std::array<std::optional<Superblock>, 2> found;
  absl::Status wrong;
  for (uint64_t i = 0; i < 2; ++i) {
    std::string block(kSuperblockBytes, '\0');
    DYNLIB_RETURN_IF_ERROR(file.ReadAt(i * kSuperblockBytes, std::span<char>(block)));
    absl::StatusOr<Superblock> superblock = DecodeSuperblock(block, i);
    if (absl::IsFailedPrecondition(superblock.status())) return superblock.status();
    if (superblock.ok()) {
      found[i] = *superblock;
    } else if (wrong.ok() || absl::IsDataLoss(superblock.status())) {
      wrong = superblock.status();
    }
  }
  if (!found[0].has_value() && !found[1].has_value()) return wrong;
  *damaged = wrong;
  return found;
}

absl::StatusOr<CheckpointRecord> ReadCheckpoint(NodeStore& nodes, const Superblock& superblock) {
  CheckpointRecord record{.superblock = superblock};
  if (superblock.file_units > nodes.allocator().file_units()) {
    return absl::DataLossError(Cat(nodes.path(), ": ", nodes.allocator().file_units() * kUnitBytes,
                                   " bytes long, and was ", superblock.file_units * kUnitBytes));
  }
  if (!superblock.directory.null()) {
    DYNLIB_ASSIGN_OR_RETURN(PageBytes page, nodes.ReadPage(superblock.directory));
    absl::StatusOr<std::vector<TreeRecord>> trees = DecodeDirectory(page);
    if (!trees.ok()) return InFile(nodes.path(), trees.status());
    record.trees = *std::move(trees);
  }
  if (!superblock.bitmap.null()) {
    DYNLIB_ASSIGN_OR_RETURN(PageBytes page, nodes.ReadPage(superblock.bitmap));
    absl::StatusOr<UnitSet> units = DecodeBitmap(page, superblock.file_units);
    if (!units.ok()) return InFile(nodes.path(), units.status());
    record.tree_units = *std::move(units);
  }
  record.held_units = HeldUnits(superblock, record.tree_units);
  return record;
}

uint64_t PositionIn(const CheckpointRecord* record, TreeId id) {
  if (record == nullptr) return 0;
  auto at = std::lower_bound(record->trees.begin(), record->trees.end(), id,
                             [](const TreeRecord& tree, TreeId id) { return tree.id < id; });
  return at != record->trees.end() && at->id == id ? at->position : 0;
}

void ReleaseBlobs(ExtentAllocator& allocator, const Superblock& superblock) {
  if (!superblock.directory.null()) allocator.Release(superblock.directory.extent());
  if (!superblock.bitmap.null()) allocator.Release(superblock.bitmap.extent());
}

std::shared_ptr<const UnitSet> Held(const std::shared_ptr<const CheckpointRecord>& record) {
  return record == nullptr ? nullptr : record->held_units;
}

}  // namespace

absl::Status PageFile::Validate(const Options& options) { return CheckOptions(options); }

absl::StatusOr<PageFile::Content> PageFile::Peek(Disk* disk, std::string_view path) {
  DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<File> file, disk->Open(path, OpenMode::kRead));
  absl::Status damaged;
  const auto superblocks = ReadSuperblocks(*file, &damaged);
  if (!superblocks.ok()) return InFile(path, superblocks.status());
  const auto& [a, b] = *superblocks;
  const bool empty =
      (!a.has_value() || a->directory.null()) && (!b.has_value() || b->directory.null());
  // The first opening may have been writing superblock 1 anew: it was empty, if 0 is a new file's.
  const bool is_new = a.has_value() && (b.has_value() || a->generation == 0);
  return empty && is_new ? Content::kNoTrees : Content::kTrees;
}

absl::StatusOr<std::unique_ptr<PageFile>> PageFile::Open(Options options, Disk* disk,
                                                         std::string_view path_view,
                                                         MetricsSink* metrics) {
  DYNLIB_RETURN_IF_ERROR(Validate(options));
  std::string path(path_view);
  absl::StatusOr<std::unique_ptr<File>> file =
      disk->Open(path, options.read_only ? OpenMode::kRead : OpenMode::kReadWrite);
  if (absl::IsNotFound(file.status()) && options.create_if_missing && !options.read_only) {
    DYNLIB_RETURN_IF_ERROR(Create(options, disk, path));
    file = disk->Open(path, OpenMode::kReadWrite);
  }
  if (!file.ok()) return file.status();
  DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<PageFile> opened,
                          Load(options, *std::move(file), path, metrics));
  if (options.read_only) {
    opened->broken_ = absl::FailedPreconditionError(Cat(path, ": open for reading alone"));
    return opened;
  }
  // What was found may never have been synced, if only the process had died: neither the name ...
  DYNLIB_RETURN_IF_ERROR(disk->SyncDir(FolderOf(path)));
  // ... nor the superblock. Its pages were synced before it was written. Written anew, since after
  // a failed sync the kernel may take for clean what never reached the disk (rule L3).
  Superblock superblock = opened->NewestRecord()->superblock;
  superblock.log_batch = options.log_batch.value_or(0);
  DYNLIB_RETURN_IF_ERROR(opened->WriteSuperblock(superblock));
  // After a fallback its owner first looks at the log.
  const bool alone = opened->records_[1 - opened->generation_ % 2] == nullptr;
  if (alone && opened->fallback_.ok()) DYNLIB_RETURN_IF_ERROR(opened->RepeatNewest());
  return opened;
}

// Under another name first: a file of the right name is whole.
absl::Status PageFile::Create(const Options& options, Disk* disk, const std::string& path) {
  std::string draft = path + ".new";
  absl::Status removed = disk->Remove(draft);
  if (!removed.ok() && !absl::IsNotFound(removed)) return removed;
  {
    DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<File> file, disk->Open(draft, OpenMode::kCreate));
    DYNLIB_RETURN_IF_ERROR(file->Allocate(0, kSuperblockUnits * kSuperblockBytes));
    Superblock empty{.file_id = options.file_id, .file_units = kSuperblockUnits};
    std::string blocks = EncodeSuperblock(empty);
    empty.generation = 1;
    blocks += EncodeSuperblock(empty);
    DYNLIB_RETURN_IF_ERROR(file->WriteAt(0, blocks));
    DYNLIB_RETURN_IF_ERROR(file->Sync());
  }
  DYNLIB_RETURN_IF_ERROR(disk->Rename(draft, path));
  return disk->SyncDir(FolderOf(path));
}

absl::StatusOr<std::unique_ptr<PageFile>> PageFile::Load(const Options& options,
                                                         std::unique_ptr<File> file,
                                                         std::string_view path,
                                                         MetricsSink* metrics) {
  absl::Status damaged;
  auto superblocks = ReadSuperblocks(*file, &damaged);
  if (!superblocks.ok()) return InFile(path, superblocks.status());
  if (!damaged.ok()) damaged = InFile(path, damaged);
  auto& [a, b] = *superblocks;
  const Superblock newest =
      !b.has_value() || (a.has_value() && a->generation > b->generation) ? *a : *b;
  if (options.file_id != Digest128{} && options.file_id != newest.file_id) {
    return absl::FailedPreconditionError(Cat(path, ": file_id ", Hex(newest.file_id.high),
                                             Hex(newest.file_id.low), ", expected ",
                                             Hex(options.file_id.high), Hex(options.file_id.low)));
  }
  const uint64_t log_batch =
      std::max(a.has_value() ? a->log_batch : 0, b.has_value() ? b->log_batch : 0);
  if (options.log_batch.has_value() && *options.log_batch < log_batch) {
    return absl::DataLossError(Cat(path, ": batch ", log_batch,
                                   " of the log was durable, and the log ends with batch ",
                                   *options.log_batch, ": segments are missing"));
  }
  DYNLIB_ASSIGN_OR_RETURN(uint64_t size, file->Size());
  auto nodes = std::make_shared<NodeStore>(
      std::move(file), std::string(path), size / kUnitBytes,
      NodeStore::Growth{options.growth_bytes_min, options.growth_bytes_max}, options.memory_bytes,
      PageCompressor::Options{options.compression, options.compression_level}, metrics);
  std::array<RecordPtr, 2> records;
  absl::Status damage;  // Of the newest.
  for (uint64_t i = 0; i < 2; ++i) {
    const std::optional<Superblock>& superblock = (*superblocks)[i];
    if (!superblock.has_value()) continue;
    absl::StatusOr<CheckpointRecord> record = ReadCheckpoint(*nodes, *superblock);
    if (record.ok()) {
      records[i] = std::make_shared<CheckpointRecord>(*std::move(record));
    } else if (!absl::IsDataLoss(record.status())) {
      return record.status();
    } else if (i == newest.generation % 2) {
      damage = record.status();
    }
    // An older checkpoint whose blobs are damaged is no longer one to fall back on.
    damaged.Update(record.status());
  }
  uint64_t generation = newest.generation;
  if (!damage.ok()) {
    // Of an older one than that before it pages were used again.
    const RecordPtr& older = records[1 - generation % 2];
    const bool whole = older != nullptr && older->superblock.generation + 1 == generation;
    if (!options.fall_back || !whole) return damage;
    --generation;
  }
  std::unique_ptr<PageFile> loaded(
      new PageFile(options, std::move(nodes), std::move(records), generation));
  if (damage.ok() && !damaged.ok()) loaded->notes_.emplace_back(ToStd(damaged.message()));
  loaded->fallback_ = std::move(damage);
  return loaded;
}

// What one superblock names is as safe as what two do only while that one is whole.
absl::Status PageFile::RepeatNewest() {
  auto record = std::make_shared<CheckpointRecord>(*NewestRecord());
  ++record->superblock.generation;
  record->superblock.log_batch = log_batch_;
  DYNLIB_RETURN_IF_ERROR(WriteSuperblock(record->superblock));
  std::lock_guard lock(mutex_);
  generation_ = record->superblock.generation;
  records_[generation_ % 2] = std::move(record);
  HoldCheckpoints();
  for (const auto& [id, tree] : trees_) {
    tree->SetDurable(tree->durable_position(), tree->durable_position());
  }
  return absl::OkStatus();
}

PageFile::PageFile(const Options& options, std::shared_ptr<NodeStore> nodes,
                   std::array<RecordPtr, 2> records, uint64_t generation)
    : options_(options),
      nodes_(std::move(nodes)),
      records_(std::move(records)),
      generation_(generation) {
  const CheckpointRecord& newest = *records_[generation % 2];
  const CheckpointRecord* older = records_[1 - generation % 2].get();
  file_id_ = newest.superblock.file_id;
  log_batch_ = options.log_batch.value_or(0);
  tree_units_ = newest.tree_units;
  nodes_->allocator().SetLive(tree_units_);
  HoldCheckpoints();
  for (const TreeRecord& record : newest.trees) {
    Node* root = record.root.null() ? nullptr : nodes_->MakeNode(record.root);
    TreePtr tree = MakeTreeLocked(record.id, root, record.position, /*version=*/0);
    // A higher one is of another tree, which had the id before it was dropped.
    uint64_t fallback = PositionIn(older, record.id);
    tree->SetDurable(record.position, fallback <= record.position ? fallback : 0);
    trees_.emplace(record.id, std::move(tree));
  }
}

void PageFile::HoldCheckpoints() {
  if (options_.reuse_pages_early_for_test) return;
  nodes_->allocator().SetCheckpoints({Held(records_[0]), Held(records_[1])});
}

PageFile::~PageFile() = default;

absl::Status PageFile::Checkpoint() { return CheckpointTimes(1); }

absl::Status PageFile::CheckpointTwice() { return CheckpointTimes(2); }

absl::Status PageFile::CheckpointTimes(int times) {
  return Exclusively([&]() -> absl::Status {
    for (int i = 0; i < times; ++i) DYNLIB_RETURN_IF_ERROR(RunCheckpoint(/*into_both=*/times > 1));
    const ExtentAllocator& allocator = nodes_->allocator();
    const uint64_t idle = allocator.idle_units();
    const bool mostly_free = idle > allocator.file_units() / 2;
    if (!mostly_free || idle * kUnitBytes < options_.growth_bytes_max) return absl::OkStatus();
    return DiscardFree();
  });
}

absl::Status PageFile::ReleaseSpace() {
  return Exclusively([this] { return DiscardFree(); });
}

absl::Status PageFile::Exclusively(absl::FunctionRef<absl::Status()> work) {
  {
    std::lock_guard lock(mutex_);
    if (checkpointing_) return absl::UnavailableError("another checkpoint is running");
    if (!broken_.ok()) return broken_;
    checkpointing_ = true;
  }
  absl::Status status = AbandonNewest();
  if (status.ok()) status = work();
  nodes_->versions().CheckpointEnded();
  std::vector<absl::AnyInvocable<void()>> waiting;
  {
    std::lock_guard lock(mutex_);
    checkpointing_ = false;
    if (!status.ok() && !absl::IsResourceExhausted(status)) broken_ = status;
    if (!status.ok() || HasRoom()) waiting.swap(waiting_);
  }
  for (auto& go_on : waiting) go_on();
  return status;
}

// After a fallback, before anything else is written: its pages are free space, so that the newest
// checkpoint is not to come back, even if the device reads what was damaged the next time. In its
// superblock's place stands the one before it, as if it had been made twice.
absl::Status PageFile::AbandonNewest() {
  if (fallback_.ok() || abandoned_) return absl::OkStatus();
  const absl::Status repeated = RepeatNewest();
  if (!repeated.ok()) return NeverRetried(repeated);
  abandoned_ = true;
  return absl::OkStatus();
}

bool PageFile::CheckpointDue() const {
  return nodes_->counters().dirty_bytes.load(std::memory_order_relaxed) >=
         options_.memory_bytes / 8;
}

bool PageFile::HasRoom() const {
  return nodes_->counters().dirty_bytes.load(std::memory_order_relaxed) < options_.memory_bytes / 2;
}

bool PageFile::WantsMemoryAhead() const { return nodes_->WantsMemoryAhead(); }

void PageFile::MakeMemoryAhead() { nodes_->MakeMemoryAhead(); }

void PageFile::WhenRoom(absl::AnyInvocable<void()> go_on) {
  {
    std::lock_guard lock(mutex_);
    if (!HasRoom() && broken_.ok()) {
      waiting_.push_back(std::move(go_on));
      return;
    }
  }
  go_on();
}

absl::Status PageFile::DiscardFree() {
  ExtentAllocator& allocator = nodes_->allocator();
  uint64_t floor = kSuperblockUnits;
  {
    std::lock_guard lock(mutex_);
    for (const RecordPtr& record : records_) {
      if (record != nullptr) floor = std::max(floor, record->superblock.file_units);
    }
  }
  const uint64_t before = allocator.file_units();
  const uint64_t after = allocator.TrimTail(floor);
  if (after < before) DYNLIB_RETURN_IF_ERROR(nodes_->file().Truncate(after * kUnitBytes));
  for (uint64_t from = 0;;) {
    const std::vector<Extent> runs = allocator.DiscardRuns(kLongRunUnits, kHolesAtOnce, &from);
    if (runs.empty()) return absl::OkStatus();
    DYNLIB_RETURN_IF_ERROR(Discard(runs));
  }
}

absl::Status PageFile::Discard(const std::vector<Extent>& extents) {
  for (const Extent& extent : extents) {
    DYNLIB_RETURN_IF_ERROR(
        nodes_->file().Discard(extent.first * kUnitBytes, extent.count * kUnitBytes));
  }
  return absl::OkStatus();
}

absl::Status PageFile::ReleaseShortRuns(size_t holes, ReleaseProgress* progress) {
  return Exclusively([&]() -> absl::Status {
    ExtentAllocator& allocator = nodes_->allocator();
    uint64_t units = progress->run_bytes / kUnitBytes;
    while (units > 0 && allocator.idle_units() > allocator.used_units() / kIdleShare) {
      const std::vector<Extent> runs =
          allocator.DiscardRuns(units, std::min(holes, kHolesAtOnce), &progress->from_unit);
      DYNLIB_RETURN_IF_ERROR(Discard(runs));
      progress->holes += runs.size();
      if (runs.size() >= holes) return absl::OkStatus();
      holes -= runs.size();
      if (!runs.empty()) continue;
      units /= 2;
      progress->run_bytes = units * kUnitBytes;
      progress->from_unit = 0;
    }
    progress->done = true;
    return absl::OkStatus();
  });
}

absl::Status PageFile::RunCheckpoint(bool into_both) {
  const uint64_t generation = NewestRecord()->superblock.generation + 1;
  std::vector<std::shared_ptr<const VersionPin>> old;
  const std::vector<CapturedTree> trees = CaptureTrees(generation, old);
  // With room to spare, pages move towards the start of the file, and its end comes free.
  ExtentAllocator& allocator = nodes_->allocator();
  if (allocator.used_units() < allocator.file_units() - allocator.file_units() / 4)
    allocator.StartOver();
  auto same = [](const CapturedTree& tree, const TreeRecord& record) {
    const Node* top = tree.version.root();
    PageRef root = top == nullptr ? PageRef{} : top->address();
    return tree.tree->id() == record.id && tree.version.position() == record.position &&
           root == record.root && (top == nullptr) == record.root.null();
  };
  auto holds_all = [&](const RecordPtr& record) {
    return record != nullptr &&
           std::equal(trees.begin(), trees.end(), record->trees.begin(), record->trees.end(), same);
  };
  std::array<RecordPtr, 2> records;
  {
    std::lock_guard lock(mutex_);
    records = records_;
  }
  if (holds_all(NewestRecord()) && (!into_both || (holds_all(records[0]) && holds_all(records[1]))))
    return absl::OkStatus();
  DYNLIB_ASSIGN_OR_RETURN(CheckpointRecord record,
                          WritePages(trees, old, generation, /*paced=*/!into_both));
  // The pages are durable before a superblock names them.
  absl::Status written = nodes_->file().Sync();
  {
    std::lock_guard lock(mutex_);
    ++superblock_writes_[generation % 2];
  }
  if (written.ok()) written = WriteSuperblock(record.superblock);
  if (!written.ok()) return NeverRetried(written);
  Install(std::make_shared<CheckpointRecord>(std::move(record)), trees);
  return absl::OkStatus();
}

std::vector<PageFile::CapturedTree> PageFile::CaptureTrees(
    uint64_t generation, std::vector<std::shared_ptr<const VersionPin>>& old) {
  std::vector<CapturedTree> trees;
  Versions::Captured captured;
  UnitSet leaked;
  {
    std::lock_guard lock(mutex_);
    leaked = std::exchange(leaked_, {});
    std::lock_guard versions_lock(nodes_->versions().mutex());
    captured = nodes_->versions().CaptureLocked(generation);
    for (const auto& [id, tree] : trees_) trees.push_back({tree, tree->SnapshotLocked()});
  }
  for (Extent extent : captured.left) tree_units_.Remove(extent);
  nodes_->FreeDead(captured.dead);
  old = std::move(captured.old);
  if (leaked.End() > 0) {
    tree_units_.RemoveAll(leaked);
    nodes_->allocator().ReleaseAll(leaked);
  }
  return trees;
}

PageFile::RecordPtr PageFile::NewestRecord() const {
  std::lock_guard lock(mutex_);
  return records_[generation_ % 2];
}

bool PageFile::IsAwaited() const {
  if (hurries_ || !HasRoom()) return true;
  std::lock_guard lock(mutex_);
  return !waiting_.empty();
}

absl::StatusOr<CheckpointRecord> PageFile::WritePages(
    const std::vector<CapturedTree>& trees,
    const std::vector<std::shared_ptr<const VersionPin>>& old, uint64_t generation, bool paced) {
  CheckpointRecord record;
  uint64_t positions = 0;
  auto trees_moved = [&] {
    uint64_t now = 0;
    for (const CapturedTree& tree : trees) now += tree.tree->position();
    return std::exchange(positions, now) != now;
  };
  const auto after_write = [&](uint64_t bytes) {
    if (paced && options_.after_checkpoint_write != nullptr && !IsAwaited())
      options_.after_checkpoint_write(bytes);
  };
  CheckpointWriter writer(
      nodes_.get(), {options_.write_bytes_max, options_.busy_write_bytes, trees_moved, after_write},
      generation, &tree_units_);
  for (const CapturedTree& tree : trees) {
    record.trees.push_back({tree.tree->id(), tree.version.position(), {}});
    if (tree.version.empty()) continue;
    DYNLIB_RETURN_IF_ERROR(writer.WriteTree(*tree.version.root()));
    record.trees.back().root = tree.version.root()->address();
  }
  for (const auto& version : old) {
    if (version->root != nullptr) DYNLIB_RETURN_IF_ERROR(writer.WriteOldVersion(*version->root));
  }
  DYNLIB_RETURN_IF_ERROR(writer.Flush());
  record.tree_units = tree_units_;

  Superblock& superblock = record.superblock;
  absl::Status blobs = [&] {
    if (!record.trees.empty()) {
      DYNLIB_ASSIGN_OR_RETURN(superblock.directory,
                              writer.WriteBlob(EncodeDirectory(record.trees)));
    }
    if (record.tree_units.End() > 0) {
      DYNLIB_ASSIGN_OR_RETURN(superblock.bitmap, writer.WriteBlob(EncodeBitmap(record.tree_units)));
    }
    return writer.Flush();
  }();
  if (!blobs.ok()) {
    ReleaseBlobs(nodes_->allocator(), superblock);
    return blobs;
  }
  superblock.file_id = file_id_;
  superblock.log_batch = log_batch_.load(std::memory_order_relaxed);
  superblock.generation = generation;
  record.held_units = HeldUnits(superblock, record.tree_units);
  superblock.file_units = std::max(kSuperblockUnits, record.held_units->End());
  return record;
}

absl::Status PageFile::WriteSuperblock(const Superblock& superblock) {
  DYNLIB_RETURN_IF_ERROR(nodes_->file().WriteAt(superblock.generation % 2 * kSuperblockBytes,
                                                EncodeSuperblock(superblock)));
  return nodes_->file().Sync();
}

void PageFile::Install(RecordPtr record, const std::vector<CapturedTree>& trees) {
  for (const CapturedTree& tree : trees) {
    // The older may be of another tree, which had the name before and was further on.
    const uint64_t position = tree.version.position();
    tree.tree->SetDurable(position, std::min(position, tree.tree->durable_position()));
  }
  std::lock_guard lock(mutex_);
  const Superblock& superblock = record->superblock;
  generation_ = superblock.generation;
  ++checkpoints_;
  ++superblock_writes_[generation_ % 2];
  records_[generation_ % 2] = record;
  // From here on the space of the checkpoint before the last is free, but for what lives on (L5).
  HoldCheckpoints();
  ReleaseBlobs(nodes_->allocator(), superblock);  // held by the record alone
}

void PageFile::RememberDamage() { nodes_->RememberDamage(); }

PageFile::Stats PageFile::stats() const {
  Stats stats;
  stats.file_bytes = nodes_->allocator().file_units() * kUnitBytes;
  stats.used_bytes = nodes_->allocator().used_units() * kUnitBytes;
  stats.discarded_bytes = nodes_->allocator().discarded_units() * kUnitBytes;
  const NodeStore::Counters& counters = nodes_->counters();
  stats.pages_written = counters.pages_written.load(std::memory_order_relaxed);
  stats.bytes_written = counters.bytes_written.load(std::memory_order_relaxed);
  stats.pages_compressed = counters.pages_compressed.load(std::memory_order_relaxed);
  stats.compression_saved_bytes =
      counters.compression_saved_units.load(std::memory_order_relaxed) * kUnitBytes;
  stats.pages_read = counters.pages_read.load(std::memory_order_relaxed);
  stats.page_memory_bytes = nodes_->memory().content_bytes();
  stats.resident_bytes = nodes_->memory().resident_bytes();
  stats.spare_bytes = nodes_->memory().spare_bytes();
  stats.dirty_bytes = counters.dirty_bytes.load(std::memory_order_relaxed);
  stats.pages_evicted = counters.pages_evicted.load(std::memory_order_relaxed);
  stats.rows_behind_leaves = counters.rows_behind_leaves.load(std::memory_order_relaxed);
  stats.reads = nodes_->epochs().reads();
  stats.reads_missed = counters.reads_missed.load(std::memory_order_relaxed);
  stats.held = nodes_->versions().Stats();
  std::lock_guard lock(mutex_);
  stats.generation = generation_;
  stats.checkpoints = checkpoints_;
  return stats;
}

}  // namespace dynlib::store
