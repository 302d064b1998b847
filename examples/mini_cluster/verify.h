// Compares what a cluster holds with what it should hold, replica by replica.
//
// Every item is read strongly through a router; then every replica's copy of every partition is
// read whole, so that a replica that has lost something is found even when the leader has it.
// Nothing but the expected items may be there.
//
// Threads: one that may block.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_VERIFY_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_VERIFY_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "dynlib/base/time.h"
#include "dynlib/cluster/catalogue.h"
#include "examples/mini_cluster/client.h"
#include "examples/mini_cluster/data_set.h"
#include "examples/mini_cluster/latencies.h"
#include "examples/mini_cluster/mixed_load.h"

namespace dynlib::mini_cluster {

struct VerifyOptions {
  size_t in_flight = 256;
  // Rows that must be there, with the least generation that each must be of; nothing: all, and of
  // no generation. What else is there must still be whole.
  std::optional<std::map<uint64_t, uint64_t>> rows;
  std::map<std::string, CounterRange> counters;
  // Called now and then with how many items were read strongly so far.
  absl::AnyInvocable<void(uint64_t)> progress;
};

struct VerifyResult {
  uint64_t expected = 0;    // that must be there
  uint64_t verified = 0;    // of those, found equal by the strong read and in every replica
  uint64_t lost = 0;        // not found by one of them, or of an older generation
  uint64_t different = 0;   // found with other contents somewhere, or not the same everywhere
  uint64_t unexpected = 0;  // copies of items that nobody wrote
  uint64_t damaged = 0;     // replicas of partitions that cannot be read whole
  uint64_t present = 0;     // items found by the strong reads, expected or not
  uint64_t counters = 0;    // that are what they must be
  uint64_t counters_wrong = 0;
  size_t replicas = 0;                // copies of partitions read
  std::vector<std::string> examples;  // of what is wrong
  Duration took{};
  Latencies read_latencies;

  bool ok() const {
    return lost == 0 && different == 0 && unexpected == 0 && damaged == 0 && counters_wrong == 0 &&
           verified == expected;
  }
};

// By the partitions and replicas that the catalogue has at the time. An error: it could not be
// found out.
absl::StatusOr<VerifyResult> Verify(Client& client, const DataSet& data, VerifyOptions options);

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_VERIFY_H_
