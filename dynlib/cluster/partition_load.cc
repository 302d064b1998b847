#include "dynlib/cluster/partition_load.h"

#include <cmath>
#include <utility>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/key.h"

namespace dynlib::cluster {
namespace {

using admission::Admission;
using admission::Operation;
using admission::RequestUnits;

// Of what the last second brought, into the figure that is told.
constexpr double kNewShare = 0.4;
// A refused burst of writes may be tried again as soon as the peers have answered.
constexpr Duration kPeersRetry = std::chrono::milliseconds(100);

uint64_t Milli(double units) { return static_cast<uint64_t>(std::llround(units * 1000)); }

}  // namespace

absl::StatusOr<std::shared_ptr<PartitionLoad>> PartitionLoad::Create(
    PartitionId partition, const NodeAdmissionOptions& options, bool limited,
    std::shared_ptr<admission::NodeAdmission> node, Instant now) {
  std::unique_ptr<admission::PartitionAdmission> admission;
  if (limited) {
    DYNLIB_ASSIGN_OR_RETURN(admission, admission::PartitionAdmission::Create(
                                           {.read_units_per_second = options.partition_read_units,
                                            .write_units_per_second = options.partition_write_units,
                                            .burst_seconds = options.burst_seconds,
                                            .peers_retry = kPeersRetry},
                                           node.get(), now));
  }
  return std::shared_ptr<PartitionLoad>(
      new PartitionLoad(partition, options, std::move(admission), std::move(node), now));
}

PartitionLoad::PartitionLoad(PartitionId partition, const NodeAdmissionOptions& options,
                             std::unique_ptr<admission::PartitionAdmission> admission,
                             std::shared_ptr<admission::NodeAdmission> node, Instant now)
    : hot_for_(options.hot_for),
      node_(std::move(node)),
      admission_(std::move(admission)),
      heat_(options.heat, ToUint(partition)),
      ticked_(now) {}

Admission PartitionLoad::Admit(Operation operation, RequestUnits units, uint64_t hash,
                               Instant now) {
  if (admission_ == nullptr)
    return {.level = admission::Level::kAllocated, .operation = operation, .units = units};
  const Admission admission = operation == Operation::kRead ? admission_->AdmitRead(units, now)
                                                            : admission_->AdmitWrite(units, now);
  if (admission.admitted()) return admission;
  throttled_.fetch_add(1, std::memory_order_relaxed);
  last_throttled_ns_.store(now.nanos(), std::memory_order_relaxed);
  RecordHeat(hash, units, now);
  return admission;
}

void PartitionLoad::Settle(Admission& admission, RequestUnits real, uint64_t hash, Instant now) {
  if (admission_ != nullptr) {
    admission_->Adjust(admission, real, now);
    RecordHeat(hash, real, now);
  }
  std::atomic<int64_t>& halves =
      admission.operation == Operation::kRead ? read_halves_ : write_halves_;
  halves.fetch_add(real.halves, std::memory_order_relaxed);
}

void PartitionLoad::Undo(const Admission& admission, Instant now) {
  if (admission_ != nullptr) admission_->Undo(admission, now);
}

void PartitionLoad::SetPeers(std::span<admission::PeerNode* const> peers) {
  if (admission_ != nullptr) admission_->SetPeers(peers);
}

void PartitionLoad::RecordHeat(uint64_t hash, RequestUnits units, Instant now) {
  const std::lock_guard lock(mutex_);
  heat_.Record(HashBoundary(hash), units.halves, now);
}

void PartitionLoad::Tick(Instant now) {
  const double seconds = static_cast<double>((now - ticked_).count()) / 1e9;
  if (seconds <= 0) return;
  auto smooth = [&](int64_t halves, int64_t& then, double& per_second) {
    const double units = static_cast<double>(halves - std::exchange(then, halves)) / 2;
    per_second += kNewShare * (units / seconds - per_second);
  };
  smooth(read_halves_.load(std::memory_order_relaxed), read_halves_then_, reads_per_second_);
  smooth(write_halves_.load(std::memory_order_relaxed), write_halves_then_, writes_per_second_);
  ticked_ = now;
}

void PartitionLoad::Describe(std::string_view first, std::string_view end, Instant now,
                             wire::ReplicaStatus& to) {
  to.set_read_milliunits(Milli(reads_per_second_));
  to.set_write_milliunits(Milli(writes_per_second_));
  to.set_throttled(throttled_.load(std::memory_order_relaxed));
  const int64_t throttled_ns = last_throttled_ns_.load(std::memory_order_relaxed);
  if (throttled_ns == INT64_MIN || now - Instant::FromNanos(throttled_ns) > hot_for_) return;
  admission::SplitAdvice advice;
  {
    const std::lock_guard lock(mutex_);
    advice = heat_.AdviseSplit(now);
  }
  to.set_split_reason(Cat("throttled; ", admission::SplitVerdictName(advice.verdict)));
  if (advice.verdict != admission::SplitVerdict::kSplit) return;
  const std::string at = HashBoundary(HashOfStorageKey(advice.at));
  if (at > first && (end.empty() || at < end)) to.set_hot_split(at);
}

}  // namespace dynlib::cluster
