// Reads a log and changes nothing: neither its files, nor what the next NodeLog::Open finds there.
//
// For who is to see what is left of a damaged log before anybody decides what becomes of it.
//
//   NodeLog::Recovery found;
//   DYNLIB_ASSIGN_OR_RETURN(auto log, LogReader::Open({}, disk, "log", &found));
//   log->ReadEntries(stream, 0, [](LogRecord entry) { ...; return absl::OkStatus(); });
//
// Threads: any; blocking. Nobody else may have the log open.
#ifndef DYNLIB_STORE_NODE_LOG_READER_H_
#define DYNLIB_STORE_NODE_LOG_READER_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/store/node_log.h"
#include "dynlib/store/node_log_index.h"
#include "dynlib/store/node_log_record.h"

namespace dynlib::store {

class LogReader {
 public:
  // Finds what NodeLog::Open with Entries::kLater would, but for what a sync is needed for: the
  // last batch may be in the kernel's cache alone. kNotFound: no such folder. Else its errors.
  static absl::StatusOr<std::unique_ptr<LogReader>> Open(const NodeLog::Options& options,
                                                         Disk* disk, std::string dir,
                                                         NodeLog::Recovery* found);

  // As NodeLog::ReadEntries.
  absl::Status ReadEntries(StreamId stream, uint64_t after_slot,
                           absl::FunctionRef<absl::Status(LogRecord)> take) const;

 private:
  LogReader(Disk* disk, std::string dir, uint64_t identity, LogIndex index);

  Disk* const disk_;
  const std::string dir_;
  const uint64_t identity_;
  const LogIndex index_;
};

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_NODE_LOG_READER_H_
