// A token bucket: `rate` units a second, at most `burst` of them saved up.
//
// One 64-bit word, after the generic cell rate algorithm (ATM Forum TM 4.1), but measured in units
// where that measures in time. What was produced since a base instant is one multiplication of the
// time that passed, so nothing accumulates rounding; what was spent is an integer. A request of n
// is admitted when spent + n <= produced, where spent never falls more than `burst` behind. Being
// in units, the state stays valid when the rate changes; and taking is one addition, which several
// threads can make at once where a compare-and-swap would have to be tried again.
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
// rejected only loads, unless another thread took the tokens at the same moment: then they are
// taken and put back, and for that moment others see fewer; and while the rate is being replaced a
// request may be rejected that fits the old and the new one. The errors of races are all on that
// side; the largest is what the bucket makes in two seconds, lost when two SetRates hit one
// addition.
#ifndef DYNLIB_ADMISSION_TOKEN_BUCKET_H_
#define DYNLIB_ADMISSION_TOKEN_BUCKET_H_

#include <algorithm>
#include <atomic>
#include <bit>
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
  uint64_t per_nano_;  // Sub-units a nanosecond, times 2^63.
};

class alignas(64) TokenBucket {
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

  // Whether TryTake(n) would succeed.
  bool Has(int64_t n, Instant now) const;

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
  static constexpr int kRateFractionBits = 63;
  // Sub-units of a little over a year, and as many nanoseconds. |spent| stays below four times
  // this, which fits the word.
  static constexpr int64_t kYear = int64_t{1} << 55;
  // What is added without a compare-and-swap: what is made in one to two seconds. Bounds what is
  // lost if the addition meets a word of another generation that is replaced in turn before the
  // addition is undone.
  static constexpr int64_t kAddedMax = int64_t{1} << 30;

  // The hint to take unseen lasts so much, or a 64th of the burst, into the time when the bucket
  // may overflow: a millisecond. Bounds what two threads write off both for one overflow.
  static constexpr int64_t kSlackMax = 1'000'000;

  // A hint that takers look at the word before they take.
  static constexpr int64_t kLookFirst = INT64_MIN;

  // A rate in use: the first one, in an even generation. A new one is written into the second,
  // the word moves to an odd generation, the first is overwritten, and the word moves on. Whoever
  // read a rate meanwhile sees another generation in the word.
  struct alignas(64) Rate {
    std::atomic<int64_t> base_ns{0};
    std::atomic<uint64_t> per_nano{0};
    std::atomic<int64_t> capacity{0};  // the burst, in sub-units
    std::atomic<uint64_t> burst_units{0};
    std::atomic<uint64_t> added_units_max{0};  // that cost kAddedMax at most, and fit the burst
    // Of the first rate: see TakeUnseen.
    std::atomic<int64_t> hint_ns{kLookFirst};
    // What to shift by, and above it the generation of the word that the rate belongs to; written
    // last and read first.
    std::atomic<uint32_t> marks{0};
  };
  static constexpr int kShiftBits = 8;
  static int Shift(uint32_t marks) { return static_cast<uint8_t>(marks); }
  static uint32_t Marks(int shift, uint64_t generation) {
    return static_cast<uint32_t>(shift) | static_cast<uint32_t>(generation & kGenerationMask)
                                              << kShiftBits;
  }

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
  // floor(passed * per_nano / 2^63), for less than 2^63 passed: the upper word of a product.
  static int64_t Produced(uint64_t passed_ns, uint64_t per_nano) {
    return static_cast<int64_t>(static_cast<unsigned __int128>(passed_ns << 1) * per_nano >> 64);
  }

  View Read(uint64_t word, Instant now) const;
  // A view that was consistent; for operations that change nothing.
  View ReadConsistent(Instant now) const;
  // A view to change; rebases first if the base lies too far back.
  View ReadToChange(uint64_t word, Instant now);
  static bool SameGeneration(uint64_t a, uint64_t b) { return ((a ^ b) & kGenerationMask) == 0; }
  bool SameGeneration(uint64_t word) const {
    return SameGeneration(word_.load(std::memory_order_acquire), word);
  }
  bool Change(View& view, int64_t spent) {
    return word_.compare_exchange_weak(view.word, Word(spent, view.word), std::memory_order_acq_rel,
                                       std::memory_order_acquire);
  }

  enum class Taken { kYes, kNo, kLookAgain };
  // Takes n units by one addition without a look at the word; the hint allows it. kLookAgain: not
  // this way; nothing was taken.
  Taken TakeUnseen(int64_t n, bool into_debt, Instant now, int64_t hint);
  // The same with a look, down to nothing left or into debt as TakeAnyway.
  Taken TakeByAdding(int64_t n, bool into_debt, Instant now);
  // After a look that found some saved, and room for more.
  void SetHint(uint64_t word, int64_t room, int64_t capacity, Instant now);
  // The word was `found` instead of `word` when `cost` was added.
  Taken SettleRace(uint64_t word, int shift, uint64_t found, int64_t cost, int64_t floor,
                   int64_t most);
  // Takes back so many sub-units, of 2^-shift units, from what was added to `found`.
  void Subtract(int64_t sub_units, int shift, uint64_t found, bool right_generation);
  bool TryTakeBySwapping(int64_t n, Instant now);
  void TakeAnywayLooking(int64_t n, Instant now);

