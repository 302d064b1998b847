#include "benchmarks/stats.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace dynlib::bench {

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  if (values.size() % 2 == 1) return values[middle];
  return (values[middle - 1] + values[middle]) / 2;
}

Interval MedianInterval(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  // How many values lie below the median is binomial with probability 1/2. Dropping the `cut`
  // lowest and highest leaves out the median with probability 2 * P(count < cut + 1).
  double probability = std::pow(0.5, static_cast<double>(n));
  double tail = probability;
  size_t cut = 0;
  while (true) {
    probability *= static_cast<double>(n - cut) / static_cast<double>(cut + 1);
    tail += probability;
    if (2 * tail > 0.05) break;
    ++cut;
  }
  return {values[cut], values[n - 1 - cut]};
}

uint64_t Quantile(std::vector<uint64_t>& values, double share) {
  if (values.empty()) return 0;
  const double rank = std::ceil(share * static_cast<double>(values.size()));
  const size_t index = rank < 1 ? 0 : std::min(static_cast<size_t>(rank), values.size()) - 1;
  std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(index), values.end());
  return values[index];
}

}  // namespace dynlib::bench
