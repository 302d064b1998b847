// A token bucket: `rate` units a second, at most `burst` of them saved up.
//
// One 64-bit word, changed by compare-and-swap, after the generic cell rate algorithm (ATM Forum
// TM 4.1), but measured in units where that measures in time. What was produced since a base
// instant is one multiplication of the time that passed, so nothing accumulates rounding; what was
// spent is an integer. A request of n is admitted when spent + n <= produced, where spent never
// falls more than `burst` behind. Being in units, the state stays valid when the rate changes.
//
//   auto rate = BucketRate::Make(/*units_per_second=*/1000, /*burst_units=*/500);
//   if (!rate.ok()) return rate.status();
//   TokenBucket bucket(*rate, TokenBucket::Fill::kFull, clock.Now());
//   ...
//   if (!bucket.TryTake(1, now)) return Throttled(bucket.RetryAfter(1, now));
//
// Time is passed in and may stop, jump, or differ between threads: a time before the latest seen
// sees the fewer tokens of its time, and never makes more of them. Whatever the instants, between
// the earliest and the latest of them no more than rate * time + burst is admitted (GiveBack counts
// as negative; TakeAnyway is the caller's own decision).
//
// Limits: a rate from 1e-4 to 1e9 units a second; a burst from 1 unit to what the rate makes in a
// year. Waits are exact: at now + wait the same request is admitted, a nanosecond earlier it is
// not (other takers aside). They differ from what real numbers would give by 1 ns at most.
//
// Threads: any. Nothing blocks but SetRate, which holds a mutex against other SetRates; once in a
// year of its clock an operation rebases the state and takes that mutex too. A request that is
// rejected only loads.
#ifndef DYNLIB_ADMISSION_TOKEN_BUCKET_H_
#define DYNLIB_ADMISSION_TOKEN_BUCKET_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>

#include "absl/status/statusor.h"
#include "dynlib/base/check.h"
#include "dynlib/base/time.h"

namespace dynlib::admission {

// A rate and a burst that a bucket can work with. A small value; copy it.
class BucketRate {
 public:
  static constexpr double kUnitsPerSecondMin = 1e-4;
  static constexpr double kUnitsPerSecondMax = 1e9;
  static constexpr int64_t kFillSecondsMax = 365 * 86'400;

  // kInvalidArgument, naming field, value and range: units_per_second that is not within
  // [1e-4, 1e9] (so 0, negative, NaN, infinite); burst_units not within [1, one year's production].
  static absl::StatusOr<BucketRate> Make(double units_per_second, int64_t burst_units);

  // The nearest allowed to a rate that was computed; NaN counts as the lowest.
  static BucketRate Clamped(double units_per_second, int64_t burst_units);

  double units_per_second() const { return units_per_second_; }
  int64_t burst_units() const { return burst_units_; }

 private:
  friend class TokenBucket;
  BucketRate(double units_per_second, int64_t burst_units);

  double units_per_second_;
  int64_t burst_units_;
  // A unit is 2^shift sub-units; they are made at more than 1/2 and at most 1 a nanosecond.
  int shift_;
  uint64_t per_nano_;  // Sub-units a nanosecond, times 2^62.
};

class TokenBucket {
 public:
  enum class Fill { kEmpty, kFull };

  TokenBucket(const BucketRate& rate, Fill fill, Instant now);
  TokenBucket(const TokenBucket&) = delete;
  TokenBucket& operator=(const TokenBucket&) = delete;

  // Takes n units (n >= 0), or nothing. 0 is always taken; more than the burst never.
  bool TryTake(int64_t n, Instant now);

  // Takes what there is, at most n whole units; returns how many.
  int64_t TakeUpTo(int64_t n, Instant now);

  // Takes n units even if they are yet to be made; returns how long the caller must wait before it
  // acts on them. Nothing is taken and nullopt returned when that is longer than max_wait (or than
  // a year), or when n is more than the burst.
  std::optional<Duration> Borrow(int64_t n, Instant now, Duration max_wait);

  // Takes n units whether they are there or not: for work that is admitted already. The debt that
  // this makes never exceeds the burst; what would is forgiven.
  void TakeAnyway(int64_t n, Instant now);

  // Puts back units that were taken and not used. What does not fit is lost.
  void GiveBack(int64_t n, Instant now);

  // How long until TryTake(n) succeeds if nobody else takes; nullopt: never, n is above the burst.
  std::optional<Duration> RetryAfter(int64_t n, Instant now) const;

  // Whole units that could be taken; negative while in debt.
  int64_t Remaining(Instant now) const;

  // From `now` on, for those who wait too. Tokens are kept, up to the new burst; debt is kept, up
  // to a year of the new rate. Rounding loses at most what two nanoseconds make.
  void SetRate(const BucketRate& rate, Instant now);

