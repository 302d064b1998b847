// For libFuzzer: bytes off the wire, into both readers of the codec, and a follower and a leader.
//
//   bazel run --config=clang --copt=-fsanitize=fuzzer-no-link,address
//     --linkopt=-fsanitize=fuzzer,address //tests/replication:message_fuzzer
//
// message_codec_test and hostile_test are fixed runs of the like.
#include <cstddef>
#include <cstdint>
#include <string>

#include "dynlib/base/check.h"
#include "dynlib/replication/message_codec.h"
#include "tests/replication/readers_agree.h"
#include "tests/replication/solo_core.h"

namespace dynlib::replication {
namespace {

// The cores check their own state after each message.
void Deliver(SoloCore& solo, const NodeMessage& message) {
  for (GroupMessage group : message.groups) {
    group.group = PartitionId{1};
    group.from_node = NodeOf(ToUint(group.from));
    group.to_node = NodeOf(1);
    solo.Deliver(group);
    solo.Persist();
  }
  for (const LivenessMessage& liveness : message.liveness) {
    solo.liveness.Step(NodeOf(2), liveness, solo.now);
  }
  solo.Pass(Ms(1));
}

}  // namespace
}  // namespace dynlib::replication

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace dynlib::replication;
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  DYNLIB_CHECK(ReadersAgree(bytes));
  const auto message = DecodeNodeMessage(bytes);
  if (!message.ok()) return 0;
  SoloCore follower;
  Deliver(follower, *message);
  SoloCore leader;
  leader.Lead();
  Deliver(leader, *message);
  return 0;
}
