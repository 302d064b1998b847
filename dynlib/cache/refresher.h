// What is behind a ConstantWorkCache: the index, and the refresh intents under way. Use the cache.
//
// Get may run on any thread: it asks the index and leaves the intent in the intake (see intake.h),
// or, where it waits for the answer, in an inbox. All else happens on the executor, which drains
// both: requests go out, answers come in by the inbox, waiting Gets are answered. It lives until
// the cache is destroyed and the last callback that the fetch function holds is gone.
#ifndef DYNLIB_CACHE_REFRESHER_H_
#define DYNLIB_CACHE_REFRESHER_H_

#include <atomic>
#include <chrono>
#include <cstddef>
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
#include "dynlib/cache/intake.h"
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
  using Ref = typename Index::Ref;
  using Result = absl::StatusOr<Cached<Ref>>;
  using Callback = absl::AnyInvocable<void(Result)>;
  using FetchDone = absl::AnyInvocable<void(absl::StatusOr<Value>)>;
  using Fetch = absl::AnyInvocable<void(size_t server, const Key& key, FetchDone done)>;

  Refresher(const CacheOptions& options, Executor* executor, const Clock* clock, Fetch fetch,
            MetricsSink* metrics);

  Result Get(const Key& key);
  std::optional<Result> Get(const Key& key, Instant deadline, Callback done);
  std::optional<Cached<Ref>> Held(const Key& key);
  bool Apply(Ref value, Duration age);
  std::vector<Cached<Ref>> Entries() const { return index_.Entries(); }
  Instant Now() const { return clock_->Now(); }
  CacheStats Stats() const;
  // On the executor. Waiting Gets get kCancelled; nothing is fetched any more.
  void Close();

 private:
  // A Get that waits; `done` is null once it is answered.
  struct Waiter {
    Callback done;
    Instant deadline;
    Executor::TimerId timer = Executor::kNoTimer;  // of `deadline`, where it comes first
  };
  using WaiterPtr = std::shared_ptr<Waiter>;
  struct Intent {
    explicit Intent(const Key& intent_key) : key(intent_key) {}
    const Key key;
    std::vector<WaiterPtr> waiters;
    Instant asked;
    size_t unanswered = 0;
    bool open = false;  // in open_
    typename std::list<std::shared_ptr<Intent>>::iterator place;
    std::string failure;
  };
  using IntentPtr = std::shared_ptr<Intent>;
  struct Started {
    Key key;
    WaiterPtr waiter;
  };
  struct Answered {
    IntentPtr intent;
    absl::StatusOr<Value> answer;
  };
  using Event = std::variant<Started, Answered>;
  static constexpr Duration kRecheckAfter = std::chrono::milliseconds(1);
  static constexpr size_t kBatch = 64;
  static constexpr size_t kBatchesMax = 256;  // before other tasks have their turn

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

  // What a Get finds that is no hit: known absent or a miss.
  Outcome Missed(const Key& key) {
    return index_.IsAbsent(key, clock_->Now()) ? Outcome::kAbsentHit : Outcome::kMiss;
  }
  void LeaveHit(const Key& key) {
    if (intake_.LeaveHit(key)) Wake();
  }
  // What a Get that hits nothing returns; OK: it waits.
  absl::Status Miss(const Key& key);
  absl::Status Miss(const Key& key, Instant deadline, Callback done);
  absl::Status Shed() const;
  static absl::Status Absent() {
    return absl::NotFoundError("cache: the directory knows no such key");
  }
  // Has Drain run, unless it will. On a hit there is no fence between leaving the intent and
  // looking whether the refresher is awake, so one may slip by as that goes to sleep: see Recheck.
  void Wake() {
    if (!awake_.load(std::memory_order_relaxed)) [[unlikely]]
      PostDrain();
  }
  [[gnu::noinline, gnu::cold]] void PostDrain();
  void Recheck();
  void Push(Event event);
  void Drain();
  // False if there was nothing to do.
  bool DrainBatch(Instant now);
  void ObserveAge(const Key& key, Instant now);
  void Start(const Key& key, WaiterPtr waiter, Instant now);
  // True if the key was asked for in this tick, and the intent is part of that.
  bool Coalesce(const Key& key, WaiterPtr& waiter, Instant now);
  void Await(const IntentPtr& intent, WaiterPtr waiter);
  void Handle(Answered answered);
  void Ask(const IntentPtr& intent);
  // Of `servers`, fan_out different ones, each as likely.
  void ChooseServers();
  // False for an answer that tells nothing; why is in intent.failure.
  bool Take(Intent& intent, absl::StatusOr<Value> answer, Ref* value);
  void CountApplied(const Applied& applied);
  void ArmTimer();
  void Expire();
  void EndIntent(Intent& intent);
  // Answers the Gets that wait with what is held by now, else `otherwise`. They may destroy the
  // cache.
  void EndWaits(Intent& intent, const Result& otherwise);
  void EndWait(const Key& key, Waiter& waiter, const Result& otherwise);
  void Cancel(Intent& intent);
  void PostCancelled(Waiter& waiter);

  const CacheOptions options_;
  Executor* const executor_;
  const Clock* const clock_;
  MetricsSink* const metrics_;
  Index index_;
  Intake<Key> intake_;
  Counters counters_;
  // Read by every hit: on a cache line of its own.
  alignas(64) std::atomic<bool> awake_{false};  // a Drain is posted or running

  alignas(64) std::mutex mutex_;
  std::vector<Event> inbox_;  // guarded by mutex_
  bool closed_ = false;       // written on the executor only, under mutex_

  // The executor's.
  std::vector<Event> events_;
  Fetch fetch_;
  Random random_;
  std::vector<size_t> chosen_;
  std::list<IntentPtr> open_;  // in the order of their times
  Executor::TimerId timer_ = Executor::kNoTimer;
  Executor::TimerId recheck_ = Executor::kNoTimer;
  // With coalesce_tick: what was asked for in this tick.
  typename Index::template KeyMap<IntentPtr> asked_;
  Instant tick_end_;
};

