// Compares the replicas of one sorted map of keys to values, finds each item in which they differ,
// and says which copy is bad.
//
//   ScrubSession session({.expected_bytes = stats.bytes}, {.members = {a, b, c}, .marker = slot},
//                        /*resume=*/{}, clock->Now());
//   for (;;) {
//     ScrubSession::Effects effects = session.TakeEffects();
//     for (Request& r : effects.requests) Send(r);         // the answer: session.OnAnswer(r.id,
//     ...) Repair(effects.findings); Save(session.cursor());    // in this order if
//     (session.finished()) break;
//     ... OnAnswer as answers come, OnTimer at session.next_timer() ...
//   }
//
// How. One replica, the chooser, splits the next stretch of keys into sub-ranges of its own choice
// and digests each; the others digest exactly these. A sub-range that differs is split further, by
// the replica that has most items there, until it is small enough to list item by item. Equal
// contents cost one scan and a few hundred bytes of answers a megabyte.
//
// All replicas must answer for their contents at the same logged position, the marker (rule R12):
// then any difference is damage.
//
// Verdicts. The copies that agree with each other, two at least and more than agree on anything
// else, are good; the rest are bad. A copy that cannot be read is bad. A reference, rebuilt from
// archived log alone, outvotes all others where it can be read. See types.h.
//
// A replica that fails `attempts` times, or gives answers that are not well formed, is lost: the
// scrub goes on with the others, and progress() says how far that replica was compared. With fewer
// than two left the session is finished with kUnavailable. Start another from the cursor.
//
// Resuming. The cursor says up to which key everything was compared *and* the findings were handed
// out, in the order of their keys; so a session that begins at a saved cursor repeats no finding
// and misses none. It may have another marker and other replicas.
//
// Pure: no I/O, threads, clock. Threads: one at a time.
#ifndef DYNLIB_SCRUB_SCRUB_SESSION_H_
#define DYNLIB_SCRUB_SCRUB_SESSION_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/scrub/options.h"
#include "dynlib/scrub/scrub_task.h"
#include "dynlib/scrub/throttle.h"
#include "dynlib/scrub/types.h"

namespace dynlib::scrub {

struct ScrubSubject {
  std::vector<ReplicaId> members;  // two at least, all different, not 0
  ReplicaId reference{};           // one of them, if any; 0: none
  Slot marker = 0;
  std::string first;  // the range to compare
  std::string end;
};

// Where a scrub stands; save it as it is. Default: at the beginning.
struct ScrubCursor {
  std::string next;    // every key below was compared
  bool done = false;   // and there is nothing else
  uint64_t items = 0;  // compared; of the replica that has most where they differ
  uint64_t bytes = 0;
  uint64_t findings = 0;
};

struct ScrubCounts {
  uint64_t failed_requests = 0;
  uint64_t malformed_answers = 0;   // of those
  uint64_t unexpected_answers = 0;  // to no request that waits: late, or repeated
  // Ranges whose digests differed, but none of whose items did when they were listed: a replica
  // reads different things at different times.
  uint64_t vanished_differences = 0;
};

struct ScrubProgress {
  struct Member {
    ReplicaId replica{};
    bool lost = false;
    std::string why;               // it was lost
    std::string compared_through;  // every key of the subject below was compared with its copy
  };
  ScrubCursor cursor;
  // Of expected_bytes, below 1 until all is done; 0 if that is not known.
  double fraction = 0;
  // When it will be done at the pace so far, and no faster than bytes_per_second allows; Infinite
  // if expected_bytes is not known.
  Instant estimated_end = Instant::Infinite();
  bool late = false;  // it was not, or by the estimate will not be, done by the deadline
  std::vector<Member> members;
  ScrubCounts counts;
};

class ScrubSession {
 public:
  struct Effects {
    std::vector<Request> requests;
    std::vector<Finding> findings;  // in the order of their keys
  };

  // `options` and `subject` must be valid (DYNLIB_CHECK).
  ScrubSession(const ScrubOptions& options, const ScrubSubject& subject, const ScrubCursor& resume,
               Instant now);
  ScrubSession(const ScrubSession&) = delete;
  ScrubSession& operator=(const ScrubSession&) = delete;

  // kDataLoss: the replica can read nothing of what it was asked for. Other errors: the request
  // failed, and is sent again.
  void OnAnswer(uint64_t request, absl::StatusOr<Answer> answer, Instant now);
  void OnTimer(Instant now);
  // When OnTimer is to be called next. Infinite: an answer must come first.
  Instant next_timer() const;
  Effects TakeEffects();

  // OK once everything was compared; kUnavailable: too few replicas are left; kResourceExhausted:
  // max_findings. Meanwhile there is nothing in it.
  bool finished() const { return result_.has_value(); }
  absl::Status result() const { return result_.value_or(absl::OkStatus()); }
  const ScrubCursor& cursor() const { return cursor_; }
  ScrubProgress Progress(Instant now) const;

 private:
  struct Member {
    Throttle throttle;
    std::string why;  // it was lost
    std::string compared_through;
  };
  struct InFlight {
    std::string task;  // its first key
    size_t member = 0;
    uint64_t bytes = 0;
    Instant deadline;
  };
  using TaskMap = std::map<std::string, ScrubTask>;

  void Fail(const InFlight& request, const std::string& why, Instant now);
  void Lose(size_t member, const std::string& why);
  // Lets each task that has its answers go on, then sends what may be sent.
  void Advance(Instant now);
  void MoveCursor();
  void Send(Instant now);
  // True if it was sent, or may be later, when next_send_ says; false: the bounds are reached.
  bool SendOne(ScrubTask& task, size_t member, Request request, Instant now);
  void Finish(absl::Status result, Instant now);
  InFlight Forget(std::map<uint64_t, InFlight>::iterator request);

  const ScrubOptions options_;
  const ScrubSubject subject_;
  const Instant began_;
  const uint64_t began_bytes_;
  TaskContext context_;
  std::vector<Member> members_;
  std::map<uint64_t, InFlight> in_flight_;
  uint64_t in_flight_bytes_ = 0;
  uint64_t last_request_ = 0;
  TaskMap tasks_;                            // what is not compared yet: ranges that do not overlap
  std::map<std::string, Compared> credits_;  // what was compared beyond the cursor
  ScrubCursor cursor_;
  ScrubCounts counts_;
  std::optional<absl::Status> result_;
  Instant finished_at_;
  Instant next_send_ = Instant::Infinite();
  Effects effects_;
};

absl::Status Validate(const ScrubSubject& subject);

}  // namespace dynlib::scrub

#endif  // DYNLIB_SCRUB_SCRUB_SESSION_H_
