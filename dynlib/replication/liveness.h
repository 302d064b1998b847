// Liveness between nodes: who supports whom, until when, in which epoch (PROTOCOL rules R5 and R8).
//
// One Liveness serves all groups of a node. Every `interval` it asks each peer for support; a peer
// that grants it promises that, until the grant runs out, it helps nobody depose this node in any
// group that this node leads. A group's leader lease is nothing but a quorum of such grants whose
// epochs are those that its members named when they last stood by its ballot. So an idle group
// sends nothing, and a million groups cost what one costs.
//
// Pure: time comes in, messages and events come out, nothing is stored. Durability rests on two
// numbers that the driver keeps: the node's `incarnation`, which counts boots and is durable before
// the object is made, and `boot_wait`, the longest support that any earlier incarnation may have
// granted. An epoch is (incarnation, counter), so ending one needs no write: a restart ends all
// that came before, and grants nothing until `boot_wait` has passed.
//
// Time: the grantor counts a grant from when the request came, stretched by the drift bound; the
// holder from when the request was sent, shrunk by it. With rates within `drift_ppm` of true, the
// holder always stops first.
//
// The holder compares each grantor's clock with its own (clock_comparison.h). Grants of one that is
// seen to run faster than the bound allows count for no lease, though they still keep leaders led:
// reads then go by a quorum (read_rounds.h).
//
// R8: a peer is granted support only while it shows that it hears this node too (one-way links end
// support), and this node asks for support only while its own log syncs in time (`SetLogHealthy`).
//
// Threads: one executor's.
#ifndef DYNLIB_REPLICATION_LIVENESS_H_
#define DYNLIB_REPLICATION_LIVENESS_H_

#include <cstdint>
#include <map>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/replication/clock_comparison.h"
#include "dynlib/replication/faults_for_test.h"
#include "dynlib/replication/message.h"

namespace dynlib::replication {

struct LivenessOptions {
  Duration interval =
      std::chrono::milliseconds(100);  // between requests; > 0 and at most support / 3
  Duration support = std::chrono::milliseconds(600);  // what a grant is worth; up to 1 minute
  int64_t drift_ppm = 10'000;  // clock rates are within this of true; 0 to 200,000
  uint64_t reads_version = 1;  // told to peers: the highest version of commands read here (R10)
  bool compare_clocks = true;  // no lease by the clock of a peer that is seen to break the above
  FaultsForTest faults;
};
absl::Status Validate(const LivenessOptions& options);

class Liveness {
 public:
  struct Event {
    enum class Kind { kPeerLost, kPeerRestarted, kPeerHeard, kPeerSupports };
    Kind kind;
    NodeId peer;
  };
  struct Effects {
    std::vector<std::pair<NodeId, LivenessMessage>> messages;
    std::vector<Event> events;  // kPeerLost: this node's support for the peer ran out. kPeerHeard:
                                // it began. kPeerSupports: the peer's for this node began anew.
    std::vector<NodeId> fast_clocks;  // Seen from now on to be faster than the bound allows.
  };

  Liveness(LivenessOptions options, uint64_t incarnation, Duration boot_wait, Instant now);

  // Peers come with the groups shared with them and go with the last. A removed peer's grant is
  // still honoured.
  void AddPeer(NodeId peer, Instant now);
  void RemovePeer(NodeId peer);

  void Step(NodeId from, const LivenessMessage& message, Instant now);
  void Tick(Instant now);
  Instant next_deadline() const { return next_request_; }
  Effects TakeEffects();

  // False while the node's log sync is overdue: no support is asked for, so leaderships lapse.
  void SetLogHealthy(bool healthy) { log_healthy_ = healthy; }
  bool log_healthy() const { return log_healthy_; }

