// The version of a partition's commands (rule R10), as its tree keeps it. There is one so far.
#include <optional>
#include <string>

#include "dynlib/base/coding.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/table_state_machine.h"

namespace dynlib::cluster {

absl::StatusOr<uint64_t> TableStateMachine::StoredVersion(const store::Tree& tree) {
  DYNLIB_ASSIGN_OR_RETURN(const std::optional<std::string> found, tree.snapshot().Get(kVersionKey));
  if (!found.has_value()) return 1;
  ByteReader in(*found);
  const uint64_t version = in.Varint();
  if (!in.done() || version == 0)
    return absl::DataLossError(Cat("tree ", tree.id(), ": its version does not parse"));
  return version;
}

// A tree without the key is of version 1.
void TableStateMachine::PutVersion(uint64_t version, store::WriteBatch& batch) {
  if (version <= 1) return;
  std::string value;
  PutVarint(value, version);
  batch.Put(std::string(kVersionKey), std::move(value));
}

absl::Status TableStateMachine::LoadVersion() {
  DYNLIB_ASSIGN_OR_RETURN(const uint64_t version, StoredVersion(*tree_));
  version_.store(version);
  return absl::OkStatus();
}

}  // namespace dynlib::cluster
