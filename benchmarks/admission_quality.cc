#include "benchmarks/admission_quality.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/admission/heat.h"
#include "dynlib/base/random.h"
#include "dynlib/base/strings.h"
#include "dynlib/base/time.h"
#include "examples/capacity/capacity_sim.h"

namespace dynlib::bench {
namespace {

using admission::PartitionHeat;
using admission::SplitAdvice;
using admission::SplitVerdict;
using examples::Outcome;
using examples::Policy;
using examples::Scenario;

constexpr size_t kRouters = 1000;
constexpr double kLimit = 20'000;
constexpr size_t kWindow = 10;
constexpr double kSeconds = 60;
constexpr double kEventAt = 25;
const FigureUnit kOfLimit{"of_limit", false};
const FigureUnit kOfShare{"of_share", true};
const FigureUnit kPercent{"%", false};

// A system whose rounds have seeds from 1.
FigureSystem Seeded(std::string name, std::function<absl::StatusOr<double>(uint64_t seed)> run) {
  return {std::move(name), [run = std::move(run), seed = std::make_shared<uint64_t>(0)](
                               const RunContext&) { return run(++*seed); }};
}

// ---- Global admission control against the limit ----

// Demand twice the limit, a thousand routers, zipf over the partitions.
Scenario Overload(uint64_t seed) {
  return {.policy = Policy::kGac,
          .routers = kRouters,
          .partitions = 32,
          .skew = 0.99,
          .table_units_per_second = kLimit,
          .partition_units_per_second = kLimit,
          .seconds = kSeconds,
          .offered = [](double) { return 2 * kLimit; },
          .seed = seed};
}

using Change = std::function<void(Scenario&)>;

void MeasureOverload(Harness& harness, const std::string& name, const Change& change, size_t from) {
  // Each seed once, whatever is read from it.
  const auto outcomes = std::make_shared<std::map<uint64_t, Outcome>>();
  const auto run = [change, outcomes](uint64_t seed) -> const Outcome& {
    const auto [at, added] = outcomes->try_emplace(seed);
    if (added) {
      Scenario scenario = Overload(seed);
      change(scenario);
      at->second = examples::Simulate(scenario);
    }
    return at->second;
  };
  const auto to = static_cast<size_t>(kSeconds);
  harness.MeasureFigures(
      Cat("admitted_over_limit/", name), kOfLimit,
      {Seeded(kOurs,
              [=](uint64_t seed) { return run(seed).MostAdmitted(from, to, kWindow) / kLimit; }),
       Seeded("dynlib_least",
              [=](uint64_t seed) { return run(seed).LeastAdmitted(from, to, kWindow) / kLimit; })},
      false);
  // Of an even share, in the worst ten seconds: whether anybody starves.
  harness.MeasureFigures(Cat("least_of_a_router/", name), kOfShare,
                         {Seeded(kOurs,
                                 [=](uint64_t seed) {
                                   return run(seed).LeastOfARouter(from, to, kWindow) /
                                          (kLimit / kRouters);
                                 })},
                         false);
}

// A day of five minutes, whose peaks stay below the limit, while the hottest partition changes.
double ThrottledPercent(Policy policy, uint64_t seed) {
  constexpr double kDay = 300;
  const Outcome outcome =
      examples::Simulate({.policy = policy,
                          .routers = kRouters,
                          .partitions = 32,
                          .table_units_per_second = kLimit,
                          .partition_units_per_second = kLimit / 2,
                          .seconds = kDay,
                          .offered = examples::DayWithFlash(kDay, 0.7 * kLimit, 0.9 * kLimit),
                          .hot_moves_every_s = kDay / 5,
                          .seed = seed});
  constexpr size_t kSettled = 10;
  return 100 * outcome.ThrottledShare(kSettled);
}

// ---- Splits ----

constexpr int kRequestsASecond = 1000;

std::string KeyOf(uint64_t place) {
  char key[24];
  std::snprintf(key, sizeof(key), "item%016llx", static_cast<unsigned long long>(place));
  return key;
}

// Places of 10,000 items, popular by zipf 0.99, scattered as hashed keys are.
class ZipfKeys {
 public:
  explicit ZipfKeys(uint64_t seed) : random_(seed) {
    double sum = 0;
    for (int i = 1; i <= 10'000; ++i) {
      sums_.push_back(sum += std::pow(i, -0.99));
      places_.push_back(random_.Next());
    }
  }
  uint64_t Next(double) {
    const double at = random_.Unit() * sums_.back();
    return places_[static_cast<size_t>(std::upper_bound(sums_.begin(), sums_.end(), at) -
                                       sums_.begin())];
  }

