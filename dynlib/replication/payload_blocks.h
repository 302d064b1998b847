// Memory for what a leader proposes: the entries of one turn lie in one block.
//
//   auto [to, payload] = blocks.Take(bytes.size());
//   std::copy(bytes.begin(), bytes.end(), to);   // and never again
//   blocks.EndTurn();
//
// A block is as long as what was taken in the turn before, so that who proposes one entry now and
// then has it alone in memory, and who proposes sixty a turn allocates once a turn. The log lets go
// of entries in their order, so a block goes with the last of its entries, soon after the others.
//
// Threads: one at a time.
#ifndef DYNLIB_REPLICATION_PAYLOAD_BLOCKS_H_
#define DYNLIB_REPLICATION_PAYLOAD_BLOCKS_H_

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string_view>
#include <utility>

#include "dynlib/replication/types.h"

namespace dynlib::replication {

class PayloadBlocks {
 public:
  // Where `size` bytes are to be written, and the payload that they then are.
  std::pair<char*, Payload> Take(size_t size) {
    if (block_ == nullptr || size > left_) {
      left_ = std::max(size, std::min(last_turn_, kBlockMax));
      block_ = std::make_shared_for_overwrite<char[]>(left_);
      next_ = block_.get();
    }
    char* const at = next_;
    next_ += size;
    left_ -= size;
    this_turn_ += size;
    return {at, Payload(block_, std::string_view(at, size))};
  }
  void EndTurn() { last_turn_ = std::exchange(this_turn_, 0); }

 private:
  static constexpr size_t kBlockMax = 256 << 10;

  std::shared_ptr<char[]> block_;
  char* next_ = nullptr;
  size_t left_ = 0;
  size_t this_turn_ = 0;
  size_t last_turn_ = 0;
};

}  // namespace dynlib::replication

#endif  // DYNLIB_REPLICATION_PAYLOAD_BLOCKS_H_
