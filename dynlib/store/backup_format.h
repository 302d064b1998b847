// The bytes of a backup's objects: docs/format/backup.md says them one by one.
//
// Threads: pure functions.
#ifndef DYNLIB_STORE_BACKUP_FORMAT_H_
#define DYNLIB_STORE_BACKUP_FORMAT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/checksum.h"

namespace dynlib::store {

// Of a chunk it stays as long as may be: the same rows are to have the same digest.
inline constexpr uint32_t kChunkVersion = 1;
inline constexpr uint32_t kManifestVersion = 2;

// Rows of one tree in key order, in the making.
class ChunkBuilder {
 public:
  ChunkBuilder() { Clear(); }
  void Add(std::string_view key, std::string_view value);
  uint64_t rows() const { return rows_; }
  const std::string& bytes() const { return bytes_; }
  void Clear();

 private:
  std::string bytes_;
  uint64_t rows_ = 0;
};

// Calls `row` for each. kDataLoss for bytes that are no chunk; some rows may have been visited
// then.
absl::Status ReadChunk(std::string_view bytes,
                       absl::FunctionRef<absl::Status(std::string_view, std::string_view)> row);

struct BackupChunk {
  Digest128 digest;  // of the object's bytes, and its name
  uint64_t bytes = 0;
  uint64_t rows = 0;
  // It has the rows from the end of the chunk before up to here; empty: all that are left.
  std::string end{};
  // Snapshot::PagesDigest of that range, if it was known. Not of version 1.
  std::optional<Digest128> pages{};
};

struct BackupManifest {
  struct Tree {
    std::string name;  // "": the default tree
    std::vector<BackupChunk> chunks;
  };
  uint64_t position = 0;  // of the store: the backup has all writes up to it, and no others
  std::vector<Tree> trees;
};

std::string EncodeManifest(const BackupManifest& manifest);
//   kFailedPrecondition  of a newer format
//   kDataLoss            it does not verify
absl::StatusOr<BackupManifest> DecodeManifest(std::string_view bytes);

// "<prefix>/chunks/<32 hex digits>" and "<prefix>/backups/<name>"
std::string ChunkObject(std::string_view prefix, const Digest128& digest);
std::string ManifestObject(std::string_view prefix, std::string_view name);

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_BACKUP_FORMAT_H_
