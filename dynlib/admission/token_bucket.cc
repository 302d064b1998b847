#include "dynlib/admission/token_bucket.h"

#include <cmath>

#include "absl/status/status.h"
#include "dynlib/base/strings.h"

namespace dynlib::admission {
namespace {

constexpr double kSubUnitsPerSecondMax = 1e9;  // one a nanosecond

int64_t BurstMax(double units_per_second) {
  return std::max<int64_t>(1, static_cast<int64_t>(units_per_second * BucketRate::kFillSecondsMax));
}

// units_per_second * 2^shift * 2^63 / 1e9, rounded up, exactly: a double is an integer times a
// power of two. What that makes too much in a year is less than a hundredth of a sub-unit.
uint64_t PerNano(double units_per_second, int shift) {
  int exponent = 0;
  const double fraction = std::frexp(units_per_second, &exponent);
  const auto mantissa = static_cast<unsigned __int128>(std::ldexp(fraction, 53));
  const int left = exponent - 53 + shift + 63;  // The product lies in (2^91, 2^93).
  return static_cast<uint64_t>(((mantissa << left) + 999'999'999u) / 1'000'000'000u);
}

}  // namespace

absl::StatusOr<BucketRate> BucketRate::Make(double units_per_second, int64_t burst_units) {
  // Written so that NaN fails.
  if (!(units_per_second >= kUnitsPerSecondMin && units_per_second <= kUnitsPerSecondMax)) {
    return absl::InvalidArgumentError(
        Cat("units_per_second is ", units_per_second, "; allowed are 0.0001 to 1000000000"));
  }
  if (burst_units < 1 || burst_units > BurstMax(units_per_second)) {
    return absl::InvalidArgumentError(
        Cat("burst_units is ", burst_units, "; allowed at this rate are 1 to ",
            BurstMax(units_per_second), " (what it makes in a year)"));
  }
  return BucketRate(units_per_second, burst_units);
}

BucketRate BucketRate::Clamped(double units_per_second, int64_t burst_units) {
  if (!(units_per_second >= kUnitsPerSecondMin)) units_per_second = kUnitsPerSecondMin;
  units_per_second = std::min(units_per_second, kUnitsPerSecondMax);
  return BucketRate(units_per_second,
                    std::clamp<int64_t>(burst_units, 1, BurstMax(units_per_second)));
}

BucketRate::BucketRate(double units_per_second, int64_t burst_units)
    : units_per_second_(units_per_second), burst_units_(burst_units), shift_(0) {
  while (std::ldexp(units_per_second, shift_ + 1) <= kSubUnitsPerSecondMax) ++shift_;
  per_nano_ = PerNano(units_per_second, shift_);
}

TokenBucket::TokenBucket(const BucketRate& rate, Fill fill, Instant now) {
  Write(rates_[0], 0, now, rate.per_nano_, rate.burst_units_, rate.shift_);
  word_ = Word(fill == Fill::kFull ? -(rate.burst_units_ << rate.shift_) : 0, 0);
}

void TokenBucket::Write(Rate& rate, uint64_t generation, Instant base, uint64_t per_nano,
                        int64_t burst_units, int shift) {
  rate.hint_ns.store(kLookFirst, std::memory_order_relaxed);
  rate.base_ns.store(base.nanos(), std::memory_order_release);
  rate.per_nano.store(per_nano, std::memory_order_release);
  rate.capacity.store(burst_units << shift, std::memory_order_release);
  rate.burst_units.store(static_cast<uint64_t>(burst_units), std::memory_order_release);
  rate.added_units_max.store(static_cast<uint64_t>(std::min(burst_units, kAddedMax >> shift)),
                             std::memory_order_release);
  rate.marks.store(Marks(shift, generation), std::memory_order_release);
}

// ---- Taking ----

// Another operation changed the word between our look and our addition.
TokenBucket::Taken TokenBucket::SettleRace(uint64_t word, int shift, uint64_t found, int64_t cost,
                                           int64_t floor, int64_t most) {
  const bool right_generation = SameGeneration(found, word);
  const int64_t spent = Spent(found);
  if (!right_generation || std::max(spent, floor) + cost > most) {
    Subtract(cost, shift, found, right_generation);
    return Taken::kLookAgain;
  }
  // Units that an older clock gave back, and that overflow by ours.
  if (spent < floor) Subtract(spent - floor, shift, found, right_generation);
  return Taken::kYes;
}

void TokenBucket::Subtract(int64_t sub_units, int shift, uint64_t found, bool right_generation) {
  uint64_t word = word_.load(std::memory_order_acquire);
  for (;;) {
    int64_t amount = sub_units;
    if (!SameGeneration(word, found)) {
      // SetRate has converted what was added as sub-units of the rate that it met.
      if (!right_generation) return;
      const int shift_now = Shift(rates_[word & 1].marks.load(std::memory_order_acquire));
      const auto wide = static_cast<__int128>(sub_units);
      const __int128 scaled =
          shift_now >= shift ? wide << (shift_now - shift) : wide >> (shift - shift_now);
      amount = static_cast<int64_t>(std::clamp<__int128>(scaled, -kYear, kYear));
    }
    // Of a later generation than `shift_now` was read of, the word is another one.
    if (word_.compare_exchange_weak(word, Word(Spent(word) - amount, word),
                                    std::memory_order_acq_rel, std::memory_order_acquire)) {
      return;
    }
  }
}

bool TokenBucket::TryTakeBySwapping(int64_t n, Instant now) {
  DYNLIB_CHECK(n >= 0);
  rates_[0].hint_ns.store(kLookFirst, std::memory_order_relaxed);
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

// ---- Looking ----

TokenBucket::View TokenBucket::ReadToChange(uint64_t word, Instant now) {
  View view = Read(word, now);
  while (view.produced > kYear) [[unlikely]] {
      Rebase(now);
      view = Read(word_.load(std::memory_order_acquire), now);
    }
  return view;
}

int64_t TokenBucket::TakeUpTo(int64_t n, Instant now) {
  DYNLIB_CHECK(n >= 0);
  uint64_t word = word_.load(std::memory_order_acquire);
  for (;;) {
    View view = ReadToChange(word, now);
    const int64_t taken = std::min(n, (view.produced - view.spent) >> view.shift);
    if (taken <= 0 && SameGeneration(view.word)) return 0;
    if (taken > 0 && Change(view, view.spent + view.Cost(taken))) return taken;
    word = word_.load(std::memory_order_acquire);
  }
}

std::optional<Duration> TokenBucket::Borrow(int64_t n, Instant now, Duration max_wait) {
  DYNLIB_CHECK(n >= 0);
  uint64_t word = word_.load(std::memory_order_acquire);
  for (;;) {
    View view = ReadToChange(word, now);
    std::optional<Duration> wait;
    if (view.Fits(n)) {
      const int64_t spent = view.spent + view.Cost(n);
      wait = spent - view.produced <= kYear ? WaitUntil(view, spent, now) : std::nullopt;
      if (wait.has_value() && *wait > max_wait) wait.reset();
      if (wait.has_value()) {
        if (Change(view, spent)) return wait;
        word = view.word;
        continue;
      }
    }
    if (SameGeneration(view.word)) return std::nullopt;
    word = word_.load(std::memory_order_acquire);
  }
}

void TokenBucket::TakeAnywayLooking(int64_t n, Instant now) {
  DYNLIB_CHECK(n >= 0);
  if (TakeByAdding(n, /*into_debt=*/true, now) == Taken::kYes) return;
  uint64_t word = word_.load(std::memory_order_acquire);
  for (;;) {
    View view = ReadToChange(word, now);
    // From full to as deep in debt as it goes is twice the capacity.
    const int64_t most = 2 * view.capacity;
    const int64_t cost = n <= most >> view.shift ? view.Cost(n) : most;
    const int64_t deepest = std::max(view.spent, view.produced + view.capacity);
    if (Change(view, std::min(view.spent + cost, deepest))) return;
    word = view.word;
  }
}

void TokenBucket::GiveBack(int64_t n, Instant now) {
  DYNLIB_CHECK(n >= 0);
  // It overflows earlier than was thought.
  rates_[0].hint_ns.store(kLookFirst, std::memory_order_relaxed);
  uint64_t word = word_.load(std::memory_order_acquire);
  for (;;) {
    View view = ReadToChange(word, now);
    const int64_t cost = view.Fits(n) ? view.Cost(n) : view.capacity;
    if (Change(view, std::max(view.spent - cost, view.produced - view.capacity))) return;
    word = view.word;
  }
}

std::optional<Duration> TokenBucket::RetryAfter(int64_t n, Instant now) const {
  DYNLIB_CHECK(n >= 0);
  const View view = ReadConsistent(now);
  if (n == 0) return Duration(0);
  if (!view.Fits(n)) return std::nullopt;
  return WaitUntil(view, view.spent + view.Cost(n), now);
}

int64_t TokenBucket::burst_units() const {
  const View view = ReadConsistent(Instant());
  return view.capacity >> view.shift;
}

// The least passed time at which floor(passed * per_nano / 2^62) >= produced.
std::optional<Duration> TokenBucket::WaitUntil(const View& view, int64_t produced, Instant now) {
  if (produced <= view.produced) return Duration(0);
  const auto scaled = static_cast<unsigned __int128>(produced) << kRateFractionBits;
  const auto passed = static_cast<int64_t>((scaled + view.per_nano - 1) / view.per_nano);
  const Instant ready = Instant::FromNanos(view.base_ns) + Duration(passed);
  if (now.nanos() < 0 && ready.nanos() > INT64_MAX + now.nanos()) return Duration::max();
  return ready - now;
}

void TokenBucket::SetRate(const BucketRate& rate, Instant now) {
  const std::lock_guard lock(mutex_);
  Replace(rate.per_nano_, rate.burst_units_, rate.shift_, now);
}

void TokenBucket::Rebase(Instant now) {
  const std::lock_guard lock(mutex_);
  const View view = ReadConsistent(now);
  if (view.produced <= kYear) return;  // Another thread was first.
  Replace(view.per_nano, view.capacity >> view.shift, view.shift, now);
}

void TokenBucket::Replace(uint64_t per_nano, int64_t burst_units, int shift, Instant now) {
  const int64_t capacity = burst_units << shift;
  uint64_t word = word_.load(std::memory_order_acquire);
  uint64_t moved = 0;
  Instant base;
  do {
    const View old = Read(word, now);
    __int128 tokens = old.produced - old.spent;
    tokens = shift >= old.shift ? tokens << (shift - old.shift) : tokens >> (old.shift - shift);
    const auto kept = static_cast<int64_t>(std::clamp<__int128>(tokens, -kYear, capacity));
    base = std::max(now, Instant::FromNanos(old.base_ns));
    Write(rates_[1], word + 1, base, per_nano, burst_units, shift);
    moved = Word(-kept, word + 1);
  } while (!word_.compare_exchange_weak(word, moved, std::memory_order_acq_rel,
                                        std::memory_order_acquire));
  Write(rates_[0], word + 2, base, per_nano, burst_units, shift);
  word = moved;
  while (!word_.compare_exchange_weak(word, Word(Spent(word), word + 1), std::memory_order_acq_rel,
                                      std::memory_order_acquire)) {
  }
}

}  // namespace dynlib::admission
