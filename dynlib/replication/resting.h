// What a member of a group keeps while it is at rest: all that its core holds then, without the
// room for what a core does.
//
// A member rests when it is sure to be woken (docs/impl/replication.md, "At rest"), nothing is
// under way, and the log is in the durable trees of all members, so that of the log a position
// remains. GroupCore::Rest takes one out of a core, and a core that is made from it goes on as the
// first would have.
#ifndef DYNLIB_REPLICATION_RESTING_H_
#define DYNLIB_REPLICATION_RESTING_H_

#include <array>
#include <cstdint>

#include "dynlib/base/ids.h"
#include "dynlib/replication/types.h"

namespace dynlib::replication {

struct RestingMember {
  // Peers whose epochs are kept. A larger group's leader renews its lease when it is woken.
  static constexpr size_t kEpochs = 2;

  Configuration configuration;  // Names the member.
  Ballot promised;
  Slot chosen = 0;     // Also stable, applied, checkpointed and released; the log ends here.
  bool leads = false;  // At `promised`.
  // A follower whose leader, the owner of `promised`, is known, and whose support for the leader's
  // node was running: its end is what wakes it. Else nobody is known to lead.
  bool follows = false;
  bool ended = false;  // `chosen` is the slot of the entry that ends the log.
  // Of a follower: the boot of the leader's node in which it leads.
  uint64_t leader_incarnation = 0;
  // Of a leader: under which epoch each peer last stood by the ballot, in configuration order.
  std::array<uint64_t, kEpochs> peer_epochs{};

  friend bool operator==(const RestingMember&, const RestingMember&) = default;
};

}  // namespace dynlib::replication

#endif  // DYNLIB_REPLICATION_RESTING_H_
