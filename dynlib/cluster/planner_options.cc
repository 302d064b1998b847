#include "dynlib/cluster/planner_options.h"

#include <string_view>

#include "dynlib/base/strings.h"

namespace dynlib::cluster {

absl::Status Validate(const PlannerOptions& options) {
  auto bad = [](std::string_view name, uint64_t value, std::string_view allowed) {
    return absl::InvalidArgumentError(Cat("planner.", name, " is ", value, "; allowed: ", allowed));
  };
  if (options.split_bytes < (64 << 10))
    return bad("split_bytes", options.split_bytes, "at least 65,536");
  if (options.merge_bytes > options.split_bytes / 4)
    return bad("merge_bytes", options.merge_bytes, "up to a quarter of split_bytes");
  if (options.moves_max < 1 || options.moves_max > 10'000)
    return bad("moves_max", options.moves_max, "1 to 10,000");
  if (options.log_moves_max < 1 || options.log_moves_max > 10'000)
    return bad("log_moves_max", options.log_moves_max, "1 to 10,000");
  return absl::OkStatus();
}

}  // namespace dynlib::cluster
