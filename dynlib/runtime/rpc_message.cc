#include "dynlib/runtime/rpc_message.h"

#include <map>
#include <utility>

#include "absl/strings/cord.h"
#include "dynlib/base/coding.h"
#include "dynlib/base/strings.h"

namespace dynlib {
namespace {

constexpr size_t kTrailerBytes = 29;
constexpr uint64_t kMaxStatusCode = static_cast<uint64_t>(absl::StatusCode::kUnauthenticated);

std::string EncodeStatus(const absl::Status& status) {
  // Sorted: Abseil's own order depends on addresses.
  std::map<std::string, std::string> payloads;
  status.ForEachPayload(
      [&](absl::string_view type, const absl::Cord& value) { payloads.emplace(type, value); });
  std::string body;
  PutLengthPrefixed(body, ToStd(status.message()));
  PutVarint(body, payloads.size());
  for (const auto& [type, value] : payloads) {
    PutLengthPrefixed(body, type);
    PutLengthPrefixed(body, value);
  }
  return body;
}

std::optional<absl::Status> DecodeStatus(absl::StatusCode code, std::string_view body) {
  ByteReader in(body);
  absl::Status status(code, ToAbsl(in.LengthPrefixed()));
  const uint64_t payloads = in.Varint();
  for (uint64_t i = 0; i < payloads && in.ok(); ++i) {
    const std::string_view type = in.LengthPrefixed();
    const std::string_view value = in.LengthPrefixed();
    status.SetPayload(ToAbsl(type), absl::Cord(ToAbsl(value)));
  }
  if (!in.done()) return std::nullopt;
  return status;
}

}  // namespace

std::string EncodeRpcMessage(RpcMessage message) {
  std::string bytes = std::move(message.body);
  bytes.reserve(bytes.size() + kTrailerBytes);
  PutFixed64(bytes, message.argument);
  PutFixed64(bytes, message.incarnation);
  PutFixed64(bytes, message.call);
  PutFixed32(bytes, message.method);
  PutFixed8(bytes, static_cast<uint8_t>(message.kind));
  return bytes;
}

std::optional<RpcMessage> DecodeRpcMessage(std::string bytes) {
  if (bytes.size() < kTrailerBytes) return std::nullopt;
  const size_t body_bytes = bytes.size() - kTrailerBytes;
  ByteReader in(std::string_view(bytes).substr(body_bytes));
  RpcMessage message;
  message.argument = in.Fixed64();
  message.incarnation = in.Fixed64();
  message.call = in.Fixed64();
  message.method = in.Fixed32();
  const uint8_t kind = in.Fixed8();
  if (kind != static_cast<uint8_t>(RpcMessage::Kind::kRequest) &&
      kind != static_cast<uint8_t>(RpcMessage::Kind::kReply)) {
    return std::nullopt;
  }
  message.kind = static_cast<RpcMessage::Kind>(kind);
  bytes.resize(body_bytes);
  message.body = std::move(bytes);
  return message;
}

void SetRpcResult(RpcMessage& reply, absl::StatusOr<std::string> result) {
  reply.argument = static_cast<uint64_t>(result.status().code());
  reply.body = result.ok() ? *std::move(result) : EncodeStatus(result.status());
}

std::optional<absl::StatusOr<std::string>> TakeRpcResult(RpcMessage& reply) {
  if (reply.argument == 0) return std::move(reply.body);
  if (reply.argument > kMaxStatusCode) return std::nullopt;
  const auto code = static_cast<absl::StatusCode>(reply.argument);
  std::optional<absl::Status> status = DecodeStatus(code, reply.body);
  if (!status.has_value()) return std::nullopt;
  return *std::move(status);
}

}  // namespace dynlib
