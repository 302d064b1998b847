// Files whose durability is spelled out: only Sync makes durable.
//
// A write is readable at once and durable after the next Sync of the same file that returns OK. The
// name of a file that was created, renamed or removed is durable after SyncDir of its folder.
// Before that, power loss may leave any subset of the unsynced writes, torn at multiples of 512
// bytes, in any order.
//
// Errors:
//  - kNotFound: no such file or folder
//  - kAlreadyExists: it exists and was to be created, or is locked
//  - kResourceExhausted: no space. Allocate leaves the file's contents as they were; a WriteAt past
//    what was allocated may have written a part
//  - kDataLoss: the device failed (EIO)
//  - kOutOfRange: a read past the end
//  - kPermissionDenied, kInvalidArgument, kFailedPrecondition, kUnavailable: as errno says
// Every message names the operation, the file and the offset.
//
// A failed Sync is for good (rule L3): the kernel may have dropped the pages, so a later OK would
// say nothing about them. After one, the File refuses WriteAt and Sync with kDataLoss; close it,
// reopen it and read what is there.
//
// Blocking; call it on an executor of its own, and hold no lock across a call: in a simulation
// every call yields. Threads: a Disk, and reads of a File, from any thread; writes, Sync, Allocate,
// Truncate and Discard of one File one at a time.
#ifndef DYNLIB_RUNTIME_DISK_H_
#define DYNLIB_RUNTIME_DISK_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace dynlib {

// How a thread waits for a write to be durable.
enum class DiskWait {
  kSleep,
  // It has nothing else to do, and others wait for it: a disk may use its processor, as long as
  // nobody else wants it, to hear of the end a little sooner.
  kPoll,
};

class File {
 public:
  // Closes; does not sync.
  virtual ~File() = default;

  // Fills `out` whole, or fails.
  virtual absl::Status ReadAt(uint64_t offset, std::span<char> out) = 0;
  // Writes all of `data`, extending the file as needed; a gap reads as zeros. After an error any
  // part may be written.
  virtual absl::Status WriteAt(uint64_t offset, std::string_view data) = 0;
  virtual absl::Status Sync() = 0;
  // WriteAt and Sync in one, but durable are these bytes alone, not what was written before. Inside
  // what the file holds, and with `data`, its length and `offset` multiples of kDirectAlignment, it
  // may be cheaper than the two: a disk may send such bytes past its cache. After an error any part
  // may be written, and as after a failed Sync the file is to be closed.
  static constexpr uint64_t kDirectAlignment = 4096;
  virtual absl::Status WriteDurably(uint64_t offset, std::string_view data) {
    absl::Status status = WriteAt(offset, data);
    return status.ok() ? Sync() : status;
  }
  // WriteDurably in two halves, for who has something else to do meanwhile: `data` stays as it is,
  // and no other write or Sync of the file begins, until the second half has returned, which
  // follows each Start that returned OK, on the same thread.
  virtual absl::Status StartWriteDurably(uint64_t offset, std::string_view data, DiskWait wait) {
    return WriteAt(offset, data);
  }
  virtual absl::Status FinishWriteDurably() { return Sync(); }
  // WriteAt that hands the bytes to the device, where the disk can, before it returns: past its
  // cache if `data`, its length and `offset` are multiples of kDirectAlignment. No more durable
  // than any write; but the Sync to come finds little to do, so that who writes much in pieces lets
  // others have the device in between.
  virtual absl::Status WriteDirect(uint64_t offset, std::string_view data) {
    return WriteAt(offset, data);
  }
  // Reserves space for [offset, offset + length), extending the file with zeros; existing bytes
  // stay. Once it is OK, writes there do not run out of space.
  virtual absl::Status Allocate(uint64_t offset, uint64_t length) = 0;
  virtual absl::Status Truncate(uint64_t size) = 0;
  // Nobody needs the bytes of [offset, offset + length), which lie within the file: their space
  // goes back to the file system if it can take it. The size stays. Until they are written again,
  // which may run out of space, they read as anything; after power loss too.
  virtual absl::Status Discard(uint64_t offset, uint64_t length) { return absl::OkStatus(); }
  virtual absl::StatusOr<uint64_t> Size() = 0;
};

// Held by the process that uses a folder; released by its destructor, and by the end of the
// process.
class DiskLock {
 public:
  virtual ~DiskLock() = default;
};

enum class OpenMode {
  kRead,       // must exist; writes fail
  kReadWrite,  // must exist
  kCreate,     // must not exist; created empty
};

// Paths are relative to the disk's own root, with '/' between folders; "" is the root. A path with
// an empty, "." or ".." part (so also one with a leading '/') is kInvalidArgument.
class Disk {
 public:
  virtual ~Disk() = default;

  virtual absl::StatusOr<std::unique_ptr<File>> Open(std::string_view path, OpenMode mode) = 0;
  // Replaces `to` if it exists, atomically.
  virtual absl::Status Rename(std::string_view from, std::string_view to) = 0;
  // A file or an empty folder; a folder with something in it is kFailedPrecondition. Files that are
  // open stay readable and writable, without a name.
  virtual absl::Status Remove(std::string_view path) = 0;
  // Creates the folder and those above it; OK if it exists.
  virtual absl::Status CreateDir(std::string_view path) = 0;
  // Names of the files and folders in `path`, sorted, without "." and "..".
  virtual absl::StatusOr<std::vector<std::string>> List(std::string_view path) = 0;
  virtual absl::Status SyncDir(std::string_view path) = 0;
  // Creates the file `path` if needed and locks it for this process; kAlreadyExists if it is
  // locked, by this process too.
  virtual absl::StatusOr<std::unique_ptr<DiskLock>> Lock(std::string_view path) = 0;
};

}  // namespace dynlib

#endif  // DYNLIB_RUNTIME_DISK_H_
