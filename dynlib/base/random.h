// A small, fast, seeded generator (xoshiro256**, Blackman and Vigna 2018, seeded by SplitMix64).
//
// The same seed gives the same numbers on every machine and in every release: simulations are
// replayed by seed. Not for secrets. One thread at a time.
#ifndef DYNLIB_BASE_RANDOM_H_
#define DYNLIB_BASE_RANDOM_H_

#include <cstdint>

namespace dynlib {

class Random {
 public:
  explicit Random(uint64_t seed);

  uint64_t Next();
  // Uniform in [0, bound); bound > 0.
  uint64_t Below(uint64_t bound);
  // Uniform in [low, high], both included.
  int64_t Between(int64_t low, int64_t high);
  // True with the given probability, clamped to [0, 1].
  bool Chance(double probability);
  // Uniform in [0, 1).
  double Unit();
  // A generator whose numbers are independent of this one's later numbers.
  Random Fork() { return Random(Next()); }

  // For <algorithm>: a uniform random bit generator.
  using result_type = uint64_t;
  static constexpr uint64_t min() { return 0; }
  static constexpr uint64_t max() { return UINT64_MAX; }
  uint64_t operator()() { return Next(); }

 private:
  uint64_t state_[4];
};

}  // namespace dynlib

#endif  // DYNLIB_BASE_RANDOM_H_
