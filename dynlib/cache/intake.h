// Where Gets leave their refresh intents for the refresher to pick up, and where they are admitted
// and counted. Part of ConstantWorkCache.
//
// A hit costs some tens of nanoseconds; its intent must cost less, on many threads at once. So each
// thread has a stripe of its own: a ring of intents that it alone fills and the refresher alone
// empties, counts, and credits, which are its part of max_in_flight. A hit executes no locked
// instruction, since one keeps the processor from overlapping the look-up with the next (two of
// them cost a hit 60 ns of 100).
//
// There are 32 of them; threads that come when all are taken share one more, behind a lock. A
// stripe belongs to a thread for as long as the cache lives; a new thread whose thread-local
// storage lies where that of one that ended lay, as is usual, takes over its stripe.
//
// Credits come from a common pool in batches of 1/256 of max_in_flight (1 to 64); stripes that are
// idle keep theirs, up to 32 batches together. An intent is shed when its stripe's credits, and the
// pool, are used up, or when 4,096 intents of its stripe wait to be picked up.
//
// Threads: as said with each method. One thread's intents keep their order.
#ifndef DYNLIB_CACHE_INTAKE_H_
#define DYNLIB_CACHE_INTAKE_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <mutex>

namespace dynlib::cache {

// What a Get found.
enum class Outcome : size_t { kHit, kAbsentHit, kMiss };

struct IntakeCounts {
  std::array<uint64_t, 3> gets{};  // by Outcome
  uint64_t shed = 0;
};

namespace internal {
// Its address tells threads apart that live at once.
inline thread_local constinit char thread_mark = 0;
}  // namespace internal

// Key is copied into and out of a ring: it has a default and an assignment.
template <typename Key>
class Intake {
 public:
  explicit Intake(size_t max_in_flight);
  ~Intake();
  Intake(const Intake&) = delete;
  Intake& operator=(const Intake&) = delete;

  // Any thread. Counts a Get and takes a place for its intent; false: shed.
  bool Admit(Outcome outcome) {
    return OnStripe([&](Stripe& stripe) { return AdmitOn(stripe, outcome); });
  }
  // Any thread. The same, and leaves the intent for Drain.
  bool Leave(Outcome outcome, const Key& key) {
    return OnStripe([&](Stripe& stripe) { return LeaveOn(stripe, outcome, key); });
  }
  // Any thread. The same of a hit.
  bool LeaveHit(const Key& key) {
    const char* self = &internal::thread_mark;
    Stripe& first = stripes_[FirstChoice(self)];
    if (first.owner.load(std::memory_order_relaxed) == self) [[likely]]
      return LeaveHitOn(first, key);
    return LeaveHitElsewhere(key);
  }
  // Any thread. An intent has ended.
  void Release() { pool_.fetch_add(1, std::memory_order_relaxed); }

  // The refresher. Passes up to `max` intents of each stripe to take(key), which may Leave. Returns
  // how many it passed.
  template <typename Take>
  size_t Drain(size_t max, Take take);
  // The refresher. Whether something waits to be picked up, as far as it sees by now.
  bool Waiting() const;

  // Any thread.
  IntakeCounts Counts() const;
  size_t in_flight() const;

 private:
  static constexpr size_t kOwned = 32;
  static constexpr size_t kRingMax = 4'096;

  // Atomics that one thread writes at a time, so that counting takes no locked instruction.
  struct alignas(64) Stripe {
    std::atomic<const char*> owner{nullptr};
    std::atomic<Key*> ring{nullptr};  // allocated at the first use
    // Where the ring would begin if it had never been gone around: turn + tail is the next place.
    // Credits reach to the end of a turn at most.
    std::atomic<uintptr_t> turn{0};
    // Intents ever left in the ring, and how far that may go: limit - tail are the credits, never
    // more than the ring has room for.
    std::atomic<uint64_t> tail{0};
    std::atomic<uint64_t> limit{0};
    std::atomic<uint64_t> left_no_hits{0};  // of `tail`
    // Other Gets than hits that were admitted, which `tail` counts.
    std::array<std::atomic<uint64_t>, 3> gets{};
    std::atomic<uint64_t> shed{0};
    // The refresher's.
    alignas(64) std::atomic<uint64_t> head{0};
  };