  static std::optional<Duration> WaitUntil(const View& view, int64_t produced, Instant now);
  void Rebase(Instant now);
  // Moves the word to the next even generation, with this rate. `mutex_` is held.
  void Replace(uint64_t per_nano, int64_t burst_units, int shift, Instant now);
  static void Write(Rate& rate, uint64_t generation, Instant base, uint64_t per_nano,
                    int64_t burst_units, int shift);

  // A cache line that takers write, and one that they only read.
  std::atomic<uint64_t> word_;
  std::mutex mutex_;  // Among those who replace the rate.
  Rate rates_[2];
};

inline TokenBucket::View TokenBucket::Read(uint64_t word, Instant now) const {
  const Rate& rate = rates_[word & 1];
  // Acquire: a value of a later generation brings the word's change with it, for SameGeneration.
  View view{.word = word,
            .base_ns = rate.base_ns.load(std::memory_order_acquire),
            .per_nano = rate.per_nano.load(std::memory_order_acquire),
            .capacity = rate.capacity.load(std::memory_order_acquire),
            .shift = Shift(rate.marks.load(std::memory_order_acquire))};
  if (now.nanos() > view.base_ns) {
    // Held down to 36 years, which makes more than any burst, so that the product fits.
    const uint64_t passed =
        std::min(static_cast<uint64_t>(now.nanos()) - static_cast<uint64_t>(view.base_ns),
                 uint64_t{1} << 60);
    view.produced = Produced(passed, view.per_nano);
  }
  view.spent = std::max(Spent(word), view.produced - view.capacity);
  return view;
}

inline TokenBucket::View TokenBucket::ReadConsistent(Instant now) const {
  for (;;) {
    const View view = Read(word_.load(std::memory_order_acquire), now);
    if (SameGeneration(view.word)) return view;
  }
}

inline int64_t TokenBucket::Remaining(Instant now) const {
  const View view = ReadConsistent(now);
  return (view.produced - view.spent) >> view.shift;
}

// TryTake up to the addition.
inline bool TokenBucket::Has(int64_t n, Instant now) const {
  const uint64_t word = word_.load(std::memory_order_acquire);
  const Rate& rate = rates_[0];
  const uint64_t passed = static_cast<uint64_t>(now.nanos()) -
                          static_cast<uint64_t>(rate.base_ns.load(std::memory_order_acquire));
  const uint64_t burst_units = rate.burst_units.load(std::memory_order_acquire);
  if ((word & 1) == 0 && passed < uint64_t{kYear} && static_cast<uint64_t>(n) - 1 < burst_units)
      [[likely]] {
    const int64_t produced = Produced(passed, rate.per_nano.load(std::memory_order_acquire));
    const int64_t cost = n << Shift(rate.marks.load(std::memory_order_acquire));
    if (word_.load(std::memory_order_acquire) == word) return Spent(word) + cost <= produced;
  }
  return n == 0 || Remaining(now) >= n;
}

// Two threads pass the word's cache line to and fro, and whoever looks before it takes asks for it
// twice: 23 ns of the two threads' time instead of 9. But there is no need to look while more than
// an eighth of the burst is saved, and not all of it: then an addition is right, seldom not. So it
// is before the time that the hint says, if the generation in its lowest bits still holds.
//
// Whether an addition was right is seen from the word that it met: it was if that is of the
// generation of the rate that was read, has nothing to write off, and has enough left. A
// compare-and-swap instead costs 1.5 times as much alone and with two threads. It is needed when
// the bucket has overflowed, since two threads must not both charge what was lost by that.
inline TokenBucket::Taken TokenBucket::TakeUnseen(int64_t n, bool into_debt, Instant now,
                                                  int64_t hint) {
  Rate& rate = rates_[0];
  const uint32_t marks = rate.marks.load(std::memory_order_acquire);
  const uint64_t passed = static_cast<uint64_t>(now.nanos()) -
                          static_cast<uint64_t>(rate.base_ns.load(std::memory_order_acquire));
  const uint64_t generation = marks >> kShiftBits;
  if (!SameGeneration(static_cast<uint64_t>(hint), generation) || passed >= uint64_t{kYear} ||
      static_cast<uint64_t>(n) - 1 >= rate.added_units_max.load(std::memory_order_acquire))
      [[unlikely]]
    return Taken::kLookAgain;
  const int64_t produced = Produced(passed, rate.per_nano.load(std::memory_order_acquire));
  const int64_t capacity = rate.capacity.load(std::memory_order_acquire);
  const int64_t floor = produced - capacity;
  const int64_t most = into_debt ? produced + capacity : produced;
  const int shift = Shift(marks);
  const int64_t cost = n << shift;
  const uint64_t found =
      word_.fetch_add(static_cast<uint64_t>(cost) << kGenerationBits, std::memory_order_acq_rel);
  // How far above the floor it was; another generation shows in the highest bits, and what was
  // below the floor in the next ones.
  const uint64_t above = std::rotr(found - Word(floor, generation), kGenerationBits);
  if (above <= static_cast<uint64_t>(most - floor - cost)) [[likely]]
    return Taken::kYes;
  rate.hint_ns.store(kLookFirst, std::memory_order_relaxed);
  return SettleRace(generation, shift, found, cost, floor, most);
}

