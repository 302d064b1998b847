// One stretch of keys that a scrub is comparing: who is to be asked what, and what follows from the
// answers. Part of ScrubSession; the comments there say how a scrub goes.
//
// A task compares digests (first the chooser splits the range, then the others digest the parts)
// or lists items. It ends with what was found equal, what differs, and tasks for the ranges in
// which it has still to be found out.
//
// Pure. Threads: one at a time.
#ifndef DYNLIB_SCRUB_SCRUB_TASK_H_
#define DYNLIB_SCRUB_SCRUB_TASK_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/scrub/types.h"

namespace dynlib::scrub {

// What the tasks of a session share.
struct TaskContext {
  std::vector<ReplicaId> members;
  std::vector<bool> lost;  // of each member
  ReplicaId reference{};
  uint64_t step_bytes = 0;
  uint32_t fan_out = 0;
  uint64_t leaf_items = 0;
};

// What a range that was compared adds to the scrub.
struct Compared {
  std::string first;
  uint64_t items = 0;
  uint64_t bytes = 0;
  std::vector<Finding> findings;
};

class ScrubTask {
 public:
  // What an advance led to.
  struct Step {
    bool done = false;  // the task has no more to do; what is left of its range is in `tasks`
    std::vector<ScrubTask> tasks;
    std::vector<Compared> compared;
    bool vanished = false;  // its range differed, by digests, and by items does not
  };

  // `chooser` splits it, unless it cannot read where it begins. `part_items` in a part at most.
  static ScrubTask Digests(const TaskContext* context, std::string first, std::string end,
                           size_t chooser, uint64_t part_items = UINT64_MAX);
  static ScrubTask Items(const TaskContext* context, std::string first, std::string end);

  const std::string& first() const { return first_; }
  const std::string& end() const { return end_; }

  // What to ask the member now, without id; nothing if it was asked, has answered, or it is not its
  // turn.
  std::optional<Request> Wanted(size_t member) const;
  Instant not_before(size_t member) const { return copies_[member].not_before; }
  void Sent(size_t member) { copies_[member].asked = true; }
  // kInvalidArgument for an answer that does not fit the request; it is not taken then.
  absl::Status Take(size_t member, Answer answer);
  // The member cannot read any of what it was asked for.
  void TakeUnreadable(size_t member);
  // Asked again from then on. How often it has failed by now.
  uint32_t Failed(size_t member, Instant not_before);

  // Goes as far as the answers allow.
  Step Advance();

 private:
  enum class Phase : uint8_t { kChoosing, kComparing, kListing };
  struct CopyOfRange {
    bool asked = false;
    uint32_t failures = 0;
    Instant not_before;
    std::optional<Answer> answer;
    // As chooser: it cannot read up to here.
    std::optional<std::string> unreadable_end;
  };

  ScrubTask(const TaskContext* context, Phase phase, std::string first, std::string end)
      : context_(context),
        phase_(phase),
        first_(std::move(first)),
        end_(std::move(end)),
        copies_(context->members.size()) {}

  bool Lost(size_t member) const { return context_->lost[member]; }
  bool AllAnswered() const;
  absl::Status CheckParts(const Answer& answer) const;
  absl::Status CheckItems(const Answer& answer) const;
  // The chooser's answer becomes the parts to compare. True if the next phase may have begun.
  bool Choose(Step* step);
  void NobodyReads(Step* step);
  void Compare(Step* step);
  bool Equal(size_t part) const;
  ScrubTask Narrow(size_t part, const std::string& first) const;
  void CompareItems(Step* step);
  // Splits a listing in which somebody cannot tell what it cannot read; false if nobody is so.
  bool SplitListing(const std::vector<std::string>& keys, const std::string& through, Step* step);
  std::vector<std::string> UnionOfKeys(const std::string& through) const;
  std::optional<Finding> CompareItem(const std::string& key, uint64_t* bytes) const;
  Copy CopyOf(size_t member, const std::string& key, uint64_t* bytes) const;
  void FindEmptyUnreadable(const std::vector<std::string>& keys, const std::string& through,
                           std::vector<Finding>* findings) const;

  const TaskContext* context_;
  Phase phase_;
  std::string first_;
  std::string end_;
  size_t chooser_ = 0;
  uint64_t part_items_ = UINT64_MAX;
  std::vector<Part> parts_;  // the chooser's, while comparing
  std::vector<CopyOfRange> copies_;
};

}  // namespace dynlib::scrub

#endif  // DYNLIB_SCRUB_SCRUB_TASK_H_
