#include "dynlib/partition_map/perkle_snapshot.h"

#include <zstd.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "dynlib/base/check.h"
#include "dynlib/base/checksum.h"
#include "dynlib/base/coding.h"
#include "dynlib/base/digest_coding.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::partition_map {
namespace {

constexpr std::string_view kMagic = "DYNPERK1";
constexpr size_t kHeaderBytes = 40;
constexpr size_t kFrameBytes = 1 << 20;  // unpacked, when it is closed
// What a frame may be: one entry more.
constexpr size_t kFrameBytesMax = kFrameBytes + Perkle::kKeyBytesMax + Perkle::kValueBytesMax + 64;
// Ids and keys are random mostly, so more effort gains nothing.
constexpr int kZstdLevel = 1;

absl::Status Damaged(std::string_view what) { return absl::DataLossError(Cat("snapshot: ", what)); }

std::string EncodeHeader(const Perkle& tree) {
  std::string out(kMagic);
  PutFixed64(out, tree.size());
  PutDigest(out, tree.digest());
  PutFixed64(out, Checksum(out));
  return out;
}

uint64_t FrameChecksum(std::string_view sizes, std::string_view packed, uint64_t number) {
  return Checksum(packed, Checksum(sizes, number));
}

std::string EncodeFrame(std::string_view entries, uint64_t number) {
  std::string packed(ZSTD_compressBound(entries.size()), '\0');
  const size_t size =
      ZSTD_compress(packed.data(), packed.size(), entries.data(), entries.size(), kZstdLevel);
  DYNLIB_CHECK(!ZSTD_isError(size));
  packed.resize(size);
  std::string out;
  PutFixed32(out, static_cast<uint32_t>(entries.size()));
  PutFixed32(out, static_cast<uint32_t>(packed.size()));
  PutFixed64(out, FrameChecksum(out, packed, number));
  return out + packed;
}

// The next frame's entries, and the bytes after it.
absl::StatusOr<std::string> DecodeFrame(std::string_view& bytes, uint64_t number) {
  ByteReader in(bytes);
  const std::string_view sizes = bytes.substr(0, 8);
  const uint32_t size = in.Fixed32();
  const uint32_t packed_size = in.Fixed32();
  const uint64_t checksum = in.Fixed64();
  const std::string_view packed = in.Bytes(packed_size);
  if (!in.ok()) return Damaged(Cat("frame ", number, " is cut off"));
  if (FrameChecksum(sizes, packed, number) != checksum || size > kFrameBytesMax) {
    return Damaged(Cat("frame ", number, " is damaged"));
  }
  std::string entries(size, '\0');
  if (ZSTD_decompress(entries.data(), size, packed.data(), packed.size()) != size) {
    return Damaged(Cat("frame ", number, " does not unpack"));
  }
  bytes = in.rest();
  return entries;
}

using Pairs = std::vector<std::pair<std::string_view, std::string_view>>;

// The entries of a frame, their keys whole in memory of their own.
class Frame {
 public:
  explicit Frame(std::string entries) : entries_(std::move(entries)) {}

  bool Read(Pairs& pairs) {
    ByteReader in(entries_);
    std::vector<size_t> ends;
    std::vector<std::string_view> values;
    size_t previous = 0;  // where the key before begins
    while (!in.rest().empty()) {
      const uint64_t shared = in.Varint();
      const uint64_t added = in.Varint();
      const uint64_t value_size = in.Varint();
      if (shared > keys_.size() - previous || added > Perkle::kKeyBytesMax) return false;
      const size_t begin = keys_.size();
      keys_.append(keys_, previous, shared).append(in.Bytes(added));
      values.push_back(in.Bytes(value_size));
      if (!in.ok()) return false;
      ends.push_back(keys_.size());
      previous = begin;
    }
    size_t begin = 0;
    for (size_t i = 0; i < ends.size(); ++i) {
      pairs.emplace_back(std::string_view(keys_).substr(begin, ends[i] - begin), values[i]);
      begin = ends[i];
    }
    return true;
  }

 private:
  const std::string entries_;
  std::string keys_;
};

}  // namespace

absl::Status WriteSnapshot(const Perkle& tree,
                           absl::FunctionRef<absl::Status(std::string_view)> write) {
  DYNLIB_RETURN_IF_ERROR(write(EncodeHeader(tree)));
  std::string entries, previous;
  uint64_t number = 0;
  absl::Status status;
  tree.Scan("", "", ScanOrder::kForward, [&](std::string_view key, std::string_view value) {
    const size_t shared = entries.empty() ? 0 : internal::CommonBytes(previous, key);
    PutVarint(entries, shared);
    PutVarint(entries, key.size() - shared);
    PutVarint(entries, value.size());
    entries.append(key.substr(shared)).append(value);
    previous = key;
    if (entries.size() < kFrameBytes) return true;
    status = write(EncodeFrame(entries, number++));
    entries.clear();
    return status.ok();
  });
  if (!status.ok() || entries.empty()) return status;
  return write(EncodeFrame(entries, number));
}

std::string EncodeSnapshot(const Perkle& tree) {
  std::string bytes;
  const absl::Status status = WriteSnapshot(tree, [&](std::string_view piece) {
    bytes += piece;
    return absl::OkStatus();
  });
  DYNLIB_CHECK(status.ok());
  return bytes;
}

absl::StatusOr<Perkle> DecodeSnapshot(std::string_view bytes) {
  ByteReader in(bytes);
  const std::string_view magic = in.Bytes(kMagic.size());
  const uint64_t entries = in.Fixed64();
  const Digest128 digest = ReadDigest(in);
  const uint64_t checksum = in.Fixed64();
  if (!in.ok() || magic != kMagic || checksum != Checksum(bytes.substr(0, kHeaderBytes - 8))) {
    return Damaged("the header is damaged, or it is none");
  }
  bytes.remove_prefix(kHeaderBytes);
  std::vector<std::unique_ptr<Frame>> frames;
  Pairs pairs;
  while (!bytes.empty()) {
    DYNLIB_ASSIGN_OR_RETURN(std::string unpacked, DecodeFrame(bytes, frames.size()));
    frames.push_back(std::make_unique<Frame>(std::move(unpacked)));
    if (!frames.back()->Read(pairs))
      return Damaged(Cat("frame ", frames.size(), " has entries that are none"));
  }
  if (pairs.size() != entries) {
    return Damaged(Cat("it has ", pairs.size(), " of ", entries, " entries"));
  }
  absl::StatusOr<Perkle> tree = Perkle::FromSorted(pairs);
  if (!tree.ok()) return Damaged(ToStd(tree.status().message()));
  if (tree->digest() != digest) return Damaged("its digest is another than its entries'");
  return tree;
}

}  // namespace dynlib::partition_map
