// One partition's load on this node: what may still be admitted, what was consumed, and where in
// its keys.
//
//   std::shared_ptr<PartitionLoad> load = ...;      // of the NodeAdmissionControl
//   admission::Admission a = load->Admit(operation, units, hash, now);
//   if (!a.admitted()) ...                          // counted, and part of the heat
//   load->Settle(a, real_units, hash, now);         // or Undo(a, now): it was not carried out
//
// Internal to the cluster.
//
// Threads: any, but for Tick and Describe, which are the node's executor's.
#ifndef DYNLIB_CLUSTER_PARTITION_LOAD_H_
#define DYNLIB_CLUSTER_PARTITION_LOAD_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "dynlib/admission/heat.h"
#include "dynlib/admission/node_admission.h"
#include "dynlib/admission/partition_admission.h"
#include "dynlib/admission/request_units.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/node_admission_options.h"

namespace dynlib::cluster {

class PartitionLoad {
 public:
  // `limited` false: everything is admitted, and counted. Errors: `options`, as Validate.
  static absl::StatusOr<std::shared_ptr<PartitionLoad>> Create(
      PartitionId partition, const NodeAdmissionOptions& options, bool limited,
      std::shared_ptr<admission::NodeAdmission> node, Instant now);

  // `hash`: HashOfStorageKey of the key.
  admission::Admission Admit(admission::Operation operation, admission::RequestUnits units,
                             uint64_t hash, Instant now);
  void Settle(admission::Admission& admission, admission::RequestUnits real, uint64_t hash,
              Instant now);
  void Undo(const admission::Admission& admission, Instant now);

  // The nodes of the other members, for bursts of writes. At most PartitionAdmission::kPeersMax.
  void SetPeers(std::span<admission::PeerNode* const> peers);
  // Consumed by writes since the start.
  int64_t written_halves() const { return write_halves_.load(std::memory_order_relaxed); }

  // About every second: how much was consumed since the last time.
  void Tick(Instant now);
  // Load, throttled requests, and what the heat advises for a partition of [first, end).
  void Describe(std::string_view first, std::string_view end, Instant now, wire::ReplicaStatus& to);

 private:
  PartitionLoad(PartitionId partition, const NodeAdmissionOptions& options,
                std::unique_ptr<admission::PartitionAdmission> admission,
                std::shared_ptr<admission::NodeAdmission> node, Instant now);
  void RecordHeat(uint64_t hash, admission::RequestUnits units, Instant now);

  const Duration hot_for_;
  const std::shared_ptr<admission::NodeAdmission> node_;            // outlives admission_
  const std::unique_ptr<admission::PartitionAdmission> admission_;  // null: not limited

  std::atomic<int64_t> read_halves_{0};
  std::atomic<int64_t> write_halves_{0};
  std::atomic<uint64_t> throttled_{0};
  std::atomic<int64_t> last_throttled_ns_{INT64_MIN};

  std::mutex mutex_;
  admission::PartitionHeat heat_;  // Guarded by mutex_.

  // Of the last Tick.
  Instant ticked_;
  int64_t read_halves_then_ = 0;
  int64_t write_halves_then_ = 0;
  double reads_per_second_ = 0;  // units, smoothed over some seconds
  double writes_per_second_ = 0;
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_PARTITION_LOAD_H_
