// Memory for the entries of a group's log: many lie in one block.
//
//   auto [to, payload] = blocks.Take(bytes.size(), log_bytes);
//   std::copy(bytes.begin(), bytes.end(), to);   // and never again
//   blocks.EndTurn();
//
// A block is as long as what was taken in the last turn in which something was, so that who takes
// one entry now and then has it alone in memory, and who takes sixty a turn allocates once a turn;
// or as an eighth of what the log holds, if that is more. The log lets go of entries in their
// order, so a block goes with the last of its entries, and what is held longer than needed is small
// by what is needed. Blocks are one group's: a group whose log is kept for a member that lags keeps
// nobody else's entries.
//
// The largest blocks are slabs, which the groups of a node recycle (PayloadSlabs).
//
// Threads: one at a time; what was taken may be let go of on any thread.
#ifndef DYNLIB_REPLICATION_PAYLOAD_BLOCKS_H_
#define DYNLIB_REPLICATION_PAYLOAD_BLOCKS_H_

#include <algorithm>
#include <cstddef>
#include <memory>
#include <mutex>
#include <string_view>
#include <utility>
#include <vector>

#include "dynlib/replication/types.h"

namespace dynlib::replication {

// Slabs of 32 KiB. Those that were let go of are kept for whoever needs one next, up to a bound:
// memory that comes from the system is cleared first, page by page, while a commit waits for it.
// (With entries of a kilobyte in memory that was never used, a fifth of what a commit cost its
// leader.)
//
// Threads: any.
class PayloadSlabs : public std::enable_shared_from_this<PayloadSlabs> {
 public:
  static constexpr size_t kSlabBytes = 32 << 10;

  // Keeps up to `kept_bytes`, and has `bytes_at_start` from the start.
  PayloadSlabs(size_t kept_bytes, size_t bytes_at_start) : kept_max_(kept_bytes / kSlabBytes) {
    for (size_t i = 0; i < std::min(kept_max_, bytes_at_start / kSlabBytes); ++i) {
      kept_.push_back(std::make_unique<char[]>(kSlabBytes));  // Touches it.
    }
  }

  std::shared_ptr<char> Get() {
    return {Take().release(), [slabs = shared_from_this()](char* slab) {
              slabs->Return(std::unique_ptr<char[]>(slab));
            }};
  }
  size_t kept() const {
    std::lock_guard lock(mutex_);
    return kept_.size();
  }

 private:
  std::unique_ptr<char[]> Take() {
    {
      std::lock_guard lock(mutex_);
      if (!kept_.empty()) {
        std::unique_ptr<char[]> slab = std::move(kept_.back());
        kept_.pop_back();
        return slab;
      }
    }
    return std::make_unique_for_overwrite<char[]>(kSlabBytes);
  }
  void Return(std::unique_ptr<char[]> slab) {
    std::lock_guard lock(mutex_);
    if (kept_.size() < kept_max_) kept_.push_back(std::move(slab));
  }

  const size_t kept_max_;
  mutable std::mutex mutex_;
  std::vector<std::unique_ptr<char[]>> kept_;
};

class PayloadBlocks {
 public:
  explicit PayloadBlocks(std::shared_ptr<PayloadSlabs> slabs) : slabs_(std::move(slabs)) {}

  // Where `size` bytes are to be written, and the payload that they then are. `held` is what the
  // log holds.
  std::pair<char*, Payload> Take(size_t size, size_t held) {
    if (block_ == nullptr || size > left_) NewBlock(size, held);
    char* const at = next_;
    next_ += size;
    left_ -= size;
    this_turn_ += size;
    return {at, Payload(block_, std::string_view(at, size))};
  }
  // Turns in which nothing was taken do not count: a leader that proposes sixty at a time takes
  // word of its followers and its log in turns of their own in between.
  void EndTurn() {
    if (this_turn_ > 0) last_turn_ = std::exchange(this_turn_, 0);
  }
  // The log holds nothing any more.
  void Clear() {
    block_ = nullptr;
    last_turn_ = 0;
  }

 private:
  void NewBlock(size_t size, size_t held) {
    left_ = std::max(size, std::min(std::max(last_turn_, held / 8), PayloadSlabs::kSlabBytes));
    if (left_ == PayloadSlabs::kSlabBytes) {
      block_ = slabs_->Get();
    } else {
      const std::shared_ptr<char[]> block = std::make_shared_for_overwrite<char[]>(left_);
      block_ = std::shared_ptr<char>(block, block.get());
    }
    next_ = block_.get();
  }

  const std::shared_ptr<PayloadSlabs> slabs_;
  std::shared_ptr<char> block_;
  char* next_ = nullptr;
  size_t left_ = 0;
  size_t this_turn_ = 0;
  size_t last_turn_ = 0;
};

}  // namespace dynlib::replication

#endif  // DYNLIB_REPLICATION_PAYLOAD_BLOCKS_H_
