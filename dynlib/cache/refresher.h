// What is behind a ConstantWorkCache: the index, and the refresh intents under way. Use the cache.
//
// Get may run on any thread: it asks the index and leaves the intent in an inbox. All else happens
// on the executor, which drains the inbox: requests go out, answers come in by the same inbox,
// waiting Gets are answered. It lives until the cache is destroyed and the last callback that the
// fetch function holds is gone.
#ifndef DYNLIB_CACHE_REFRESHER_H_
#define DYNLIB_CACHE_REFRESHER_H_

#include <atomic>
#include <cstddef>
#include <iterator>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/check.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/random.h"
#include "dynlib/base/strings.h"
#include "dynlib/base/time.h"
#include "dynlib/cache/entry.h"
#include "dynlib/cache/options.h"
#include "dynlib/cache/stats.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/executor.h"

namespace dynlib::cache {

template <typename Index>
class Refresher : public std::enable_shared_from_this<Refresher<Index>> {
 public:
  using Key = typename Index::Key;
  using Value = typename Index::Value;
  using Result = absl::StatusOr<Cached<Value>>;
  using Callback = absl::AnyInvocable<void(Result)>;
  using FetchDone = absl::AnyInvocable<void(absl::StatusOr<Value>)>;
  using Fetch = absl::AnyInvocable<void(size_t server, const Key& key, FetchDone done)>;

  Refresher(const CacheOptions& options, Executor* executor, const Clock* clock, Fetch fetch,
            MetricsSink* metrics);

  // nullopt only if `done` is not null.
  std::optional<Result> Get(const Key& key, Instant deadline, Callback done);
  std::optional<Cached<Value>> Held(const Key& key);
  bool Apply(std::shared_ptr<const Value> value, Duration age);
  std::vector<std::shared_ptr<const Value>> Values() const { return index_.Values(); }
  CacheStats Stats() const;
  // On the executor. Waiting Gets get kCancelled; nothing is fetched any more.
  void Close();

 private:
  struct Intent {
    Intent(const Key& intent_key, Callback waiter, Instant until)
        : key(intent_key), done(std::move(waiter)), deadline(until) {}
    const Key key;
    Callback done;  // of a Get that waits; null once it is answered
    const Instant deadline;
    Executor::TimerId timer = Executor::kNoTimer;  // of `deadline`, where it comes first
    Instant asked;
    size_t unanswered = 0;
    bool open = false;  // in open_
    typename std::list<std::shared_ptr<Intent>>::iterator place;
    std::string failure;
  };
  using IntentPtr = std::shared_ptr<Intent>;
  struct Started {
    IntentPtr intent;
    std::optional<Duration> age;  // of the value that the Get found
  };
  struct Answered {
    IntentPtr intent;
    absl::StatusOr<Value> answer;
  };
  using Event = std::variant<Started, Answered>;

  // The callback that the fetch function is given.
  class Reply {
   public:
    Reply(std::shared_ptr<Refresher> refresher, IntentPtr intent)
        : refresher_(std::move(refresher)), intent_(std::move(intent)) {}
    Reply(Reply&&) = default;
    Reply& operator=(Reply&&) = delete;
    ~Reply() {
      if (intent_ == nullptr) return;
      refresher_->counters_.Add(Counter::kDroppedCallbacks);
      refresher_->Push(Answered{std::move(intent_),
                                absl::InternalError("the fetch function dropped its callback")});
    }
    void operator()(absl::StatusOr<Value> answer) {
      if (intent_ == nullptr) return refresher_->counters_.Add(Counter::kExtraCallbacks);
      refresher_->Push(Answered{std::move(intent_), std::move(answer)});
    }

   private:
    const std::shared_ptr<Refresher> refresher_;
    IntentPtr intent_;
  };

  // False if there are max_in_flight already.
  bool Admit();
  void Push(Event event);
  void Drain();
  void Handle(Started started);
  void Handle(Answered answered);
  void Ask(const IntentPtr& intent);
  std::vector<size_t> ChooseServers();
  // False for an answer that tells nothing; why is in intent.failure.
  bool Take(Intent& intent, absl::StatusOr<Value> answer, std::shared_ptr<const Value>* value);
  void CountApplied(const Applied& applied);
  void ArmTimer();
  void Expire();
  void EndIntent(Intent& intent);
  // Answers the Get that waits, if one does, with what is held by now, else `otherwise`. It may
  // destroy the cache.
  void EndWait(Intent& intent, Result otherwise);
  void PostCancelled(Intent& intent);

  const CacheOptions options_;
  Executor* const executor_;
  const Clock* const clock_;
  MetricsSink* const metrics_;
  Index index_;
  Counters counters_;
  std::atomic<size_t> in_flight_{0};

  std::mutex mutex_;
  std::vector<Event> inbox_;  // guarded by mutex_, as are the next two
  bool draining_ = false;     // a task is posted
  bool closed_ = false;       // written on the executor only

