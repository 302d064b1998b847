// errno as a Status.
#ifndef DYNLIB_RUNTIME_POSIX_POSIX_STATUS_H_
#define DYNLIB_RUNTIME_POSIX_POSIX_STATUS_H_

#include <string_view>

#include "absl/status/status.h"

namespace dynlib {

// The codes that Disk promises; kInternal for an errno that none is promised for.
absl::StatusCode CodeFromErrno(int error);

// From errno as it is: "<operation> <what>: <errno's text>".
absl::Status StatusFromErrno(std::string_view operation, std::string_view what);

}  // namespace dynlib

#endif  // DYNLIB_RUNTIME_POSIX_POSIX_STATUS_H_
