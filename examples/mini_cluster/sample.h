// Which items of a data set the mixed load works on, and which keys it leaves alone.
//
// Threads: pure functions.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_SAMPLE_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_SAMPLE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "examples/mini_cluster/data_set.h"
#include "examples/mini_cluster/mixed_load.h"

namespace dynlib::mini_cluster {

struct Sample {
  std::vector<SampleItem> items;  // spread over the whole data set; none if that has none
  // Storage keys in [quiet_first, quiet_end) are of no item of the sample: about a fiftieth of the
  // data set, so that some pages of a tree are not written to.
  std::string quiet_first;
  std::string quiet_end;
};
absl::StatusOr<Sample> TakeSample(const DataSet& data);

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_SAMPLE_H_
