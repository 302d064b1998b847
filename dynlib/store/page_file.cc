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

// Free space that takes space on the disk may come to this share of what is used.
constexpr uint64_t kIdleShare = 64;
// Made between two looks at what is free.
constexpr size_t kHolesAtOnce = 64;

void ReleaseBlobs(ExtentAllocator& allocator, const Superblock& superblock) {
  if (!superblock.directory.null()) allocator.Release(superblock.directory.extent());
  if (!superblock.bitmap.null()) allocator.Release(superblock.bitmap.extent());
}

std::shared_ptr<const UnitSet> Held(const std::shared_ptr<const CheckpointRecord>& record) {
  return record == nullptr ? nullptr : record->held_units;
}

}  // namespace

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
  auto busy = [&] {
    uint64_t now = 0;
    for (const CapturedTree& tree : trees) now += tree.tree->position();
    return std::exchange(positions, now) != now && !IsAwaited();
  };
  const auto after_write = [&](uint64_t bytes) {
    if (paced && options_.after_checkpoint_write != nullptr && !IsAwaited())
      options_.after_checkpoint_write(bytes);
  };
  CheckpointWriter writer(nodes_.get(),
                          {options_.write_bytes_max, options_.busy_write_bytes, busy, after_write},
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
