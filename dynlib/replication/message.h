// What the members of a group say to one another, and what nodes say to one another about liveness,
// as plain data.
#ifndef DYNLIB_REPLICATION_MESSAGE_H_
#define DYNLIB_REPLICATION_MESSAGE_H_

#include <cstdint>
#include <variant>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/replication/types.h"

namespace dynlib::replication {

// Phase 1a: promise this ballot, and tell what you accepted from `from_slot` on.
struct Prepare {
  Slot from_slot = 0;
};

// A slot whose frame is damaged or may be torn: something at this ballot may have been accepted
// there (rule R4).
struct UnknownSlot {
  Slot slot = 0;
  Ballot ballot;
};

// Phase 1b. The answer covers slots from the request's `from_slot` to `through`; the candidate asks
// again for more.
struct Promise {
  bool granted = false;
  Ballot promised;              // When refused: the ballot promised here.
  Duration lease_remaining{0};  // What this acceptor still owes another leader of the group (R6).
  uint64_t support_epoch = 0;   // Of this node's support for the candidate's node (R5).
  Slot from_slot = 0;
  Slot through = 0;   // UINT64_MAX: nothing was left out.
  Slot chosen = 0;    // Chosen and durable, in log or tree, up to here.
  Slot released = 0;  // The log starts after this slot.
  std::vector<Entry> entries;
  std::vector<UnknownSlot> unknown;
};

// A group among many proposes one at a time.
using Payloads = absl::InlinedVector<Payload, 1>;

// Phase 2a: entries at consecutive slots from `first_slot`, all at the message's ballot. Without
// entries it tells what is chosen and asks for an Accepted.
struct Accept {
  Slot first_slot = 0;
  Payloads entries;
  Slot chosen = 0;
  // In the durable tree of every member: nobody needs the log up to here again, so all may release
  // it. Holding it durably in the log would not be enough: a member whose frame is damaged later
  // would find it gone everywhere.
  Slot held_by_all = 0;
  // The same for the storage replicas alone: a log replica has no tree, and counts its position up
  // to here.
  Slot held_by_storage = 0;
};

// Phase 2b.
struct Accepted {
  bool granted = false;
  Ballot promised;  // When refused.
  Slot stable = 0;  // Every slot up to here is durable here, and chosen or accepted at this ballot.
  Slot chosen = 0;
  uint64_t support_epoch =
      0;                // As in Promise: this acceptor still stands by the ballot under this epoch.
  Slot checkpoint = 0;  // In this member's durable tree.
};

// A follower that misses its leader asks before it elects (R8). The message's ballot is the
// leader's.
struct HealthQuery {
  Slot chosen = 0;  // Known here.
};
struct HealthReply {
  bool healthy = false;
  // Said by the ballot's own proposer: it neither leads nor will ever lead at this ballot, so no
  // lease hangs on it. Also sent unasked by a candidate that gives up (R6: released rather than
  // waited for).
  bool abandoned = false;
  Slot chosen = 0;  // Known here.
};

// To a replica whose word shows an older configuration: what was chosen from where it stands, as
// much as fits a message, so that it learns the configurations in between (rule R2). Also to one
// that is no member any more.
struct Outdated {
  // At consecutive slots: the values that were chosen, under the ballots at which they are held
  // here.
  std::vector<Entry> entries;
  Slot released = 0;  // What was chosen up to here is no longer in this log.
  // A configuration without the receiver is in force, and more was chosen under it: nobody needs
  // what the receiver knows.
  bool removed = false;
};

// A leader that holds no lease asks before a read: is this ballot still the highest that you
// promised? (R7, read_rounds.h)
struct ConfirmQuery {
  uint64_t round = 0;
};
// It was when this was sent. (If not, the answer is an Accepted that is not granted.)
struct ConfirmReply {
  uint64_t round = 0;  // Of the query.
};

struct GroupMessage {
  // Not in the message but of the transport: the nodes that it comes from and goes to.
  NodeId from_node{};
  NodeId to_node{};

  PartitionId group{};
  ReplicaId from{};
  ReplicaId to{};
  uint64_t epoch = 0;  // Of the sender's configuration (R2).
  Ballot ballot;
  std::variant<Prepare, Promise, Accept, Accepted, HealthQuery, HealthReply, Outdated, ConfirmQuery,
               ConfirmReply>
      body;
};

// "Support me for a while." Sent by a node to each peer at a steady interval, whether or not
// anything happens.
struct SupportRequest {
  uint64_t incarnation = 0;  // Of the sender: counts its boots.
  int64_t sent_at = 0;       // The sender's clock; only echoed.
  uint64_t heard_incarnation =
      0;  // The receiver's incarnation whose grant was last received, 0 for none.
  int64_t heard_age_us = -1;  // How long ago that was; -1 for never.
};

// "I support you in this epoch for `duration` from when I got your request."
struct SupportGrant {
  uint64_t incarnation = 0;         // Of the grantor.
  uint64_t holder_incarnation = 0;  // Of the request.
  int64_t request_sent_at = 0;
  uint64_t epoch = 0;  // 0: not granted; the message only shows that the grantor hears the holder.
  Duration duration{0};
  // The grantor's clock, so that the holder sees how fast it runs; 0: not told.
  int64_t granted_at = 0;
  // The highest version of commands that the grantor's state machines read (R10); 0: 1.
  uint64_t reads_version = 0;
};

struct LivenessMessage {
  std::variant<SupportRequest, SupportGrant> body;
};

}  // namespace dynlib::replication

#endif  // DYNLIB_REPLICATION_MESSAGE_H_
