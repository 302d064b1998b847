#include "dynlib/runtime/posix/posix_status.h"

#include <errno.h>

#include <string>
#include <system_error>

#include "dynlib/base/strings.h"

namespace dynlib {

absl::StatusCode CodeFromErrno(int error) {
  switch (error) {
    case ENOENT:
      return absl::StatusCode::kNotFound;
    case EEXIST:
      return absl::StatusCode::kAlreadyExists;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return absl::StatusCode::kResourceExhausted;
    case EIO:
      return absl::StatusCode::kDataLoss;
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::StatusCode::kPermissionDenied;
    case EINVAL:
    case ENOTDIR:
    case EISDIR:
    case ENAMETOOLONG:
    case ELOOP:
      return absl::StatusCode::kInvalidArgument;
    case ENOTEMPTY:
      return absl::StatusCode::kFailedPrecondition;
    case EAGAIN:
    case EBUSY:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ENODEV:
    case ENXIO:
    case ESTALE:
    case EADDRINUSE:
    case ECONNREFUSED:
      return absl::StatusCode::kUnavailable;
    default:
      return absl::StatusCode::kInternal;
  }
}

absl::Status StatusFromErrno(std::string_view operation, std::string_view what) {
  const int error = errno;
  const std::string text = std::generic_category().message(error);
  return absl::Status(CodeFromErrno(error), ToAbsl(Cat(operation, " ", what, ": ", text)));
}

}  // namespace dynlib
