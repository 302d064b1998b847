// A progress bar on standard error: drawn where that is a terminal, else a line now and then.
//
//   Progress progress("loading", total_bytes, quiet);
//   progress.Show(done_bytes, rows);
//   progress.Finish(done_bytes, rows);
//
// Bounds the rate, too: with a limit, Show sleeps until what was done has taken its time.
#ifndef TOOLS_DYNLIB_STORE_PROGRESS_H_
#define TOOLS_DYNLIB_STORE_PROGRESS_H_

#include <cstdint>
#include <string>

#include "dynlib/base/time.h"
#include "dynlib/runtime/posix/system_clock.h"

namespace dynlib::tool {

class Progress {
 public:
  // `total_bytes` 0: not known. `bytes_per_second` 0: no limit.
  Progress(std::string what, uint64_t total_bytes, bool quiet, uint64_t bytes_per_second = 0);

  void SetTotal(uint64_t total_bytes) { total_bytes_ = total_bytes; }
  void Show(uint64_t bytes, uint64_t rows);
  void Finish(uint64_t bytes, uint64_t rows);

 private:
  void Draw(uint64_t bytes, uint64_t rows, bool last);
  double Seconds() const;

  const std::string what_;
  uint64_t total_bytes_;
  const bool quiet_;
  const bool terminal_;
  const uint64_t bytes_per_second_;
  SystemClock clock_;
  const Instant start_;
  Instant drawn_;
};

}  // namespace dynlib::tool

#endif  // TOOLS_DYNLIB_STORE_PROGRESS_H_