// Branches on the word, rather than arithmetic with it, let the processor go on before it has the
// word: 7.5 ns become 2.4.
inline TokenBucket::Taken TokenBucket::TakeByAdding(int64_t n, bool into_debt, Instant now) {
  Rate& rate = rates_[0];
  const uint64_t word = word_.load(std::memory_order_acquire);
  const uint64_t passed = static_cast<uint64_t>(now.nanos()) -
                          static_cast<uint64_t>(rate.base_ns.load(std::memory_order_acquire));
  const uint64_t burst_units = rate.burst_units.load(std::memory_order_acquire);
  // Also when now is before the base; also when n is 0.
  if ((word & 1) != 0 || passed >= uint64_t{kYear} || static_cast<uint64_t>(n) - 1 >= burst_units)
      [[unlikely]]
    return Taken::kLookAgain;
  const int64_t produced = Produced(passed, rate.per_nano.load(std::memory_order_acquire));
  const int shift = Shift(rate.marks.load(std::memory_order_acquire));
  const int64_t capacity = rate.capacity.load(std::memory_order_acquire);
  const int64_t most = into_debt ? produced + capacity : produced;
  const int64_t spent = Spent(word);
  const int64_t cost = n << shift;
  // Spent or lost: what is lost leaves the burst, and n fits into that.
  // What was read of a rate that is being replaced may turn one away who would have been admitted
  // before and after: to look at the word again would cost each of the others 0.2 ns.
  if (spent + cost > most) return Taken::kNo;
  const int64_t floor = produced - capacity;
  const int64_t saved = produced - spent;
  if (saved > capacity >> 3 && saved <= capacity) SetHint(word, capacity - saved, capacity, now);
  if (spent < floor) {
    uint64_t expected = word;
    return word_.compare_exchange_strong(expected, Word(floor + cost, word),
                                         std::memory_order_acq_rel, std::memory_order_acquire)
               ? Taken::kYes
               : Taken::kLookAgain;
  }
  // Unsigned: of a rate that is being replaced it may be anything.
  if (static_cast<uint64_t>(cost) > uint64_t{kAddedMax}) return Taken::kLookAgain;
  const uint64_t found =
      word_.fetch_add(static_cast<uint64_t>(cost) << kGenerationBits, std::memory_order_acq_rel);
  // The word that was read; or one of the same generation that more was spent of.
  const int64_t met = Spent(found);
  if (found == word || (SameGeneration(found, word) && met >= floor && met + cost <= most))
      [[likely]] {
    return Taken::kYes;
  }
  return SettleRace(word, shift, found, cost, floor, most);
}

// Sub-units are made at one a nanosecond at most: `room` lasts as many of them at least.
inline void TokenBucket::SetHint(uint64_t word, int64_t room, int64_t capacity, Instant now) {
  const int64_t until = now.nanos() + room + std::min(capacity / 64, kSlackMax);
  rates_[0].hint_ns.store(static_cast<int64_t>(Word(until >> kGenerationBits, word)),
                          std::memory_order_relaxed);
}

inline bool TokenBucket::TryTake(int64_t n, Instant now) {
  const int64_t hint = rates_[0].hint_ns.load(std::memory_order_relaxed);
  const Taken taken = now.nanos() < hint ? TakeUnseen(n, /*into_debt=*/false, now, hint)
                                         : TakeByAdding(n, /*into_debt=*/false, now);
  if (taken == Taken::kLookAgain) [[unlikely]]
    return TryTakeBySwapping(n, now);
  return taken == Taken::kYes;
}

inline void TokenBucket::TakeAnyway(int64_t n, Instant now) {
  const int64_t hint = rates_[0].hint_ns.load(std::memory_order_relaxed);
  if (now.nanos() < hint && TakeUnseen(n, /*into_debt=*/true, now, hint) == Taken::kYes) [[likely]]
    return;
  TakeAnywayLooking(n, now);
}

}  // namespace dynlib::admission

#endif  // DYNLIB_ADMISSION_TOKEN_BUCKET_H_
