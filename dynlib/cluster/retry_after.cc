#include "dynlib/cluster/retry_after.h"

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "absl/strings/cord.h"
#include "dynlib/base/coding.h"

namespace dynlib::cluster {
namespace {

constexpr const char* kType = "type.dynlib/retry_after_us";
constexpr Duration kLongest = std::chrono::hours(1);

}  // namespace

absl::Status ThrottledError(std::string message, Duration retry_after) {
  const Duration wait = std::min(std::max(retry_after, Duration(1)), kLongest);
  std::string payload;
  PutVarint(payload, static_cast<uint64_t>((wait.count() + 999) / 1000));
  absl::Status status = absl::ResourceExhaustedError(message);
  status.SetPayload(kType, absl::Cord(payload));
  return status;
}

std::optional<Duration> RetryAfter(const absl::Status& status) {
  const auto payload = status.GetPayload(kType);
  if (!payload.has_value()) return std::nullopt;
  const std::string bytes(*payload);
  ByteReader in(bytes);
  const uint64_t micros = in.Varint();
  const auto most = static_cast<uint64_t>(ToMicros(kLongest));
  if (!in.ok() || micros == 0 || micros > most) return std::nullopt;
  return std::chrono::microseconds(micros);
}

}  // namespace dynlib::cluster
