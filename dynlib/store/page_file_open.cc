// How a PageFile is made, and found again: its superblocks, and what they name.

#include <algorithm>
#include <array>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/store/checkpoint_writer.h"
#include "dynlib/store/node_store.h"
#include "dynlib/store/page_file.h"

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
      continue;
    }
    if (wrong.ok() || absl::IsDataLoss(superblock.status())) wrong = superblock.status();
    damaged->Update(absl::IsDataLoss(superblock.status())
                        ? superblock.status()
                        : absl::DataLossError(Cat("superblock at offset ", i * kSuperblockBytes,
                                                  ": it does not begin as one does")));
  }
  if (!found[0].has_value() && !found[1].has_value()) return wrong;
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

}  // namespace dynlib::store
