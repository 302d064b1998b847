#include "examples/capacity/capacity_sim.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numbers>
#include <optional>

#include "dynlib/admission/adaptive_capacity.h"
#include "dynlib/admission/node_admission.h"
#include "dynlib/admission/partition_admission.h"
#include "dynlib/admission/request_units.h"
#include "dynlib/admission/token_bucket.h"
#include "dynlib/base/check.h"
#include "dynlib/base/random.h"
#include "dynlib/base/time.h"
#include "examples/capacity/gac_fleet.h"

namespace dynlib::examples {
namespace {

using admission::AdaptiveCapacity;
using admission::BucketRate;
using admission::NodeAdmission;
using admission::Operation;
using admission::PartitionAdmission;
using admission::RequestUnits;
using admission::TokenBucket;

constexpr Instant kStart = Instant::FromNanos(1'000'000'000'000);
constexpr Duration kStep = std::chrono::milliseconds(10);
constexpr double kStepSeconds = 0.01;
constexpr int kStepsASecond = 100;
constexpr int kAdaptEverySeconds = 10;

// The partitions of a table under one policy, each on a node with room to spare.
class Partitions {
 public:
  explicit Partitions(const Scenario& scenario)
      : node_(*NodeAdmission::Create({.read_units_per_second = 1e6}, kStart)),
        uses_(scenario.partitions) {
    const double share =
        std::min(scenario.table_units_per_second / static_cast<double>(scenario.partitions),
                 scenario.partition_units_per_second);
    const bool gac = scenario.policy == Policy::kGac;
    for (size_t i = 0; i < scenario.partitions; ++i) {
      if (scenario.policy == Policy::kStatic) {
        fixed_.push_back(
            std::make_unique<TokenBucket>(BucketRate::Clamped(share, static_cast<int64_t>(share)),
                                          TokenBucket::Fill::kFull, kStart));
      } else {
        buckets_.push_back(*PartitionAdmission::Create(
            {.read_units_per_second = gac ? scenario.partition_units_per_second : share},
            node_.get(), kStart));
      }
    }
    if (scenario.policy == Policy::kAdaptive) {
      adaptive_ = *AdaptiveCapacity::Create(
          {.table_units_per_second = scenario.table_units_per_second,
           .partition_units_per_second = scenario.partition_units_per_second},
          scenario.partitions);
    }
  }

  bool TryAdmit(size_t partition, Instant now) {
    const bool admitted =
        fixed_.empty() ? buckets_[partition]->AdmitRead(RequestUnits::Whole(1), now).admitted()
                       : fixed_[partition]->TryTake(1, now);
    double& counted =
        admitted ? uses_[partition].admitted_per_second : uses_[partition].refused_per_second;
    counted += 1.0 / kAdaptEverySeconds;
    return admitted;
  }

  void Adapt(Instant now) {
    if (adaptive_.has_value()) {
      const std::vector<double>& capacities = adaptive_->Step(uses_);
      for (size_t i = 0; i < buckets_.size(); ++i) {
        DYNLIB_CHECK(buckets_[i]->SetCapacity(capacities[i], capacities[i], now).ok());
      }
    }
    uses_.assign(uses_.size(), {});
  }

 private:
  const std::unique_ptr<NodeAdmission> node_;
  std::vector<std::unique_ptr<TokenBucket>> fixed_;
  std::vector<std::unique_ptr<PartitionAdmission>> buckets_;
  std::optional<AdaptiveCapacity> adaptive_;
  std::vector<AdaptiveCapacity::Use> uses_;
};

// Ranks by popularity, the i-th with a weight of 1 / i^skew.
class Zipf {
 public:
  Zipf(size_t count, double skew) : sums_(count) {
    double sum = 0;
    for (size_t i = 0; i < count; ++i) {
      sums_[i] = sum += std::pow(static_cast<double>(i + 1), -skew);
    }
  }
  size_t Draw(Random& random) const {
    const double at = random.Unit() * sums_.back();
    return static_cast<size_t>(std::upper_bound(sums_.begin(), sums_.end(), at) - sums_.begin());
  }

 private:
  std::vector<double> sums_;
};

// Knuth's method; the mean of a step is small.
int Poisson(double mean, Random& random) {
  int count = 0;
  for (; mean > 30; mean -= 30) count += Poisson(30, random);
  const double limit = std::exp(-mean);
  for (double product = random.Unit(); product > limit; product *= random.Unit()) ++count;
  return count;
}

bool IsDue(double at_s, int step) {
  return at_s > 0 && step == static_cast<int>(std::lround(at_s * kStepsASecond));
}

class Simulation {
 public:
  explicit Simulation(const Scenario& scenario)
      : scenario_(scenario),
        random_(scenario.seed),
        zipf_(scenario.partitions, scenario.skew),
        partitions_(scenario) {
    if (scenario.policy == Policy::kGac) {
      fleet_.emplace(GacFleet::Options{.routers = scenario.routers,
                                       .units_per_second = scenario.table_units_per_second,
                                       .seed = random_.Next()},
                     kStart);
    }
    const auto seconds = static_cast<size_t>(scenario.seconds);
    outcome_.seconds.resize(seconds);
    outcome_.admitted_by_router.assign(scenario.routers, std::vector<uint32_t>(seconds));
  }