template <typename Index>
Refresher<Index>::Refresher(const CacheOptions& options, Executor* executor, const Clock* clock,
                            Fetch fetch, MetricsSink* metrics)
    : options_(options),
      executor_(executor),
      clock_(clock),
      metrics_(metrics),
      index_(options),
      intake_(options.max_in_flight),
      fetch_(std::move(fetch)),
      random_(options.seed) {
  DYNLIB_CHECK(Validate(options).ok());
  if (options.coalesce_tick == Duration(0)) return;
  const EventField tick{"tick_us", Cat(ToMicros(options.coalesce_tick))};
  metrics_->Event("cache.coalescing", {&tick, 1});
}

// A hit is found where it is returned: a copy would cost more than the look-up (see flat_index.h).
template <typename Index>
inline auto Refresher<Index>::Get(const Key& key) -> Result {
  Result result(absl::in_place);
  if (index_.Find(key, &*result)) [[likely]] {
    LeaveHit(key);
  } else {
    result = Miss(key);
  }
  return result;
}

template <typename Index>
inline auto Refresher<Index>::Get(const Key& key, Instant deadline, Callback done)
    -> std::optional<Result> {
  std::optional<Result> result(std::in_place, absl::in_place);
  if (index_.Find(key, &**result)) {
    LeaveHit(key);
  } else if (const absl::Status status = Miss(key, deadline, std::move(done)); !status.ok()) {
    *result = status;
  } else {
    result = std::nullopt;
  }
  return result;
}

template <typename Index>
[[gnu::noinline, gnu::cold]] absl::Status Refresher<Index>::Miss(const Key& key) {
  const Outcome outcome = Missed(key);
  const bool admitted = intake_.Leave(outcome, key);
  if (admitted) Wake();
  if (outcome == Outcome::kAbsentHit) return Absent();
  if (!admitted) return Shed();
  return absl::UnavailableError("cache: not held; being fetched");
}

template <typename Index>
[[gnu::noinline, gnu::cold]] absl::Status Refresher<Index>::Miss(const Key& key, Instant deadline,
                                                                 Callback done) {
  if (Missed(key) == Outcome::kAbsentHit) {
    if (intake_.Leave(Outcome::kAbsentHit, key)) Wake();
    return Absent();
  }
  if (!intake_.Admit(Outcome::kMiss)) return Shed();
  Push(Started{key, std::make_shared<Waiter>(Waiter{std::move(done), deadline})});
  return absl::OkStatus();
}

template <typename Index>
absl::Status Refresher<Index>::Shed() const {
  return absl::ResourceExhaustedError(Cat("cache: not held, and max_in_flight, ",
                                          options_.max_in_flight, ", refreshes are under way"));
}

template <typename Index>
auto Refresher<Index>::Held(const Key& key) -> std::optional<Cached<Ref>> {
  Cached<Ref> found;
  if (!index_.Find(key, &found)) return std::nullopt;
  return found;
}

template <typename Index>
bool Refresher<Index>::Apply(Ref value, Duration age) {
  counters_.Add(Counter::kHints);
  const Applied applied = index_.Apply(std::move(value), clock_->Now() - age);
  CountApplied(applied);
  return applied.changed;
}

