// The state machine of the replication benchmark: a map in memory that is a function of the log.
//
// A command is a key and a value. A value is copied from the log's entry into an append-only arena,
// and found through a hash map: readable at once, by any key. Nothing of it is on disk but the log:
// a replica that starts again applies the log from its first slot. So no checkpoint falls in a run,
// and none of the log is released in it. (etcd makes its first snapshot after 100,000 entries.)
//
// Threads: the apply executor's.
#ifndef DYNLIB_BENCHMARKS_REPLICATED_MAP_H_
#define DYNLIB_BENCHMARKS_REPLICATED_MAP_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "dynlib/base/huge_array.h"
#include "dynlib/base/ids.h"
#include "dynlib/replication/state_machine.h"

namespace dynlib::bench {

class ReplicatedMap final : public replication::StateMachine {
 public:
  // Has memory for this much, in huge pages where there are any, and for as many pairs of a
  // kilobyte.
  explicit ReplicatedMap(size_t bytes);

  // Appends the command that sets `key`.
  static void PutCommand(std::string& out, std::string_view key, std::string_view value);

  // Empty if there is none.
  std::string_view Get(std::string_view key) const;
  size_t size() const { return values_.size(); }

  Slot applied() const override { return applied_; }
  absl::Status LoadSessions(
      absl::FunctionRef<void(std::string_view key, std::string_view value)> visit) override;
  absl::Status Evaluate(std::span<const replication::AppliedCommand> commands,
                        std::vector<std::string>* results) override;
  absl::Status Publish(const replication::PublishedStep& step) override;

 private:
  struct Pair {
    std::string_view key;
    std::string_view value;
  };
  void Grow(size_t bytes);
  std::string_view Keep(std::string_view bytes);

  // Views point into the arena.
  absl::flat_hash_map<uint64_t, Pair> values_;  // by the checksum of the key
  std::vector<Pair> evaluated_;
  std::deque<HugeArray<char>> arena_;
  size_t arena_left_ = 0;
  char* arena_next_ = nullptr;
  Slot applied_ = 0;
};

}  // namespace dynlib::bench

#endif  // DYNLIB_BENCHMARKS_REPLICATED_MAP_H_
