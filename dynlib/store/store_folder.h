// The folder of a Store: what says that it is one, of which format, and that it is in use.
//
//   <dir>/STORE    64 bytes: "DLSTORE" and a zero byte, format version (4), zeros, and the XXH3-64
//   of
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

namespace dynlib::store {

inline constexpr uint32_t kStoreVersion = 1;

// Creates what is missing, and locks the folder.
//   kNotFound            no store there, and `create` is false
//   kFailedPrecondition  other things are there; of a newer format; in use; or half restored
//   kDataLoss            the file STORE is damaged
// The folder is as it was then.
absl::StatusOr<std::unique_ptr<DiskLock>> OpenFolder(Disk* disk, std::string_view dir, bool create);

// Makes a folder that is absent or empty into one that OpenFolder refuses until EndRestore: it has
// the file RESTORING. Errors as OpenFolder's.
absl::StatusOr<std::unique_ptr<DiskLock>> BeginRestore(Disk* disk, std::string_view dir);
absl::Status EndRestore(Disk* disk, std::string_view dir);

std::string EncodeStoreMark(uint32_t version);
// The version. kDataLoss for bytes that are none.
absl::StatusOr<uint32_t> DecodeStoreMark(std::string_view bytes);

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_STORE_FOLDER_H_
