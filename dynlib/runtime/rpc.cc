#include "dynlib/runtime/rpc.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <set>
#include <shared_mutex>
#include <utility>
#include <vector>

#include "dynlib/base/check.h"
#include "dynlib/base/checksum.h"
#include "dynlib/base/coding.h"
#include "dynlib/base/strings.h"
#include "dynlib/runtime/rpc_message.h"

namespace dynlib {
namespace {

// Different for each Rpc that a node makes, as long as its clocks do not both repeat.
uint64_t IncarnationFromClock(const Transport& transport, Channel channel, const Clock& clock) {
  std::string seed;
  PutFixed64(seed, static_cast<uint64_t>(clock.WallNow().nanos()));
  PutFixed64(seed, static_cast<uint64_t>(clock.Now().nanos()));
  PutFixed64(seed, ToUint(transport.self()));
  PutFixed32(seed, static_cast<uint32_t>(channel));
  return Checksum(seed);
}

// Microseconds from the wire; what a Duration cannot hold is for ever.
Instant DeadlineAfter(Instant now, uint64_t micros) {
  constexpr uint64_t kMaxMicros = INT64_MAX / 1000;
  if (micros >= kMaxMicros) return Instant::Infinite();
  return now + Duration(static_cast<int64_t>(micros) * 1000);
}

uint64_t MicrosLeft(Duration timeout) {
  return static_cast<uint64_t>((timeout.count() - 1) / 1000) + 1;  // up: at least one
}

}  // namespace

// Shared with tasks and replies that outlive the Rpc, which hold it weakly or while they work.
class Rpc::Impl : public std::enable_shared_from_this<Rpc::Impl> {
 public:
  Impl(Options options, Transport* transport, Channel channel, Executor* executor,
       const Clock* clock, MetricsSink* metrics)
      : options_(options),
        incarnation_(options.incarnation != 0 ? options.incarnation
                                              : IncarnationFromClock(*transport, channel, *clock)),
        transport_(transport),
        channel_(channel),
        executor_(executor),
        clock_(clock),
        metrics_(metrics) {
    DYNLIB_CHECK(options.max_calls >= 1);
    DYNLIB_CHECK(options.max_serving >= 1);
  }

  void Start();
  void Close();
  void Handle(Method method, Handler handler);
  CallId Call(NodeId to, Method method, std::string request, Duration timeout, Callback done);
  void Cancel(CallId call);

 private:
  struct Pending {
    NodeId to;
    Instant deadline;
    Callback done;
  };
  using PendingMap = std::map<uint64_t, Pending>;
  class Serving;

  void PostResult(Callback done, absl::Status status);
  Callback TakeLocked(PendingMap::iterator call);
  void ArmTimerLocked();
  void OnTimer();
  void Receive(NodeId from, std::string bytes);
  void ReceiveReply(NodeId from, RpcMessage message);
  void ReceiveRequest(NodeId from, RpcMessage message);
  void SendReply(const Serving& serving, absl::StatusOr<std::string> result);

  const Options options_;
  const uint64_t incarnation_;
  Transport* const transport_;
  const Channel channel_;
  Executor* const executor_;
  const Clock* const clock_;
  MetricsSink* const metrics_;

  // Client. One timer, for the earliest deadline: most calls end before theirs, so most never cost
  // one.
  std::mutex mutex_;
  PendingMap calls_;
  std::set<std::pair<Instant, uint64_t>> deadlines_;
  uint64_t next_call_ = 1;
  Executor::TimerId timer_ = Executor::kNoTimer;
  Instant timer_time_;

  // Server. Shared pointers, since a handler may replace itself.
  std::map<Method, std::shared_ptr<Handler>> handlers_;
  std::atomic<size_t> serving_{0};
  // Held shared by replies while they use the transport, which may go once Close returned.
  std::shared_mutex open_mutex_;
  bool closed_ = false;
};

// A request that is being handled: replies once, at the latest when it is destroyed.
class Rpc::Impl::Serving {
 public:
  Serving(const std::shared_ptr<Impl>& rpc, NodeId from, const RpcMessage& request,
          Instant deadline)
      : from(from),
        incarnation(request.incarnation),
        call(request.call),
        deadline(deadline),
        rpc_(rpc) {
    rpc->serving_.fetch_add(1, std::memory_order_relaxed);
  }
  ~Serving() {
    if (!answered_) Answer(absl::InternalError("the handler dropped the request without a reply"));
  }

