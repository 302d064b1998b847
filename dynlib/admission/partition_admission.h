// May a partition serve this request now? Three levels in one call (USENIX ATC '22, "DynamoDB",
// section 4.1): the partition's allocated bucket; else its burst bucket, which holds up to 300
// seconds of capacity that it did not use, together with the node's bucket; and for a write on
// burst also the nodes of the other replicas. Reads and writes have separate buckets.
//
//   Admission a = partition->AdmitRead(ReadUnits(4096, Consistency::kStrong), now);
//   if (!a.admitted()) return Throttled(a.reason, a.retry_after);
//   ... read; it was 40 KB:
//   partition->Adjust(a, ReadUnits(40'960, Consistency::kStrong), now);
//
// Over any time t a partition is admitted at most capacity * (t + allocated_seconds) + the burst
// bucket, plus what Adjust adds for work that turned out larger than asked. A request that is not
// admitted leaves no trace: what an earlier level took is put back.
//
// Threads: any, all but SetCapacity without a lock. Ownership: the NodeAdmission outlives this.
// Units: capacity in request units a second, as RCU and WCU.
#ifndef DYNLIB_ADMISSION_PARTITION_ADMISSION_H_
#define DYNLIB_ADMISSION_PARTITION_ADMISSION_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/admission/node_admission.h"
#include "dynlib/admission/request_units.h"
#include "dynlib/admission/token_bucket.h"
#include "dynlib/base/time.h"

namespace dynlib::admission {

enum class Level : uint8_t {
  kNone,       // not admitted
  kAllocated,  // from what the partition is promised
  kBurst,      // from what it saved up
};

// Which level refused.
enum class Reason : uint8_t {
  kNone,       // admitted
  kPartition,  // neither allocated nor saved capacity is left
  kNode,       // the partition saved enough, but the node is busy
  kPeers,      // another replica's node is busy, or was not heard of lately
  kTooLarge,   // larger than the burst bucket: never
};
const char* ReasonName(Reason reason);

// The answer to one request; keep it to adjust or undo.
struct Admission {
  Level level = Level::kNone;
  Reason reason = Reason::kNone;
  Operation operation = Operation::kRead;
  RequestUnits units;
  // Not admitted: when it is worth trying again; Duration::max() for kTooLarge.
  Duration retry_after{0};

  bool admitted() const { return level != Level::kNone; }
};

class PartitionAdmission {
 public:
  struct Options {
    // [0.0001, 400,000,000].
    double read_units_per_second = 3000;
    double write_units_per_second = 1000;
    // What the allocated bucket holds, so that requests need not come evenly: [0.01, 60] seconds.
    double allocated_seconds = 1;
    // How much unused capacity is saved: [1, 3600] seconds.
    double burst_seconds = 300;
    // The burst buckets hold at least one request of this size: [1, 1,000,000].
    int64_t request_units_max = 800;
    // A new partition (or one that a restarted node opens) saved nothing yet, unless told.
    bool burst_starts_full = false;
    // retry_after of Reason::kPeers: about how often the peers are collected, > 0.
    Duration peers_retry = std::chrono::seconds(1);
  };
  static constexpr size_t kPeersMax = 8;

  // kInvalidArgument naming field, value and range.
  static absl::StatusOr<std::unique_ptr<PartitionAdmission>> Create(const Options& options,
                                                                    NodeAdmission* node,
                                                                    Instant now);

  Admission AdmitRead(RequestUnits units, Instant now);
  Admission AdmitWrite(RequestUnits units, Instant now);

  // Puts everything back: the request was not carried out.
  void Undo(const Admission& admission, Instant now);

  // The request cost `real` instead of admission.units: takes the difference, into debt if need be,
  // or puts it back.
  void Adjust(Admission& admission, RequestUnits real, Instant now);

  // New capacity, at once. What was saved is kept, up to the new bounds. kInvalidArgument as
  // Create; nothing is changed then.
  absl::Status SetCapacity(double read_units_per_second, double write_units_per_second,
                           Instant now);

  // The nodes of the other replicas (storage and log), from NodeAdmission::Peer. At most kPeersMax;
  // none: writes burst without asking (a group of one, or a follower, which admits no writes).
  void SetPeers(std::span<PeerNode* const> peers);

  // What could be admitted at once, for status pages.
  RequestUnits Remaining(Operation operation, Level level, Instant now) const;

 private:
  struct Rates {
    BucketRate allocated;
    BucketRate burst;
  };
  struct Buckets {
    Buckets(const Rates& rates, bool burst_starts_full, Instant now);
    // Both fill at the partition's rate, and every request is taken from `burst`, so that only what
    // the allocated requests leave is saved. `burst` may go into debt by what `allocated` holds.
    TokenBucket allocated;
    TokenBucket burst;
  };

  static absl::StatusOr<Rates> MakeRates(const Options& options, double units_per_second,
                                         const char* field);
  PartitionAdmission(const Options& options, NodeAdmission* node, const Rates& read,
                     const Rates& write, Instant now);
  Admission Admit(Operation operation, RequestUnits units, Instant now);
  Admission AdmitOnBurst(Operation operation, RequestUnits units, Instant now);
  Admission Refuse(Reason reason, Operation operation, RequestUnits units, Instant now);
  bool TakeFromPeers(RequestUnits units, Instant now);
  void GiveBackToPeers(RequestUnits units, size_t count);
  Buckets& buckets(Operation operation) { return operation == Operation::kRead ? read_ : write_; }

  const Options options_;
  NodeAdmission* const node_;
  Buckets read_;
  Buckets write_;
  std::array<std::atomic<PeerNode*>, kPeersMax> peers_{};
};

}  // namespace dynlib::admission

#endif  // DYNLIB_ADMISSION_PARTITION_ADMISSION_H_
