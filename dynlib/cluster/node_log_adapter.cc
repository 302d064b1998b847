#include "dynlib/cluster/node_log_adapter.h"

#include <memory>
#include <utility>

namespace dynlib::cluster {

// Stream ids are never 0; partition 0 is the node itself.
store::StreamId StreamOf(PartitionId group) { return store::StreamId{ToUint(group) + 1}; }

NodeLogAdapter::NodeLogAdapter(store::NodeLog* log, size_t append_bytes_max, Executor* executor,
                               std::function<void(size_t)> appended)
    : log_(log),
      append_bytes_max_(append_bytes_max),
      executor_(executor),
      appended_(std::move(appended)) {
  static_assert(kFrameOverheadBytes >= store::NodeLog::kRecordOverheadBytes);
}

void NodeLogAdapter::Append(std::vector<replication::LogFrame> frames,
                            absl::AnyInvocable<void(absl::Status)> done) {
  std::vector<store::LogRecord> records;
  records.reserve(frames.size());
  size_t bytes = 0;
  for (replication::LogFrame& frame : frames) {
    store::LogRecord record{
        .stream = StreamOf(frame.group),
        .kind = frame.is_state ? store::RecordKind::kState : store::RecordKind::kEntry,
        .slot = frame.slot,
        .ballot = frame.ballot.packed(),
        .payload = std::move(frame.header),
        .rest = std::move(frame.payload)};
    bytes += record.payload_bytes() + kFrameOverheadBytes;
    records.push_back(std::move(record));
  }
  log_->Append(std::move(records), executor_, std::move(done));
  appended_(bytes);
}

void NodeLogAdapter::Release(PartitionId group, Slot through) {
  log_->Release(StreamOf(group), through);
}

std::optional<Instant> NodeLogAdapter::OldestPendingSince() const {
  return log_->OldestPendingSince();
}

replication::RecoveredStream TakeStream(store::NodeLog::Recovery& recovery, PartitionId group) {
  replication::RecoveredStream stream;
  auto it = recovery.streams.find(StreamOf(group));
  if (it == recovery.streams.end()) {
    stream.lost = recovery.lost_batches > 0;
    return stream;
  }
  store::NodeLog::RecoveredStream& found = it->second;
  if (found.state.has_value()) stream.state = std::move(found.state->payload);
  for (store::LogRecord& record : found.entries) {
    stream.entries.push_back({record.slot, replication::Ballot::FromPacked(record.ballot),
                              std::make_shared<const std::string>(std::move(record.payload))});
  }
  for (const store::NodeLog::RecoveredStream::Unknown& unknown : found.unknown) {
    stream.unknown.push_back({.is_state = unknown.kind == store::RecordKind::kState,
                              .slot = unknown.slot,
                              .ballot = replication::Ballot::FromPacked(unknown.ballot)});
  }
  stream.lost = found.lost_batch;
  return stream;
}

}  // namespace dynlib::cluster
