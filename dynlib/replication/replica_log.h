// The durable log that the groups of a node write to: all of them one log, so that their commits
// share syncs.
#ifndef DYNLIB_REPLICATION_REPLICA_LOG_H_
#define DYNLIB_REPLICATION_REPLICA_LOG_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/replication/types.h"

namespace dynlib::replication {

// A frame to make durable. PartitionId{0} is the node's own stream (its boot count and longest
// grant).
struct LogFrame {
  PartitionId group{};
  bool is_state =
      false;  // The newest state of a stream replaces the older ones; an entry stands at its slot.
  Slot slot = 0;  // Repeated in the log's listing of a batch, as is the ballot, so that both
                  // survive damage to
  Ballot ballot;  // the payload (rule R4). Of a state: what must be assumed if the payload is lost.
  std::string header;  // Written before the payload.
  Payload payload;     // May be null.
};

// What a stream held when the log was opened.
struct RecoveredStream {
  std::optional<std::string> state;
  std::vector<Entry>
      entries;  // In slot order, the highest ballot of each; payload = header + payload as written.
  struct Unknown {
    bool is_state = false;
    Slot slot = 0;
    Ballot ballot;
  };
  std::vector<Unknown> unknown;
  bool lost = false;  // Frames are missing and nothing tells which: the replica's ballots may be
                      // among them (R3).
};

class ReplicaLog {
 public:
  virtual ~ReplicaLog() = default;

  // What one Append may hold: the sum of header, payload and kFrameOverheadBytes over its frames.
  static constexpr size_t kFrameOverheadBytes = 128;
  virtual size_t append_bytes_max() const = 0;

  // `done` is called on the host's executor, in the order of the calls: OK when all frames are
  // durable; kResourceExhausted when nothing was written and a later try may succeed; any other
  // error is for good.
  virtual void Append(std::vector<LogFrame> frames,
                      absl::AnyInvocable<void(absl::Status)> done) = 0;
  // Entries of the group up to `through` are not needed again.
  virtual void Release(PartitionId group, Slot through) = 0;
  // Since when the oldest frame that is not yet durable waits; empty if none does.
  virtual std::optional<Instant> OldestPendingSince() const = 0;
};

}  // namespace dynlib::replication

#endif  // DYNLIB_REPLICATION_REPLICA_LOG_H_
