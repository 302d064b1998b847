#include "dynlib/admission/partition_admission.h"

#include <algorithm>
#include <cmath>
#include <mutex>

#include "dynlib/base/check.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::admission {
namespace {

constexpr double kUnitsPerSecondMax = 400e6;

TokenBucket::Fill FillOf(bool full) {
  return full ? TokenBucket::Fill::kFull : TokenBucket::Fill::kEmpty;
}

// Written so that NaN is out of range.
absl::Status CheckRange(const char* field, double value, double low, double high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(Cat(field, " is ", value, "; allowed are ", low, " to ", high));
}

absl::Status Validate(const PartitionAdmission::Options& options) {
  DYNLIB_RETURN_IF_ERROR(CheckRange("allocated_seconds", options.allocated_seconds, 0.01, 60));
  DYNLIB_RETURN_IF_ERROR(CheckRange("burst_seconds", options.burst_seconds, 1, 3600));
  DYNLIB_RETURN_IF_ERROR(
      CheckRange("request_units_max", static_cast<double>(options.request_units_max), 1, 1e6));
  if (options.peers_retry <= Duration(0)) {
    return absl::InvalidArgumentError(
        Cat("peers_retry is ", options.peers_retry.count(), " ns; it must be above 0"));
  }
  return absl::OkStatus();
}

int64_t HalvesIn(double halves_per_second, double seconds) {
  return static_cast<int64_t>(std::ceil(halves_per_second * seconds));
}

}  // namespace

const char* ReasonName(Reason reason) {
  switch (reason) {
    case Reason::kNone:
      return "none";
    case Reason::kPartition:
      return "partition";
    case Reason::kNode:
      return "node";
    case Reason::kPeers:
      return "peers";
    case Reason::kTooLarge:
      return "too large";
  }
  return "unknown";
}

PartitionAdmission::Buckets::Buckets(const Rates& rates, bool burst_starts_full, Instant now)
    : allocated(rates.allocated, TokenBucket::Fill::kFull, now),
      burst(rates.burst, FillOf(burst_starts_full), now) {}

absl::StatusOr<PartitionAdmission::Rates> PartitionAdmission::MakeRates(const Options& options,
                                                                        double units_per_second,
                                                                        const char* field) {
  DYNLIB_RETURN_IF_ERROR(
      CheckRange(field, units_per_second, BucketRate::kUnitsPerSecondMin, kUnitsPerSecondMax));
  const double halves = 2 * units_per_second;
  const int64_t saved = std::max(HalvesIn(halves, options.burst_seconds),
                                 RequestUnits::Whole(options.request_units_max).halves);
  return Rates{BucketRate::Clamped(halves, HalvesIn(halves, options.allocated_seconds)),
               BucketRate::Clamped(halves, saved)};
}

absl::StatusOr<std::unique_ptr<PartitionAdmission>> PartitionAdmission::Create(
    const Options& options, NodeAdmission* node, Instant now) {
  DYNLIB_RETURN_IF_ERROR(Validate(options));
  DYNLIB_ASSIGN_OR_RETURN(
      const Rates read, MakeRates(options, options.read_units_per_second, "read_units_per_second"));
  DYNLIB_ASSIGN_OR_RETURN(const Rates write, MakeRates(options, options.write_units_per_second,
                                                       "write_units_per_second"));
  return std::unique_ptr<PartitionAdmission>(
      new PartitionAdmission(options, node, read, write, now));
}

PartitionAdmission::PartitionAdmission(const Options& options, NodeAdmission* node,
                                       const Rates& read, const Rates& write, Instant now)
    : options_(options),
      node_(node),
      read_(read, options.burst_starts_full, now),
      write_(write, options.burst_starts_full, now) {}

Admission PartitionAdmission::AdmitOnBurst(Operation operation, RequestUnits units, Instant now) {
  Buckets& buckets = this->buckets(operation);
  TokenBucket& node = node_->bucket(operation);
  // Looked at first, so that a busy node is left alone; taken below.
  if (!node.Has(units.halves, now)) {
    const bool saved = buckets.burst.Has(units.halves, now);
    return Refuse(saved ? Reason::kNode : Reason::kPartition, operation, units, now);
  }
  if (!buckets.burst.TryTake(units.halves, now)) {
    return Refuse(Reason::kPartition, operation, units, now);
  }
  if (!node.TryTake(units.halves, now)) {
    buckets.burst.GiveBack(units.halves, now);
    return Refuse(Reason::kNode, operation, units, now);
  }
  if (operation == Operation::kWrite && !TakeFromPeers(units, now)) {
    node.GiveBack(units.halves, now);
    buckets.burst.GiveBack(units.halves, now);
    return Refuse(Reason::kPeers, operation, units, now);
  }
  return {.level = Level::kBurst, .operation = operation, .units = units};
}

