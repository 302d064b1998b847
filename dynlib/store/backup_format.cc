#include "dynlib/store/backup_format.h"

#include "dynlib/base/coding.h"
#include "dynlib/base/digest_coding.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::store {
namespace {

constexpr std::string_view kChunkMagic("DLCHUNK\0", 8);
constexpr std::string_view kManifestMagic("DLBACKUP", 8);

// Once the checksum is right.
absl::StatusOr<uint32_t> ReadVersion(ByteReader& in, std::string_view magic, uint32_t newest) {
  if (in.Bytes(magic.size()) != magic) return absl::DataLossError("the first bytes are wrong");
  const uint32_t version = in.Fixed32();
  if (in.ok() && version > newest) {
    return absl::FailedPreconditionError(
        Cat("of format version ", version, "; this program knows up to ", newest));
  }
  if (version == 0) return absl::DataLossError("of an unknown version");
  return version;
}

}  // namespace

void ChunkBuilder::Add(std::string_view key, std::string_view value) {
  PutLengthPrefixed(bytes_, key);
  PutLengthPrefixed(bytes_, value);
  ++rows_;
}

void ChunkBuilder::Clear() {
  bytes_ = kChunkMagic;
  PutFixed32(bytes_, kChunkVersion);
  rows_ = 0;
}

absl::Status ReadChunk(std::string_view bytes,
                       absl::FunctionRef<absl::Status(std::string_view, std::string_view)> row) {
  ByteReader in(bytes);
  DYNLIB_RETURN_IF_ERROR(ReadVersion(in, kChunkMagic, kChunkVersion).status());
  while (in.ok() && !in.rest().empty()) {
    const std::string_view key = in.LengthPrefixed();
    const std::string_view value = in.LengthPrefixed();
    if (in.ok()) DYNLIB_RETURN_IF_ERROR(row(key, value));
  }
  return in.done() ? absl::OkStatus() : absl::DataLossError("a row is cut short");
}

std::string EncodeManifest(const BackupManifest& manifest) {
  std::string out(kManifestMagic);
  PutFixed32(out, kManifestVersion);
  PutFixed64(out, manifest.position);
  PutVarint(out, manifest.trees.size());
  for (const BackupManifest::Tree& tree : manifest.trees) {
    PutLengthPrefixed(out, tree.name);
    PutVarint(out, tree.chunks.size());
    for (const BackupChunk& chunk : tree.chunks) {
      PutDigest(out, chunk.digest);
      PutVarint(out, chunk.bytes);
      PutVarint(out, chunk.rows);
      PutLengthPrefixed(out, chunk.end);
      PutFixed8(out, chunk.pages.has_value() ? 1 : 0);
      if (chunk.pages.has_value()) PutDigest(out, *chunk.pages);
    }
  }
  PutFixed64(out, Checksum(out));
  return out;
}

absl::StatusOr<BackupManifest> DecodeManifest(std::string_view bytes) {
  if (bytes.size() < 8) return absl::DataLossError(Cat(bytes.size(), " bytes are no manifest"));
  const std::string_view body = bytes.substr(0, bytes.size() - 8);
  const uint64_t stored = LoadFixed<uint64_t>(bytes.data() + body.size());
  if (stored != Checksum(body)) {
    return absl::DataLossError(
        Cat("checksum ", Hex(Checksum(body)), ", and ", Hex(stored), " is stored"));
  }
  ByteReader in(body);
  DYNLIB_ASSIGN_OR_RETURN(const uint32_t version,
                          ReadVersion(in, kManifestMagic, kManifestVersion));
  BackupManifest manifest{.position = in.Fixed64()};
  for (uint64_t trees = in.Varint(); trees > 0 && in.ok(); --trees) {
    BackupManifest::Tree& tree = manifest.trees.emplace_back();
    tree.name = in.LengthPrefixed();
    for (uint64_t chunks = in.Varint(); chunks > 0 && in.ok(); --chunks) {
      BackupChunk& chunk = tree.chunks.emplace_back();
      chunk.digest = ReadDigest(in);
      chunk.bytes = in.Varint();
      chunk.rows = in.Varint();
      if (version == 1) continue;
      chunk.end = in.LengthPrefixed();
      const uint8_t has_pages = in.Fixed8();
      if (has_pages > 1) in.Fail();
      if (has_pages == 1) chunk.pages = ReadDigest(in);
    }
  }
  if (!in.done()) return absl::DataLossError("a manifest that is cut short");
  return manifest;
}

std::string ChunkObject(std::string_view prefix, const Digest128& digest) {
  return Cat(prefix, "/chunks/", Hex(digest.high).substr(2), Hex(digest.low).substr(2));
}

std::string ManifestObject(std::string_view prefix, std::string_view name) {
  return Cat(prefix, "/backups/", name);
}

}  // namespace dynlib::store
