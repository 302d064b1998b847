#include "dynlib/store/node_log_reader.h"

#include <utility>

#include "dynlib/base/status_macros.h"
#include "dynlib/store/node_log_recovery.h"

namespace dynlib::store {

absl::StatusOr<std::unique_ptr<LogReader>> LogReader::Open(const NodeLog::Options& options,
                                                           Disk* disk, std::string dir,
                                                           NodeLog::Recovery* found) {
  DYNLIB_RETURN_IF_ERROR(NodeLog::Validate(options));
  *found = {};
  DYNLIB_ASSIGN_OR_RETURN(RecoveredLog recovered,
                          RecoverLog(options, disk, dir, NodeLog::Entries::kLater,
                                     LogAccess::kReadOnly, nullptr, found));
  return std::unique_ptr<LogReader>(
      new LogReader(disk, std::move(dir), options.identity, std::move(recovered.index)));
}

LogReader::LogReader(Disk* disk, std::string dir, uint64_t identity, LogIndex index)
    : disk_(disk), dir_(std::move(dir)), identity_(identity), index_(std::move(index)) {}

absl::Status LogReader::ReadEntries(StreamId stream, uint64_t after_slot,
                                    absl::FunctionRef<absl::Status(LogRecord)> take) const {
  const LogIndex::Stream* found = index_.FindStream(stream);
  if (found == nullptr) return absl::OkStatus();
  PayloadReader reader(disk_, dir_, identity_);
  for (auto at = found->entries.upper_bound(after_slot); at != found->entries.end(); ++at) {
    const auto& [slot, ref] = *at;
    DYNLIB_ASSIGN_OR_RETURN(std::string payload,
                            reader.Read(index_.segments().at(ref.generation), ref));
    DYNLIB_RETURN_IF_ERROR(
        take({stream, RecordKind::kEntry, slot, ref.ballot, std::move(payload)}));
  }
  return absl::OkStatus();
}

}  // namespace dynlib::store
