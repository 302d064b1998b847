#include "benchmarks/plain_copy.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "benchmarks/load.h"
#include "dynlib/base/strings.h"

namespace dynlib::bench {

absl::StatusOr<double> SecondsToCopy(const std::filesystem::path& from,
                                     const std::filesystem::path& to, uint64_t bytes) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(from)) {
    if (entry.is_regular_file() && entry.file_size() > 0) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  std::filesystem::create_directory(to);
  std::string piece(1 << 20, '\0');
  const uint64_t began_ns = NowNs();
  for (const std::filesystem::path& file : files) {
    const int in = open(file.c_str(), O_RDONLY | O_CLOEXEC);
    const int out =
        open((to / file.filename()).c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    bool ok = in >= 0 && out >= 0;
    while (ok && bytes > 0) {
      const ssize_t got = read(in, piece.data(), std::min<uint64_t>(piece.size(), bytes));
      if (got == 0) break;
      ok = got > 0 && write(out, piece.data(), static_cast<size_t>(got)) == got;
      bytes -= static_cast<uint64_t>(std::max<ssize_t>(got, 0));
    }
    ok = ok && fdatasync(out) == 0;
    if (in >= 0) close(in);
    if (out >= 0) close(out);
    if (!ok) return absl::InternalError(Cat("cannot copy ", file.string()));
  }
  return static_cast<double>(NowNs() - began_ns) * 1e-9;
}

}  // namespace dynlib::bench
