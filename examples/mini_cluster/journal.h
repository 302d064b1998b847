// What was acknowledged, written down outside of the cluster, so that after a kill somebody else
// can ask for it.
//
//   DYNLIB_ASSIGN_OR_RETURN(auto journal, Journal::Open("acked"));
//   journal->Row(17, 3);           // in the callback of the write of row 17, generation 3
//   journal->Counter("cas-3", 9);
//   ...
//   DYNLIB_ASSIGN_OR_RETURN(JournalContents acked, ReadJournal("acked"));
//
// One line an acknowledgement, each by one write(2) at the end of the file: what was noted before
// the process was killed is there, since the kernel keeps it. Not synced: it is for kills of the
// process, not of the machine.
//
// Threads: Row and Counter from any; a write that fails ends the process, as what is tested then
// cannot be told.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_JOURNAL_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_JOURNAL_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace dynlib::mini_cluster {

class Journal {
 public:
  // Appends to the file if it exists.
  static absl::StatusOr<std::unique_ptr<Journal>> Open(const std::string& path);
  ~Journal();

  void Row(uint64_t row, uint64_t generation);
  void Counter(std::string_view name, uint64_t value);

 private:
  explicit Journal(int fd) : fd_(fd) {}
  void Append(const std::string& line);
  const int fd_;
};

struct JournalContents {
  std::map<uint64_t, uint64_t> rows;         // the highest generation of each
  std::map<std::string, uint64_t> counters;  // the highest value
};
// A last line without its end is left out. kInvalidArgument "file:line: " for one that is no entry.
absl::StatusOr<JournalContents> ReadJournal(const std::string& path);

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_JOURNAL_H_
