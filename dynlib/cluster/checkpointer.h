// When a storage node's trees become durable: after so much written, after so long, or when asked.
//
// One checkpoint at a time, on the executor for files; the log that the trees no longer need is
// released behind it, from the older of the two checkpoints on disk on, so that the loss of the
// newest superblock loses nothing. After a failure the next one waits for as much log, or as long,
// as ever: a full disk is asked again, not hammered.
//
// Threads: everything on the node's executor; callbacks run there.
#ifndef DYNLIB_CLUSTER_CHECKPOINTER_H_
#define DYNLIB_CLUSTER_CHECKPOINTER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "dynlib/base/time.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/store/page_file.h"

namespace dynlib::cluster {

class Checkpointer : public std::enable_shared_from_this<Checkpointer> {
 public:
  struct Options {
    uint64_t log_bytes;          // written since the last checkpoint began: begin one
    Duration interval;           // something was written this long ago: begin one
    bool skip_for_test = false;  // L4 broken on purpose: says "done" and writes nothing
  };
  using Done = absl::AnyInvocable<void(absl::Status)>;

  // `finished` hears of each checkpoint before whoever asked for it.
  Checkpointer(Options options, store::PageFile* pages, Executor* executor, Executor* file_executor,
               const Clock* clock, Done finished);

  // To the log, or by a copy to a tree, which has no log.
  void OnWritten(size_t bytes);
  // A checkpoint that begins after this call.
  void Run(Done done);
  void Request();
  // Nothing begins any more; what runs goes on. Waiters are answered by Cancel.
  void Stop();
  void Cancel();

 private:
  void Begin();
  void Finish(const absl::Status& status, std::vector<Done> waiters);

  const Options options_;
  store::PageFile* const pages_;
  Executor* const executor_;
  Executor* const file_executor_;
  const Clock* const clock_;
  Done finished_;

  bool stopped_ = false;
  bool running_ = false;
  bool again_ = false;
  uint64_t written_bytes_ = 0;  // since the last one began
  std::vector<Done> waiters_;
  Executor::TimerId timer_ = Executor::kNoTimer;
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_CHECKPOINTER_H_
