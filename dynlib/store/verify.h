// Reads checkpoints straight from disk, superblock, directory, bitmap and trees, and checks them.
//
// Internal to the store: PageFile::Verify. Threads: one; blocks on the disk.
#ifndef DYNLIB_STORE_VERIFY_H_
#define DYNLIB_STORE_VERIFY_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/store/extent_allocator.h"
#include "dynlib/store/node_store.h"
#include "dynlib/store/page.h"
#include "dynlib/store/superblock.h"

namespace dynlib::store {

struct VerifyReport {
  static constexpr size_t kMaxFaults = 100;

  uint64_t pages = 0;
  uint64_t log_batches = 0;
  uint64_t bytes = 0;
  uint64_t damaged = 0;  // what did not verify; what lies under a damaged page was not reached
  std::vector<std::string> faults;  // the first kMaxFaults of them: file, offset, both checksums
  uint64_t leaked_units = 0;        // marked as used by a checkpoint that does not reach them
  uint64_t bytes_total = 0;         // what `bytes` comes to at the end, about
};

// Called now and then, at least once a mebibyte read. One that takes its time bounds the rate;
// false ends the pass, with kCancelled.
using VerifyProgress = std::function<bool(const VerifyReport&)>;

class Verifier {
 public:
  Verifier(NodeStore* nodes, const VerifyProgress& progress) : nodes_(nodes), progress_(progress) {}

  // To be said before, of each: counts what there is to do.
  void Expect(const CheckpointRecord& checkpoint);
  // Its directory and bitmap, and all trees.
  void Check(const CheckpointRecord& checkpoint);
  // Counts something that was read otherwise, and what is wrong with it.
  void Note(uint64_t bytes, const absl::Status& read);

  // Whether the superblock on disk says that of `expected`.
  static absl::Status CheckSuperblock(NodeStore* nodes, const Superblock& expected);

  const VerifyReport& report() const { return report_; }
  // The first fault found.
  const absl::Status& status() const { return status_; }
  // What the checkpoint checked last marks and does not reach; nothing when a page was damaged.
  const UnitSet& leaked() const { return leaked_; }

 private:
  // Keys of a subtree lie in [low, high); no high: no bound.
  struct Range {
    std::string low;
    std::optional<std::string> high;
  };

  void CheckTreePage(const PageRef& ref, std::optional<uint32_t> level, const Range& range,
                     const UnitSet& marked);
  void CheckLeaf(const PageView& page, const Range& range, const UnitSet& marked);
  void CheckBranch(const PageView& page, const Range& range, const UnitSet& marked);
  void CheckBlobs(const CheckpointRecord& checkpoint);
  std::optional<PageBytes> Read(const PageRef& ref);
  std::optional<PageBytes> ReadMarked(const PageRef& ref, const UnitSet& marked);
  void Fault(const PageRef& ref, std::string_view what);
  void Fault(const absl::Status& what);

  NodeStore* const nodes_;
  const VerifyProgress& progress_;
  uint64_t told_bytes_ = 0;
  bool cancelled_ = false;
  UnitSet seen_;  // of the checkpoint being checked
  UnitSet leaked_;
  VerifyReport report_;
  absl::Status status_;
};

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_VERIFY_H_
