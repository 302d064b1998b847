#include "dynlib/store/superblock.h"

#include "dynlib/base/coding.h"
#include "dynlib/base/digest_coding.h"
#include "dynlib/base/strings.h"

namespace dynlib::store {
namespace {

constexpr std::string_view kMagic("DLPAGES\0", 8);
constexpr size_t kChecksumAt = kSuperblockBytes - 8;
constexpr size_t kDirectoryEntryBytes = 16 + kPageRefBytes;

}  // namespace

std::shared_ptr<const UnitSet> HeldUnits(const Superblock& superblock, const UnitSet& tree_units) {
  auto held = std::make_shared<UnitSet>(tree_units);
  if (!superblock.directory.null()) held->Add(superblock.directory.extent());
  if (!superblock.bitmap.null()) held->Add(superblock.bitmap.extent());
  return held;
}

std::string EncodeSuperblock(const Superblock& superblock) {
  std::string block(kMagic);
  PutFixed32(block, kPageFileVersion);
  PutFixed32(block, kUnitBytes);
  PutDigest(block, superblock.file_id);
  PutFixed64(block, superblock.generation);
  PutFixed64(block, superblock.file_units);
  size_t refs = block.size();
  block.resize(kSuperblockBytes);
  PutPageRef(block.data() + refs, superblock.directory);
  PutPageRef(block.data() + refs + kPageRefBytes, superblock.bitmap);
  StoreFixed<uint64_t>(block.data() + refs + 2 * kPageRefBytes, superblock.log_batch);
  uint64_t checksum =
      Checksum(std::string_view(block).substr(0, kChecksumAt), superblock.generation % 2);
  StoreFixed<uint64_t>(block.data() + kChecksumAt, checksum);
  return block;
}

absl::StatusOr<Superblock> DecodeSuperblock(std::string_view block, uint64_t index) {
  if (block.substr(0, kMagic.size()) != kMagic) {
    return absl::InvalidArgumentError("not a dynlib page file: no superblock");
  }
  uint64_t expected = LoadFixed<uint64_t>(block.data() + kChecksumAt);
  uint64_t checksum = Checksum(block.substr(0, kChecksumAt), index);
  if (checksum != expected) {
    return absl::DataLossError(Cat("superblock at offset ", index * kSuperblockBytes, ": checksum ",
                                   Hex(checksum), ", expected ", Hex(expected)));
  }
  ByteReader in(block.substr(kMagic.size()));
  uint32_t version = in.Fixed32();
  if (version > kPageFileVersion) {
    return absl::FailedPreconditionError(
        Cat("page file format version ", version, "; this build reads up to ", kPageFileVersion));
  }
  uint32_t unit_bytes = in.Fixed32();
  if (version > 0 && unit_bytes != kUnitBytes) {
    return absl::FailedPreconditionError(
        Cat("page file with units of ", unit_bytes, " bytes; this build reads ", kUnitBytes));
  }
  Superblock superblock;
  superblock.file_id = ReadDigest(in);
  superblock.generation = in.Fixed64();
  superblock.file_units = in.Fixed64();
  superblock.directory = LoadPageRef(in.Bytes(kPageRefBytes).data());
  superblock.bitmap = LoadPageRef(in.Bytes(kPageRefBytes).data());
  superblock.log_batch = in.Fixed64();
  if (version == 0 || superblock.generation % 2 != index) {
    return absl::DataLossError(Cat("superblock at offset ", index * kSuperblockBytes, ": version ",
                                   version, ", generation ", superblock.generation,
                                   " do not go together"));
  }
  return superblock;
}

PageBytes EncodeDirectory(const std::vector<TreeRecord>& trees) {
  std::string payload(trees.size() * kDirectoryEntryBytes, '\0');
  char* to = payload.data();
  for (const TreeRecord& tree : trees) {
    StoreFixed<uint64_t>(to, static_cast<uint64_t>(tree.id));
    StoreFixed<uint64_t>(to + 8, tree.position);
    PutPageRef(to + 16, tree.root);
    to += kDirectoryEntryBytes;
  }
  return BuildBlob(PageKind::kDirectory, TreeId{0}, static_cast<uint32_t>(trees.size()), payload);
}

absl::StatusOr<std::vector<TreeRecord>> DecodeDirectory(const PageBytes& page) {
  PageView view(page.data.get());
  std::string_view payload = view.payload();
  if (view.kind() != PageKind::kDirectory ||
      payload.size() != uint64_t{view.count()} * kDirectoryEntryBytes) {
    return absl::DataLossError("malformed directory of trees");
  }
  std::vector<TreeRecord> trees;
  trees.reserve(view.count());
  for (const char* at = payload.data(); at != payload.data() + payload.size();
       at += kDirectoryEntryBytes) {
    trees.push_back(
        {TreeId{LoadFixed<uint64_t>(at)}, LoadFixed<uint64_t>(at + 8), LoadPageRef(at + 16)});
    if (trees.size() > 1 && trees.back().id <= trees[trees.size() - 2].id) {
      return absl::DataLossError("malformed directory of trees: ids do not ascend");
    }
  }
  return trees;
}

PageBytes EncodeBitmap(const UnitSet& units) {
  return BuildBlob(PageKind::kBitmap, TreeId{0}, 0, units.Encode());
}

absl::StatusOr<UnitSet> DecodeBitmap(const PageBytes& page, uint64_t file_units) {
  PageView view(page.data.get());
  UnitSet units;
  if (view.kind() == PageKind::kBitmap) units = UnitSet::Decode(view.payload());
  if (view.kind() != PageKind::kBitmap || units.End() > file_units ||
      units.ContainsAny({0, kSuperblockUnits})) {
    return absl::DataLossError("malformed bitmap of units");
  }
  return units;
}

}  // namespace dynlib::store
