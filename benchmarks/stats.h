// The few statistics that the benchmarks print.
#ifndef DYNLIB_BENCHMARKS_STATS_H_
#define DYNLIB_BENCHMARKS_STATS_H_

#include <cstdint>
#include <vector>

namespace dynlib::bench {

// The middle value, or the mean of the two middle ones. `values` must not be empty.
double Median(std::vector<double> values);

struct Interval {
  double low = 0;
  double high = 0;
};

// An interval that covers the median of the distribution that `values` were drawn from with a
// probability of at least 95 %, whatever that distribution is: two order statistics, by the
// binomial distribution. Fewer than six values cannot give 95 %; then it is the lowest and the
// highest. `values` must not be empty.
Interval MedianInterval(std::vector<double> values);

// The smallest value that at least `share` (0 to 1) of the values do not exceed; 0 when there are
// none. Reorders `values`.
uint64_t Quantile(std::vector<uint64_t>& values, double share);

}  // namespace dynlib::bench

#endif  // DYNLIB_BENCHMARKS_STATS_H_
