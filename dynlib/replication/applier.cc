#include "dynlib/replication/applier.h"

#include <algorithm>

#include "dynlib/base/check.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::replication {

ApplyOutcome Applier::Run(const ApplyStep& step, Scratch& scratch) {
  scratch.commands.clear();
  scratch.plans.clear();
  scratch.results.clear();
  if (kind_ == MemberKind::kLog) return RunWithoutState(step, scratch);
  ApplyOutcome outcome{.status = LoadSessions(), .through = step.through, .results = {}};
  const uint64_t version = version_;
  if (outcome.status.ok()) outcome.status = Evaluate(step, scratch);
  if (!outcome.status.ok()) return outcome;
  outcome.results.reserve(scratch.plans.size());
  for (Scratch::Plan& plan : scratch.plans) {
    outcome.results.emplace_back(plan.slot, ResultOf(plan, scratch));
  }
  if (version_ != version) outcome.version = version_;
  outcome.status = Publish(step, sessions_.TakeChanges(), outcome.version);
  return outcome;
}

absl::Status Applier::LoadSessions() {
  if (loaded_) return absl::OkStatus();
  absl::Status status;
  absl::Status visited =
      state_machine_->LoadSessions([&](std::string_view key, std::string_view value) {
        if (status.ok()) status = sessions_.Load(key, value);
      });
  DYNLIB_RETURN_IF_ERROR(visited);
  DYNLIB_RETURN_IF_ERROR(status);
  loaded_ = true;
  return absl::OkStatus();
}

// Rule R10: with what it cannot read it would go another way than the others. Whether the version
// is new here is a function of the log.
absl::Status Applier::RaiseVersion(Slot slot, uint64_t version) {
  if (version > reads_version_) {
    return absl::UnimplementedError(Cat("slot ", slot, " raises the version of commands to ",
                                        version, "; this node reads up to ", reads_version_));
  }
  version_ = std::max(version_, version);
  return absl::OkStatus();
}

// Decides on each command, and has those that are to be applied worked out.
absl::Status Applier::Evaluate(const ApplyStep& step, Scratch& scratch) {
  scratch.commands.reserve(step.entries.size());
  scratch.plans.reserve(step.entries.size());
  for (const auto& [slot, payload] : step.entries) {
    const LoggedCommand logged = DecodeLogged(*payload);
    if (logged.kind == LoggedCommand::Kind::kExpireSessions) sessions_.Expire(logged.proposed);
    if (logged.kind == LoggedCommand::Kind::kVersion) {
      DYNLIB_RETURN_IF_ERROR(RaiseVersion(slot, logged.version));
      scratch.plans.push_back({.slot = slot, .raises_version = true});
      continue;
    }
    const bool ends = logged.kind == LoggedCommand::Kind::kEnd;
    if (logged.kind != LoggedCommand::Kind::kCommand && !ends) continue;
    Scratch::Plan plan{slot, logged.client, logged.sequence, sessions_.Admit(logged),
                       scratch.commands.size()};
    if (!deduplicate_ && plan.decision.verdict == SessionTable::Verdict::kDuplicate)
      plan.decision = {};
    // The log has ended, whatever its proposer's session has come to.
    if (ends) plan.decision = {};
    if (plan.decision.verdict == SessionTable::Verdict::kApply)
      scratch.commands.push_back({slot, logged.command, ends, version_});
    scratch.plans.push_back(std::move(plan));
  }
  scratch.results.reserve(scratch.commands.size());
  if (!scratch.commands.empty()) {
    DYNLIB_RETURN_IF_ERROR(state_machine_->Evaluate(scratch.commands, &scratch.results));
  }
  DYNLIB_CHECK(scratch.results.size() == scratch.commands.size());
  for (const Scratch::Plan& plan : scratch.plans) {
    if (plan.raises_version || plan.decision.verdict != SessionTable::Verdict::kApply) continue;
    const std::string& result = scratch.results[plan.command];
    DYNLIB_CHECK(result.size() <= StateMachine::kResultBytesMax);
    sessions_.SetResult(plan.client, plan.sequence, {absl::StatusCode::kOk, result});
  }
  return absl::OkStatus();
}

SessionResult Applier::ResultOf(Scratch::Plan& plan, Scratch& scratch) const {
  if (plan.raises_version) return {absl::StatusCode::kOk, ""};
  switch (plan.decision.verdict) {
    case SessionTable::Verdict::kApply:
      return {absl::StatusCode::kOk, std::move(scratch.results[plan.command])};
    case SessionTable::Verdict::kRefused:
      return std::move(plan.decision.refusal);
    case SessionTable::Verdict::kDuplicate:
      break;
  }
  if (const SessionResult* known = sessions_.Find(plan.client, plan.sequence)) return *known;
  return {absl::StatusCode::kInvalidArgument, "the client acknowledged the answer already"};
}

absl::Status Applier::Publish(const ApplyStep& step, const std::vector<SessionRecord>& sessions,
                              uint64_t version) {
  return state_machine_->Publish(
      {.sessions = sessions,
       .through = step.through,
       .configuration = step.configuration.has_value() ? &*step.configuration : nullptr,
       .version = version});
}

ApplyOutcome Applier::RunWithoutState(const ApplyStep& step, Scratch& scratch) {
  ApplyOutcome outcome;
  for (const auto& [slot, payload] : step.entries) {
    const AppliedCommand end{slot, DecodeLogged(*payload).command, /*ends=*/true};
    outcome.status = state_machine_->Evaluate({&end, 1}, &scratch.results);
    if (!outcome.status.ok()) return outcome;
  }
  if (!step.publish) return outcome;
  outcome.through = step.through;
  outcome.status = Publish(step, {}, 0);
  return outcome;
}

}  // namespace dynlib::replication