  static void AddTo(std::atomic<uint64_t>& number, uint64_t delta) {
    number.store(number.load(std::memory_order_relaxed) + delta, std::memory_order_relaxed);
  }
  // With this thread's stripe, or the one that is shared.
  template <typename Action>
  bool OnStripe(Action action);
  // Out of line, and without a closure, so that the usual way keeps its registers.
  [[gnu::noinline, gnu::cold]] bool LeaveHitElsewhere(const Key& key) {
    return OnStripe([&](Stripe& stripe) { return LeaveHitOn(stripe, key); });
  }
  static size_t FirstChoice(const char* self) {
    return (reinterpret_cast<uintptr_t>(self) >> 6) * 0x9E3779B97F4A7C15u >> 59;
  }
  bool AdmitOn(Stripe& stripe, Outcome outcome);
  bool LeaveOn(Stripe& stripe, Outcome outcome, const Key& key);
  bool LeaveHitOn(Stripe& stripe, const Key& key) {
    const uint64_t tail = stripe.tail.load(std::memory_order_relaxed);
    if (tail != stripe.limit.load(std::memory_order_relaxed) || TakeCredits(stripe)) [[likely]] {
      Append(stripe, tail, key);
      return true;
    }
    return Shed(stripe, Outcome::kHit);
  }
  [[gnu::noinline, gnu::cold]] bool Shed(Stripe& stripe, Outcome outcome) {
    AddTo(stripe.gets[static_cast<size_t>(outcome)], 1);
    AddTo(stripe.shed, 1);
    return false;
  }
  // Of a stripe without credits; false if it gets none.
  [[gnu::noinline, gnu::cold]] bool TakeCredits(Stripe& stripe);
  void Append(Stripe& stripe, uint64_t tail, const Key& key) {
    const uintptr_t turn = stripe.turn.load(std::memory_order_relaxed);
    *reinterpret_cast<Key*>(turn + tail * sizeof(Key)) = key;
    stripe.tail.store(tail + 1, std::memory_order_release);
  }

