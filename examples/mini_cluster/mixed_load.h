// A load that goes on while things fail, and that can be checked afterwards: strong reads whose
// answers are known, overwrites of items by themselves, registers, and counters that many increment
// by compare-and-set.
//
//   MixedLoad load(&client, table, sample, {.workers = 24, .seed = 1});
//   load.Start();
//   ... power off a node ...
//   MixedLoad::Report report = load.Stop();
//
// Counters: each increment reads the value and puts the next one under the condition that the value
// is still the same. One that was not acknowledged may have been applied or not; so the value is
// known to within the number of those. Registers: one worker writes 1, 2, 3 ... into each, without
// a condition.
//
// Threads: one that may block, beside the client's.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_MIXED_LOAD_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_MIXED_LOAD_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
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
    size_t workers = 24;
    uint64_t seed = 1;
    Journal* journal = nullptr;  // of acknowledged writes; null: none
    uint64_t generation = 0;     // of the sample, for the journal
  };
  struct Report {
    uint64_t writes = 0;   // acknowledged
    uint64_t reads = 0;    // answered
    uint64_t unknown = 0;  // writes that timed out
    // Reads that were not answered, or whose answer was wrong: none in a cluster that is in order.
    std::vector<std::string> failures;
    std::map<std::string, CounterRange> counters;
    Latencies write_latencies;
    Latencies read_latencies;
    // By partition of the data set: the longest time between acknowledged writes that ended after
    // MarkFailure.
    std::map<PartitionId, Duration> longest_gap;
  };

  // `sample`, of at least one item, is of `table`.
  MixedLoad(Client* client, const cluster::TableInfo& table, std::vector<SampleItem> sample,
            const Options& options);
  ~MixedLoad();

  void Start();
  // From now on gaps count.
  void MarkFailure();
  // Whether the partition has acknowledged a write that was begun after MarkFailure.
  bool WritesAgain(PartitionId partition);
  // Waits for what is under way.
  Report Stop();

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
  Client* const client_;
};

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_MIXED_LOAD_H_
