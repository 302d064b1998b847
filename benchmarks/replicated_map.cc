#include "benchmarks/replicated_map.h"

#include <algorithm>
#include <cstring>

#include "dynlib/base/checksum.h"
#include "dynlib/base/coding.h"

namespace dynlib::bench {
namespace {

constexpr size_t kArenaBytes = 4 << 20;

}  // namespace

ReplicatedMap::ReplicatedMap(size_t bytes) {
  constexpr size_t kPairBytes = 1000;
  values_.reserve(bytes / kPairBytes);
  Grow(bytes);
}

void ReplicatedMap::Grow(size_t bytes) {
  arena_next_ = &arena_.emplace_back(bytes)[0];
  arena_left_ = bytes;
}

void ReplicatedMap::PutCommand(std::string& out, std::string_view key, std::string_view value) {
  out.reserve(out.size() + kVarintBytesMax + key.size() + value.size());
  PutLengthPrefixed(out, key);
  out.append(value);
}

std::string_view ReplicatedMap::Get(std::string_view key) const {
  const auto found = values_.find(Checksum(key));
  return found == values_.end() || found->second.key != key ? std::string_view()
                                                            : found->second.value;
}

std::string_view ReplicatedMap::Keep(std::string_view bytes) {
  if (bytes.size() > arena_left_) Grow(std::max(kArenaBytes, bytes.size()));
  char* const at = arena_next_;
  std::memcpy(at, bytes.data(), bytes.size());
  arena_next_ += bytes.size();
  arena_left_ -= bytes.size();
  return {at, bytes.size()};
}

// The log alone is durable: a replica that starts has applied nothing, and knows no client.
absl::Status ReplicatedMap::LoadSessions(
    absl::FunctionRef<void(std::string_view key, std::string_view value)>) {
  return absl::OkStatus();
}

absl::Status ReplicatedMap::Evaluate(std::span<const replication::AppliedCommand> commands,
                                     std::vector<std::string>* results) {
  for (const replication::AppliedCommand& command : commands) {
    const std::string_view kept = Keep(command.command);
    ByteReader in(kept);
    const std::string_view key = in.LengthPrefixed();
    if (in.ok()) evaluated_.push_back({key, in.rest()});
    results->emplace_back(in.ok() ? "" : "not a command");
  }
  return absl::OkStatus();
}

absl::Status ReplicatedMap::Publish(const replication::PublishedStep& step) {
  for (const Pair& pair : evaluated_) {
    Pair& place = values_[Checksum(pair.key)];
    // Two keys of one checksum would be one: with 64 bits and millions of keys there are none.
    place = pair;
  }
  evaluated_.clear();
  applied_ = step.through;
  return absl::OkStatus();
}

}  // namespace dynlib::bench