  const size_t max_in_flight_;
  const size_t batch_;
  const uint64_t ring_mask_;  // its size, a power of two, less one
  std::array<Stripe, kOwned + 1> stripes_;
  std::mutex shared_mutex_;  // of who writes the last stripe
  alignas(64) std::atomic<size_t> pool_;
};

template <typename Key>
Intake<Key>::Intake(size_t max_in_flight)
    : max_in_flight_(max_in_flight),
      batch_(std::clamp<size_t>(max_in_flight / 256, 1, 64)),
      ring_mask_(std::bit_ceil(std::min(max_in_flight, kRingMax)) - 1),
      pool_(max_in_flight) {
  static_assert(kOwned == 1 << (64 - 59));
}

template <typename Key>
Intake<Key>::~Intake() {
  for (Stripe& stripe : stripes_) delete[] stripe.ring.load(std::memory_order_relaxed);
}

template <typename Key>
template <typename Action>
bool Intake<Key>::OnStripe(Action action) {
  const char* self = &internal::thread_mark;
  for (size_t tried = 0, at = FirstChoice(self); tried < kOwned; ++tried, ++at) {
    Stripe& stripe = stripes_[at % kOwned];
    const char* owner = stripe.owner.load(std::memory_order_relaxed);
    if (owner == nullptr && stripe.owner.compare_exchange_strong(owner, self)) owner = self;
    if (owner == self) return action(stripe);
  }
  std::lock_guard lock(shared_mutex_);
  return action(stripes_[kOwned]);
}

template <typename Key>
bool Intake<Key>::AdmitOn(Stripe& stripe, Outcome outcome) {
  const uint64_t tail = stripe.tail.load(std::memory_order_relaxed);
  if (tail == stripe.limit.load(std::memory_order_relaxed) && !TakeCredits(stripe))
    return Shed(stripe, outcome);
  AddTo(stripe.limit, -1);
  AddTo(stripe.gets[static_cast<size_t>(outcome)], 1);
  return true;
}

template <typename Key>
bool Intake<Key>::LeaveOn(Stripe& stripe, Outcome outcome, const Key& key) {
  const uint64_t tail = stripe.tail.load(std::memory_order_relaxed);
  if (tail == stripe.limit.load(std::memory_order_relaxed) && !TakeCredits(stripe))
    return Shed(stripe, outcome);
  AddTo(stripe.gets[static_cast<size_t>(outcome)], 1);
  AddTo(stripe.left_no_hits, 1);
  Append(stripe, tail, key);
  return true;
}

template <typename Key>
bool Intake<Key>::TakeCredits(Stripe& stripe) {
  if (stripe.ring.load(std::memory_order_relaxed) == nullptr)
    stripe.ring.store(new Key[ring_mask_ + 1], std::memory_order_release);
  const uint64_t tail = stripe.tail.load(std::memory_order_relaxed);
  const uint64_t full = stripe.head.load(std::memory_order_acquire) + ring_mask_ + 1;
  const size_t end_of_turn = ring_mask_ + 1 - (tail & ring_mask_);
  size_t left = pool_.load(std::memory_order_relaxed);
  size_t taken;
  do {
    taken = std::min({left, batch_, static_cast<size_t>(full - tail), end_of_turn});
    if (taken == 0) return false;
  } while (!pool_.compare_exchange_weak(left, left - taken, std::memory_order_relaxed));
  stripe.limit.store(tail + taken, std::memory_order_relaxed);
  const auto ring = reinterpret_cast<uintptr_t>(stripe.ring.load(std::memory_order_relaxed));
  stripe.turn.store(ring - (tail & ~ring_mask_) * sizeof(Key), std::memory_order_relaxed);
  return true;
}

template <typename Key>
template <typename Take>
size_t Intake<Key>::Drain(size_t max, Take take) {
  size_t passed = 0;
  for (Stripe& stripe : stripes_) {
    const uint64_t tail = stripe.tail.load(std::memory_order_acquire);
    const Key* ring = stripe.ring.load(std::memory_order_acquire);
    const uint64_t head = stripe.head.load(std::memory_order_relaxed);
    const uint64_t end = std::min(tail, head + max);
    if (head == end) continue;
    for (uint64_t at = head; at != end; ++at) take(ring[at & ring_mask_]);
    stripe.head.store(end, std::memory_order_release);
    passed += end - head;
  }
  return passed;
}

template <typename Key>
bool Intake<Key>::Waiting() const {
  return std::any_of(stripes_.begin(), stripes_.end(), [](const Stripe& stripe) {
    return stripe.tail.load(std::memory_order_acquire) !=
           stripe.head.load(std::memory_order_relaxed);
  });
}

template <typename Key>
IntakeCounts Intake<Key>::Counts() const {
  IntakeCounts counts;
  for (const Stripe& stripe : stripes_) {
    // Parts before the whole, so that no difference is negative.
    counts.shed += stripe.shed.load(std::memory_order_relaxed);
    const uint64_t no_hits = stripe.left_no_hits.load(std::memory_order_acquire);
    counts.gets[0] += stripe.tail.load(std::memory_order_acquire) - no_hits;
    for (size_t i = 0; i < counts.gets.size(); ++i)
      counts.gets[i] += stripe.gets[i].load(std::memory_order_relaxed);
  }
  return counts;
}

template <typename Key>
size_t Intake<Key>::in_flight() const {
  size_t idle = pool_.load(std::memory_order_relaxed);
  for (const Stripe& stripe : stripes_) {
    const uint64_t tail = stripe.tail.load(std::memory_order_relaxed);
    idle += std::max(stripe.limit.load(std::memory_order_relaxed), tail) - tail;
  }
  return max_in_flight_ - std::min(idle, max_in_flight_);
}

}  // namespace dynlib::cache

#endif  // DYNLIB_CACHE_INTAKE_H_
