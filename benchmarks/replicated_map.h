// The state machine of the replication benchmark: a map in memory that is a function of the log.
//
// A command is a key and a value. It is copied from the log's entry into an append-only arena, and
// found through a hash table: readable at once, by any key. Nothing of it is on disk but the log:
// a replica that starts again applies the log from its first slot. So no checkpoint falls in a run,
// and none of the log is released in it. (etcd makes its first snapshot after 100,000 entries.)
// The maps of a node's groups have one arena, as trees of one file have one cache.
//
// Threads: the apply executor's.
#ifndef DYNLIB_BENCHMARKS_REPLICATED_MAP_H_
#define DYNLIB_BENCHMARKS_REPLICATED_MAP_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "dynlib/base/huge_array.h"
#include "dynlib/base/ids.h"
#include "dynlib/replication/state_machine.h"

namespace dynlib::bench {

// Bytes that stay, one after the other.
class Arena {
 public:
  // Has memory for this much, in huge pages where there are any.
  explicit Arena(size_t bytes) { Grow(bytes); }
  std::string_view Keep(std::string_view bytes);

 private:
  void Grow(size_t bytes);

  std::deque<HugeArray<char>> blocks_;
  size_t left_ = 0;
  char* next_ = nullptr;
};

class ReplicatedMap final : public replication::StateMachine {
 public:
  // Has places for so many pairs.
  ReplicatedMap(size_t pairs, Arena* arena);

  // Appends the command that sets `key`.
  static void PutCommand(std::string& out, std::string_view key, std::string_view value);

  // Empty if there is none.
  std::string_view Get(std::string_view key) const;
  size_t size() const { return size_; }

  Slot applied() const override { return applied_; }
  absl::Status LoadSessions(
      absl::FunctionRef<void(std::string_view key, std::string_view value)> visit) override;
  absl::Status Evaluate(std::span<const replication::AppliedCommand> commands,
                        std::vector<std::string>* results) override;
  absl::Status Publish(const replication::PublishedStep& step) override;

 private:
  // A pair that was put. The bytes are its command's, in the arena.
  struct Place {
    uint32_t tag = 0;   // of the checksum of the key, bits that do not choose the place
    uint32_t size = 0;  // of the command; 0: none is here
    const char* command = nullptr;

    std::string_view bytes() const { return {command, size}; }
  };
  struct Evaluated {
    uint64_t checksum = 0;  // of the key
    std::string_view command;
  };
  Place& Find(uint64_t checksum, std::string_view key) const;
  void Put(uint64_t checksum, std::string_view key, std::string_view command);
  void GrowPlaces();

  Arena* const arena_;
  // Open addressing, linear probing, at most half full.
  std::unique_ptr<HugeArray<Place>> places_;
  size_t size_ = 0;
  std::vector<Evaluated> evaluated_;
  Slot applied_ = 0;
};

}  // namespace dynlib::bench

#endif  // DYNLIB_BENCHMARKS_REPLICATED_MAP_H_
