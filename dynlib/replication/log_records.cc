#include "dynlib/replication/log_records.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "dynlib/base/coding.h"

namespace dynlib::replication {
namespace {

std::string EncodeNodeState(const NodeState& state) {
  std::string out;
  PutVarint(out, state.incarnation);
  PutVarint(out, static_cast<uint64_t>(ToMicros(state.support)));
  return out;
}

}  // namespace

LogFrame NodeFrame(const NodeState& state) {
  return {.group = kNodeStream,
          .is_state = true,
          .slot = state.incarnation,
          .ballot = Ballot::FromPacked(static_cast<uint64_t>(ToMicros(state.support))),
          .header = EncodeNodeState(state),
          .payload = nullptr};
}

absl::StatusOr<NodeState> RecoverNodeState(const RecoveredStream& stream) {
  if (stream.lost) {
    return absl::DataLossError(
        "the node's boot count may be lost: the node must get a new id (R3)");
  }
  NodeState state;
  if (stream.state.has_value()) {
    ByteReader in(*stream.state);
    state.incarnation = in.Varint();
    state.support = std::chrono::microseconds(in.Varint());
    if (!in.done()) return absl::DataLossError("the node's state in the log does not parse");
  }
  // A state whose payload is lost counts by what the batch's listing says of it.
  for (const RecoveredStream::Unknown& unknown : stream.unknown) {
    state.incarnation = std::max(state.incarnation, unknown.slot);
    state.support =
        std::max(state.support, Duration(std::chrono::microseconds(unknown.ballot.packed())));
  }
  return state;
}

GroupCore::Recovered RecoverGroup(const RecoveredStream& stream, Slot applied) {
  GroupCore::Recovered recovered{.applied = applied};
  if (stream.state.has_value()) {
    ByteReader in(*stream.state);
    recovered.promised = Ballot::FromPacked(in.Fixed64());
    recovered.chosen = in.Fixed64();
    // Records of before there was any change of members end here.
    absl::StatusOr<Configuration> configuration = DecodeConfiguration(in.LengthPrefixed());
    const Slot ended = in.Varint();
    const uint64_t named_in = in.Varint();
    if (in.done() && configuration.ok()) {
      recovered.configuration = *std::move(configuration);
      recovered.ended = ended;
      recovered.named_in = named_in;
    }
  }
  for (const Entry& entry : stream.entries) {
    ByteReader in(*entry.payload);
    recovered.chosen = std::max(recovered.chosen, in.Varint());
    recovered.entries.push_back(
        {entry.slot, entry.ballot, std::make_shared<const std::string>(in.rest())});
  }
  for (const RecoveredStream::Unknown& unknown : stream.unknown) {
    if (unknown.is_state) {
      recovered.promised = std::max(recovered.promised, unknown.ballot);
    } else {
      recovered.unknown.push_back({unknown.slot, unknown.ballot});
    }
  }
  return recovered;
}

LogFrame ToFrame(PartitionId group, GroupCore::Record record) {
  LogFrame frame{.group = group,
                 .is_state = record.is_state,
                 .slot = record.slot,
                 .ballot = record.ballot,
                 .header = {},
                 .payload = std::move(record.payload)};
  if (record.is_state) {
    PutFixed64(frame.header, record.ballot.packed());
    PutFixed64(frame.header, record.chosen);
    PutLengthPrefixed(frame.header, EncodeConfiguration(record.configuration));
    PutVarint(frame.header, record.ended);
    PutVarint(frame.header, record.named_in);
  } else {
    PutVarint(frame.header, record.chosen);
  }
  return frame;
}

}  // namespace dynlib::replication
