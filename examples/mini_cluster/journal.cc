#include "examples/mini_cluster/journal.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "absl/status/status.h"
#include "dynlib/base/check.h"
#include "dynlib/base/strings.h"

namespace dynlib::mini_cluster {

absl::StatusOr<std::unique_ptr<Journal>> Journal::Open(const std::string& path) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return absl::UnavailableError(Cat("journal ", path, ": ", std::strerror(errno)));
  return std::unique_ptr<Journal>(new Journal(fd));
}

Journal::~Journal() { ::close(fd_); }

void Journal::Row(uint64_t row, uint64_t generation) {
  Append(Cat("row ", row, " ", generation, "\n"));
}

void Journal::Counter(std::string_view name, uint64_t value) {
  Append(Cat("counter ", name, " ", value, "\n"));
}

void Journal::Append(const std::string& line) {
  const ssize_t written = ::write(fd_, line.data(), line.size());
  DYNLIB_CHECK(written == static_cast<ssize_t>(line.size()));
}

absl::StatusOr<JournalContents> ReadJournal(const std::string& path) {
  std::ifstream file(path);
  if (!file) return absl::NotFoundError(Cat("journal ", path, ": ", std::strerror(errno)));
  JournalContents contents;
  std::string line;
  for (uint64_t number = 1; std::getline(file, line); ++number) {
    if (file.eof()) break;  // its end is missing: killed while it was written
    std::istringstream in(line);
    std::string kind, name;
    uint64_t row = 0, value = 0;
    in >> kind;
    if (kind == "row") in >> row;
    if (kind == "counter") in >> name;
    in >> value;
    if (in.fail() || (kind != "row" && kind != "counter"))
      return absl::InvalidArgumentError(Cat(path, ":", number, ": '", Escape(line), "'"));
    uint64_t& highest = kind == "row" ? contents.rows[row] : contents.counters[name];
    highest = std::max(highest, value);
  }
  return contents;
}

}  // namespace dynlib::mini_cluster
