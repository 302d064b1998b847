// What the protocol itself must know of an entry's payload: whether it changes the members of the
// group (rule R2) or ends its log (rule R11). All else is the clients' and the session table's.
//
// An entry that changes members names the epoch of the configuration that it was proposed under. It
// takes effect only if that is still the newest when it is chosen, so that of two changes that were
// proposed against each other the second is void, on every replica alike: members never come back
// because of an old proposal.
#ifndef DYNLIB_REPLICATION_ENTRY_H_
#define DYNLIB_REPLICATION_ENTRY_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "dynlib/base/ids.h"
#include "dynlib/replication/types.h"

namespace dynlib::replication {

// The first byte of a payload; an empty payload is a no-op, and so is one of another kind.
enum class EntryKind : uint8_t {
  kNoOp = 0,
  kCommand = 1,
  kExpireSessions = 2,
  kConfiguration = 3,
  kEnd = 4,
  kVersion = 5
};
EntryKind KindOf(std::string_view payload);

std::string EncodeChange(uint64_t predecessor_epoch, const std::vector<Member>& members);
// The configuration that comes into force if the entry is chosen at `slot` while `present` is in
// force; nothing if the entry is another, or void, or does not parse.
std::optional<Configuration> Successor(std::string_view payload, Slot slot,
                                       const Configuration& present);

}  // namespace dynlib::replication

#endif  // DYNLIB_REPLICATION_ENTRY_H_