  void Answer(absl::StatusOr<std::string> result) {
    DYNLIB_CHECK(!answered_);
    answered_ = true;
    const std::shared_ptr<Impl> rpc = rpc_.lock();
    if (rpc == nullptr) return;
    rpc->serving_.fetch_sub(1, std::memory_order_relaxed);
    rpc->SendReply(*this, std::move(result));
  }

  const NodeId from;
  const uint64_t incarnation;
  const uint64_t call;
  const Instant deadline;

 private:
  const std::weak_ptr<Impl> rpc_;
  bool answered_ = false;
};

void Rpc::Impl::Start() {
  transport_->Listen(channel_, executor_,
                     [weak = weak_from_this()](NodeId from, std::string message) {
                       if (auto rpc = weak.lock()) rpc->Receive(from, std::move(message));
                     });
}

void Rpc::Impl::Close() {
  transport_->StopListening(channel_);
  {
    std::unique_lock lock(open_mutex_);
    closed_ = true;
  }
  handlers_.clear();
  PendingMap cancelled;
  {
    std::lock_guard lock(mutex_);
    cancelled.swap(calls_);
    deadlines_.clear();
    executor_->Cancel(timer_);
  }
  for (auto& [id, call] : cancelled) {
    PostResult(std::move(call.done), absl::CancelledError("rpc: shut down during the call"));
  }
}

void Rpc::Impl::Handle(Method method, Handler handler) {
  handlers_[method] = std::make_shared<Handler>(std::move(handler));
}

Rpc::CallId Rpc::Impl::Call(NodeId to, Method method, std::string request, Duration timeout,
                            Callback done) {
  std::unique_lock lock(mutex_);
  const uint64_t id = next_call_++;
  absl::Status refused;
  if (request.size() > kMaxRequestBytes) {
    refused = absl::InvalidArgumentError(
        Cat("rpc: the request has ", request.size(), " bytes, more than ", kMaxRequestBytes));
  } else if (timeout <= Duration::zero()) {
    refused = absl::DeadlineExceededError("rpc: the deadline had passed before the call");
  } else if (calls_.size() >= options_.max_calls) {
    metrics_->Count("rpc.refused", 1);
    refused =
        absl::ResourceExhaustedError(Cat("rpc: ", options_.max_calls, " calls are in flight"));
  }
  if (!refused.ok()) {
    lock.unlock();
    PostResult(std::move(done), std::move(refused));
    return CallId{id};
  }
  const Instant deadline = clock_->Now() + timeout;
  calls_.emplace_hint(calls_.end(), id, Pending{to, deadline, std::move(done)});
  if (deadline != Instant::Infinite()) {
    deadlines_.emplace(deadline, id);
    ArmTimerLocked();
  }
  lock.unlock();
  transport_->Send(to, channel_,
                   EncodeRpcMessage({.kind = RpcMessage::Kind::kRequest,
                                     .method = static_cast<uint32_t>(method),
                                     .incarnation = incarnation_,
                                     .call = id,
                                     .argument = MicrosLeft(timeout),
                                     .body = std::move(request)}));
  return CallId{id};
}

void Rpc::Impl::Cancel(CallId call) {
  Callback done;
  {
    std::lock_guard lock(mutex_);
    const auto found = calls_.find(static_cast<uint64_t>(call));
    if (found == calls_.end()) return;
    done = TakeLocked(found);
  }
  PostResult(std::move(done), absl::CancelledError("rpc: the call was cancelled"));
}

void Rpc::Impl::PostResult(Callback done, absl::Status status) {
  executor_->Post(
      [done = std::move(done), status = std::move(status)]() mutable { done(std::move(status)); });
}

Rpc::Callback Rpc::Impl::TakeLocked(PendingMap::iterator call) {
  deadlines_.erase({call->second.deadline, call->first});
  Callback done = std::move(call->second.done);
  calls_.erase(call);
  return done;
}

void Rpc::Impl::ArmTimerLocked() {
  if (deadlines_.empty()) return;
  const Instant earliest = deadlines_.begin()->first;
  if (timer_ != Executor::kNoTimer && timer_time_ <= earliest) return;
  executor_->Cancel(timer_);
  timer_time_ = earliest;
  timer_ = executor_->RunAt(earliest, [weak = weak_from_this()] {
    if (auto rpc = weak.lock()) rpc->OnTimer();
  });
}

void Rpc::Impl::OnTimer() {
  std::vector<Callback> expired;
  {
    std::lock_guard lock(mutex_);
    timer_ = Executor::kNoTimer;
    const Instant now = clock_->Now();
    while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
      expired.push_back(TakeLocked(calls_.find(deadlines_.begin()->second)));
    }
    ArmTimerLocked();
  }
  if (expired.empty()) return;
  metrics_->Count("rpc.timed_out", static_cast<int64_t>(expired.size()));
  for (Callback& done : expired) done(absl::DeadlineExceededError("rpc: no reply in time"));
}