inline Admission PartitionAdmission::Admit(Operation operation, RequestUnits units, Instant now) {
  Buckets& buckets = this->buckets(operation);
  if (!buckets.allocated.TryTake(units.halves, now)) return AdmitOnBurst(operation, units, now);
  buckets.burst.TakeAnyway(units.halves, now);
  node_->bucket(operation).TakeAnyway(units.halves, now);
  return {.level = Level::kAllocated, .operation = operation, .units = units};
}

Admission PartitionAdmission::AdmitRead(RequestUnits units, Instant now) {
  return Admit(Operation::kRead, units, now);
}

Admission PartitionAdmission::AdmitWrite(RequestUnits units, Instant now) {
  return Admit(Operation::kWrite, units, now);
}

// The soonest of the ways in: the allocated bucket refills, or what refused recovers.
Admission PartitionAdmission::Refuse(Reason reason, Operation operation, RequestUnits units,
                                     Instant now) {
  Buckets& buckets = this->buckets(operation);
  const Duration never = Duration::max();
  const Duration allocated = buckets.allocated.RetryAfter(units.halves, now).value_or(never);
  const Duration burst = buckets.burst.RetryAfter(units.halves, now).value_or(never);
  Duration other(0);
  if (reason == Reason::kNode) {
    other = node_->bucket(operation).RetryAfter(units.halves, now).value_or(never);
  } else if (reason == Reason::kPeers) {
    other = options_.peers_retry;
  }
  const Duration wait = std::min(allocated, std::max(burst, other));
  return {.reason = wait == never ? Reason::kTooLarge : reason,
          .operation = operation,
          .units = units,
          .retry_after = wait};
}

bool PartitionAdmission::TakeFromPeers(RequestUnits units, Instant now) {
  for (size_t i = 0; i < kPeersMax; ++i) {
    PeerNode* const peer = peers_[i].load(std::memory_order_acquire);
    if (peer == nullptr || peer->TryTake(units, now, node_->peer_age_max())) continue;
    GiveBackToPeers(units, i);
    return false;
  }
  return true;
}

// To the first `count`. If the peers were replaced since they were taken from, the new ones get
// what they did not give, but never more than they reported.
void PartitionAdmission::GiveBackToPeers(RequestUnits units, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    if (PeerNode* const peer = peers_[i].load(std::memory_order_acquire)) peer->GiveBack(units);
  }
}

void PartitionAdmission::Undo(const Admission& admission, Instant now) {
  if (!admission.admitted()) return;
  const int64_t halves = admission.units.halves;
  Buckets& buckets = this->buckets(admission.operation);
  if (admission.level == Level::kAllocated) buckets.allocated.GiveBack(halves, now);
  buckets.burst.GiveBack(halves, now);
  node_->bucket(admission.operation).GiveBack(halves, now);
  if (admission.level == Level::kBurst && admission.operation == Operation::kWrite) {
    GiveBackToPeers(admission.units, kPeersMax);
  }
}

void PartitionAdmission::Adjust(Admission& admission, RequestUnits real, Instant now) {
  if (!admission.admitted() || real == admission.units) return;
  if (real < admission.units) {
    Admission unused = admission;
    unused.units = admission.units - real;
    Undo(unused, now);
  } else {
    const int64_t more = (real - admission.units).halves;
    Buckets& buckets = this->buckets(admission.operation);
    if (admission.level == Level::kAllocated) buckets.allocated.TakeAnyway(more, now);
    buckets.burst.TakeAnyway(more, now);
    node_->bucket(admission.operation).TakeAnyway(more, now);
  }
  admission.units = real;
}

absl::Status PartitionAdmission::SetCapacity(double read_units_per_second,
                                             double write_units_per_second, Instant now) {
  DYNLIB_ASSIGN_OR_RETURN(const Rates read,
                          MakeRates(options_, read_units_per_second, "read_units_per_second"));
  DYNLIB_ASSIGN_OR_RETURN(const Rates write,
                          MakeRates(options_, write_units_per_second, "write_units_per_second"));
  read_.allocated.SetRate(read.allocated, now);
  read_.burst.SetRate(read.burst, now);
  write_.allocated.SetRate(write.allocated, now);
  write_.burst.SetRate(write.burst, now);
  return absl::OkStatus();
}

void PartitionAdmission::SetPeers(std::span<PeerNode* const> peers) {
  DYNLIB_CHECK(peers.size() <= kPeersMax);
  for (size_t i = 0; i < kPeersMax; ++i) {
    peers_[i].store(i < peers.size() ? peers[i] : nullptr, std::memory_order_release);
  }
}

RequestUnits PartitionAdmission::Remaining(Operation operation, Level level, Instant now) const {
  if (level == Level::kNone) return {};
  const Buckets& buckets = operation == Operation::kRead ? read_ : write_;
  const TokenBucket& bucket = level == Level::kAllocated ? buckets.allocated : buckets.burst;
  return {std::max<int64_t>(0, bucket.Remaining(now))};
}

}  // namespace dynlib::admission
