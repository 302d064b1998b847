// Reads the trees of checkpoints straight from disk and checks them, page by page.
//
// Internal to the store: PageFile::Verify. Threads: one; blocks on the disk.
#ifndef DYNLIB_STORE_VERIFY_H_
#define DYNLIB_STORE_VERIFY_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "dynlib/store/extent_allocator.h"
#include "dynlib/store/node_store.h"
#include "dynlib/store/page.h"
#include "dynlib/store/superblock.h"

namespace dynlib::store {

struct VerifyReport {
  uint64_t pages = 0;
  uint64_t bytes = 0;
  uint64_t damaged = 0;       // pages that did not verify; what lies under them was not reached
  uint64_t leaked_units = 0;  // marked as used by a checkpoint that does not reach them
  uint64_t bytes_total = 0;   // what `bytes` comes to at the end, about
};

// Called now and then, at least once a mebibyte read. One that takes its time bounds the rate;
// false ends the pass, with kCancelled.
using VerifyProgress = std::function<bool(const VerifyReport&)>;

class Verifier {
 public:
  Verifier(NodeStore* nodes, const VerifyProgress& progress) : nodes_(nodes), progress_(progress) {}

  // To be said before, of each: counts what there is to do.
  void Expect(const CheckpointRecord& checkpoint);
  void Check(const CheckpointRecord& checkpoint);

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
  std::optional<PageBytes> Read(const PageRef& ref, const UnitSet& marked);
  void Fault(const PageRef& ref, std::string_view what);

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
