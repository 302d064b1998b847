// One thread's credit with a token bucket that many threads share: it takes some units ahead, and
// serves requests from them without touching the bucket's cache line.
//
//   thread_local TokenCredit credit(&bucket, /*units_max=*/64);   // or a member of each worker
//   if (!credit.TryTake(1, now)) return Throttled(credit.RetryAfter(1, now));
//
// What is held ahead has left the bucket already, so from the start on no more than rate * time +
// burst is admitted. But it can be used later than it was made: over any one interval up to
// `units_max` more for each credit. So choose units_max * threads small against the burst. A
// credit takes at most an eighth of what the bucket has ahead; of a scarce bucket nothing, so that
// no thread sits on what another one needs.
//
// Threads: one, its owner; the bucket is shared. Ownership: the bucket outlives the credit. What is
// held when a credit is destroyed is lost; Return puts it back.
#ifndef DYNLIB_ADMISSION_TOKEN_CREDIT_H_
#define DYNLIB_ADMISSION_TOKEN_CREDIT_H_

#include <algorithm>
#include <cstdint>
#include <optional>

#include "dynlib/admission/token_bucket.h"
#include "dynlib/base/check.h"
#include "dynlib/base/time.h"

namespace dynlib::admission {

class TokenCredit {
 public:
  static constexpr int64_t kUnitsMax = 1'000'000'000;

  // `units_max`: the most that is held ahead, within [0, kUnitsMax].
  TokenCredit(TokenBucket* bucket, int64_t units_max) : bucket_(bucket), units_max_(units_max) {
    DYNLIB_CHECK(units_max >= 0 && units_max <= kUnitsMax);
  }
  TokenCredit(const TokenCredit&) = delete;
  TokenCredit& operator=(const TokenCredit&) = delete;

  // Takes n units (n >= 0), or nothing.
  bool TryTake(int64_t n, Instant now) {
    if (static_cast<uint64_t>(n) <= static_cast<uint64_t>(held_)) {
      held_ -= n;
      return true;
    }
    return Draw(n, now);
  }

  // How long until TryTake(n) succeeds if nobody else takes; nullopt: never.
  std::optional<Duration> RetryAfter(int64_t n, Instant now) const {
    return n <= held_ ? Duration(0) : bucket_->RetryAfter(n - held_, now);
  }

  void Return(Instant now) {
    bucket_->GiveBack(held_, now);
    held_ = 0;
  }

  int64_t held() const { return held_; }

 private:
  static constexpr int64_t kShareOfBucket = 8;

  bool Draw(int64_t n, Instant now) {
    DYNLIB_CHECK(n >= 0);
    if (!bucket_->TryTake(n - held_, now)) return false;
    held_ = bucket_->TakeUpTo(
        std::clamp<int64_t>(bucket_->Remaining(now) / kShareOfBucket, 0, units_max_), now);
    return true;
  }

  TokenBucket* const bucket_;
  const int64_t units_max_;
  int64_t held_ = 0;  // taken from the bucket, and not used yet
};

}  // namespace dynlib::admission

#endif  // DYNLIB_ADMISSION_TOKEN_CREDIT_H_
