#include "dynlib/replication/message_codec.h"

#include <memory>
#include <optional>
#include <utility>

#include "dynlib/base/coding.h"
#include "dynlib/replication/replication.pb.h"

namespace dynlib::replication {
namespace {

void ToWire(const Prepare& in, wire::GroupMessage& out) {
  out.mutable_prepare()->set_from_slot(in.from_slot);
}

void ToWire(const Entry& in, wire::Entry& out) {
  out.set_slot(in.slot);
  out.set_ballot(in.ballot.packed());
  out.set_payload(*in.payload);
}

void ToWire(const Promise& in, wire::GroupMessage& out) {
  wire::Promise& promise = *out.mutable_promise();
  promise.set_granted(in.granted);
  promise.set_promised(in.promised.packed());
  promise.set_lease_remaining_ns(in.lease_remaining.count());
  promise.set_support_epoch(in.support_epoch);
  promise.set_from_slot(in.from_slot);
  promise.set_through(in.through);
  promise.set_chosen(in.chosen);
  promise.set_released(in.released);
  for (const Entry& entry : in.entries) ToWire(entry, *promise.add_entries());
  for (const UnknownSlot& unknown : in.unknown) {
    wire::UnknownSlot& added = *promise.add_unknown();
    added.set_slot(unknown.slot);
    added.set_ballot(unknown.ballot.packed());
  }
}

void ToWire(const Accept&, wire::GroupMessage&) {}  // See PutAccept.

void ToWire(const Accepted& in, wire::GroupMessage& out) {
  wire::Accepted& accepted = *out.mutable_accepted();
  accepted.set_granted(in.granted);
  accepted.set_promised(in.promised.packed());
  accepted.set_stable(in.stable);
  accepted.set_chosen(in.chosen);
  accepted.set_support_epoch(in.support_epoch);
  accepted.set_checkpoint(in.checkpoint);
}

void ToWire(const HealthQuery& in, wire::GroupMessage& out) {
  out.mutable_health_query()->set_chosen(in.chosen);
}

void ToWire(const HealthReply& in, wire::GroupMessage& out) {
  out.mutable_health_reply()->set_healthy(in.healthy);
  out.mutable_health_reply()->set_abandoned(in.abandoned);
  out.mutable_health_reply()->set_chosen(in.chosen);
}

void ToWire(const Outdated& in, wire::GroupMessage& out) {
  wire::Outdated& outdated = *out.mutable_outdated();
  for (const Entry& entry : in.entries) ToWire(entry, *outdated.add_entries());
  outdated.set_released(in.released);
  outdated.set_removed(in.removed);
}

void ToWire(const ConfirmQuery& in, wire::GroupMessage& out) {
  out.mutable_confirm_query()->set_round(in.round);
}

void ToWire(const ConfirmReply& in, wire::GroupMessage& out) {
  out.mutable_confirm_reply()->set_round(in.round);
}

Payload Share(std::string* bytes) { return std::make_shared<const std::string>(std::move(*bytes)); }

Entry FromWire(wire::Entry& in) {
  return {in.slot(), Ballot::FromPacked(in.ballot()), Share(in.mutable_payload())};
}

Promise FromWire(wire::Promise& in) {
  Promise promise{.granted = in.granted(),
                  .promised = Ballot::FromPacked(in.promised()),
                  .lease_remaining = Duration(in.lease_remaining_ns()),
                  .support_epoch = in.support_epoch(),
                  .from_slot = in.from_slot(),
                  .through = in.through(),
                  .chosen = in.chosen(),
                  .released = in.released()};
  for (wire::Entry& entry : *in.mutable_entries()) promise.entries.push_back(FromWire(entry));
  for (const wire::UnknownSlot& unknown : in.unknown()) {
    promise.unknown.push_back({unknown.slot(), Ballot::FromPacked(unknown.ballot())});
  }
  return promise;
}

Accept FromWire(wire::Accept& in) {
  Accept accept{.first_slot = in.first_slot(),
                .chosen = in.chosen(),
                .held_by_all = in.held_by_all(),
                .held_by_storage = in.held_by_storage()};
  for (std::string& entry : *in.mutable_entries()) accept.entries.push_back(Share(&entry));
  return accept;
}

Outdated FromWire(wire::Outdated& in) {
  Outdated outdated{.released = in.released(), .removed = in.removed()};
  for (wire::Entry& entry : *in.mutable_entries()) outdated.entries.push_back(FromWire(entry));
  return outdated;
}

std::optional<GroupMessage> FromWire(wire::GroupMessage& in) {
  GroupMessage out{.group = PartitionId{in.group()},
                   .from = ReplicaId{in.from()},
                   .to = ReplicaId{in.to()},
                   .epoch = in.epoch(),
                   .ballot = Ballot::FromPacked(in.ballot()),
                   .body = {}};
  switch (in.body_case()) {
    case wire::GroupMessage::kPrepare:
      out.body = Prepare{.from_slot = in.prepare().from_slot()};
      break;
    case wire::GroupMessage::kPromise:
      out.body = FromWire(*in.mutable_promise());
      break;
    case wire::GroupMessage::kAccept:
      out.body = FromWire(*in.mutable_accept());
      break;
    case wire::GroupMessage::kAccepted:
      out.body = Accepted{.granted = in.accepted().granted(),
                          .promised = Ballot::FromPacked(in.accepted().promised()),
                          .stable = in.accepted().stable(),
                          .chosen = in.accepted().chosen(),
                          .support_epoch = in.accepted().support_epoch(),
                          .checkpoint = in.accepted().checkpoint()};
      break;
    case wire::GroupMessage::kHealthQuery:
      out.body = HealthQuery{.chosen = in.health_query().chosen()};
      break;
    case wire::GroupMessage::kHealthReply:
      out.body = HealthReply{.healthy = in.health_reply().healthy(),
                             .abandoned = in.health_reply().abandoned(),
                             .chosen = in.health_reply().chosen()};
      break;
    case wire::GroupMessage::kOutdated:
      out.body = FromWire(*in.mutable_outdated());
      break;
    case wire::GroupMessage::kConfirmQuery:
      out.body = ConfirmQuery{.round = in.confirm_query().round()};
      break;
    case wire::GroupMessage::kConfirmReply:
      out.body = ConfirmReply{.round = in.confirm_reply().round()};
      break;
    case wire::GroupMessage::BODY_NOT_SET:
      return std::nullopt;
  }
  return out;
}

wire::GroupMessage ToWire(const GroupMessage& group) {
  wire::GroupMessage out;
  out.set_group(ToUint(group.group));
  out.set_from(ToUint(group.from));
  out.set_to(ToUint(group.to));
  out.set_epoch(group.epoch);
  out.set_ballot(group.ballot.packed());
  std::visit([&out](const auto& body) { ToWire(body, out); }, group.body);
  return out;
}

// Proposals are written in protobuf's encoding by hand, straight from where the entries lie:
// through the generated class each would be copied twice, and allocated once, for each peer.

constexpr uint32_t kVarintType = 0;
constexpr uint32_t kBytesType = 2;

void PutNumber(std::string& out, uint32_t field, uint64_t value) {
  if (value == 0) return;  // As proto3 does.
  PutVarint(out, field << 3 | kVarintType);
  PutVarint(out, value);
}

void PutBytesHeader(std::string& out, uint32_t field, size_t size) {
  PutVarint(out, field << 3 | kBytesType);
  PutVarint(out, size);
}

size_t EntriesLength(const Accept& accept) {
  size_t length = 0;
  for (const Payload& payload : accept.entries)
    length += 1 + VarintLength(payload->size()) + payload->size();
  return length;
}

void PutAccept(std::string& out, const GroupMessage& group, const Accept& accept) {
  using Fields = wire::GroupMessage;
  std::string head;
  PutNumber(head, Fields::kGroupFieldNumber, ToUint(group.group));
  PutNumber(head, Fields::kFromFieldNumber, ToUint(group.from));
  PutNumber(head, Fields::kToFieldNumber, ToUint(group.to));
  PutNumber(head, Fields::kEpochFieldNumber, group.epoch);
  PutNumber(head, Fields::kBallotFieldNumber, group.ballot.packed());
  std::string first;
  PutNumber(first, wire::Accept::kFirstSlotFieldNumber, accept.first_slot);
  std::string rest;
  PutNumber(rest, wire::Accept::kChosenFieldNumber, accept.chosen);
  PutNumber(rest, wire::Accept::kHeldByAllFieldNumber, accept.held_by_all);
  PutNumber(rest, wire::Accept::kHeldByStorageFieldNumber, accept.held_by_storage);
  const size_t body = first.size() + EntriesLength(accept) + rest.size();
  PutBytesHeader(head, Fields::kAcceptFieldNumber, body);

  out.reserve(out.size() + 16 + head.size() + body);
  PutBytesHeader(out, wire::NodeMessage::kGroupsFieldNumber, head.size() + body);
  out.append(head).append(first);
  for (const Payload& payload : accept.entries) {
    PutBytesHeader(out, wire::Accept::kEntriesFieldNumber, payload->size());
    out.append(*payload);
  }
  out.append(rest);
}

// Messages are concatenated by concatenating their bytes.
void PutGroup(std::string& out, const GroupMessage& group) {
  if (const auto* accept = std::get_if<Accept>(&group.body)) return PutAccept(out, group, *accept);
  const wire::GroupMessage message = ToWire(group);
  PutBytesHeader(out, wire::NodeMessage::kGroupsFieldNumber, message.ByteSizeLong());
  message.AppendToString(&out);
}

}  // namespace

std::string Encode(const NodeMessage& message) {
  std::string bytes;
  for (const GroupMessage& group : message.groups) PutGroup(bytes, group);
  wire::NodeMessage out;
  for (const LivenessMessage& liveness : message.liveness) {
    if (const auto* request = std::get_if<SupportRequest>(&liveness.body)) {
      wire::SupportRequest& added = *out.add_requests();
      added.set_incarnation(request->incarnation);
      added.set_sent_at(request->sent_at);
      added.set_heard_incarnation(request->heard_incarnation);
      added.set_heard_age_us(request->heard_age_us);
    } else {
      const auto& grant = std::get<SupportGrant>(liveness.body);
      wire::SupportGrant& added = *out.add_grants();
      added.set_incarnation(grant.incarnation);
      added.set_holder_incarnation(grant.holder_incarnation);
      added.set_request_sent_at(grant.request_sent_at);
      added.set_epoch(grant.epoch);
      added.set_duration_ns(grant.duration.count());
      added.set_granted_at(grant.granted_at);
    }
  }
  out.AppendToString(&bytes);
  return bytes;
}

absl::StatusOr<NodeMessage> DecodeNodeMessage(std::string_view bytes) {
  wire::NodeMessage in;
  if (bytes.size() > INT32_MAX ||
      !in.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return absl::InvalidArgumentError("bytes are not a replication message");
  }
  NodeMessage message;
  for (wire::GroupMessage& group : *in.mutable_groups()) {
    if (std::optional<GroupMessage> decoded = FromWire(group))
      message.groups.push_back(*std::move(decoded));
  }
  for (const wire::SupportRequest& request : in.requests()) {
    message.liveness.push_back({SupportRequest{.incarnation = request.incarnation(),
                                               .sent_at = request.sent_at(),
                                               .heard_incarnation = request.heard_incarnation(),
                                               .heard_age_us = request.heard_age_us()}});
  }
  for (const wire::SupportGrant& grant : in.grants()) {
    message.liveness.push_back({SupportGrant{.incarnation = grant.incarnation(),
                                             .holder_incarnation = grant.holder_incarnation(),
                                             .request_sent_at = grant.request_sent_at(),
                                             .epoch = grant.epoch(),
                                             .duration = Duration(grant.duration_ns()),
                                             .granted_at = grant.granted_at()}});
  }
  return message;
}

}  // namespace dynlib::replication
