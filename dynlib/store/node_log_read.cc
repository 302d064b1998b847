// Entries read back from the log, while it goes on.
#include <algorithm>
#include <optional>
#include <utility>

#include "dynlib/base/status_macros.h"
#include "dynlib/store/node_log_recovery.h"
#include "dynlib/store/node_log_writer.h"

namespace dynlib::store {

uint64_t NodeLog::Impl::LastDurableBatch() const {
  std::lock_guard lock(index_mutex_);
  CatchUpLocked();
  uint64_t last = 0;
  for (const auto& [generation, segment] : index_.segments()) {
    last = std::max(last, segment.last_sequence);
  }
  return last;
}

// Where the stream's first entry after `after_slot` is.
std::optional<NodeLog::Impl::EntryPlace> NodeLog::Impl::FindEntryAfter(StreamId stream,
                                                                       uint64_t after_slot) const {
  std::lock_guard lock(index_mutex_);
  CatchUpLocked();
  const LogIndex::Stream* found = index_.FindStream(stream);
  if (found == nullptr) return std::nullopt;
  const auto entry = found->entries.upper_bound(after_slot);
  if (entry == found->entries.end()) return std::nullopt;
  const LogIndex::Segment& segment = index_.segments().at(entry->second.generation);
  return EntryPlace{entry->first, entry->second,
                    LogIndex::Segment{.generation = segment.generation, .number = segment.number}};
}

absl::Status NodeLog::Impl::ReadEntries(StreamId stream, uint64_t after_slot,
                                        absl::FunctionRef<absl::Status(LogRecord)> take) const {
  PayloadReader reader(disk_, dir_, options_.identity);
  std::optional<EntryPlace> at = FindEntryAfter(stream, after_slot);
  while (at.has_value()) {
    absl::StatusOr<std::string> payload = reader.Read(at->segment, at->ref);
    if (!payload.ok()) {
      // It may have been copied forward, or released, and its segment written anew.
      std::optional<EntryPlace> now = FindEntryAfter(stream, after_slot);
      if (now.has_value() && now->slot == at->slot && now->ref == at->ref) return payload.status();
      at = std::move(now);
      continue;
    }
    after_slot = at->slot;
    DYNLIB_RETURN_IF_ERROR(
        take({stream, RecordKind::kEntry, at->slot, at->ref.ballot, *std::move(payload)}));
    at = FindEntryAfter(stream, after_slot);
  }
  return absl::OkStatus();
}

}  // namespace dynlib::store
