#include "dynlib/replication/entry.h"

#include "absl/status/statusor.h"

namespace dynlib::replication {

EntryKind KindOf(std::string_view payload) {
  if (payload.empty()) return EntryKind::kNoOp;
  const auto kind = static_cast<uint8_t>(payload.front());
  return kind <= static_cast<uint8_t>(EntryKind::kVersion) ? EntryKind{kind} : EntryKind::kNoOp;
}

std::string EncodeChange(uint64_t predecessor_epoch, const std::vector<Member>& members) {
  std::string payload(1, static_cast<char>(EntryKind::kConfiguration));
  payload += EncodeConfiguration({.epoch = predecessor_epoch, .members = members});
  return payload;
}

std::optional<Configuration> Successor(std::string_view payload, Slot slot,
                                       const Configuration& present) {
  if (KindOf(payload) != EntryKind::kConfiguration) return std::nullopt;
  absl::StatusOr<Configuration> change = DecodeConfiguration(payload.substr(1));
  if (!change.ok() || change->epoch != present.epoch) return std::nullopt;
  change->epoch = slot;
  return *std::move(change);
}

}  // namespace dynlib::replication
