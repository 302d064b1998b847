// The segment files of a node log: makes them, keeps a few ready, takes back those no longer used.
//
// A segment is written once with zeros, in small steps so that no append waits for long, under a
// name of its own until it is whole and durable. From then on it never changes size, and a sync of
// it writes data alone.
//
// Threads: TakeReady, spares and IsStepDue from any thread, without file calls; the rest one at a
// time, with file calls.
#ifndef DYNLIB_STORE_NODE_LOG_SEGMENTS_H_
#define DYNLIB_STORE_NODE_LOG_SEGMENTS_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/store/aligned_buffer.h"

namespace dynlib::store {

// How long the segment for a time of rest is.
inline uint64_t RestSegmentBytes(uint64_t segment_bytes, uint64_t block_bytes) {
  constexpr uint64_t kBytesMax = 1 << 20;
  return std::min(kBytesMax, segment_bytes / 4) / block_bytes * block_bytes;
}

class SegmentFiles {
 public:
  struct Shape {
    uint64_t segment_bytes = 0;
    uint32_t spares_wanted = 1;
    uint32_t spares_at_open = 0;
    uint32_t max_segments = 0;
  };
  struct Segment {
    uint64_t number = 0;
    std::unique_ptr<File> file;
    uint64_t bytes = 0;
  };
  static constexpr uint64_t kStepBytes = 256 << 10;

  // Numbers of new files start above `last_number`.
  SegmentFiles(Shape shape, Disk* disk, std::string dir, uint64_t last_number);

  // True if PrepareStep has something to do. False for good after an error, until the next Take.
  bool WantsStep(uint64_t in_use) const;
  // How much of spares is to be made while `used_bytes` of a segment of `segment_bytes` are filled:
  // one while its first half is, and another with the rest if more are wanted.
  uint64_t Pace(uint64_t used_bytes, uint64_t segment_bytes) const;
  // True if PrepareStep has something to do by that pace; those wanted at an open know none. Any
  // thread.
  bool IsStepDue(uint64_t in_use, uint64_t pace) const;
  // Writes a part of a spare.
  absl::Status PrepareStep();

  // A segment ready for use; made at once if none is.
  // kResourceExhausted: no space, or max_segments are in use. Try again when either has changed.
  // The first one may exceed the bound: what has to be logged at a start may be what it takes to
  // free others.
  absl::StatusOr<Segment> Take(uint64_t in_use);

  // One of so many bytes, made here.
  absl::StatusOr<Segment> MakeSmall(uint64_t bytes);

  // Removes the spares, and what there is of the next.
  void DropSpares();

  // A segment that is ready, if one is.
  std::optional<Segment> TakeReady();

  // Gives back a file that nothing needs any more: kept as a spare, or removed.
  absl::Status Return(uint64_t number, bool right_shape);

  // The log goes on in a segment that it had: what is made from now on are spares.
  void SetBegun();

  uint64_t spares() const;

 private:
  void AddLocked(Segment spare);
  absl::Status Begin(uint64_t bytes);
  absl::Status Finish();
  absl::Status Abandon(absl::Status why);
  std::string UnfinishedPath() const;

  const Shape shape_;
  Disk* const disk_;
  const std::string dir_;
  mutable std::mutex mutex_;
  std::deque<Segment> spares_;  // Guarded by mutex_.
  uint64_t last_number_;
  Segment unfinished_;                   // `file` is null: none.
  uint64_t written_ = 0;                 // of unfinished_
  std::atomic<uint64_t> made_bytes_{0};  // since a segment was taken
  std::atomic<bool> has_opening_;        // there were the spares wanted at an open
  std::atomic<bool> failed_{false};
  bool begun_ = false;  // The log has a segment. Guarded by mutex_.
  bool first_ = true;
  AlignedBuffer zeros_;
};

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_NODE_LOG_SEGMENTS_H_
