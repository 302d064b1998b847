#include "dynlib/store/backup.h"

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "absl/functional/function_ref.h"
#include "dynlib/base/checksum.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/store/backup_format.h"
#include "dynlib/store/page.h"
#include "dynlib/store/store_catalogue.h"
#include "dynlib/store/store_folder.h"
#include "dynlib/store/store_record.h"
#include "dynlib/store/tree.h"
#include "dynlib/store/write_batch.h"

namespace dynlib::store {
namespace {

// A chunk ends behind a key whose checksum says so, once it has kMinChunkBytes; or when it has
// kMaxChunkBytes. Rows that stay as they are thus lie in the same chunks whatever is put between
// others.
constexpr uint64_t kMinChunkBytes = 256 << 10;
constexpr uint64_t kMaxChunkBytes = 4 << 20;
// Of 2^64, by bytes of the row: an end comes once in a mebibyte, whatever the rows are like.
constexpr uint64_t kEndShareOfByte = UINT64_MAX >> 20;
constexpr size_t kListPage = 1000;
constexpr uint64_t kRestoreBatchBytes = 4 << 20;

bool EndsChunk(std::string_view key, uint64_t row_bytes, uint64_t chunk_bytes) {
  if (chunk_bytes >= kMaxChunkBytes) return true;
  if (chunk_bytes < kMinChunkBytes) return false;
  return Checksum(key) / row_bytes < kEndShareOfByte;
}

absl::Status InObject(std::string_view object, const absl::Status& status) {
  return absl::Status(status.code(), ToAbsl(Cat("object ", object, ": ", ToStd(status.message()))));
}

absl::Status CheckOptions(const BackupOptions& options) {
  if (options.name.empty() || options.name.find('/') != std::string::npos) {
    return absl::InvalidArgumentError(Cat("BackupOptions::name = ", Escape(options.name),
                                          "; it must not be empty, nor have a '/'"));
  }
  if (options.prefix.empty()) {
    return absl::InvalidArgumentError("BackupOptions::prefix must not be empty");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::set<std::string>> ListObjects(ObjectStore* objects, std::string_view prefix) {
  std::set<std::string> names;
  std::string after;
  while (true) {
    DYNLIB_ASSIGN_OR_RETURN(const std::vector<ObjectInfo> page,
                            objects->List(prefix, after, kListPage));
    for (const ObjectInfo& object : page) names.insert(object.name);
    if (page.size() < kListPage) return names;
    after = page.back().name;
  }
}

absl::StatusOr<BackupManifest> GetManifest(ObjectStore* objects, const BackupOptions& options) {
  DYNLIB_RETURN_IF_ERROR(CheckOptions(options));
  const std::string name = ManifestObject(options.prefix, options.name);
  absl::StatusOr<std::string> bytes = objects->Get(name);
  if (!bytes.ok()) return InObject(name, bytes.status());
  absl::StatusOr<BackupManifest> manifest = DecodeManifest(*bytes);
  if (!manifest.ok()) return InObject(name, manifest.status());
  return manifest;
}

absl::Status Tell(const BackupOptions& options, const BackupReport& report) {
  if (options.progress == nullptr || options.progress(report)) return absl::OkStatus();
  return absl::CancelledError("ended by its caller");
}

// The last backup by name, or the one asked for: what a chunk of it stands for need not be read
// again.
absl::StatusOr<std::optional<BackupManifest>> PreviousManifest(ObjectStore* objects,
                                                               const BackupOptions& options) {
  if (options.read_all) return std::nullopt;
  BackupOptions previous{.name = options.previous, .prefix = options.prefix};
  if (previous.name.empty()) {
    DYNLIB_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                            ListBackups(objects, options.prefix));
    if (names.empty()) return std::nullopt;
    previous.name = names.back();
  }
  absl::StatusOr<BackupManifest> manifest = GetManifest(objects, previous);
  // A damaged one is no loss to the next.
  const bool asked_for = !options.previous.empty();
  if (!manifest.ok() && (asked_for || absl::IsUnavailable(manifest.status()))) {
    return manifest.status();
  }
  if (!manifest.ok()) return std::nullopt;
  return *std::move(manifest);
}

class Upload {
 public:
  Upload(ObjectStore* objects, const BackupOptions& options)
      : objects_(objects), options_(options) {}

  absl::StatusOr<BackupReport> Run(const StoreSnapshot& snapshot) {
    DYNLIB_RETURN_IF_ERROR(CheckOptions(options_));
    const std::string name = ManifestObject(options_.prefix, options_.name);
    DYNLIB_ASSIGN_OR_RETURN(const std::vector<ObjectInfo> taken, objects_->List(name, "", 1));
    if (!taken.empty() && taken.front().name == name) {
      return absl::AlreadyExistsError(Cat("there is a backup ", options_.name));
    }
    DYNLIB_ASSIGN_OR_RETURN(there_, ListObjects(objects_, Cat(options_.prefix, "/chunks/")));
    DYNLIB_ASSIGN_OR_RETURN(previous_, PreviousManifest(objects_, options_));
    report_.position = manifest_.position = snapshot.position();
    for (const StoreSnapshot::TreeVersion& version : snapshot.trees()) {
      manifest_.trees.push_back({version.tree.name(), {}});
      ++report_.trees;
      FindPreviousChunks(version.tree.name());
      DYNLIB_RETURN_IF_ERROR(AddTree(version.snapshot));
    }
    const std::string bytes = EncodeManifest(manifest_);
    DYNLIB_RETURN_IF_ERROR(objects_->Put(name, bytes, Checksum(bytes)));
    return report_;
  }

 private:
  void FindPreviousChunks(std::string_view tree_name) {
    chunks_from_.clear();
    if (!previous_.has_value()) return;
    for (const BackupManifest::Tree& tree : previous_->trees) {
      if (tree.name != tree_name) continue;
      std::string_view start;
      for (const BackupChunk& chunk : tree.chunks) {
        chunks_from_[start] = &chunk;
        start = chunk.end;
      }
    }
  }

  absl::Status AddTree(const Snapshot& snapshot) {
    std::string start;
    if (snapshot.empty()) return absl::OkStatus();
    do {
      DYNLIB_ASSIGN_OR_RETURN(const BackupChunk* same, UnchangedChunk(snapshot, start));
      if (same == nullptr) {
        DYNLIB_RETURN_IF_ERROR(ReadChunkFrom(snapshot, start));
      } else {
        ++report_.unread_chunks;
        AddChunk(*same);
      }
      start = chunks().empty() ? "" : chunks().back().end;
      DYNLIB_RETURN_IF_ERROR(Tell(options_, report_));
    } while (!start.empty());
    return absl::OkStatus();
  }

  // That of the backup before which has what is there from `start` on; null: there is none.
  absl::StatusOr<const BackupChunk*> UnchangedChunk(const Snapshot& snapshot,
                                                    const std::string& start) {
    const auto at = chunks_from_.find(start);
    if (at == chunks_from_.end()) return nullptr;
    const BackupChunk& chunk = *at->second;
    if (!chunk.pages.has_value()) return nullptr;
    if (!there_.contains(ChunkObject(options_.prefix, chunk.digest))) return nullptr;
    DYNLIB_ASSIGN_OR_RETURN(const std::optional<Digest128> pages,
                            snapshot.PagesDigest(start, chunk.end));
    return pages == chunk.pages ? &chunk : nullptr;
  }

  absl::Status ReadChunkFrom(const Snapshot& snapshot, const std::string& start) {
    std::string end;
    DYNLIB_RETURN_IF_ERROR(snapshot.Scan(
        start, "", ScanOrder::kForward,
        [&](std::string_view key, std::string_view value) {
          chunk_.Add(key, value);
          if (!EndsChunk(key, key.size() + value.size() + 1, chunk_.bytes().size())) return true;
          end = Cat(key, std::string_view("\0", 1));
          return false;
        },
        ReadMode::kNotKept));
    if (chunk_.rows() == 0) return NothingLeft();
    DYNLIB_ASSIGN_OR_RETURN(const std::optional<Digest128> pages, snapshot.PagesDigest(start, end));
    return StoreChunk(std::move(end), pages);
  }

  // The row that ended the last chunk was the last: that chunk has all that is left. What its range
  // is like from here on was not looked at.
  absl::Status NothingLeft() {
    if (chunks().empty()) return absl::OkStatus();
    chunks().back().end.clear();
    chunks().back().pages.reset();
    return absl::OkStatus();
  }

  absl::Status StoreChunk(std::string end, const std::optional<Digest128>& pages) {
    const std::string& bytes = chunk_.bytes();
    const Digest128 digest = Digest(bytes);
    const std::string name = ChunkObject(options_.prefix, digest);
    if (!there_.contains(name)) {
      DYNLIB_RETURN_IF_ERROR(objects_->Put(name, bytes, Checksum(bytes)));
      there_.insert(name);
      ++report_.uploaded_chunks;
      report_.uploaded_bytes += bytes.size();
    }
    AddChunk({digest, bytes.size(), chunk_.rows(), std::move(end), pages});
    report_.rows_read += chunk_.rows();
    chunk_.Clear();
    return absl::OkStatus();
  }

  void AddChunk(BackupChunk chunk) {
    report_.rows += chunk.rows;
    report_.bytes += chunk.bytes;
    ++report_.chunks;
    chunks().push_back(std::move(chunk));
  }
  std::vector<BackupChunk>& chunks() { return manifest_.trees.back().chunks; }

  ObjectStore* const objects_;
  const BackupOptions& options_;
  std::set<std::string> there_;
  std::optional<BackupManifest> previous_;
  std::map<std::string_view, const BackupChunk*> chunks_from_;  // of the tree, by their start
  BackupManifest manifest_;
  BackupReport report_;
  ChunkBuilder chunk_;
};

// Fetches the chunks of a manifest, in order, and checks them.
class Download {
 public:
  using Row = absl::FunctionRef<absl::Status(std::string_view, std::string_view)>;

  Download(ObjectStore* objects, const BackupOptions& options, BackupManifest manifest)
      : objects_(objects), options_(options), manifest_(std::move(manifest)) {
    report_.position = manifest_.position;
    report_.trees = manifest_.trees.size();
  }

  const BackupManifest& manifest() const { return manifest_; }
  const BackupReport& report() const { return report_; }

  absl::Status ReadTree(const BackupManifest::Tree& tree, Row row) {
    last_key_.reset();
    for (const BackupChunk& chunk : tree.chunks) {
      DYNLIB_RETURN_IF_ERROR(ReadOne(chunk, row));
      ++report_.chunks;
      report_.bytes += chunk.bytes;
      DYNLIB_RETURN_IF_ERROR(Tell(options_, report_));
    }
    return absl::OkStatus();
  }

 private:
  absl::Status ReadOne(const BackupChunk& chunk, Row row) {
    const std::string name = ChunkObject(options_.prefix, chunk.digest);
    absl::StatusOr<std::string> bytes = objects_->Get(name);
    if (!bytes.ok()) return InObject(name, bytes.status());
    const Digest128 digest = Digest(*bytes);
    if (digest != chunk.digest) {
      return absl::DataLossError(
          Cat("object ", name, ": its digest is ", Hex(digest.high), Hex(digest.low)));
    }
    uint64_t rows = 0;
    absl::Status read = ReadChunk(*bytes, [&](std::string_view key, std::string_view value) {
      if (last_key_.has_value() && key <= *last_key_) {
        return absl::DataLossError(Cat("key ", Escape(key), " is out of order"));
      }
      last_key_ = std::string(key);
      ++rows;
      return row(key, value);
    });
    if (!read.ok()) return InObject(name, read);
    if (rows != chunk.rows) {
      return absl::DataLossError(Cat("object ", name, ": ", rows, " rows, not ", chunk.rows));
    }
    report_.rows += rows;
    return absl::OkStatus();
  }

  ObjectStore* const objects_;
  const BackupOptions& options_;
  const BackupManifest manifest_;
  BackupReport report_;
  std::optional<std::string> last_key_;
};

class Restore {
 public:
  Restore(Download* download, PageFile* pages) : download_(*download), pages_(*pages) {}

  absl::Status Run() {
    DYNLIB_RETURN_IF_ERROR(pages_.CreateTree(kCatalogueTree).status());
    DYNLIB_RETURN_IF_ERROR(pages_.CreateTree(kDefaultTree).status());
    WriteBatch catalogue;
    uint64_t next = kFirstNamedTree;
    for (const BackupManifest::Tree& tree : download_.manifest().trees) {
      const TreeId id = tree.name.empty() ? kDefaultTree : TreeId{next++};
      if (id != kDefaultTree) {
        DYNLIB_RETURN_IF_ERROR(pages_.CreateTree(id).status());
        AddTreeRow(tree.name, id, catalogue);
      }
      DYNLIB_RETURN_IF_ERROR(Fill(tree, *pages_.FindTree(id)));
    }
    const uint64_t position = download_.manifest().position;
    DYNLIB_RETURN_IF_ERROR(pages_.FindTree(kCatalogueTree)->Apply(catalogue, position));
    return pages_.CheckpointTwice();
  }

 private:
  absl::Status Fill(const BackupManifest::Tree& from, Tree& to) {
    const uint64_t position = download_.manifest().position;
    WriteBatch batch;
    uint64_t since_checkpoint = 0;
    DYNLIB_RETURN_IF_ERROR(
        download_.ReadTree(from, [&](std::string_view key, std::string_view value) {
          batch.Put(std::string(key), std::string(value));
          if (batch.bytes() < kRestoreBatchBytes) return absl::OkStatus();
          since_checkpoint += batch.bytes();
          DYNLIB_RETURN_IF_ERROR(to.Apply(batch, position));
          batch.Clear();
          if (since_checkpoint < kCheckpointBytes) return absl::OkStatus();
          since_checkpoint = 0;
          return pages_.Checkpoint();
        }));
    return to.Apply(batch, position);
  }

  static constexpr uint64_t kCheckpointBytes = 64 << 20;

  Download& download_;
  PageFile& pages_;
};

}  // namespace

absl::StatusOr<BackupReport> BackUp(const StoreSnapshot& snapshot, ObjectStore* objects,
                                    const BackupOptions& options) {
  return Upload(objects, options).Run(snapshot);
}

absl::StatusOr<BackupReport> RestoreBackup(ObjectStore* objects, const BackupOptions& options,
                                           Disk* disk, std::string_view dir,
                                           const PageFile::Options& pages) {
  DYNLIB_ASSIGN_OR_RETURN(BackupManifest manifest, GetManifest(objects, options));
  DYNLIB_ASSIGN_OR_RETURN(const std::unique_ptr<DiskLock> lock, BeginRestore(disk, dir));
  Download download(objects, options, std::move(manifest));
  {
    DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<PageFile> file,
                            PageFile::Open(pages, disk, Cat(dir, "/pages")));
    DYNLIB_RETURN_IF_ERROR(Restore(&download, file.get()).Run());
  }
  DYNLIB_RETURN_IF_ERROR(EndRestore(disk, dir));
  return download.report();
}

absl::StatusOr<BackupReport> VerifyBackup(ObjectStore* objects, const BackupOptions& options) {
  DYNLIB_ASSIGN_OR_RETURN(BackupManifest manifest, GetManifest(objects, options));
  Download download(objects, options, std::move(manifest));
  for (const BackupManifest::Tree& tree : download.manifest().trees) {
    DYNLIB_RETURN_IF_ERROR(download.ReadTree(
        tree, [](std::string_view, std::string_view) { return absl::OkStatus(); }));
  }
  return download.report();
}

absl::StatusOr<std::vector<std::string>> ListBackups(ObjectStore* objects,
                                                     std::string_view prefix) {
  const std::string folder = ManifestObject(prefix, "");
  DYNLIB_ASSIGN_OR_RETURN(const std::set<std::string> names, ListObjects(objects, folder));
  std::vector<std::string> backups;
  for (const std::string& name : names) backups.push_back(name.substr(folder.size()));
  return backups;
}

absl::Status DeleteBackup(ObjectStore* objects, const BackupOptions& options) {
  DYNLIB_ASSIGN_OR_RETURN(const BackupManifest gone, GetManifest(objects, options));
  DYNLIB_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                          ListBackups(objects, options.prefix));
  std::set<Digest128> needed;
  for (const std::string& name : names) {
    if (name == options.name) continue;
    DYNLIB_ASSIGN_OR_RETURN(const BackupManifest other,
                            GetManifest(objects, {.name = name, .prefix = options.prefix}));
    for (const BackupManifest::Tree& tree : other.trees) {
      for (const BackupChunk& chunk : tree.chunks) needed.insert(chunk.digest);
    }
  }
  // The manifest first: what is left behind then is chunks that nobody names.
  DYNLIB_RETURN_IF_ERROR(objects->Delete(ManifestObject(options.prefix, options.name)));
  for (const BackupManifest::Tree& tree : gone.trees) {
    for (const BackupChunk& chunk : tree.chunks) {
      if (needed.contains(chunk.digest)) continue;
      DYNLIB_RETURN_IF_ERROR(objects->Delete(ChunkObject(options.prefix, chunk.digest)));
    }
  }
  return absl::OkStatus();
}

}  // namespace dynlib::store
