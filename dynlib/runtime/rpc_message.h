// The bytes of rpc's messages: a body, then a trailer of fixed size. Private to rpc.
//
//   bytes 0..7    argument: of a request, the time left in microseconds; of a reply, the status
//   code bytes 8..15   incarnation of the caller bytes 16..23  id of the call bytes 24..27  method;
//   0 in a reply byte  28      kind: 1 request, 2 reply
//
// The trailer is at the end so that a body is neither copied nor moved: it is cut off. The body of
// a reply that is not OK holds the status: its message, the number of its payloads, and each one's
// type and value, by type.
#ifndef DYNLIB_RUNTIME_RPC_MESSAGE_H_
#define DYNLIB_RUNTIME_RPC_MESSAGE_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace dynlib {

struct RpcMessage {
  enum class Kind : uint8_t { kRequest = 1, kReply = 2 };

  Kind kind = Kind::kRequest;
  uint32_t method = 0;
  uint64_t incarnation = 0;
  uint64_t call = 0;
  uint64_t argument = 0;
  std::string body;
};

std::string EncodeRpcMessage(RpcMessage message);

// Nothing if the bytes are not a message.
std::optional<RpcMessage> DecodeRpcMessage(std::string bytes);

// Sets argument and body.
void SetRpcResult(RpcMessage& reply, absl::StatusOr<std::string> result);

// What SetRpcResult was given; nothing if it is malformed. Takes the body.
std::optional<absl::StatusOr<std::string>> TakeRpcResult(RpcMessage& reply);

}  // namespace dynlib

#endif  // DYNLIB_RUNTIME_RPC_MESSAGE_H_
