#include "dynlib/replication/message_codec.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

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
  out.set_payload(std::string(*in.payload));
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

void ToWire(const Accept&, wire::GroupMessage&) {}    // See PutAccept,
void ToWire(const Accepted&, wire::GroupMessage&) {}  // and PutAccepted.

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

Payload Share(std::string* bytes) { return Payload(std::move(*bytes)); }

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

// What a commit takes, proposals and their answers, is written and read in protobuf's encoding by
// hand: the entries go straight from where they lie into the message, and are not taken out of it
// again. Through the generated classes each entry would be copied twice and allocated twice.

constexpr uint32_t kVarintType = 0;
constexpr uint32_t kBytesType = 2;

// Fields of numbers, and the beginnings of others.
class Fields {
 public:
  void Number(uint32_t field, uint64_t value) {
    if (value == 0) return;  // As proto3 does.
    at_ = StoreVarint(at_, field << 3 | kVarintType);
    at_ = StoreVarint(at_, value);
  }
  void BytesHeader(uint32_t field, size_t size) {
    at_ = StoreVarint(at_, field << 3 | kBytesType);
    at_ = StoreVarint(at_, size);
  }
  std::string_view bytes() const { return {bytes_, static_cast<size_t>(at_ - bytes_)}; }
  size_t size() const { return bytes().size(); }

 private:
  static constexpr size_t kFieldsMax = 8;
  char bytes_[kFieldsMax * 2 * kVarintBytesMax];
  char* at_ = bytes_;
};

void PutBytesHeader(std::string& out, uint32_t field, size_t size) {
  Fields header;
  header.BytesHeader(field, size);
  out.append(header.bytes());
}

// A message of a group up to its body, which is `body_size` bytes.
void PutHead(std::string& out, const GroupMessage& group, uint32_t body_field, size_t body_size) {
  using Wire = wire::GroupMessage;
  Fields head;
  head.Number(Wire::kGroupFieldNumber, ToUint(group.group));
  head.Number(Wire::kFromFieldNumber, ToUint(group.from));
  head.Number(Wire::kToFieldNumber, ToUint(group.to));
  head.Number(Wire::kEpochFieldNumber, group.epoch);
  head.Number(Wire::kBallotFieldNumber, group.ballot.packed());
  head.BytesHeader(body_field, body_size);
  Fields outer;
  outer.BytesHeader(wire::NodeMessage::kGroupsFieldNumber, head.size() + body_size);
  out.reserve(out.size() + outer.size() + head.size() + body_size);
  out.append(outer.bytes()).append(head.bytes());
}

size_t EntriesLength(const Accept& accept) {
  size_t length = 0;
  for (const Payload& payload : accept.entries)
    length += 1 + VarintLength(payload->size()) + payload->size();
  return length;
}

void PutAccept(std::string& out, const GroupMessage& group, const Accept& accept) {
  Fields first;
  first.Number(wire::Accept::kFirstSlotFieldNumber, accept.first_slot);
  Fields rest;
  rest.Number(wire::Accept::kChosenFieldNumber, accept.chosen);
  rest.Number(wire::Accept::kHeldByAllFieldNumber, accept.held_by_all);
  rest.Number(wire::Accept::kHeldByStorageFieldNumber, accept.held_by_storage);
  PutHead(out, group, wire::GroupMessage::kAcceptFieldNumber,
          first.size() + EntriesLength(accept) + rest.size());
  out.append(first.bytes());
  for (const Payload& payload : accept.entries) {
    PutBytesHeader(out, wire::Accept::kEntriesFieldNumber, payload->size());
    out.append(*payload);
  }
  out.append(rest.bytes());
}

void PutAccepted(std::string& out, const GroupMessage& group, const Accepted& accepted) {
  Fields body;
  body.Number(wire::Accepted::kGrantedFieldNumber, accepted.granted);
  body.Number(wire::Accepted::kPromisedFieldNumber, accepted.promised.packed());
  body.Number(wire::Accepted::kStableFieldNumber, accepted.stable);
  body.Number(wire::Accepted::kChosenFieldNumber, accepted.chosen);
  body.Number(wire::Accepted::kSupportEpochFieldNumber, accepted.support_epoch);
  body.Number(wire::Accepted::kCheckpointFieldNumber, accepted.checkpoint);
  PutHead(out, group, wire::GroupMessage::kAcceptedFieldNumber, body.size());
  out.append(body.bytes());
}

