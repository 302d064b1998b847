// What commands mean changes with a logged version, which every storage member reads (rule R10).
#include <utility>

#include "dynlib/base/strings.h"
#include "dynlib/replication/hosted_group.h"

namespace dynlib::replication {

// A tree from a time when this node ran another program. (A log replica has none.)
absl::Status HostedGroup::CheckVersion(uint64_t version) const {
  if (version <= options_.reads_version) return absl::OkStatus();
  return absl::UnimplementedError(Cat("partition ", core_->group(),
                                      ": its commands are of version ", version,
                                      "; this node reads up to ", options_.reads_version));
}

absl::Status HostedGroup::CheckReads(const Member& member, uint64_t version,
                                     ReadsVersion reads) const {
  const uint64_t known = reads(member.node);
  if (version <= 1 || member.kind == MemberKind::kLog || known >= version) return absl::OkStatus();
  const std::string said = known == 0 ? "is silent" : Cat("reads up to ", known);
  return absl::FailedPreconditionError(Cat("version ", version, " of commands: replica ",
                                           member.replica, " on node ", member.node, " ", said));
}

void HostedGroup::RaiseVersion(uint64_t version, ReadsVersion reads, ProposeCallback done) {
  const auto answer = [&](absl::Status status) {
    Answer(std::move(done), {.status = std::move(status), .result = {}, .leader_hint = {}});
  };
  if (closed_.has_value()) return answer(*closed_);
  if (version < 1) return answer(absl::InvalidArgumentError("version is 0; allowed: at least 1"));
  if (!Leads()) return answer(NotLeader());
  if (version <= version_) return answer(absl::OkStatus());
  if (core_->Busy())
    return answer(absl::FailedPreconditionError("the members of the group are being changed"));
  for (const Member& member : core_->configuration().members) {
    if (absl::Status status = CheckReads(member, version, reads); !status.ok())
      return answer(std::move(status));
  }
  absl::StatusOr<Slot> slot = core_->Propose(
      PayloadOf({.kind = LoggedCommand::Kind::kVersion, .version = version}), clock_->Now());
  if (!slot.ok()) return answer(slot.status());
  version_proposed_ = std::max(version_proposed_, version);
  proposals_.push_back({*slot, std::move(done)});
}

}  // namespace dynlib::replication