  // The executor's.
  Fetch fetch_;
  Random random_;
  std::list<IntentPtr> open_;  // in the order of their times
  Executor::TimerId timer_ = Executor::kNoTimer;
};

template <typename Index>
Refresher<Index>::Refresher(const CacheOptions& options, Executor* executor, const Clock* clock,
                            Fetch fetch, MetricsSink* metrics)
    : options_(options),
      executor_(executor),
      clock_(clock),
      metrics_(metrics),
      index_(options),
      fetch_(std::move(fetch)),
      random_(options.seed) {
  DYNLIB_CHECK(Validate(options).ok());
}

template <typename Index>
auto Refresher<Index>::Get(const Key& key, Instant deadline, Callback done)
    -> std::optional<Result> {
  const Instant now = clock_->Now();
  Found<Value> found = index_.Find(key, now);
  const bool hit = found.value != nullptr;
  const bool miss = !hit && !found.absent;
  const bool waits = miss && done != nullptr;
  counters_.Add(hit ? Counter::kHits : miss ? Counter::kMisses : Counter::kAbsentHits);
  const std::optional<Duration> age = hit ? std::optional(now - found.confirmed) : std::nullopt;
  const bool admitted = Admit();
  if (admitted) {
    if (!waits) done = nullptr;
    Push(Started{std::make_shared<Intent>(key, std::move(done), deadline), age});
  }
  if (hit) return Cached<Value>{std::move(found.value), *age};
  if (found.absent) return absl::NotFoundError("cache: the directory knows no such key");
  if (!admitted) {
    return absl::ResourceExhaustedError(Cat("cache: not held, and max_in_flight, ",
                                            options_.max_in_flight, ", refreshes are under way"));
  }
  if (!waits) return absl::UnavailableError("cache: not held; being fetched");
  return std::nullopt;
}

template <typename Index>
auto Refresher<Index>::Held(const Key& key) -> std::optional<Cached<Value>> {
  const Instant now = clock_->Now();
  Found<Value> found = index_.Find(key, now);
  if (found.value == nullptr) return std::nullopt;
  return Cached<Value>{std::move(found.value), now - found.confirmed};
}

template <typename Index>
bool Refresher<Index>::Apply(std::shared_ptr<const Value> value, Duration age) {
  counters_.Add(Counter::kHints);
  const Applied applied = index_.Apply(std::move(value), clock_->Now() - age);
  CountApplied(applied);
  return applied.changed;
}

template <typename Index>
CacheStats Refresher<Index>::Stats() const {
  CacheStats stats;
  counters_.Read(&stats);
  stats.entries = index_.size();
  stats.in_flight = in_flight_.load(std::memory_order_relaxed);
  return stats;
}

template <typename Index>
bool Refresher<Index>::Admit() {
  if (in_flight_.fetch_add(1, std::memory_order_relaxed) < options_.max_in_flight) {
    counters_.Add(Counter::kIntents);
    return true;
  }
  in_flight_.fetch_sub(1, std::memory_order_relaxed);
  counters_.Add(Counter::kShed);
  return false;
}

// The executor is used under the lock, so that nothing uses it once Close has returned.
template <typename Index>
void Refresher<Index>::Push(Event event) {
  std::lock_guard lock(mutex_);
  if (closed_) return counters_.Add(Counter::kLate);
  inbox_.push_back(std::move(event));
  if (std::exchange(draining_, true)) return;
  executor_->Post([self = this->shared_from_this()] { self->Drain(); });
}

template <typename Index>
void Refresher<Index>::Drain() {
  std::vector<Event> events;
  {
    std::lock_guard lock(mutex_);
    events.swap(inbox_);
    draining_ = false;
  }
  for (Event& event : events)
    std::visit([this](auto& known) { this->Handle(std::move(known)); }, event);
  if (!closed_) counters_.Report(metrics_);
}

template <typename Index>
void Refresher<Index>::Handle(Started started) {
  Intent& intent = *started.intent;
  if (closed_)
    return PostCancelled(intent);  // an earlier callback of this turn destroyed the cache
  if (started.age.has_value()) metrics_->Observe("cache.age_us", ToMicros(*started.age));
  intent.asked = clock_->Now();
  intent.open = true;
  intent.place = open_.insert(open_.end(), started.intent);
  if (intent.done != nullptr && intent.deadline < intent.asked + options_.refresh_timeout) {
    intent.timer = executor_->RunAt(
        intent.deadline, [self = this->shared_from_this(), waiting = started.intent] {
          self->EndWait(*waiting, absl::DeadlineExceededError(
                                      Cat("cache: no answer in time; ", waiting->failure)));
        });
  }
  ArmTimer();
  Ask(started.intent);
}

template <typename Index>
void Refresher<Index>::Ask(const IntentPtr& intent) {
  intent->unanswered = options_.fan_out;
  for (const size_t server : ChooseServers()) {
    counters_.Add(Counter::kRequests);
    fetch_(server, intent->key, Reply(this->shared_from_this(), intent));
  }
}

template <typename Index>
std::vector<size_t> Refresher<Index>::ChooseServers() {
  std::vector<size_t> servers;
  while (servers.size() < options_.fan_out) {
    // Each of those not chosen yet is as likely as the others.
    size_t server = random_.Below(options_.servers - servers.size());
    auto place = servers.begin();
    for (; place != servers.end() && *place <= server; ++place) ++server;
    servers.insert(place, server);
  }
  return servers;
}

template <typename Index>
void Refresher<Index>::Handle(Answered answered) {
  if (closed_) return counters_.Add(Counter::kLate);
  Intent& intent = *answered.intent;
  std::shared_ptr<const Value> value;
  const bool tells = Take(intent, std::move(answered.answer), &value);
  if (!intent.open) return counters_.Add(Counter::kLate);
  const bool last = --intent.unanswered == 0;
  if (last) EndIntent(intent);
  if (value != nullptr) {
    EndWait(intent, Cached<Value>{std::move(value), clock_->Now() - intent.asked});
  } else if (tells) {
    EndWait(intent, absl::NotFoundError("cache: the directory knows no such key"));
  } else if (last) {
    EndWait(intent, absl::UnavailableError(Cat("cache: ", intent.failure)));
  }
}

template <typename Index>
bool Refresher<Index>::Take(Intent& intent, absl::StatusOr<Value> answer,
                            std::shared_ptr<const Value>* value) {
  if (absl::IsNotFound(answer.status())) {
    counters_.Add(Counter::kAnswers);
    const Instant now = clock_->Now();
    if (index_.Find(intent.key, now).value != nullptr) counters_.Add(Counter::kDenials);
    if (index_.Deny(intent.key, intent.asked, now)) counters_.Add(Counter::kDenied);
    return true;
  }
  if (!answer.ok()) {
    counters_.Add(Counter::kErrors);
    intent.failure = answer.status().ToString();
    return false;
  }
  counters_.Add(Counter::kAnswers);
  auto taken = std::make_shared<const Value>(*std::move(answer));
  if (!Index::Covers(*taken, intent.key)) {
    counters_.Add(Counter::kWrongRefused);
    intent.failure = "the answer was not about the key that was asked for";
    return false;
  }
  CountApplied(index_.Apply(taken, intent.asked));
  *value = std::move(taken);
  return true;
}

template <typename Index>
void Refresher<Index>::CountApplied(const Applied& applied) {
  if (applied.changed) counters_.Add(Counter::kUpdates);
  if (applied.confirmed) counters_.Add(Counter::kConfirmations);
  if (applied.refused) counters_.Add(Counter::kStaleRefused);
  if (applied.evicted > 0) counters_.Add(Counter::kEvicted, applied.evicted);
}

template <typename Index>
void Refresher<Index>::ArmTimer() {
  if (timer_ != Executor::kNoTimer || open_.empty()) return;
  timer_ = executor_->RunAt(open_.front()->asked + options_.refresh_timeout,
                            [self = this->shared_from_this()] { self->Expire(); });
}

template <typename Index>
void Refresher<Index>::Expire() {
  timer_ = Executor::kNoTimer;
  const Instant now = clock_->Now();
  while (!open_.empty() && open_.front()->asked + options_.refresh_timeout <= now) {
    const IntentPtr intent = open_.front();
    counters_.Add(Counter::kExpired);
    EndIntent(*intent);
    EndWait(*intent, absl::DeadlineExceededError(
                         Cat("cache: no answer within refresh_timeout; ", intent->failure)));
    if (closed_) return;
  }
  ArmTimer();
  counters_.Report(metrics_);
}

template <typename Index>
void Refresher<Index>::EndIntent(Intent& intent) {
  intent.open = false;
  in_flight_.fetch_sub(1, std::memory_order_relaxed);
  open_.erase(intent.place);
}

template <typename Index>
void Refresher<Index>::EndWait(Intent& intent, Result otherwise) {
  if (intent.done == nullptr) return;
  executor_->Cancel(std::exchange(intent.timer, Executor::kNoTimer));
  Callback done = std::exchange(intent.done, nullptr);
  const Instant now = clock_->Now();
  // It may hold something newer, from a hint, or nothing, if the value was evicted at once.
  Found<Value> found = index_.Find(intent.key, now);
  if (found.value == nullptr) return done(std::move(otherwise));
  done(Cached<Value>{std::move(found.value), now - found.confirmed});
}

template <typename Index>
void Refresher<Index>::Close() {
  std::vector<Event> events;
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
    events.swap(inbox_);
  }
  executor_->Cancel(timer_);
  for (const IntentPtr& intent : open_) PostCancelled(*intent);
  open_.clear();
  for (Event& event : events) {
    if (auto* started = std::get_if<Started>(&event)) PostCancelled(*started->intent);
  }
  fetch_ = nullptr;
}

template <typename Index>
void Refresher<Index>::PostCancelled(Intent& intent) {
  intent.open = false;
  executor_->Cancel(intent.timer);
  if (intent.done == nullptr) return;
  executor_->Post([done = std::exchange(intent.done, nullptr)]() mutable {
    done(absl::CancelledError("cache: destroyed"));
  });
}

}  // namespace dynlib::cache

#endif  // DYNLIB_CACHE_REFRESHER_H_