  int64_t burst_units() const;

 private:
  // The word: what was spent since the base, in sub-units, signed, above a generation of 6 bits
  // that says which rate it is counted in.
  static constexpr int kGenerationBits = 6;
  static constexpr uint64_t kGenerationMask = (uint64_t{1} << kGenerationBits) - 1;
  static constexpr int kRateFractionBits = 62;
  // Sub-units of a little over a year. |spent| stays below four times this, which fits the word.
  static constexpr int64_t kYear = int64_t{1} << 55;

  // A rate in use. Two of them alternate: a new one is written while nobody can use it, then the
  // word moves to its generation. Whoever read the old one fails its compare-and-swap.
  struct Rate {
    std::atomic<int64_t> base_ns{0};
    std::atomic<uint64_t> per_nano{0};
    std::atomic<int64_t> capacity{0};  // the burst, in sub-units
    std::atomic<int> shift{0};
  };

  // What one operation works on: the word, and the rate as it stood with the word.
  struct View {
    uint64_t word = 0;
    int64_t base_ns = 0;
    uint64_t per_nano = 0;
    int64_t capacity = 0;
    int shift = 0;
    int64_t produced = 0;
    int64_t spent = 0;  // not less than produced - capacity

    bool Fits(int64_t n) const { return n <= capacity >> shift; }
    int64_t Cost(int64_t n) const { return n << shift; }
  };

  static uint64_t Word(int64_t spent, uint64_t generation) {
    return static_cast<uint64_t>(spent) << kGenerationBits | (generation & kGenerationMask);
  }
  static int64_t Spent(uint64_t word) { return static_cast<int64_t>(word) >> kGenerationBits; }

  View Read(uint64_t word, Instant now) const;
  // A view that was consistent; for operations that change nothing.
  View ReadConsistent(Instant now) const;
  // A view to change; rebases first if the base lies too far back.
  View ReadToChange(uint64_t word, Instant now);
  bool SameGeneration(uint64_t word) const {
    return ((word_.load(std::memory_order_acquire) ^ word) & kGenerationMask) == 0;
  }
  bool Change(View& view, int64_t spent) {
    return word_.compare_exchange_weak(view.word, Word(spent, view.word), std::memory_order_acq_rel,
                                       std::memory_order_acquire);
  }
  static std::optional<Duration> WaitUntil(const View& view, int64_t produced, Instant now);
  void Rebase(Instant now);
  // Moves the word to the next generation, with this rate. `mutex_` is held.
  void Replace(uint64_t per_nano, int64_t burst_units, int shift, Instant now);

  std::atomic<uint64_t> word_;
  Rate rates_[2];
  std::mutex mutex_;  // Among those who replace the rate.
};

inline TokenBucket::View TokenBucket::Read(uint64_t word, Instant now) const {
  const Rate& rate = rates_[word & 1];
  // Acquire: a value of a later generation brings the word's change with it, for SameGeneration.
  View view{.word = word,
            .base_ns = rate.base_ns.load(std::memory_order_acquire),
            .per_nano = rate.per_nano.load(std::memory_order_acquire),
            .capacity = rate.capacity.load(std::memory_order_acquire),
            .shift = rate.shift.load(std::memory_order_acquire)};
  if (now.nanos() > view.base_ns) {
    // Held down to 36 years, which makes more than any burst, so that the product fits.
    const uint64_t passed =
        std::min(static_cast<uint64_t>(now.nanos()) - static_cast<uint64_t>(view.base_ns),
                 uint64_t{1} << 60);
    view.produced = static_cast<int64_t>(static_cast<unsigned __int128>(passed) * view.per_nano >>
                                         kRateFractionBits);
  }
  view.spent = std::max(Spent(word), view.produced - view.capacity);
  return view;
}

inline TokenBucket::View TokenBucket::ReadToChange(uint64_t word, Instant now) {
  View view = Read(word, now);
  while (view.produced > kYear) [[unlikely]] {
      Rebase(now);
      view = Read(word_.load(std::memory_order_acquire), now);
    }
  return view;
}

inline bool TokenBucket::TryTake(int64_t n, Instant now) {
  DYNLIB_CHECK(n >= 0);
  if (n == 0) return true;
  uint64_t word = word_.load(std::memory_order_acquire);
  for (;;) {
    View view = ReadToChange(word, now);
    if (!view.Fits(n) || view.spent + view.Cost(n) > view.produced) {
      if (SameGeneration(view.word)) return false;
      word = word_.load(std::memory_order_acquire);
      continue;
    }
    if (Change(view, view.spent + view.Cost(n))) return true;
    word = view.word;
  }
}

}  // namespace dynlib::admission

#endif  // DYNLIB_ADMISSION_TOKEN_BUCKET_H_
