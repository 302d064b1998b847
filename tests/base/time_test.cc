#include "dynlib/base/time.h"

#include <chrono>
#include <type_traits>

#include "gtest/gtest.h"

namespace dynlib {
namespace {

using std::chrono::hours;
using std::chrono::microseconds;
using std::chrono::milliseconds;

TEST(Time, SumsAndDifferences) {
  constexpr Instant start = Instant::FromNanos(1'000'000);
  EXPECT_EQ((start + milliseconds(2)).nanos(), 3'000'000);
  EXPECT_EQ((start - microseconds(1)).nanos(), 999'000);
  EXPECT_EQ(start + milliseconds(2) - start, milliseconds(2));
  EXPECT_EQ(start - (start + milliseconds(2)), -milliseconds(2));
}

TEST(Time, SumsSaturateAtInfinity) {
  const Instant late = Instant::FromNanos(INT64_MAX - 5);
  EXPECT_EQ(late + Duration(4), Instant::FromNanos(INT64_MAX - 1));
  EXPECT_EQ(late + Duration(5), Instant::Infinite());
  EXPECT_EQ(late + hours(1), Instant::Infinite());
  EXPECT_EQ(Instant::FromNanos(1) + Duration::max(), Instant::Infinite());
}

TEST(Time, InfinityStaysWhateverIsAddedOrTaken) {
  EXPECT_EQ(Instant::Infinite() + hours(1), Instant::Infinite());
  EXPECT_EQ(Instant::Infinite() + (-hours(1)), Instant::Infinite());
  EXPECT_EQ(Instant::Infinite() - hours(1), Instant::Infinite());
}

TEST(Time, Order) {
  const Instant a = Instant::FromNanos(1);
  const Instant b = Instant::FromNanos(2);
  EXPECT_LT(Instant(), a);
  EXPECT_LT(a, b);
  EXPECT_LT(b, Instant::Infinite());
  EXPECT_EQ(a, Instant::FromNanos(1));
}

TEST(Time, ToMicrosRoundsTowardZero) {
  EXPECT_EQ(ToMicros(Duration(1999)), 1);
  EXPECT_EQ(ToMicros(Duration(-1999)), -1);
  EXPECT_EQ(ToMicros(milliseconds(3)), 3000);
}

template <typename A, typename B>
concept Comparable = requires(A a, B b) {
  a < b;
};

TEST(Time, MonotonicAndWallTimeDoNotMix) {
  static_assert(Comparable<Instant, Instant>);
  static_assert(!Comparable<Instant, WallTime>);
  static_assert(!std::is_convertible_v<Instant, WallTime>);
  static_assert(!std::is_convertible_v<int64_t, Instant>);
}

}  // namespace
}  // namespace dynlib
