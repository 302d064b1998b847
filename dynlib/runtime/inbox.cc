#include "dynlib/runtime/inbox.h"

#include <atomic>
#include <utility>

namespace dynlib {

struct Inbox::Waiting {
  std::atomic<size_t> messages{0};
  std::atomic<size_t> bytes{0};
};

struct Inbox::Listener {
  Executor* executor;
  Transport::Receiver receiver;  // touched on the executor only
  std::atomic<bool> active{true};
};

// A message's place in the bounds, given back when its task starts or is destroyed unrun.
class Inbox::Charge {
 public:
  Charge(std::shared_ptr<Waiting> waiting, size_t bytes)
      : waiting_(std::move(waiting)), bytes_(bytes) {}
  Charge(Charge&& other) = default;
  Charge& operator=(Charge&&) = delete;
  ~Charge() { Release(); }

  void Release() {
    if (waiting_ == nullptr) return;
    waiting_->messages.fetch_sub(1, std::memory_order_relaxed);
    waiting_->bytes.fetch_sub(bytes_, std::memory_order_relaxed);
    waiting_ = nullptr;
  }

 private:
  std::shared_ptr<Waiting> waiting_;
  size_t bytes_;
};

Inbox::Inbox(Options options, MetricsSink* metrics)
    : options_(options), metrics_(metrics), waiting_(std::make_shared<Waiting>()) {}

void Inbox::Listen(Channel channel, Executor* executor, Transport::Receiver receiver) {
  auto listener = std::make_shared<Listener>();
  listener->executor = executor;
  listener->receiver = std::move(receiver);
  std::lock_guard lock(mutex_);
  if (closed_) return;
  std::shared_ptr<Listener>& place = listeners_[channel];
  place.swap(listener);
  if (listener != nullptr) listener->active = false;
}

void Inbox::StopListening(Channel channel) {
  std::shared_ptr<Listener> removed;
  std::lock_guard lock(mutex_);
  const auto found = listeners_.find(channel);
  if (found == listeners_.end()) return;
  found->second->active = false;
  removed.swap(found->second);
  listeners_.erase(found);
}

void Inbox::Close() {
  std::unordered_map<Channel, std::shared_ptr<Listener>> removed;
  std::lock_guard lock(mutex_);
  closed_ = true;
  for (auto& [channel, listener] : listeners_) listener->active = false;
  removed.swap(listeners_);
}

void Inbox::Deliver(NodeId from, Channel channel, std::string message) {
  const size_t bytes = message.size();
  const size_t others = waiting_->messages.fetch_add(1, std::memory_order_relaxed);
  const size_t other_bytes = waiting_->bytes.fetch_add(bytes, std::memory_order_relaxed);
  Charge charge(waiting_, bytes);
  if (others > 0 && (others >= options_.max_messages || other_bytes + bytes > options_.max_bytes)) {
    metrics_->Count("transport.dropped", 1);
    return;
  }
  // Posted under the lock, so that a listener's executor is not used once StopListening returned.
  std::lock_guard lock(mutex_);
  const auto found = listeners_.find(channel);
  if (found == listeners_.end()) {
    metrics_->Count("transport.no_receiver", 1);
    return;
  }
  Executor* const executor = found->second->executor;
  executor->Post([listener = found->second, charge = std::move(charge), from,
                  message = std::move(message)]() mutable {
    charge.Release();
    if (listener->active) listener->receiver(from, std::move(message));
  });
}

}  // namespace dynlib
