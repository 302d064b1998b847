// Blocks that can be switched off, so that what they are for shows in their absence.
//
//   DYNLIB_ASSIGN_OR_RETURN(Switches switches, ParseWithout("cache,split"));
//
// Threads: values.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_SWITCHES_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_SWITCHES_H_

#include <string>

#include "absl/status/statusor.h"

namespace dynlib::mini_cluster {

struct Switches {
  bool cache = true;         // off: routers ask for what they miss, and for nothing else
  bool admission = true;     // off: nobody is throttled
  bool log_replicas = true;  // off: a lost replica is not covered before its tree is copied
  bool scrub = true;         // off: nobody looks for damage
  bool split = true;         // off: a hot partition stays whole
};

// The stages of a run beside the load of the data set, in this order.
struct Stages {
  bool routing = true;
  bool admission = true;
  bool power = true;
  bool healing = true;
  bool scrub = true;
};

// A list of names with commas; empty: none. kInvalidArgument naming the one that is unknown, and
// those that there are.
absl::StatusOr<Switches> ParseWithout(const std::string& list);  // these are off
absl::StatusOr<Stages> ParseStages(const std::string& list);     // these are on

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_SWITCHES_H_
