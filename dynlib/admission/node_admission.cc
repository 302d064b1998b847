#include "dynlib/admission/node_admission.h"

#include <algorithm>
#include <cmath>

#include "absl/status/status.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::admission {
namespace {

constexpr double kUnitsPerSecondMax = 400e6;

absl::StatusOr<BucketRate> MakeRate(const char* field, double units_per_second, double seconds) {
  if (!(units_per_second >= BucketRate::kUnitsPerSecondMin &&
        units_per_second <= kUnitsPerSecondMax)) {
    return absl::InvalidArgumentError(
        Cat(field, " is ", units_per_second, "; allowed are 0.0001 to 400000000"));
  }
  const double halves = 2 * units_per_second;
  return BucketRate::Clamped(halves, static_cast<int64_t>(std::ceil(halves * seconds)));
}

}  // namespace

void PeerNode::Report(RequestUnits remaining, Instant at) {
  reported_halves_.store(remaining.halves, std::memory_order_relaxed);
  left_halves_.store(remaining.halves, std::memory_order_relaxed);
  at_ns_.store(at.nanos(), std::memory_order_release);
}

bool PeerNode::TryTake(RequestUnits units, Instant now, Duration age_max) {
  const int64_t at_ns = at_ns_.load(std::memory_order_acquire);
  if (at_ns == INT64_MIN || Instant::FromNanos(at_ns) + age_max < now) return false;
  int64_t left = left_halves_.load(std::memory_order_relaxed);
  do {
    if (left < units.halves) return false;
  } while (
      !left_halves_.compare_exchange_weak(left, left - units.halves, std::memory_order_relaxed));
  return true;
}

void PeerNode::GiveBack(RequestUnits units) {
  const int64_t reported = reported_halves_.load(std::memory_order_relaxed);
  int64_t left = left_halves_.load(std::memory_order_relaxed);
  while (!left_halves_.compare_exchange_weak(left, std::min(left + units.halves, reported),
                                             std::memory_order_relaxed)) {
  }
}

absl::StatusOr<std::unique_ptr<NodeAdmission>> NodeAdmission::Create(const Options& options,
                                                                     Instant now) {
  if (!(options.saved_seconds >= 0.01 && options.saved_seconds <= 60)) {
    return absl::InvalidArgumentError(
        Cat("saved_seconds is ", options.saved_seconds, "; allowed are 0.01 to 60"));
  }
  if (options.peer_age_max <= Duration(0)) {
    return absl::InvalidArgumentError(
        Cat("peer_age_max is ", options.peer_age_max.count(), " ns; it must be above 0"));
  }
  if (options.peers_max == 0) {
    return absl::InvalidArgumentError("peers_max is 0; it must be at least 1");
  }
  DYNLIB_ASSIGN_OR_RETURN(
      const BucketRate read,
      MakeRate("read_units_per_second", options.read_units_per_second, options.saved_seconds));
  DYNLIB_ASSIGN_OR_RETURN(
      const BucketRate write,
      MakeRate("write_units_per_second", options.write_units_per_second, options.saved_seconds));
  return std::unique_ptr<NodeAdmission>(new NodeAdmission(options, read, write, now));
}

NodeAdmission::NodeAdmission(const Options& options, const BucketRate& read,
                             const BucketRate& write, Instant now)
    : read_(read, TokenBucket::Fill::kFull, now),
      write_(write, TokenBucket::Fill::kFull, now),
      peer_age_max_(options.peer_age_max),
      peers_max_(options.peers_max) {}

RequestUnits NodeAdmission::WriteRemaining(Instant now) const {
  return {std::max<int64_t>(0, write_.Remaining(now))};
}

PeerNode* NodeAdmission::Peer(NodeId node) {
  const std::lock_guard lock(mutex_);
  const auto found = peers_.find(node);
  if (found != peers_.end()) return found->second.get();
  if (peers_.size() >= peers_max_) return nullptr;
  return peers_.emplace(node, std::make_unique<PeerNode>()).first->second.get();
}

}  // namespace dynlib::admission
