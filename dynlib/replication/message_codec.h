// Messages between nodes as bytes: Protobuf, so that they can grow.
#ifndef DYNLIB_REPLICATION_MESSAGE_CODEC_H_
#define DYNLIB_REPLICATION_MESSAGE_CODEC_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "dynlib/replication/message.h"

namespace dynlib::replication {

// All that one node tells another at a time: one transport message.
struct NodeMessage {
  std::vector<GroupMessage> groups;
  std::vector<LivenessMessage> liveness;
};

std::string Encode(const NodeMessage& message);

// Appends its encoding. What is said in turn, encoded one behind the other, is one NodeMessage.
void AppendEncoded(std::string& bytes, const GroupMessage& message);
void AppendEncoded(std::string& bytes, const std::vector<LivenessMessage>& messages);

// kInvalidArgument for bytes that are not a NodeMessage. Messages of a kind that this version does
// not know are left out. The contents are untrusted: what a peer claims is for the cores to judge.
// Proposals share its bytes, and keep all of them in memory: who keeps one for long copies it.
absl::StatusOr<NodeMessage> DecodeNodeMessage(std::string bytes);

}  // namespace dynlib::replication

#endif  // DYNLIB_REPLICATION_MESSAGE_CODEC_H_