  // As grantor. True if this node owes `peer` support at `now`.
  bool Supports(NodeId peer, Instant now) const;
  // What is left of it, in this node's time.
  Duration SupportRemaining(NodeId peer, Instant now) const;
  // Ends what ran out: after true, the epoch that `peer` held is over for good, and a higher ballot
  // may be promised in groups it leads. False while support is still owed, or the boot wait is not
  // over.
  bool EndSupport(NodeId peer, Instant now);
  // The epoch in which `peer` is or will next be supported.
  uint64_t EpochFor(NodeId peer) const;
  // Before this, the node may owe support that an earlier incarnation granted, to whom it does not
  // know.
  bool BootWaitOver(Instant now) const { return now >= boot_wait_end_; }
  Instant boot_wait_end() const { return boot_wait_end_; }

  // As holder. Until when `grantor` supports this node in exactly this epoch; Instant() if it does
  // not, or its clock is not to be relied on.
  Instant SupportedUntil(NodeId grantor, uint64_t epoch) const;
  // The same, whatever its clock: good for telling who leads, and for no lease.
  Instant SupportedByAnyClockUntil(NodeId grantor, uint64_t epoch) const;
  // True if `grantor` supports this node in whichever epoch.
  bool SupportedBy(NodeId grantor, Instant now) const;
  // True if a message from the peer came within the last `support`.
  bool Hears(NodeId peer, Instant now) const;

  // The highest version of commands that the peer said, within the last `support`, that it reads;
  // 0: it said nothing.
  uint64_t ReadsVersion(NodeId peer, Instant now) const;

  // The newest boot of the peer that was heard of; 0 for none.
  uint64_t IncarnationOf(NodeId peer) const;
  // The grantor's boot in which an epoch was made.
  static uint64_t EpochIncarnation(uint64_t epoch) { return epoch >> kCounterBits; }

  // For people.
  struct PeerStatus {
    NodeId node{};
    uint64_t incarnation = 0;     // As last heard; 0: never.
    bool heard = false;           // Lately.
    Duration supported_for{0};    // What this node still owes it.
    Duration supports_us_for{0};  // What it owes this node, less the drift.
    bool clock_trusted = false;   // Its grants count for leases.
    uint64_t reads_version = 0;   // Of commands, as last heard; 0: never.
  };
  std::vector<PeerStatus> Peers(Instant now) const;

  uint64_t incarnation() const { return incarnation_; }
  const LivenessOptions& options() const { return options_; }

 private:
  struct Peer {
    bool active = true;
    // As grantor.
    uint64_t epoch_counter = 1;
    bool supported = false;
    Instant support_end;
    uint64_t incarnation = 0;  // The peer's, as last heard.
    // As holder.
    uint64_t held_epoch = 0;
    Instant held_until;
    uint64_t granting_incarnation = 0;
    Instant granted_at;  // When the newest answer came.
    uint64_t reads_version = 0;
    bool ever_granted = false;
    Instant heard_at;
    bool ever_heard = false;
    ClockComparison clock;
    bool clock_fast = false;
    bool clock_trusted = false;
  };

  // Every election in every shared group may end an epoch, so the counter is wide.
  static constexpr int kCounterBits = 32;

  uint64_t MakeEpoch(const Peer& peer) const {
    return incarnation_ << kCounterBits | peer.epoch_counter;
  }
  void OnRequest(NodeId from, Peer& peer, const SupportRequest& request, Instant now);
  void OnGrant(NodeId from, Peer& peer, const SupportGrant& grant, Instant now);
  void Lapse(NodeId id, Peer& peer, Instant now);
  void End(Peer& peer);
  void CompareClocks(NodeId from, Peer& peer, const SupportGrant& grant, Instant now);

  const LivenessOptions options_;
  const uint64_t incarnation_;
  const Instant boot_wait_end_;
  std::map<NodeId, Peer> peers_;
  Instant next_request_;
  bool log_healthy_ = true;
  Effects effects_;
};

}  // namespace dynlib::replication

#endif  // DYNLIB_REPLICATION_LIVENESS_H_
