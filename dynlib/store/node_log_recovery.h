// Reads a log directory after a stop of any kind: what is in it, what is damaged, where to go on.
//
// Threads: blocking; one at a time.
#ifndef DYNLIB_STORE_NODE_LOG_RECOVERY_H_
#define DYNLIB_STORE_NODE_LOG_RECOVERY_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/store/aligned_buffer.h"
#include "dynlib/store/node_log.h"
#include "dynlib/store/node_log_index.h"

namespace dynlib::store {

struct RecoveredLog {
  LogIndex index;
  uint64_t last_sequence = 0;    // Later ones were never given out. 0: nothing was ever written.
  uint64_t last_checksum = 0;    // Header checksum of that batch.
  uint64_t last_generation = 0;  // The highest that is in use or was begun.
  uint64_t last_number = 0;      // The highest of a segment file.
  // Where the next batch goes in the segment `last_generation`; none: into a fresh segment, since
  // nobody knows what else the last one holds.
  std::optional<uint64_t> append_offset;
  // Files of segments that are not in use.
  struct Unused {
    uint64_t number = 0;
    bool right_shape = false;  // Of the size and block size in the options.
  };
  std::vector<Unused> unused;
  // Found missing this time. To be logged, but only once every stream's mark of the loss is
  // durable: a known gap is not reported again.
  std::vector<LogIndex::Gap> new_gaps;
  // Files that the device cannot read and that may be of the log's end: to be set aside once the
  // marks are durable, and not to be written to.
  std::vector<uint64_t> unreadable;
};

// "<dir>/00000007.seg"
std::string SegmentPath(const std::string& dir, uint64_t number);

enum class LogAccess { kMayWrite, kReadOnly };

// Everything that is found is durable when this returns OK, unless nothing may be written.
absl::StatusOr<RecoveredLog> RecoverLog(const NodeLog::Options& options, Disk* disk,
                                        const std::string& dir, NodeLog::Entries entries,
                                        LogAccess access, const NodeLog::ReadProgress& progress,
                                        NodeLog::Recovery* found);

// File::ReadAt, tried again when the device fails to read.
absl::Status ReadStubbornly(File* file, uint64_t offset, std::span<char> out);

// Reads the whole file into `out`; what the device cannot read becomes zeros. Returns how much that
// is; kCancelled when `go_on`, told of each mebibyte or less that was read, says false.
absl::StatusOr<uint64_t> ReadWhole(File* file, std::span<char> out,
                                   absl::FunctionRef<bool(uint64_t bytes)> go_on);

// Reads payloads, those near each other with one call of the disk.
class PayloadReader {
 public:
  PayloadReader(Disk* disk, std::string dir, uint64_t identity);
  // kDataLoss if the payload does not verify or cannot be read.
  absl::StatusOr<std::string> Read(const LogIndex::Segment& segment, const LogIndex::Ref& ref);

 private:
  static constexpr uint64_t kWindowBytes = 256 << 10;
  bool InWindow(const LogIndex::Segment& segment, const LogIndex::Ref& ref) const;
  absl::Status FillWindow(const LogIndex::Segment& segment, const LogIndex::Ref& ref);
  absl::StatusOr<std::string> FromWindow(const LogIndex::Segment& segment,
                                         const LogIndex::Ref& ref);

  Disk* const disk_;
  const std::string dir_;
  const uint64_t identity_;
  uint64_t generation_ = 0;
  std::unique_ptr<File> file_;
  uint64_t window_offset_ = 0;
  AlignedBuffer window_;
  uint64_t window_bytes_ = 0;
};

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_NODE_LOG_RECOVERY_H_