// Reads what PutAccept and PutAccepted write, and what is like it. Of all else, unusual or wrong,
// it says so, and leaves it to the generated classes: so that what is a message is what they say.
class HandReader {
 public:
  explicit HandReader(std::shared_ptr<const std::string> message) : message_(std::move(message)) {}

  // Nothing for what it does not read.
  std::optional<NodeMessage> Read() {
    NodeMessage out;
    out.groups.reserve(CountFields(*message_));
    std::string_view rest = *message_;
    while (!rest.empty()) {
      const std::optional<Field> field = Next(rest);
      if (!field.has_value() || field->type != kBytesType ||
          field->number != wire::NodeMessage::kGroupsFieldNumber || !ReadGroup(field->bytes, out)) {
        return std::nullopt;
      }
    }
    return out;
  }

 private:
  struct Field {
    uint32_t number = 0;
    uint32_t type = kVarintType;
    uint64_t value = 0;
    std::string_view bytes;
  };

  static bool ReadVarint(std::string_view& rest, size_t bytes_max, uint64_t& value) {
    value = 0;
    for (size_t i = 0; i < std::min(rest.size(), bytes_max); ++i) {
      const auto byte = static_cast<uint8_t>(rest[i]);
      value |= static_cast<uint64_t>(byte & 0x7f) << (7 * i);
      if (byte >= 0x80) continue;
      rest.remove_prefix(i + 1);
      return true;
    }
    return false;
  }

  static std::optional<Field> Next(std::string_view& rest) {
    Field field;
    uint64_t tag = 0;
    if (!ReadVarint(rest, 1, tag)) return std::nullopt;
    field.number = static_cast<uint32_t>(tag >> 3);
    field.type = static_cast<uint32_t>(tag & 7);
    if (field.type == kVarintType) {
      if (!ReadVarint(rest, kVarintBytesMax, field.value)) return std::nullopt;
      return field;
    }
    constexpr size_t kLengthBytesMax = 4;
    uint64_t length = 0;
    if (field.type != kBytesType || !ReadVarint(rest, kLengthBytesMax, length) ||
        length > rest.size()) {
      return std::nullopt;
    }
    field.bytes = rest.substr(0, length);
    rest.remove_prefix(length);
    return field;
  }

  // Up to the first that it does not read.
  static size_t CountFields(std::string_view rest) {
    size_t count = 0;
    while (!rest.empty() && Next(rest).has_value()) ++count;
    return count;
  }

  bool ReadGroup(std::string_view rest, NodeMessage& out) {
    using Wire = wire::GroupMessage;
    GroupMessage& group = out.groups.emplace_back();
    bool has_body = false;
    while (!rest.empty()) {
      const std::optional<Field> field = Next(rest);
      if (!field.has_value()) return false;
      const bool is_body = field->number >= Wire::kPrepareFieldNumber;
      if (is_body != (field->type == kBytesType) || (is_body && std::exchange(has_body, true))) {
        return false;
      }
      switch (field->number) {
        case Wire::kGroupFieldNumber:
          group.group = PartitionId{field->value};
          break;
        case Wire::kFromFieldNumber:
          group.from = ReplicaId{field->value};
          break;
        case Wire::kToFieldNumber:
          group.to = ReplicaId{field->value};
          break;
        case Wire::kEpochFieldNumber:
          group.epoch = field->value;
          break;
        case Wire::kBallotFieldNumber:
          group.ballot = Ballot::FromPacked(field->value);
          break;
        case Wire::kAcceptFieldNumber:
          if (!ReadAccept(field->bytes, group.body.emplace<Accept>())) return false;
          break;
        case Wire::kAcceptedFieldNumber:
          if (!ReadAccepted(field->bytes, group.body.emplace<Accepted>())) return false;
          break;
        default:
          return false;
      }
    }
    return has_body;
  }

