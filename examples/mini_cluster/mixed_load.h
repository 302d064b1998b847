// A load that goes on while things fail, and that can be checked afterwards: strong reads whose
// answers are known, overwrites of items by themselves, registers, and counters that many increment
// by compare-and-set. It goes through several routers, each with workers of its own.
//
//   MixedLoad load({&client, &other}, table, sample, {.workers = 8, .seed = 1});
//   load.Start();
//   ... power off a node ...
//   MixedLoad::Report report = load.Stop();
//
// Counters: each increment reads the value and puts the next one under the condition that the value
// is still the same. One that was not acknowledged may have been applied or not; so the value is
// known to within the number of those. Registers: one worker writes 1, 2, 3 ... into each, without
// a condition.
//
// What is throttled is begun again when the status says. Workers rest a little after each request,
// so that the machine has time for other things too.
//
// Threads: one that may block, beside the clients'.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_MIXED_LOAD_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_MIXED_LOAD_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/cluster/catalogue.h"
#include "dynlib/cluster/item.h"
#include "examples/mini_cluster/client.h"
#include "examples/mini_cluster/journal.h"
#include "examples/mini_cluster/latencies.h"

namespace dynlib::mini_cluster {

// What a counter or register must be.
struct CounterRange {
  uint64_t low = 0;   // acknowledged
  uint64_t high = 0;  // if all that is unknown was applied
};

// An item of the data set that the load reads and overwrites.
struct SampleItem {
  uint64_t row = 0;
  cluster::Item item;
};

class MixedLoad {
 public:
  struct Options {
    size_t workers = 8;  // of each client
    Duration rest = std::chrono::milliseconds(2);
    uint64_t seed = 1;
    Journal* journal = nullptr;  // of acknowledged writes; null: none
    uint64_t generation = 0;     // of the sample, for the journal
  };
  struct Report {
    uint64_t writes = 0;   // acknowledged
    uint64_t reads = 0;    // answered
    uint64_t unknown = 0;  // writes that timed out
    uint64_t throttled = 0;
    // Reads that were not answered, or whose answer was wrong: none in a cluster that is in order.
    std::vector<std::string> failures;
    std::map<std::string, CounterRange> counters;
    // Values that increments of a counter were acknowledged to reach.
    std::map<std::string, std::set<uint64_t>> reached;
    Latencies write_latencies;
    Latencies read_latencies;
  };

  // `sample`, of at least one item, is of `table`, whose partitions serve to name what fails.
  MixedLoad(const std::vector<Client*>& clients, const cluster::TableInfo& table,
            const std::vector<SampleItem>& sample, const Options& options);
  ~MixedLoad();

  // The storage key of an item that it reads and writes.
  const std::string& BusyKey() const { return busy_key_; }

  void Start();
  // From now on gaps count.
  void MarkFailure();
  // Whether the partition has acknowledged a write to each router that was begun after MarkFailure.
  bool WritesAgain(PartitionId partition);
  // The longest time since MarkFailure between acknowledged writes of the partition, as the router
  // saw it that saw the longest. Gaps do not count from then on.
  Duration LongestGap(PartitionId partition);
  // What was wrong so far.
  std::vector<std::string> Failures();
  // Waits for what is under way.
  Report Stop();

 private:
  class Impl;
  struct Part {
    Client* client;
    std::shared_ptr<Impl> impl;
  };
  std::string busy_key_;
  std::vector<Part> parts_;
};

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_MIXED_LOAD_H_
