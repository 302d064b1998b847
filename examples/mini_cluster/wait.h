// From callbacks to a thread that may block.
//
//   absl::Status status = RunAndWait<absl::Status>(executor, [&](auto done) {
//     node->Start(std::move(done)); });
//
// Threads: not from a task of the executor, which would wait for itself.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_WAIT_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_WAIT_H_

#include <future>
#include <memory>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "dynlib/base/check.h"
#include "dynlib/runtime/executor.h"

namespace dynlib::mini_cluster {

// Calls start(done) on the executor and returns what `done` is given.
template <typename Result, typename Start>
Result RunAndWait(Executor& executor, Start start) {
  DYNLIB_CHECK(!executor.IsCurrent());
  auto promise = std::make_shared<std::promise<Result>>();
  std::future<Result> future = promise->get_future();
  executor.Post([promise, start = std::move(start)]() mutable {
    start(absl::AnyInvocable<void(Result)>(
        [promise](Result result) { promise->set_value(std::move(result)); }));
  });
  return future.get();
}

// Calls it there and waits for its end.
template <typename Function>
void RunThere(Executor& executor, Function function) {
  RunAndWait<bool>(executor, [&](absl::AnyInvocable<void(bool)> done) {
    function();
    done(true);
  });
}

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_WAIT_H_