template <typename Index>
CacheStats Refresher<Index>::Stats() const {
  CacheStats stats = counters_.Read(intake_.Counts());
  stats.entries = index_.size();
  stats.in_flight = intake_.in_flight();
  stats.coalesce_tick = options_.coalesce_tick;
  return stats;
}

// The executor is used under the lock, so that nothing uses it once Close has returned.
template <typename Index>
void Refresher<Index>::Push(Event event) {
  std::lock_guard lock(mutex_);
  if (closed_) return counters_.Add(Counter::kLate);
  inbox_.push_back(std::move(event));
  Wake();
}

template <typename Index>
void Refresher<Index>::PostDrain() {
  if (awake_.exchange(true)) return;
  executor_->Post([self = this->shared_from_this()] { self->Drain(); });
}

// What a Get has left reaches this thread within microseconds; at the latest now it is seen.
template <typename Index>
void Refresher<Index>::Recheck() {
  recheck_ = Executor::kNoTimer;
  if (intake_.Waiting()) Wake();
}

// In small batches, answers in between: what a batch touches stays in the processor's caches.
template <typename Index>
void Refresher<Index>::Drain() {
  const Instant now = clock_->Now();
  for (size_t batch = 0; batch < kBatchesMax && DrainBatch(now); ++batch) {
  }
  if (closed_) return;
  counters_.Report(counters_.Read(intake_.Counts()), metrics_);
  std::lock_guard lock(mutex_);
  awake_.store(false);
  if (!inbox_.empty() || intake_.Waiting()) return Wake();
  if (recheck_ != Executor::kNoTimer) return;
  recheck_ =
      executor_->RunAt(now + kRecheckAfter, [self = this->shared_from_this()] { self->Recheck(); });
}

template <typename Index>
bool Refresher<Index>::DrainBatch(Instant now) {
  events_.clear();
  {
    std::lock_guard lock(mutex_);
    events_.swap(inbox_);
  }
  for (Event& event : events_) {
    if (auto* started = std::get_if<Started>(&event)) {
      Start(started->key, std::move(started->waiter), now);
    } else {
      Handle(std::move(std::get<Answered>(event)));
    }
  }
  if (closed_) return false;
  const size_t left = intake_.Drain(kBatch, [&](const Key& key) {
    ObserveAge(key, now);
    Start(key, nullptr, now);
  });
  return left > 0 || !events_.empty();
}

// Looked up again here: to pass on what the Get found would cost every hit more than its look-up
// costs here, where there are metrics.
template <typename Index>
void Refresher<Index>::ObserveAge(const Key& key, Instant now) {
  if (metrics_ == MetricsSink::None()) return;
  if (const auto held = Held(key)) metrics_->Observe("cache.age_us", ToMicros(held->AgeAt(now)));
}

template <typename Index>
void Refresher<Index>::Start(const Key& key, WaiterPtr waiter, Instant now) {
  // An earlier callback of this turn may have destroyed the cache.
  if (closed_) return PostCancelled(*waiter);
  if (options_.coalesce_tick > Duration(0) && Coalesce(key, waiter, now)) return;
  const auto intent = std::make_shared<Intent>(key);
  if (options_.coalesce_tick > Duration(0)) asked_[key] = intent;
  intent->asked = now;
  intent->open = true;
  intent->place = open_.insert(open_.end(), intent);
  if (waiter != nullptr) Await(intent, std::move(waiter));
  ArmTimer();
  Ask(intent);
}

template <typename Index>
bool Refresher<Index>::Coalesce(const Key& key, WaiterPtr& waiter, Instant now) {
  if (now >= tick_end_ || asked_.size() >= options_.max_in_flight) {
    asked_.clear();
    tick_end_ = now + options_.coalesce_tick;
  }
  const auto asked = asked_.find(key);
  if (asked == asked_.end()) return false;
  // A Get that waits must not wait for an answer that has been.
  if (waiter != nullptr && !asked->second->open) return false;
  if (waiter != nullptr) Await(asked->second, std::move(waiter));
  counters_.Add(Counter::kCoalesced);
  intake_.Release();
  return true;
}

template <typename Index>
void Refresher<Index>::Await(const IntentPtr& intent, WaiterPtr waiter) {
  if (waiter->deadline < intent->asked + options_.refresh_timeout) {
    waiter->timer =
        executor_->RunAt(waiter->deadline, [self = this->shared_from_this(), intent, waiter] {
          self->EndWait(
              intent->key, *waiter,
              absl::DeadlineExceededError(Cat("cache: no answer in time; ", intent->failure)));
        });
  }
  intent->waiters.push_back(std::move(waiter));
}

