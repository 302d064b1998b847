// Where in a partition's keys the load is, and what to do about it: split, merge, or leave alone.
//
// PartitionHeat keeps a histogram of the load over the keys, whose boundaries are keys that were
// asked for. Where load gathers, a boundary is added at the key just asked for; where it is least,
// two ranges become one. So the boundaries follow the load, and the memory is bounded. Each
// boundary also counts the load on its very key, which finds the one hot item that no split can
// halve. Load is counted in two windows, the present one and the last; a split is advised only if
// the same key halves the load in both, so a hot spot that moves on through the keys (ascending
// keys, a scan) is not split in its wake.
//
//   PartitionHeat heat(options, seed);
//   heat.Record(key, units, now);               // each request, or each that was admitted
//   SplitAdvice advice = heat.AdviseSplit(now);
//   if (advice.verdict == SplitVerdict::kSplit) Split(partition, advice.at);
//
// Deterministic: a function of the calls and the seed. Threads: one at a time.
// Limits: `boundaries_max` keys of at most `key_bytes_max` each, about
// boundaries_max * (key_bytes_max + 72) bytes. Of a longer key the first bytes count: keys that
// share them look like one item.
#ifndef DYNLIB_ADMISSION_HEAT_H_
#define DYNLIB_ADMISSION_HEAT_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/random.h"
#include "dynlib/base/time.h"

namespace dynlib::admission {

struct HeatOptions {
  size_t boundaries_max = 28;                  // [8, 1024]
  size_t key_bytes_max = 48;                   // [8, 4096]
  Duration window = std::chrono::seconds(30);  // > 0
  uint32_t sample_every = 1;  // one request in so many is looked at, on average: [1, 1,000,000]
  // Advice needs so many looked at in the last window, half as many in this one: [50, 1e9].
  uint64_t samples_min = 500;
  // No more than this of the load may lie on one side of a split: (0.5, 0.9].
  double side_share_max = 0.6;
  // A split is advised from this load on, in units a second: >= 0.
  double split_above_units_per_second = 0;
};

// kInvalidArgument naming field, value and range.
absl::Status Validate(const HeatOptions& options);

enum class SplitVerdict : uint8_t {
  kSplit,       // at SplitAdvice::at
  kTooFew,      // not enough seen yet
  kCool,        // the load is below split_above_units_per_second
  kOneHotItem,  // half the load or more is on one key: a split moves it, it does not halve it
  kSequential,  // the load moves through the keys: one side would be idle at any time
  kUnbalanced,  // no key known that halves the load
};
const char* SplitVerdictName(SplitVerdict verdict);

struct SplitAdvice {
  SplitVerdict verdict = SplitVerdict::kTooFew;
  // kSplit: keys below it go left. Otherwise the best that was found, if any.
  std::string at;
  double left_share = 0;     // of the load, left of `at`
  double hottest_share = 0;  // of the load, on the hottest single key
  std::string hottest;       // that key (its first key_bytes_max bytes)
  double units_per_second = 0;
};

// What one partition tells of itself to whoever decides about merging.
struct HeatSummary {
  double units_per_second = 0;
  uint64_t bytes = 0;
  Duration observed{0};  // how long it has been watched without a change of shape
};

struct MergeOptions {
  // The two together must stay below these.
  double units_per_second_max = 500;
  uint64_t bytes_max = uint64_t{5} << 30;
  // Both must have been watched for so long, lest a merge follows a split.
  Duration observed_min = std::chrono::minutes(10);
};

enum class MergeVerdict : uint8_t { kMerge, kTooYoung, kTooHot, kTooLarge };
const char* MergeVerdictName(MergeVerdict verdict);

// For two neighbours.
MergeVerdict AdviseMerge(const HeatSummary& left, const HeatSummary& right,
                         const MergeOptions& options);

class PartitionHeat {
 public:
  // `options` as Validate demands.
  PartitionHeat(const HeatOptions& options, uint64_t seed);

  // `units`: what the request cost, >= 0; of a scan, its first key.
  void Record(std::string_view key, int64_t units, Instant now);

  SplitAdvice AdviseSplit(Instant now);
  // Over the last full window and the present one.
  double UnitsPerSecond(Instant now);
  // Forgets everything: the partition's range changed.
  void Clear();

 private:
  // The load of the last window and of this one.
  struct Load {
    double last = 0;
    double now = 0;
    double both() const { return last + now; }
    void Add(const Load& other) {
      last += other.last;
      now += other.now;
    }
  };
  // The range [key, the next one's key); the first one's key is empty.
  struct Range {
    std::string key;
    Load load;
    Load on_key;  // of it, on this very key
  };
  struct Candidate {
    std::string at;
    Load left;
  };

  void Advance(Instant now);
  void Sample(std::string_view key, double weight);
  void CountDirection(std::string_view key);
  void AddBoundary(size_t range, std::string_view key);
  void RemoveColdest();
  size_t RangeOf(std::string_view key) const;
  std::vector<Candidate> Candidates() const;
  // How much of a window's load lies on the heavier side; the worse of the two windows.
  static double HeavierShare(const Load& left, const Load& total);

  const HeatOptions options_;
  Random random_;
  uint64_t skip_ = 0;  // requests until the next one looked at
  std::vector<Range> ranges_;
  Load total_;  // of all ranges
  Instant window_start_;
  bool started_ = false;
  bool has_last_ = false;  // the last window was a full one
  uint64_t samples_last_ = 0;
  uint64_t samples_now_ = 0;
  std::string previous_key_;
  double ascending_ = 0.5;  // how often a key followed the one before it, of late
};

}  // namespace dynlib::admission

#endif  // DYNLIB_ADMISSION_HEAT_H_