  Outcome Run() {
    const int steps = static_cast<int>(outcome_.seconds.size()) * kStepsASecond;
    for (int step = 0; step < steps; ++step) Step(step);
    return std::move(outcome_);
  }

 private:
  void Step(int step) {
    const Instant start = kStart + step * kStep;
    const double at_s = step * kStepSeconds;
    if (fleet_.has_value()) {
      if (IsDue(scenario_.restart_server_at_s, step)) fleet_->RestartServer(start);
      if (IsDue(scenario_.leave_ring_at_s, step)) fleet_->LeaveRing(start);
      fleet_->Step(start);
    }
    if (step > 0 && step % (kAdaptEverySeconds * kStepsASecond) == 0) partitions_.Adapt(start);
    const int requests = Poisson(scenario_.offered(at_s) * kStepSeconds, random_);
    for (int i = 0; i < requests; ++i) {
      Request(start + kStep * i / requests, at_s);
    }
  }

  void Request(Instant now, double at_s) {
    const auto second = static_cast<size_t>(at_s);
    const size_t router = random_.Below(scenario_.routers);
    ++outcome_.seconds[second].offered;
    if (fleet_.has_value() && !fleet_->TryAdmit(router, now)) return;
    if (!partitions_.TryAdmit(PartitionAt(at_s), now)) {
      if (fleet_.has_value()) fleet_->GiveBack(router, now);
      return;
    }
    ++outcome_.seconds[second].admitted;
    ++outcome_.admitted_by_router[router][second];
  }

  size_t PartitionAt(double at_s) {
    const size_t moved = scenario_.hot_moves_every_s > 0
                             ? static_cast<size_t>(at_s / scenario_.hot_moves_every_s) * 7
                             : 0;
    return (zipf_.Draw(random_) + moved) % scenario_.partitions;
  }

  const Scenario& scenario_;
  Random random_;
  const Zipf zipf_;
  Partitions partitions_;
  std::optional<GacFleet> fleet_;
  Outcome outcome_;
};

// The windows' sums of f(second), smallest and largest.
template <typename F>
std::pair<double, double> Windows(size_t from, size_t to, size_t window, const F& f) {
  double least = INFINITY;
  double most = 0;
  double sum = 0;
  for (size_t s = from; s < to; ++s) {
    sum += f(s);
    if (s >= from + window) sum -= f(s - window);
    if (s + 1 < from + window) continue;
    least = std::min(least, sum);
    most = std::max(most, sum);
  }
  const auto seconds = static_cast<double>(window);
  return {least / seconds, most / seconds};
}

}  // namespace

const char* PolicyName(Policy policy) {
  switch (policy) {
    case Policy::kStatic:
      return "static partition limits";
    case Policy::kBurst:
      return "bursting";
    case Policy::kAdaptive:
      return "adaptive capacity";
    case Policy::kGac:
      return "global admission control";
  }
  return "unknown";
}

double Outcome::ThrottledShare(size_t from) const {
  double offered = 0;
  double throttled = 0;
  for (size_t s = from; s < seconds.size(); ++s) {
    offered += seconds[s].offered;
    throttled += seconds[s].throttled();
  }
  return offered == 0 ? 0 : throttled / offered;
}

double Outcome::MostAdmitted(size_t from, size_t to, size_t window) const {
  return Windows(from, to, window, [&](size_t s) { return seconds[s].admitted; }).second;
}

double Outcome::LeastAdmitted(size_t from, size_t to, size_t window) const {
  return Windows(from, to, window, [&](size_t s) { return seconds[s].admitted; }).first;
}

double Outcome::LeastOfARouter(size_t from, size_t to, size_t window) const {
  double least = INFINITY;
  for (const std::vector<uint32_t>& admitted : admitted_by_router) {
    least = std::min(least, Windows(from, to, window, [&](size_t s) { return admitted[s]; }).first);
  }
  return least;
}

Outcome Simulate(const Scenario& scenario) { return Simulation(scenario).Run(); }

std::function<double(double second)> DayWithFlash(double seconds, double peak, double flash) {
  return [=](double at) {
    const double day = at / seconds;
    if (day >= 0.7 && day < 0.75) return flash;
    return peak * (2 - std::cos(2 * std::numbers::pi * day)) / 3;
  };
}

}  // namespace dynlib::examples
