#include "dynlib/admission/fair_share.h"

#include <algorithm>
#include <cstddef>

namespace dynlib::admission {

FairShares DivideFairly(std::vector<double>& demands, double capacity) {
  if (demands.empty()) return {.spare_each = capacity};
  std::sort(demands.begin(), demands.end());
  double total = 0;
  for (const double demand : demands) total += demand;
  if (total <= capacity) {
    const double spare = capacity - total;
    const auto count = static_cast<double>(demands.size());
    if (total <= 0) return {.spare_each = spare / count};
    return {.spare_each = spare / 2 / count, .spare_factor = spare / 2 / total};
  }
  double left = capacity;
  for (size_t i = 0; i < demands.size(); ++i) {
    const double level = left / static_cast<double>(demands.size() - i);
    if (demands[i] >= level) return {.scarce = true, .level = level};
    left -= demands[i];
  }
  return {.scarce = true, .level = demands.back()};
}

}  // namespace dynlib::admission