 private:
  Random random_;
  std::vector<double> sums_;
  std::vector<uint64_t> places_;
};

// A tenth of the keys has four fifths of the load; which tenth changes every 100 seconds.
class ShiftingKeys {
 public:
  explicit ShiftingKeys(uint64_t seed) : random_(seed) {}
  uint64_t Next(double at_s) {
    constexpr double kShiftEvery = 100;
    if (at_s >= shift_at_) {
      shift_at_ = at_s + kShiftEvery;
      hot_ = random_.Next();
    }
    if (random_.Chance(0.2)) return random_.Next();
    return hot_ + random_.Below(UINT64_MAX / 10);
  }

 private:
  Random random_;
  double shift_at_ = 0;
  uint64_t hot_ = 0;
};

// Watches until a split is advised, then 20 seconds of what follows: percent of the load on the
// hotter side. The advice comes within the watch of 95 seconds, or the round fails.
template <typename Keys>
absl::StatusOr<double> HotterHalf(uint64_t seed) {
  Keys keys(seed);
  PartitionHeat heat({}, seed);
  const Instant start = Instant::FromNanos(1'000'000'000);
  SplitAdvice advice;
  double at_s = 0;
  for (int i = 1; advice.verdict != SplitVerdict::kSplit; ++i) {
    at_s = static_cast<double>(i) / kRequestsASecond;
    if (at_s > 95) return absl::NotFoundError(admission::SplitVerdictName(advice.verdict));
    const Instant now = start + Duration(static_cast<int64_t>(at_s * 1e9));
    heat.Record(KeyOf(keys.Next(at_s)), 2, now);
    // A second windowful: what a few seconds show is not yet the load.
    if (i % kRequestsASecond == 0 && at_s >= 60) advice = heat.AdviseSplit(now);
  }
  constexpr int kWatched = 20 * kRequestsASecond;
  int left = 0;
  for (int i = 0; i < kWatched; ++i) left += KeyOf(keys.Next(at_s)) < advice.at ? 1 : 0;
  return 100.0 * std::max(left, kWatched - left) / kWatched;
}

}  // namespace

void MeasureAdmissionQuality(Harness& harness) {
  constexpr size_t kSettled = 10;
  MeasureOverload(
      harness, "steady", [](Scenario&) {}, kSettled);
  constexpr size_t kBefore = static_cast<size_t>(kEventAt) - kWindow;
  MeasureOverload(
      harness, "restart", [](Scenario& s) { s.restart_server_at_s = kEventAt; }, kBefore);
  MeasureOverload(
      harness, "ring_change", [](Scenario& s) { s.leave_ring_at_s = kEventAt; }, kBefore);
  for (const auto& [policy, name] :
       {std::pair(Policy::kStatic, "static"), std::pair(Policy::kBurst, "burst"),
        std::pair(Policy::kAdaptive, "adaptive"), std::pair(Policy::kGac, "gac")}) {
    harness.MeasureFigures(
        Cat("throttled_below_limit/", name), kPercent,
        {Seeded(kOurs,
                [policy = policy](uint64_t seed) { return ThrottledPercent(policy, seed); })},
        false);
  }
  harness.MeasureFigures("split_balance/zipf", kPercent, {Seeded(kOurs, HotterHalf<ZipfKeys>)},
                         false);
  harness.MeasureFigures("split_balance/shifting", kPercent,
                         {Seeded(kOurs, HotterHalf<ShiftingKeys>)}, false);
}

}  // namespace dynlib::bench
