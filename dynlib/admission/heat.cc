#include "dynlib/admission/heat.h"

#include <algorithm>
#include <iterator>

#include "dynlib/base/strings.h"

namespace dynlib::admission {
namespace {

// A range gets a boundary within it when it has this many times an even share of the load.
constexpr double kHeavyFactor = 1.5;
// From this share on one key is what makes the load uneven.
constexpr double kOneItemShare = 0.4;
// How often keys come in order when they come by chance: half the time. Beyond these, they do not.
constexpr double kAscendingMin = 0.9;
constexpr double kDescendingMax = 0.1;
constexpr double kDirectionWeight = 1.0 / 64;

double Seconds(Duration duration) { return static_cast<double>(duration.count()) / 1e9; }

absl::Status OutOfRange(const char* field, double value, const char* range) {
  return absl::InvalidArgumentError(Cat(field, " is ", value, "; allowed are ", range));
}

}  // namespace

absl::Status Validate(const HeatOptions& o) {
  if (o.boundaries_max < 8 || o.boundaries_max > 1024) {
    return OutOfRange("boundaries_max", static_cast<double>(o.boundaries_max), "8 to 1024");
  }
  if (o.key_bytes_max < 8 || o.key_bytes_max > 4096) {
    return OutOfRange("key_bytes_max", static_cast<double>(o.key_bytes_max), "8 to 4096");
  }
  if (o.window <= Duration(0)) return OutOfRange("window (s)", Seconds(o.window), "above 0");
  if (o.sample_every < 1 || o.sample_every > 1'000'000) {
    return OutOfRange("sample_every", o.sample_every, "1 to 1000000");
  }
  if (o.samples_min < 50 || o.samples_min > 1'000'000'000) {
    return OutOfRange("samples_min", static_cast<double>(o.samples_min), "50 to 1000000000");
  }
  if (!(o.side_share_max > 0.5 && o.side_share_max <= 0.9)) {
    return OutOfRange("side_share_max", o.side_share_max, "above 0.5, to 0.9");
  }
  if (!(o.split_above_units_per_second >= 0)) {
    return OutOfRange("split_above_units_per_second", o.split_above_units_per_second, "0 and more");
  }
  return absl::OkStatus();
}

const char* SplitVerdictName(SplitVerdict verdict) {
  switch (verdict) {
    case SplitVerdict::kSplit:
      return "split";
    case SplitVerdict::kTooFew:
      return "too few requests seen";
    case SplitVerdict::kCool:
      return "cool";
    case SplitVerdict::kOneHotItem:
      return "one hot item";
    case SplitVerdict::kSequential:
      return "sequential access";
    case SplitVerdict::kUnbalanced:
      return "no key halves the load";
  }
  return "unknown";
}

const char* MergeVerdictName(MergeVerdict verdict) {
  switch (verdict) {
    case MergeVerdict::kMerge:
      return "merge";
    case MergeVerdict::kTooYoung:
      return "too young";
    case MergeVerdict::kTooHot:
      return "too hot";
    case MergeVerdict::kTooLarge:
      return "too large";
  }
  return "unknown";
}

MergeVerdict AdviseMerge(const HeatSummary& left, const HeatSummary& right,
                         const MergeOptions& options) {
  if (std::min(left.observed, right.observed) < options.observed_min) {
    return MergeVerdict::kTooYoung;
  }
  if (!(left.units_per_second + right.units_per_second < options.units_per_second_max)) {
    return MergeVerdict::kTooHot;
  }
  if (left.bytes >= options.bytes_max || right.bytes >= options.bytes_max - left.bytes) {
    return MergeVerdict::kTooLarge;
  }
  return MergeVerdict::kMerge;
}

PartitionHeat::PartitionHeat(const HeatOptions& options, uint64_t seed)
    : options_(options), random_(seed) {
  ranges_.reserve(options.boundaries_max + 1);
  Clear();
}

void PartitionHeat::Clear() {
  ranges_.clear();
  ranges_.emplace_back();
  total_ = {};
  started_ = has_last_ = false;
  samples_last_ = samples_now_ = 0;
  previous_key_.clear();
  ascending_ = 0.5;
}

void PartitionHeat::Record(std::string_view key, int64_t units, Instant now) {
  if (skip_ > 0) {
    --skip_;
    return;
  }
  // Uniform between 0 and twice the mean, so that no rhythm of the requests hides from it.
  if (options_.sample_every > 1) skip_ = random_.Below(2 * options_.sample_every - 1);
  Advance(now);
  Sample(key, static_cast<double>(std::max<int64_t>(units, 0)) * options_.sample_every);
}

void PartitionHeat::Advance(Instant now) {
  if (!started_) {
    started_ = true;
    window_start_ = now;
    return;
  }
  if (now < window_start_ + options_.window) return;
  // After a gap of a whole window the last one was empty.
  const bool next = now < window_start_ + 2 * options_.window;
  for (Range& range : ranges_) {
    range.load = {.last = next ? range.load.now : 0};
    range.on_key = {.last = next ? range.on_key.now : 0};
  }
  total_ = {.last = next ? total_.now : 0};
  samples_last_ = next ? samples_now_ : 0;
  samples_now_ = 0;
  has_last_ = true;
  window_start_ = next ? window_start_ + options_.window : now;
}

void PartitionHeat::Sample(std::string_view key, double weight) {
  key = key.substr(0, options_.key_bytes_max);
  CountDirection(key);
  ++samples_now_;
  const size_t at = RangeOf(key);
  Range& range = ranges_[at];
  range.load.now += weight;
  total_.now += weight;
  if (range.key == key) {
    range.on_key.now += weight;
    return;
  }
  const double even = total_.both() / static_cast<double>(options_.boundaries_max);
  const bool room = ranges_.size() < options_.boundaries_max;
  // The load of its key stays with a range whatever is divided, so it does not make it heavy.
  if (!room && range.load.both() - range.on_key.both() < kHeavyFactor * even) return;
  AddBoundary(at, key);
  if (ranges_.size() > options_.boundaries_max) RemoveColdest();
}

void PartitionHeat::CountDirection(std::string_view key) {
  if (key != previous_key_) {
    const double up = key > previous_key_ ? 1 : 0;
    ascending_ += kDirectionWeight * (up - ascending_);
  }
  previous_key_.assign(key);
}

size_t PartitionHeat::RangeOf(std::string_view key) const {
  const auto after = std::upper_bound(ranges_.begin() + 1, ranges_.end(), key,
                                      [](std::string_view k, const Range& r) { return k < r.key; });
  return static_cast<size_t>(after - ranges_.begin()) - 1;
}

// How the range's load lies on the two sides of the new key is not known: half and half, until the
// windows that counted it are over.
void PartitionHeat::AddBoundary(size_t range, std::string_view key) {
  Range right{.key = std::string(key)};
  Range& left = ranges_[range];
  right.load = {.last = (left.load.last - left.on_key.last) / 2,
                .now = (left.load.now - left.on_key.now) / 2};
  left.load.last -= right.load.last;
  left.load.now -= right.load.now;
  ranges_.insert(ranges_.begin() + static_cast<std::ptrdiff_t>(range) + 1, std::move(right));
}

// The two neighbours that have the least together become one.
void PartitionHeat::RemoveColdest() {
  size_t coldest = 1;
  double least = ranges_[0].load.both() + ranges_[1].load.both();
  for (size_t i = 2; i < ranges_.size(); ++i) {
    const double both = ranges_[i - 1].load.both() + ranges_[i].load.both();
    if (both < least) {
      least = both;
      coldest = i;
    }
  }
  ranges_[coldest - 1].load.Add(ranges_[coldest].load);
  ranges_.erase(ranges_.begin() + static_cast<std::ptrdiff_t>(coldest));
}

double PartitionHeat::UnitsPerSecond(Instant now) {
  if (!started_) return 0;
  Advance(now);
  const Duration watched =
      std::max<Duration>(now - window_start_ + (has_last_ ? options_.window : Duration(0)),
                         std::chrono::milliseconds(1));
  return total_.both() / Seconds(watched);
}

std::vector<PartitionHeat::Candidate> PartitionHeat::Candidates() const {
  std::vector<Candidate> candidates;
  Load left;
  for (size_t i = 0; i < ranges_.size(); ++i) {
    const Range& range = ranges_[i];
    if (i > 0) candidates.push_back({range.key, left});
    left.Add(range.load);
  }
  return candidates;
}

double PartitionHeat::HeavierShare(const Load& left, const Load& total) {
  double heavier = 0;
  if (total.last > 0) heavier = std::max(left.last, total.last - left.last) / total.last;
  if (total.now > 0) {
    heavier = std::max(heavier, std::max(left.now, total.now - left.now) / total.now);
  }
  return heavier;
}

SplitAdvice PartitionHeat::AdviseSplit(Instant now) {
  SplitAdvice advice{.units_per_second = UnitsPerSecond(now)};
  if (samples_last_ < options_.samples_min || samples_now_ < options_.samples_min / 2) {
    return advice;
  }
  const Load& total = total_;
  double least = 1;         // of the heavier side in the worse window
  double least_summed = 1;  // of the heavier side, both windows together
  for (Candidate& candidate : Candidates()) {
    const double left = candidate.left.both() / total.both();
    least_summed = std::min(least_summed, std::max(left, 1 - left));
    const double heavier = HeavierShare(candidate.left, total);
    if (heavier >= least) continue;
    least = heavier;
    advice.at = std::move(candidate.at);
    advice.left_share = left;
  }
  for (const Range& range : ranges_) {
    const double share = range.on_key.both() / total.both();
    if (share <= advice.hottest_share) continue;
    advice.hottest_share = share;
    advice.hottest = range.key;
  }
  const bool in_order = ascending_ > kAscendingMin || ascending_ < kDescendingMax;
  if (advice.units_per_second < options_.split_above_units_per_second) {
    advice.verdict = SplitVerdict::kCool;
  } else if (least <= options_.side_share_max && !in_order) {
    advice.verdict = SplitVerdict::kSplit;
  } else if (advice.hottest_share >= kOneItemShare) {
    advice.verdict = SplitVerdict::kOneHotItem;
  } else if (in_order || least_summed <= options_.side_share_max) {
    // Each window has its load elsewhere.
    advice.verdict = SplitVerdict::kSequential;
  } else {
    advice.verdict = SplitVerdict::kUnbalanced;
  }
  return advice;
}

}  // namespace dynlib::admission