template <typename Index>
void Refresher<Index>::Ask(const IntentPtr& intent) {
  intent->unanswered = options_.fan_out;
  ChooseServers();
  counters_.Add(Counter::kRequests, chosen_.size());
  for (size_t i = 0; i < chosen_.size(); ++i)
    fetch_(chosen_[i], intent->key, Reply(this->shared_from_this(), intent));
}

template <typename Index>
void Refresher<Index>::ChooseServers() {
  chosen_.clear();
  while (chosen_.size() < options_.fan_out) {
    // Each of those not chosen yet is as likely as the others.
    size_t server = random_.Below(options_.servers - chosen_.size());
    auto place = chosen_.begin();
    for (; place != chosen_.end() && *place <= server; ++place) ++server;
    chosen_.insert(place, server);
  }
}

template <typename Index>
void Refresher<Index>::Handle(Answered answered) {
  if (closed_) return counters_.Add(Counter::kLate);
  Intent& intent = *answered.intent;
  Ref value{};
  const bool tells = Take(intent, std::move(answered.answer), &value);
  if (!intent.open) return counters_.Add(Counter::kLate);
  const bool last = --intent.unanswered == 0;
  if (last) EndIntent(intent);
  if (value) {
    EndWaits(intent, Cached<Ref>{std::move(value), intent.asked});
  } else if (tells) {
    EndWaits(intent, Absent());
  } else if (last) {
    EndWaits(intent, absl::UnavailableError(Cat("cache: ", intent.failure)));
  }
}

template <typename Index>
bool Refresher<Index>::Take(Intent& intent, absl::StatusOr<Value> answer, Ref* value) {
  if (absl::IsNotFound(answer.status())) {
    counters_.Add(Counter::kAnswers);
    if (Cached<Ref> held; index_.Find(intent.key, &held)) counters_.Add(Counter::kDenials);
    if (index_.Deny(intent.key, intent.asked, clock_->Now())) counters_.Add(Counter::kDenied);
    return true;
  }
  if (!answer.ok()) {
    counters_.Add(Counter::kErrors);
    intent.failure = answer.status().ToString();
    return false;
  }
  counters_.Add(Counter::kAnswers);
  if (!Index::Covers(*answer, intent.key)) {
    counters_.Add(Counter::kWrongRefused);
    intent.failure = "the answer was not about the key that was asked for";
    return false;
  }
  *value = Index::Own(*std::move(answer));
  CountApplied(index_.Apply(*value, intent.asked));
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
    EndWaits(*intent, absl::DeadlineExceededError(
                          Cat("cache: no answer within refresh_timeout; ", intent->failure)));
    if (closed_) return;
  }
  ArmTimer();
  counters_.Report(counters_.Read(intake_.Counts()), metrics_);
}

template <typename Index>
void Refresher<Index>::EndIntent(Intent& intent) {
  intent.open = false;
  intake_.Release();
  open_.erase(intent.place);
}

template <typename Index>
void Refresher<Index>::EndWaits(Intent& intent, const Result& otherwise) {
  const std::vector<WaiterPtr> waiters = std::exchange(intent.waiters, {});
  for (const WaiterPtr& waiter : waiters)
    executor_->Cancel(std::exchange(waiter->timer, Executor::kNoTimer));
  for (const WaiterPtr& waiter : waiters) EndWait(intent.key, *waiter, otherwise);
}

template <typename Index>
void Refresher<Index>::EndWait(const Key& key, Waiter& waiter, const Result& otherwise) {
  if (waiter.done == nullptr) return;
  Callback done = std::exchange(waiter.done, nullptr);
  // It may hold something newer, from a hint, or nothing, if the value was evicted at once.
  Cached<Ref> found;
  if (!index_.Find(key, &found)) return done(otherwise);
  done(std::move(found));
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
  executor_->Cancel(recheck_);
  for (const IntentPtr& intent : open_) Cancel(*intent);
  open_.clear();
  for (Event& event : events) {
    if (auto* started = std::get_if<Started>(&event)) PostCancelled(*started->waiter);
  }
  asked_.clear();
  fetch_ = nullptr;
}

template <typename Index>
void Refresher<Index>::Cancel(Intent& intent) {
  intent.open = false;
  for (const WaiterPtr& waiter : intent.waiters) PostCancelled(*waiter);
}

template <typename Index>
void Refresher<Index>::PostCancelled(Waiter& waiter) {
  executor_->Cancel(waiter.timer);
  if (waiter.done == nullptr) return;
  executor_->Post([done = std::exchange(waiter.done, nullptr)]() mutable {
    done(absl::CancelledError("cache: destroyed"));
  });
}

}  // namespace dynlib::cache

#endif  // DYNLIB_CACHE_REFRESHER_H_
