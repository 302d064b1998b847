// Puts in flight against replicated maps, from one executor: closed loop or open loop.
//
//   PutLoad load(executor, {.callers = 64, .value_bytes = 900}, put);
//   DYNLIB_ASSIGN_OR_RETURN(RunResult result, load.Closed(seconds));
//
// A caller is what a client's connection would be: it has one put in flight, a client id and
// sequence numbers of its own, and acknowledges each answer with its next put. Callers are
// asynchronous: the callback of one put begins the next.
//
// Threads: Closed and Open block, and belong on a thread of their own; all else happens on the
// executor.
#ifndef DYNLIB_BENCHMARKS_GROUP_LOAD_H_
#define DYNLIB_BENCHMARKS_GROUP_LOAD_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "benchmarks/group_node.h"
#include "benchmarks/load.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/executor.h"

namespace dynlib::bench {

class PutLoad {
 public:
  using Done = absl::AnyInvocable<void(absl::Status)>;
  using Put = std::function<void(ProposeRequest request, Done done)>;
  struct Options {
    int callers = 1;
    size_t value_bytes = 900;
    uint64_t first_client = 1;        // the callers' client ids count up from here
    std::vector<PartitionId> groups;  // caller i writes to the group at i % groups.size()
  };

  PutLoad(Executor* executor, const Clock* clock, Options options, Put put);

  // One put. The callers are at rest before and after.
  absl::Status PutOne();
  // Every caller has a put in flight all the time.
  absl::StatusOr<RunResult> Closed(double seconds);
  // `rate` puts a second, evenly spaced, whatever becomes of them. A latency counts from the time
  // at which its put was due, also when it had to wait for a caller. Puts count by when they were
  // due.
  absl::StatusOr<RunResult> Open(double seconds, double rate);

 private:
  struct Caller {
    PartitionId group{};
    ClientId client{};
    uint64_t sequence = 0;
  };

  absl::StatusOr<RunResult> Run(double seconds, std::function<void()> begin);
  void Begin(size_t caller, uint64_t due_ns);
  void OnPut(size_t caller, uint64_t due_ns, absl::Status status);
  void BeginDue();
  bool Over(uint64_t now_ns) const { return now_ns >= end_ns_ || !error_.ok(); }
  void EndIfIdle();

  Executor* const executor_;
  const Clock* const clock_;
  const Put put_;
  std::vector<Caller> callers_;
  PutStream stream_;

  uint64_t begin_ns_ = 0;
  uint64_t end_ns_ = 0;
  size_t in_flight_ = 0;
  std::vector<uint64_t> latencies_ns_;
  absl::Status error_;
  Done over_;
  // Of an open loop.
  bool open_ = false;
  double interval_ns_ = 0;
  uint64_t first_due_ns_ = 0;
  uint64_t due_count_ = 0;       // puts that fell due so far
  std::deque<uint64_t> due_;     // and wait for a caller
  std::vector<size_t> resting_;  // callers
};

}  // namespace dynlib::bench

#endif  // DYNLIB_BENCHMARKS_GROUP_LOAD_H_
