#include "dynlib/store/verify.h"

#include <algorithm>
#include <span>

#include "absl/status/statusor.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::store {
namespace {

constexpr uint64_t kTellBytes = 1 << 20;

std::string KeyAt(const PageView& page, uint32_t index) {
  return Cat(page.prefix(), page.suffix(index));
}

}  // namespace

void Verifier::Expect(const CheckpointRecord& checkpoint) {
  report_.bytes_total += checkpoint.held_units->Count() * kUnitBytes;
}

void Verifier::Note(uint64_t bytes, const absl::Status& read) {
  report_.bytes += bytes;
  report_.bytes_total += bytes;
  if (!read.ok()) Fault(read);
}

absl::Status Verifier::CheckSuperblock(NodeStore* nodes, const Superblock& expected) {
  const uint64_t index = expected.generation % 2;
  std::string block(kSuperblockBytes, '\0');
  DYNLIB_RETURN_IF_ERROR(
      nodes->file().ReadAt(index * kSuperblockBytes, std::span<char>(block.data(), block.size())));
  const absl::StatusOr<Superblock> found = DecodeSuperblock(block, index);
  if (!found.ok()) {
    return absl::DataLossError(Cat(nodes->path(), ": ", ToStd(found.status().message())));
  }
  if (found->generation == expected.generation && found->directory == expected.directory &&
      found->bitmap == expected.bitmap) {
    return absl::OkStatus();
  }
  return absl::DataLossError(Cat(nodes->path(), ": superblock at offset ", index * kSuperblockBytes,
                                 ": of checkpoint ", found->generation, ", and that of ",
                                 expected.generation, " was written"));
}

// All that is in memory of them is what was read at Open, or was written since.
void Verifier::CheckBlobs(const CheckpointRecord& checkpoint) {
  const Superblock& superblock = checkpoint.superblock;
  if (!superblock.directory.null()) {
    const std::optional<PageBytes> page = Read(superblock.directory);
    if (page.has_value()) {
      const absl::StatusOr<std::vector<TreeRecord>> trees = DecodeDirectory(*page);
      if (!trees.ok() || *trees != checkpoint.trees) {
        Fault(superblock.directory, "is not the directory that was written");
      }
    }
  }
  if (superblock.bitmap.null()) return;
  const std::optional<PageBytes> page = Read(superblock.bitmap);
  if (!page.has_value()) return;
  const absl::StatusOr<UnitSet> units = DecodeBitmap(*page, superblock.file_units);
  if (!units.ok() || units->Encode() != checkpoint.tree_units.Encode()) {
    Fault(superblock.bitmap, "is not the bitmap that was written");
  }
}

void Verifier::Check(const CheckpointRecord& checkpoint) {
  seen_ = UnitSet();
  leaked_ = UnitSet();
  const uint64_t damaged = report_.damaged;
  CheckBlobs(checkpoint);
  for (const TreeRecord& tree : checkpoint.trees) {
    if (tree.root.null()) continue;
    CheckTreePage(tree.root, std::nullopt, {}, checkpoint.tree_units);
  }
  // A damaged page hides what is below it: only a whole tree says what leaked.
  if (report_.damaged > damaged || cancelled_) return;
  leaked_ = checkpoint.tree_units;
  leaked_.RemoveAll(seen_);
  report_.leaked_units += leaked_.Count();
}

void Verifier::Fault(const PageRef& ref, std::string_view what) {
  Fault(absl::DataLossError(
      Cat(nodes_->path(), ": page at offset ", ref.unit * kUnitBytes, ": ", what)));
}

void Verifier::Fault(const absl::Status& what) {
  ++report_.damaged;
  if (report_.faults.size() < VerifyReport::kMaxFaults) {
    report_.faults.emplace_back(ToStd(what.message()));
  }
  status_.Update(what);
}

std::optional<PageBytes> Verifier::Read(const PageRef& ref) {
  if (cancelled_) return std::nullopt;
  if (progress_ != nullptr && report_.bytes - told_bytes_ >= kTellBytes) {
    told_bytes_ = report_.bytes;
    if (!progress_(report_)) {
      cancelled_ = true;
      status_.Update(absl::CancelledError("the check was ended by its caller"));
      return std::nullopt;
    }
  }
  absl::StatusOr<PageBytes> page = nodes_->ReadPage(ref);
  if (!page.ok()) {
    Fault(page.status());
    return std::nullopt;
  }
  ++report_.pages;
  report_.bytes += ref.length;
  return *std::move(page);
}

std::optional<PageBytes> Verifier::ReadMarked(const PageRef& ref, const UnitSet& marked) {
  std::optional<PageBytes> page = Read(ref);
  if (!page.has_value()) return page;
  Extent extent = ref.extent();
  if (seen_.ContainsAny(extent)) Fault(ref, "shares space with another page");
  if (marked.NextOut(extent.first, extent.end()) != extent.end()) {
    Fault(ref, "is not marked as used");
  }
  seen_.Add(extent);
  return page;
}

void Verifier::CheckTreePage(const PageRef& ref, std::optional<uint32_t> level, const Range& range,
                             const UnitSet& marked) {
  std::optional<PageBytes> bytes = ReadMarked(ref, marked);
  if (!bytes.has_value()) return;
  PageView page(bytes->data.get());
  bool tree_page = page.kind() == PageKind::kLeaf || page.kind() == PageKind::kBranch;
  if (!tree_page || (level.has_value() && page.level() != *level)) {
    return Fault(ref, "is of an unexpected kind or level");
  }
  if (page.count() > 0 &&
      (KeyAt(page, 0) < range.low ||
       (range.high.has_value() && KeyAt(page, page.count() - 1) >= *range.high))) {
    return Fault(ref, "has keys outside the range that its parent gives it");
  }
  if (page.level() > 0) {
    CheckBranch(page, range, marked);
  } else if (page.count() == 0) {
    Fault(ref, "is an empty leaf");
  } else {
    CheckLeaf(page, range, marked);
  }
}

void Verifier::CheckBranch(const PageView& page, const Range& range, const UnitSet& marked) {
  for (uint32_t i = 0; i < page.child_count(); ++i) {
    Range below = range;
    if (i > 0) below.low = KeyAt(page, i - 1);
    if (i < page.count()) below.high = KeyAt(page, i);
    CheckTreePage(page.child(i), page.level() - 1, below, marked);
  }
}

void Verifier::CheckLeaf(const PageView& page, const Range& range, const UnitSet& marked) {
  for (uint32_t i = 0; i < page.count(); ++i) {
    LeafValue value = page.value(i);
    if (!value.overflow) continue;
    PageRef ref = page.child(value.child);
    std::optional<PageBytes> bytes = ReadMarked(ref, marked);
    if (!bytes.has_value()) continue;
    PageView overflow(bytes->data.get());
    if (overflow.kind() != PageKind::kOverflow || overflow.payload().size() != value.length) {
      Fault(ref, "is not the value that its leaf means");
    }
  }
}

}  // namespace dynlib::store