  bool ReadAccept(std::string_view rest, Accept& accept) {
    while (!rest.empty()) {
      const std::optional<Field> field = Next(rest);
      if (!field.has_value()) return false;
      const bool is_entry = field->number == wire::Accept::kEntriesFieldNumber;
      if (is_entry != (field->type == kBytesType)) return false;
      switch (field->number) {
        case wire::Accept::kEntriesFieldNumber:
          accept.entries.emplace_back(message_, field->bytes);
          break;
        case wire::Accept::kFirstSlotFieldNumber:
          accept.first_slot = field->value;
          break;
        case wire::Accept::kChosenFieldNumber:
          accept.chosen = field->value;
          break;
        case wire::Accept::kHeldByAllFieldNumber:
          accept.held_by_all = field->value;
          break;
        case wire::Accept::kHeldByStorageFieldNumber:
          accept.held_by_storage = field->value;
          break;
        default:
          return false;
      }
    }
    return true;
  }

  static bool ReadAccepted(std::string_view rest, Accepted& accepted) {
    while (!rest.empty()) {
      const std::optional<Field> field = Next(rest);
      if (!field.has_value() || field->type != kVarintType) return false;
      switch (field->number) {
        case wire::Accepted::kGrantedFieldNumber:
          accepted.granted = field->value != 0;
          break;
        case wire::Accepted::kPromisedFieldNumber:
          accepted.promised = Ballot::FromPacked(field->value);
          break;
        case wire::Accepted::kStableFieldNumber:
          accepted.stable = field->value;
          break;
        case wire::Accepted::kChosenFieldNumber:
          accepted.chosen = field->value;
          break;
        case wire::Accepted::kSupportEpochFieldNumber:
          accepted.support_epoch = field->value;
          break;
        case wire::Accepted::kCheckpointFieldNumber:
          accepted.checkpoint = field->value;
          break;
        default:
          return false;
      }
    }
    return true;
  }

  const std::shared_ptr<const std::string> message_;
};

absl::StatusOr<NodeMessage> DecodeByClasses(std::string_view bytes) {
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
                                             .granted_at = grant.granted_at(),
                                             .reads_version = grant.reads_version()}});
  }
  return message;
}

}  // namespace

// Messages are concatenated by concatenating their bytes.
void AppendEncoded(std::string& bytes, const GroupMessage& message) {
  if (const auto* accept = std::get_if<Accept>(&message.body)) {
    return PutAccept(bytes, message, *accept);
  }
  if (const auto* accepted = std::get_if<Accepted>(&message.body)) {
    return PutAccepted(bytes, message, *accepted);
  }
  const wire::GroupMessage out = ToWire(message);
  PutBytesHeader(bytes, wire::NodeMessage::kGroupsFieldNumber, out.ByteSizeLong());
  out.AppendToString(&bytes);
}

void AppendEncoded(std::string& bytes, const std::vector<LivenessMessage>& messages) {
  if (messages.empty()) return;
  wire::NodeMessage out;
  for (const LivenessMessage& message : messages) {
    if (const auto* request = std::get_if<SupportRequest>(&message.body)) {
      wire::SupportRequest& added = *out.add_requests();
      added.set_incarnation(request->incarnation);
      added.set_sent_at(request->sent_at);
      added.set_heard_incarnation(request->heard_incarnation);
      added.set_heard_age_us(request->heard_age_us);
    } else {
      const auto& grant = std::get<SupportGrant>(message.body);
      wire::SupportGrant& added = *out.add_grants();
      added.set_incarnation(grant.incarnation);
      added.set_holder_incarnation(grant.holder_incarnation);
      added.set_request_sent_at(grant.request_sent_at);
      added.set_epoch(grant.epoch);
      added.set_duration_ns(grant.duration.count());
      added.set_granted_at(grant.granted_at);
      added.set_reads_version(grant.reads_version);
    }
  }
  out.AppendToString(&bytes);
}

std::string Encode(const NodeMessage& message) {
  std::string bytes;
  for (const GroupMessage& group : message.groups) AppendEncoded(bytes, group);
  AppendEncoded(bytes, message.liveness);
  return bytes;
}

absl::StatusOr<NodeMessage> DecodeNodeMessage(std::string bytes) {
  const auto message = std::make_shared<const std::string>(std::move(bytes));
  if (std::optional<NodeMessage> read = HandReader(message).Read()) return *std::move(read);
  return DecodeByClasses(*message);
}

}  // namespace dynlib::replication
