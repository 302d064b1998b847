// What a storage node can do in all, for reads and for writes, and what it knows of other nodes.
//
// Every partition of the node draws on the node's buckets: allocated work always (it was promised;
// the bucket may go into debt), work on a partition's burst only if tokens are there. A write costs
// each replica's node, so a leader that lets a write burst also asks what the other replicas' nodes
// have left. It does not ask per request: it collects the figures every second or so (by the
// wiring, over rpc), and PeerNode holds the last one. Between two collections it only counts down;
// a figure older than `peer_age_max` counts as none.
//
//   NodeAdmission node(...);                       // one a storage node
//   node.Peer(NodeId{7})->Report(remaining, now);  // the answer of node 7's WriteRemaining()
//
// Threads: any. Peer() takes a mutex; everything else only atomics.
// Limits: `peers_max` nodes, beyond which Peer() returns nullptr; a PeerNode lives as long as its
// NodeAdmission.
#ifndef DYNLIB_ADMISSION_NODE_ADMISSION_H_
#define DYNLIB_ADMISSION_NODE_ADMISSION_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>

#include "absl/status/statusor.h"
#include "dynlib/admission/request_units.h"
#include "dynlib/admission/token_bucket.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"

namespace dynlib::admission {

// The write tokens of another node, as last told.
class PeerNode {
 public:
  // `at`: when the figure was asked for, on this node's clock.
  void Report(RequestUnits remaining, Instant at);

  // False when the figure is older than `age_max` or too little is left.
  bool TryTake(RequestUnits units, Instant now, Duration age_max);
  void GiveBack(RequestUnits units);

 private:
  std::atomic<int64_t> reported_halves_{0};
  std::atomic<int64_t> left_halves_{0};
  std::atomic<int64_t> at_ns_{INT64_MIN};
};

class NodeAdmission {
 public:
  struct Options {
    // What the node is built for; both in [0.0001, 400,000,000] request units a second.
    double read_units_per_second = 100'000;
    double write_units_per_second = 30'000;
    // How much unused capacity the node saves up, [0.01, 60] seconds.
    double saved_seconds = 1;
    // How old a peer's figure may be when a burst write relies on it, > 0.
    Duration peer_age_max = std::chrono::seconds(3);
    size_t peers_max = 10'000;  // >= 1
  };

  // kInvalidArgument naming field, value and range.
  static absl::StatusOr<std::unique_ptr<NodeAdmission>> Create(const Options& options, Instant now);

  TokenBucket& bucket(Operation operation) {
    return operation == Operation::kRead ? read_ : write_;
  }
  // What to answer a leader that collects; 0 while in debt.
  RequestUnits WriteRemaining(Instant now) const;

  PeerNode* Peer(NodeId node);
  Duration peer_age_max() const { return peer_age_max_; }

 private:
  NodeAdmission(const Options& options, const BucketRate& read, const BucketRate& write,
                Instant now);

  TokenBucket read_;
  TokenBucket write_;
  const Duration peer_age_max_;
  const size_t peers_max_;
  std::mutex mutex_;
  std::map<NodeId, std::unique_ptr<PeerNode>> peers_;  // Guarded by mutex_.
};

}  // namespace dynlib::admission

#endif  // DYNLIB_ADMISSION_NODE_ADMISSION_H_
