// Early return on error.
//
//   DYNLIB_RETURN_IF_ERROR(file->Sync());
//   DYNLIB_ASSIGN_OR_RETURN(uint64_t size, file->Size());
#ifndef DYNLIB_BASE_STATUS_MACROS_H_
#define DYNLIB_BASE_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define DYNLIB_RETURN_IF_ERROR(expression)           \
  do {                                               \
    absl::Status dynlib_status_ = (expression);      \
    if (!dynlib_status_.ok()) return dynlib_status_; \
  } while (false)

#define DYNLIB_ASSIGN_OR_RETURN(target, expression) \
  DYNLIB_ASSIGN_OR_RETURN_IMPL_(DYNLIB_CONCAT_(dynlib_statusor_, __LINE__), target, expression)

#define DYNLIB_ASSIGN_OR_RETURN_IMPL_(temporary, target, expression) \
  auto temporary = (expression);                                     \
  if (!temporary.ok()) return std::move(temporary).status();         \
  target = *std::move(temporary)

#define DYNLIB_CONCAT_(a, b) DYNLIB_CONCAT_IMPL_(a, b)
#define DYNLIB_CONCAT_IMPL_(a, b) a##b

#endif  // DYNLIB_BASE_STATUS_MACROS_H_
