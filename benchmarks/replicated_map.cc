#include "benchmarks/replicated_map.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "dynlib/base/checksum.h"
#include "dynlib/base/coding.h"

namespace dynlib::bench {
namespace {

constexpr size_t kArenaBytes = 4 << 20;

std::string_view KeyOf(std::string_view command) {
  ByteReader in(command);
  return in.LengthPrefixed();
}

}  // namespace

void Arena::Grow(size_t bytes) {
  next_ = &blocks_.emplace_back(bytes)[0];
  left_ = bytes;
}

std::string_view Arena::Keep(std::string_view bytes) {
  if (bytes.size() > left_) Grow(std::max(kArenaBytes, bytes.size()));
  char* const at = next_;
  std::memcpy(at, bytes.data(), bytes.size());
  next_ += bytes.size();
  left_ -= bytes.size();
  return {at, bytes.size()};
}

ReplicatedMap::ReplicatedMap(size_t pairs, Arena* arena)
    : arena_(arena), places_(std::make_unique<HugeArray<Place>>(std::bit_ceil(2 * pairs + 2))) {}

void ReplicatedMap::PutCommand(std::string& out, std::string_view key, std::string_view value) {
  out.reserve(out.size() + kVarintBytesMax + key.size() + value.size());
  PutLengthPrefixed(out, key);
  out.append(value);
}

std::string_view ReplicatedMap::Get(std::string_view key) const {
  const Place& place = Find(Checksum(key), key);
  if (place.size == 0) return {};
  ByteReader in(place.bytes());
  in.LengthPrefixed();
  return in.rest();
}

// Where the key is, or where it would be put.
ReplicatedMap::Place& ReplicatedMap::Find(uint64_t checksum, std::string_view key) const {
  const size_t mask = places_->size() - 1;
  for (size_t i = checksum & mask;; i = (i + 1) & mask) {
    Place& place = (*places_)[i];
    if (place.size == 0) return place;
    if (place.tag == checksum >> 32 && KeyOf(place.bytes()) == key) return place;
  }
}

void ReplicatedMap::Put(uint64_t checksum, std::string_view key, std::string_view command) {
  Place& place = Find(checksum, key);
  size_ += place.size == 0;
  place = {.tag = static_cast<uint32_t>(checksum >> 32),
           .size = static_cast<uint32_t>(command.size()),
           .command = command.data()};
  if (2 * size_ > places_->size()) GrowPlaces();
}

void ReplicatedMap::GrowPlaces() {
  const auto old = std::exchange(places_, std::make_unique<HugeArray<Place>>(2 * places_->size()));
  size_ = 0;
  for (size_t i = 0; i < old->size(); ++i) {
    const Place& place = (*old)[i];
    if (place.size == 0) continue;
    const std::string_view key = KeyOf(place.bytes());
    Put(Checksum(key), key, place.bytes());
  }
}

// The log alone is durable: a replica that starts has applied nothing, and knows no client.
absl::Status ReplicatedMap::LoadSessions(
    absl::FunctionRef<void(std::string_view key, std::string_view value)>) {
  return absl::OkStatus();
}

absl::Status ReplicatedMap::Evaluate(std::span<const replication::AppliedCommand> commands,
                                     std::vector<std::string>* results) {
  for (const replication::AppliedCommand& command : commands) {
    ByteReader in(command.command);
    const std::string_view key = in.LengthPrefixed();
    results->emplace_back(in.ok() ? "" : "not a command");
    if (!in.ok()) continue;
    const uint64_t checksum = Checksum(key);
    // The place is on its way to the cache while the others are evaluated.
    __builtin_prefetch(&(*places_)[checksum & (places_->size() - 1)], /*rw=*/1);
    evaluated_.push_back({checksum, arena_->Keep(command.command)});
  }
  return absl::OkStatus();
}

absl::Status ReplicatedMap::Publish(const replication::PublishedStep& step) {
  for (const Evaluated& put : evaluated_) Put(put.checksum, KeyOf(put.command), put.command);
  evaluated_.clear();
  applied_ = step.through;
  return absl::OkStatus();
}

}  // namespace dynlib::bench
