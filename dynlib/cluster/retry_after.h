// "Not now, but then": how a status says when it is worth trying again.
//
//   absl::Status status = ThrottledError("partition 20 is over its write capacity", 12ms);
//   if (std::optional<Duration> wait = RetryAfter(status)) Sleep(*wait);
//
// A kResourceExhausted without it means a bound of which nobody knows when it ends. Over rpc the
// time travels with the status, in microseconds.
//
// Threads: pure functions.
#ifndef DYNLIB_CLUSTER_RETRY_AFTER_H_
#define DYNLIB_CLUSTER_RETRY_AFTER_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "dynlib/base/time.h"

namespace dynlib::cluster {

// kResourceExhausted with `retry_after`, rounded up to at least one and at most an hour of
// microseconds.
absl::Status ThrottledError(std::string message, Duration retry_after);

// Of any status; nothing when it does not say.
std::optional<Duration> RetryAfter(const absl::Status& status);

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_RETRY_AFTER_H_
