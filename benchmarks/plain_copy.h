// A copy of a folder's files, as cp makes one, and made durable.
#ifndef DYNLIB_BENCHMARKS_PLAIN_COPY_H_
#define DYNLIB_BENCHMARKS_PLAIN_COPY_H_

#include <cstdint>
#include <filesystem>

#include "absl/status/statusor.h"

namespace dynlib::bench {

// Seconds to copy the first `bytes` of the files of `from`, in the order of their names, into the
// new folder `to`, in pieces of 1 MiB, each file synced once at its end.
absl::StatusOr<double> SecondsToCopy(const std::filesystem::path& from,
                                     const std::filesystem::path& to, uint64_t bytes);

}  // namespace dynlib::bench

#endif  // DYNLIB_BENCHMARKS_PLAIN_COPY_H_
