// The folder of a Store: what says that it is one, of which format, and that it is in use.
//
//   <dir>/STORE    64 bytes: "DLSTORE" and a zero byte, format version (4), what was durable before
//                  this was written (4: 1 for pages, plus 2 for log), zeros, and the XXH3-64 of
//                  the 56 bytes before
//   <dir>/LOCK     held by the process that has the store open
//   <dir>/log/     docs/format/wal.md
//   <dir>/pages    docs/format/btree.md
//
// The rule for versions: a newer one is refused, and nothing touched; an older one is read, and
// what this program writes from then on is of the newest, so that older programs refuse it.
//
// Internal to the store. Threads: one; blocks on the disk.
#ifndef DYNLIB_STORE_STORE_FOLDER_H_
#define DYNLIB_STORE_STORE_FOLDER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/store/page_file.h"

namespace dynlib::store {

inline constexpr uint32_t kStoreVersion = 1;

struct StoreMark {
  uint32_t version = kStoreVersion;
  // What was durable before the mark was written, and so has to be there. Neither in the mark of an
  // older program; no log in that of a restored store that was never opened.
  bool has_pages = false;
  bool has_log = false;
};

struct StoreFolder {
  std::unique_ptr<DiskLock> lock;
  StoreMark mark;  // without pages or log: CompleteFolder is to be called
};

// Creates the folder and an empty page file if needed, and locks the folder. A folder without STORE
// that has no more than a creation leaves behind when it does not get to its end is no store yet.
//   kNotFound            no store there, and `create` is false
//   kFailedPrecondition  other things are there; of a newer format; in use; or half restored
//   kDataLoss            STORE is damaged; or it, the pages or the log are missing
// The folder is as it was then.
absl::StatusOr<StoreFolder> OpenFolder(Disk* disk, std::string_view dir, bool create,
                                       const PageFile::Options& pages);
// Reads STORE again. kDataLoss when it is damaged or missing.
absl::Status VerifyFolder(Disk* disk, std::string_view dir);
// Says in STORE that pages and log are there, which are durable.
absl::Status CompleteFolder(Disk* disk, std::string_view dir);

// Makes a folder that is absent or empty into one that OpenFolder refuses until EndRestore: it has
// the file RESTORING. Errors as OpenFolder's.
absl::StatusOr<std::unique_ptr<DiskLock>> BeginRestore(Disk* disk, std::string_view dir);
absl::Status EndRestore(Disk* disk, std::string_view dir);

std::string EncodeStoreMark(const StoreMark& mark);
// kDataLoss for bytes that are none.
absl::StatusOr<StoreMark> DecodeStoreMark(std::string_view bytes);

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_STORE_FOLDER_H_
