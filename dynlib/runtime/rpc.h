// Request and reply over any Transport: deadline, cancellation, bounded in-flight work.
//
//   Rpc rpc({.max_calls = 1000, .max_serving = 1000}, transport, kRpcChannel, executor, clock);
//   rpc.Handle(kGet, [this](NodeId from, Instant deadline, std::string request, Rpc::Reply reply) {
//     ... reply(Lookup(request)); });
//   rpc.Call(peer, kGet, request, 100ms, [](absl::StatusOr<std::string> result) { ... });
//
// One Rpc is both client and server of its node. A call is sent once: a lost message shows as
// kDeadlineExceeded, and whoever called decides whether a repeat is safe. A message that the
// network repeats is handled twice. The callback runs exactly once, on the executor, never inline:
//  - kDeadlineExceeded: no reply in time; whether the handler ran is unknown
//  - kCancelled: Cancel, or this Rpc was destroyed
//  - kResourceExhausted: max_calls were in flight here, or max_serving there; the handler did not
//    run
//  - kInvalidArgument: the request is longer than kMaxRequestBytes; it was not sent
//  - kUnimplemented: the peer has no handler for the method
//  - anything else: what the handler replied, with the payloads of its status
//
// A handler's Reply is called at most once, from any thread; dropped uncalled, it replies
// kInternal, and so does a reply longer than a request may be. Replies after the caller's deadline
// are dropped. The deadline travels as time left: the handler's deadline is later than the caller's
// by what the message took.
//
// Counted: "rpc.malformed", "rpc.unmatched_replies" (mostly of calls that timed out),
// "rpc.timed_out", "rpc.refused" (either bound), "rpc.late_replies" (not sent).
//
// Threads: Call, Cancel and the replies from any thread; construction, Handle and destruction on
// the executor (or before it runs anything). Handlers and callbacks run on the executor.
#ifndef DYNLIB_RUNTIME_RPC_H_
#define DYNLIB_RUNTIME_RPC_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/time.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/runtime/transport.h"

namespace dynlib {

class Rpc {
 public:
  struct Options {
    size_t max_calls = 10'000;    // calls in flight from here, >= 1
    size_t max_serving = 10'000;  // requests being handled here, >= 1
    // Tells the calls of this object from those of earlier ones of the same node and channel, so
    // that a late reply to an earlier one is not taken for ours. 0: taken from the clock.
    uint64_t incarnation = 0;
  };
  static constexpr size_t kMaxRequestBytes = Transport::kMaxMessageBytes - 1024;
  enum class Method : uint32_t {};
  enum class CallId : uint64_t {};
  using Callback = absl::AnyInvocable<void(absl::StatusOr<std::string>)>;
  using Reply = absl::AnyInvocable<void(absl::StatusOr<std::string>)>;
  using Handler =
      absl::AnyInvocable<void(NodeId from, Instant deadline, std::string request, Reply reply)>;

  Rpc(Options options, Transport* transport, Channel channel, Executor* executor,
      const Clock* clock, MetricsSink* metrics = MetricsSink::None());
  ~Rpc();

  void Handle(Method method, Handler handler);

  CallId Call(NodeId to, Method method, std::string request, Duration timeout, Callback done);
  // The callback gets kCancelled unless it was already on its way.
  void Cancel(CallId call);

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace dynlib

#endif  // DYNLIB_RUNTIME_RPC_H_
