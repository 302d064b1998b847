#include "tools/dynlib_store/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <thread>
#include <utility>

namespace dynlib::tool {
namespace {

constexpr int kWidth = 30;
constexpr double kMebibyte = 1 << 20;

}  // namespace

Progress::Progress(std::string what, uint64_t total_bytes, bool quiet, uint64_t bytes_per_second)
    : what_(std::move(what)),
      total_bytes_(total_bytes),
      quiet_(quiet),
      terminal_(isatty(STDERR_FILENO) != 0),
      bytes_per_second_(bytes_per_second),
      start_(clock_.Now()),
      drawn_(start_) {}

double Progress::Seconds() const {
  return std::max(1e-6, static_cast<double>((clock_.Now() - start_).count()) / 1e9);
}

void Progress::Show(uint64_t bytes, uint64_t rows) {
  if (bytes_per_second_ > 0) {
    const double due = static_cast<double>(bytes) / static_cast<double>(bytes_per_second_);
    const double early = due - Seconds();
    if (early > 0) std::this_thread::sleep_for(std::chrono::duration<double>(early));
  }
  const Duration every = terminal_ ? std::chrono::milliseconds(100) : std::chrono::seconds(5);
  if (quiet_ || clock_.Now() - drawn_ < every) return;
  drawn_ = clock_.Now();
  Draw(bytes, rows, false);
}

void Progress::Finish(uint64_t bytes, uint64_t rows) {
  if (!quiet_) Draw(bytes, rows, true);
}

void Progress::Draw(uint64_t bytes, uint64_t rows, bool last) {
  const double mebibytes = static_cast<double>(bytes) / kMebibyte;
  std::string bar;
  if (total_bytes_ > 0) {
    const double share =
        last ? 1 : std::min(1.0, static_cast<double>(bytes) / static_cast<double>(total_bytes_));
    const int filled = static_cast<int>(share * kWidth);
    bar = " [" + std::string(filled, '#') + std::string(kWidth - filled, '.') + "] " +
          std::to_string(static_cast<int>(share * 100)) + "%";
  }
  std::fprintf(stderr, "%s%s%s %.1f MiB, %llu rows, %.1f MiB/s%s", terminal_ ? "\r" : "",
               what_.c_str(), bar.c_str(), mebibytes, static_cast<unsigned long long>(rows),
               mebibytes / Seconds(), terminal_ && !last ? "" : "\n");
}

}  // namespace dynlib::tool
