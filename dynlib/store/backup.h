// Backups of a Store in an ObjectStore, and stores made from them.
//
//   DYNLIB_ASSIGN_OR_RETURN(BackupReport monday,
//                           BackUp(store->snapshot("backup"), &objects, {.name = "monday"}));
//   DYNLIB_ASSIGN_OR_RETURN(BackupReport tuesday,       // uploads what has changed since
//                           BackUp(store->snapshot("backup"), &objects, {.name = "tuesday"}));
//   DYNLIB_RETURN_IF_ERROR(RestoreBackup(&objects, {.name = "monday"}, disk, "restored"));
//
// A backup is a manifest and chunks of about a mebibyte of rows, each stored once under the digest
// of its bytes. Where a chunk ends depends on the keys alone, so that a change moves the ends of
// few others: a backup uploads the chunks that no earlier one has, and each backup is whole in
// itself. It reads the rows of those ranges alone whose pages are not those of the backup before,
// from memory or disk, each page against its checksum, while writes go on: what it holds is the
// snapshot. Pages that no checkpoint has written yet are read by the next backup again: make a
// checkpoint before. What is not read is not checked: Store::Verify is for that, or
// read_all. Chunks of different stores may share a prefix.
//
// A name is taken when its manifest is there, which is written last; a backup that did not finish
// leaves chunks that the next one finds.
//
// Errors: kAlreadyExists (the name is taken), kNotFound, kDataLoss (a page, or an object, does not
// verify: which one), kCancelled (by the progress callback), kInvalidArgument, and what the object
// store says.
//
// Blocking; any thread. Two at a time with one prefix are fine, save DeleteBackup, which must be
// alone.
#ifndef DYNLIB_STORE_BACKUP_H_
#define DYNLIB_STORE_BACKUP_H_

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/runtime/object_store.h"
#include "dynlib/store/page_file.h"
#include "dynlib/store/store_snapshot.h"

namespace dynlib::store {

struct BackupReport {
  uint64_t position = 0;  // of the snapshot
  uint64_t trees = 0;
  uint64_t rows = 0;
  uint64_t chunks = 0;
  uint64_t bytes = 0;  // of chunks
  uint64_t uploaded_chunks = 0;
  uint64_t uploaded_bytes = 0;
  // Taken over from the backup before, as the pages that have their rows are the same; and the
  // rows of the others.
  uint64_t unread_chunks = 0;
  uint64_t rows_read = 0;
};

// Called after each chunk. One that takes its time bounds the rate; false ends it with kCancelled.
using BackupProgress = std::function<bool(const BackupReport&)>;

struct BackupOptions {
  std::string name{};            // what an object's name may hold, without '/'
  std::string prefix = "store";  // of all names
  // The backup that this one goes on from; empty: the last one by name, if there is any. One of
  // another store does no harm, and no good.
  std::string previous{};
  // Reads what has not changed too, and so checks it.
  bool read_all = false;
  BackupProgress progress = nullptr;
};

absl::StatusOr<BackupReport> BackUp(const StoreSnapshot& snapshot, ObjectStore* objects,
                                    const BackupOptions& options);

// Makes a store of the backup in the folder `dir`, which is absent or empty. Until it is whole the
// folder cannot be opened; one that did not finish is to be removed. Every chunk is checked.
absl::StatusOr<BackupReport> RestoreBackup(ObjectStore* objects, const BackupOptions& options,
                                           Disk* disk, std::string_view dir,
                                           const PageFile::Options& pages = {});

// Reads all of it and checks it.
absl::StatusOr<BackupReport> VerifyBackup(ObjectStore* objects, const BackupOptions& options);

// Names, in order.
absl::StatusOr<std::vector<std::string>> ListBackups(ObjectStore* objects,
                                                     std::string_view prefix = "store");

// Removes it, and the chunks that no other backup of the prefix has.
absl::Status DeleteBackup(ObjectStore* objects, const BackupOptions& options);

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_BACKUP_H_
