// One side of bringing two maps in step: walks down the digests that differ, fetches what the peer
// has and this one lacks, and sends what this one has and the peer lacks. A pure object: requests
// out, replies in.
//
//   SyncSession session(&map, {});
//   while (std::optional<SyncRequest> request = session.Next()) {
//     DYNLIB_RETURN_IF_ERROR(session.OnReply(Ask(peer, *request)));     // over rpc, say
//   }
//   if (session.in_step()) ...
//
// The messages are proportional to what differs (times the height of the tree), not to the map: a
// node that was away for a minute fetches a minute's changes. Two equal maps exchange one request
// and one reply without asks. An empty map lists the other in bulk.
//
// The session compares the map as it was when the session began; what comes meanwhile, at either
// side, is left to the next session; this one then ends without being in step. The answerer keeps
// no state, so a session may be given up at any time, and the next one finds what this one had not.
//
// Threads: that of the map's writer. Ownership: the map outlives the session.
#ifndef DYNLIB_PARTITION_MAP_SYNC_SESSION_H_
#define DYNLIB_PARTITION_MAP_SYNC_SESSION_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/partition_map/partition_map.h"
#include "dynlib/partition_map/perkle.h"
#include "dynlib/partition_map/sync_message.h"

namespace dynlib::partition_map {

struct SyncSessionOptions {
  // A request is at most that long. 65,536 to 16 MiB.
  size_t message_bytes_max = 256 << 10;
};

class SyncSession {
 public:
  struct Counts {
    uint64_t requests = 0;
    uint64_t received = 0;  // entries of the peer that differed from ours
    uint64_t applied = 0;   // of these, those that changed the map
    uint64_t refused = 0;   // of these, those that are damaged or beyond a bound of the map
    uint64_t sent = 0;      // entries of ours
  };

  // Options are checked (DYNLIB_CHECK): MemDs::StartSync hands on validated ones.
  SyncSession(PartitionMap* map, const SyncSessionOptions& options);

  // What to send next; nothing when done, or while the reply to the last one is awaited.
  std::optional<SyncRequest> Next();
  // The answer to the last request. kDataLoss when it does not fit it, kResourceExhausted when the
  // peer finds no end; the session is then done.
  absl::Status OnReply(const SyncReply& reply);

  bool done() const { return done_; }
  // Once done: whether the two maps were seen to be equal.
  bool in_step() const { return in_step_; }
  const Counts& counts() const { return counts_; }

 private:
  // Entries of ours that the peer lacks: one, or all below a path and after a key.
  struct Send {
    PerklePath path;
    bool single = false;
    std::string after;
  };

  void AddEntries(SyncRequest& request);
  void Queue(Send send);
  bool AddBelow(Send& send, SyncRequest& request, size_t& bytes);
  bool IsNews(std::string_view key, std::string_view value);
  bool IsDropped(const PerklePath& path) const;
  void AddAsks(SyncRequest& request);
  absl::Status OnAnswers(const std::vector<SyncAnswer>& answers);
  absl::Status OnAnswer(const SyncAsk& ask, const SyncAnswer& answer);
  absl::Status OnBranch(const SyncAsk& ask, const SyncAnswer& answer);
  absl::Status OnList(const SyncAsk& ask, const SyncAnswer& answer);
  void SendOutside(const PerklePath& asked, const SyncAnswer& answer);
  void Receive(const SyncEntry& entry);
  absl::Status Fail(std::string_view why);

  PartitionMap* const map_;
  const SyncSessionOptions options_;
  const Perkle mine_;  // at the beginning
  bool done_ = false;
  bool in_step_ = false;
  bool awaiting_ = false;
  std::vector<SyncAsk> asks_;   // the next one last
  std::vector<SyncAsk> asked_;  // in the last request, in its order
  std::vector<Send> sends_;     // the next one last; sent when all is compared
  Counts counts_;
};

// Joins an entry into a map: what both sides do with what they receive. kInvalidArgument or
// kDataLoss for entries that are none, kResourceExhausted from the map.
absl::StatusOr<UpsertOutcome> JoinEntry(PartitionMap& map, std::string_view key,
                                        std::string_view value);

}  // namespace dynlib::partition_map

#endif  // DYNLIB_PARTITION_MAP_SYNC_SESSION_H_