void Rpc::Impl::Receive(NodeId from, std::string bytes) {
  std::optional<RpcMessage> message = DecodeRpcMessage(std::move(bytes));
  if (!message.has_value()) {
    metrics_->Count("rpc.malformed", 1);
  } else if (message->kind == RpcMessage::Kind::kReply) {
    ReceiveReply(from, *std::move(message));
  } else {
    ReceiveRequest(from, *std::move(message));
  }
}

void Rpc::Impl::ReceiveReply(NodeId from, RpcMessage message) {
  std::optional<absl::StatusOr<std::string>> result = TakeRpcResult(message);
  if (!result.has_value()) {
    metrics_->Count("rpc.malformed", 1);
    return;
  }
  Callback done;
  {
    std::lock_guard lock(mutex_);
    const auto found = calls_.find(message.call);
    const bool matches =
        message.incarnation == incarnation_ && found != calls_.end() && found->second.to == from;
    if (matches) done = TakeLocked(found);
  }
  if (done == nullptr) {
    metrics_->Count("rpc.unmatched_replies", 1);
    return;
  }
  done(*std::move(result));
}

void Rpc::Impl::ReceiveRequest(NodeId from, RpcMessage message) {
  const bool is_full = serving_.load(std::memory_order_relaxed) >= options_.max_serving;
  const Instant deadline = DeadlineAfter(clock_->Now(), message.argument);
  auto serving = std::make_unique<Serving>(shared_from_this(), from, message, deadline);
  if (is_full) {
    metrics_->Count("rpc.refused", 1);
    serving->Answer(absl::ResourceExhaustedError(
        Cat("rpc: the node is handling ", options_.max_serving, " requests")));
    return;
  }
  const auto found = handlers_.find(Method{message.method});
  if (found == handlers_.end()) {
    serving->Answer(absl::UnimplementedError(Cat("rpc: no handler for method ", message.method)));
    return;
  }
  const std::shared_ptr<Handler> handler = found->second;
  (*handler)(from, deadline, std::move(message.body),
             [serving = std::move(serving)](absl::StatusOr<std::string> result) {
               serving->Answer(std::move(result));
             });
}

void Rpc::Impl::SendReply(const Serving& serving, absl::StatusOr<std::string> result) {
  if (result.ok() && result->size() > kMaxRequestBytes) {
    result = absl::InternalError(
        Cat("rpc: the reply has ", result->size(), " bytes, more than ", kMaxRequestBytes));
  }
  RpcMessage reply{
      .kind = RpcMessage::Kind::kReply, .incarnation = serving.incarnation, .call = serving.call};
  SetRpcResult(reply, std::move(result));
  std::shared_lock lock(open_mutex_);
  if (closed_) return;
  if (clock_->Now() > serving.deadline) {
    metrics_->Count("rpc.late_replies", 1);
    return;
  }
  transport_->Send(serving.from, channel_, EncodeRpcMessage(std::move(reply)));
}

Rpc::Rpc(Options options, Transport* transport, Channel channel, Executor* executor,
         const Clock* clock, MetricsSink* metrics)
    : impl_(std::make_shared<Impl>(options, transport, channel, executor, clock, metrics)) {
  impl_->Start();
}

Rpc::~Rpc() { impl_->Close(); }

void Rpc::Handle(Method method, Handler handler) { impl_->Handle(method, std::move(handler)); }

Rpc::CallId Rpc::Call(NodeId to, Method method, std::string request, Duration timeout,
                      Callback done) {
  return impl_->Call(to, method, std::move(request), timeout, std::move(done));
}

void Rpc::Cancel(CallId call) { impl_->Cancel(call); }

}  // namespace dynlib
