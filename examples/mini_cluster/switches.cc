#include "examples/mini_cluster/switches.h"

#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::mini_cluster {
namespace {

using Named = std::vector<std::pair<std::string_view, bool*>>;

absl::Status SetNamed(const char* option, std::string_view list, const Named& known, bool value) {
  while (!list.empty()) {
    const size_t comma = list.find(',');
    const std::string_view name = list.substr(0, comma);
    list = comma == std::string_view::npos ? std::string_view() : list.substr(comma + 1);
    bool found = false;
    for (const auto& [known_name, place] : known) {
      if (known_name != name) continue;
      *place = value;
      found = true;
    }
    if (found) continue;
    std::string allowed;
    for (const auto& [known_name, place] : known)
      allowed += Cat(allowed.empty() ? "" : ", ", known_name);
    return absl::InvalidArgumentError(
        Cat(option, " names '", Escape(std::string(name), 64), "'; allowed: ", allowed));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Switches> ParseWithout(const std::string& list) {
  Switches switches;
  DYNLIB_RETURN_IF_ERROR(SetNamed("--without", list,
                                  {{"cache", &switches.cache},
                                   {"admission", &switches.admission},
                                   {"log-replicas", &switches.log_replicas},
                                   {"scrub", &switches.scrub},
                                   {"split", &switches.split}},
                                  false));
  return switches;
}

absl::StatusOr<Stages> ParseStages(const std::string& list) {
  Stages stages{
      .routing = false, .admission = false, .power = false, .healing = false, .scrub = false};
  DYNLIB_RETURN_IF_ERROR(SetNamed("--stages", list,
                                  {{"routing", &stages.routing},
                                   {"admission", &stages.admission},
                                   {"power", &stages.power},
                                   {"healing", &stages.healing},
                                   {"scrub", &stages.scrub}},
                                  true));
  return stages;
}

}  // namespace dynlib::mini_cluster
