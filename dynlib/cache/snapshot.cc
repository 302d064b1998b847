#include "dynlib/cache/snapshot.h"

#include "absl/status/status.h"
#include "dynlib/base/checksum.h"
#include "dynlib/base/coding.h"
#include "dynlib/base/strings.h"

namespace dynlib::cache {
namespace {

constexpr std::string_view kMagic = "dynlib cache 1\n";
constexpr size_t kChecksumBytes = 8;

}  // namespace

std::string EncodeSnapshot(const std::vector<SnapshotEntry>& entries) {
  std::string bytes(kMagic);
  PutVarint(bytes, entries.size());
  for (const SnapshotEntry& entry : entries) {
    PutFixed64(bytes, static_cast<uint64_t>(entry.confirmed.nanos()));
    PutLengthPrefixed(bytes, entry.value);
  }
  PutFixed64(bytes, Checksum(bytes));
  return bytes;
}

absl::StatusOr<std::vector<SnapshotEntry>> DecodeSnapshot(std::string_view bytes) {
  if (bytes.substr(0, kMagic.size()) != kMagic || bytes.size() < kMagic.size() + kChecksumBytes)
    return absl::DataLossError("cache: not a snapshot of this version");
  const std::string_view body = bytes.substr(0, bytes.size() - kChecksumBytes);
  const auto stored = LoadFixed<uint64_t>(bytes.data() + body.size());
  if (const uint64_t computed = Checksum(body); stored != computed) {
    return absl::DataLossError(
        Cat("cache: snapshot damaged: checksum ", computed, ", not ", stored));
  }
  ByteReader in(body.substr(kMagic.size()));
  const uint64_t count = in.Varint();
  std::vector<SnapshotEntry> entries;
  for (uint64_t i = 0; i < count && in.ok(); ++i) {
    const WallTime confirmed = WallTime::FromNanos(static_cast<int64_t>(in.Fixed64()));
    entries.push_back({confirmed, std::string(in.LengthPrefixed())});
  }
  if (!in.done()) return absl::DataLossError("cache: snapshot malformed");
  return entries;
}

}  // namespace dynlib::cache
