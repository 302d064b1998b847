// A group of a host that is not at rest: what the host keeps of it beside the group itself.
#ifndef DYNLIB_REPLICATION_AWAKE_GROUP_H_
#define DYNLIB_REPLICATION_AWAKE_GROUP_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/replication/group_core.h"
#include "dynlib/replication/hosted_group.h"
#include "dynlib/replication/types.h"

namespace dynlib::replication {

struct AwakeGroup {
  // What GroupHost::OnChange tells of.
  struct Seen {
    Role role = Role::kFollower;
    std::optional<Member> leader;
    uint64_t epoch = 0;
    bool removed = false;
    Slot ended = 0;
    bool failed = false;
    friend bool operator==(const Seen&, const Seen&) = default;
  };
  static Seen See(const HostedGroup& hosted) {
    const GroupCore& core = hosted.core();
    return {.role = core.role(),
            .leader = core.leader(),
            .epoch = core.configuration().epoch,
            .removed = core.removed(),
            .ended = core.ended(),
            .failed = !hosted.failure().ok()};
  }

  uint32_t index = 0;   // Of the group, in the table,
  size_t position = 0;  // and among those awake.
  std::shared_ptr<HostedGroup> hosted;
  Instant deadline = Instant::Infinite();
  bool dirty = false;
  Slot released = 0;
  std::optional<Seen> seen;
  uint64_t nodes_version = 0;
  std::vector<NodeId> nodes;  // Peers of liveness on this group's account.

  Instant last_input;
  bool woken_unasked = false;  // One of those that are woken at a time, and not led yet.
  // When this member says once more that its tree holds the whole log, and how often it did.
  Instant repeat_checkpoint_at;
  int checkpoint_repeats = 0;
};

}  // namespace dynlib::replication

#endif  // DYNLIB_REPLICATION_AWAKE_GROUP_H_
