// What becomes of a table's traffic under the ways in which DynamoDB has shared out capacity, one
// after the other: routers send requests to partitions, some of which are far more popular than
// others, and each policy admits or refuses each of them.
//
//   Outcome o = Simulate({.policy = Policy::kGac, .offered = [](double t) { return 800.0; }});
//   o.seconds[17].admitted ...
//
// In simulated time, deterministic, with dynlib's own parts: PartitionAdmission, AdaptiveCapacity,
// GacClient and GacServer.
#ifndef DYNLIB_EXAMPLES_CAPACITY_CAPACITY_SIM_H_
#define DYNLIB_EXAMPLES_CAPACITY_CAPACITY_SIM_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace dynlib::examples {

enum class Policy {
  kStatic,    // the limit divided evenly among the partitions
  kBurst,     // the same, and up to 300 seconds of what a partition did not use
  kAdaptive,  // the same, and partitions that were throttled get a boost, every 10 seconds
  kGac,       // the table's limit enforced at the routers; a partition only by what it can do
};
const char* PolicyName(Policy policy);

struct Scenario {
  Policy policy = Policy::kGac;
  size_t routers = 40;
  size_t partitions = 24;
  double skew = 0.99;                        // of the zipf distribution of requests over partitions
  double table_units_per_second = 6000;      // the limit
  double partition_units_per_second = 3000;  // what one partition can do
  double seconds = 60;
  // Requests of a unit a second, over all routers, at a time; Poisson arrivals.
  std::function<double(double second)> offered;
  double hot_moves_every_s = 0;    // another partition is the hottest from then on; 0: never
  double restart_server_at_s = 0;  // the GAC server of the table loses its memory; 0: never
  double leave_ring_at_s = 0;      // it leaves the ring for good; 0: never
  uint64_t seed = 1;
};

struct Second {
  double offered = 0;
  double admitted = 0;
  double throttled() const { return offered - admitted; }
};

struct Outcome {
  std::vector<Second> seconds;
  std::vector<std::vector<uint32_t>> admitted_by_router;  // [router][second]

  // Of the requests from `from` on.
  double ThrottledShare(size_t from) const;
  // The most (least) admitted in any `window` seconds from `from` to `to`, as a rate.
  double MostAdmitted(size_t from, size_t to, size_t window) const;
  double LeastAdmitted(size_t from, size_t to, size_t window) const;
  // The least that any router was admitted in any such window, as a rate.
  double LeastOfARouter(size_t from, size_t to, size_t window) const;
};

Outcome Simulate(const Scenario& scenario);

// A day in so many seconds: traffic swings between a third and `peak`, and a flash crowd comes for
// a twentieth of it.
std::function<double(double second)> DayWithFlash(double seconds, double peak, double flash);

}  // namespace dynlib::examples

#endif  // DYNLIB_EXAMPLES_CAPACITY_CAPACITY_SIM_H_
