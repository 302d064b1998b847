// What may be the name of an object: see object_store.h. For those who implement an ObjectStore.
#ifndef DYNLIB_RUNTIME_OBJECT_NAME_H_
#define DYNLIB_RUNTIME_OBJECT_NAME_H_

#include <string_view>

#include "absl/status/status.h"

namespace dynlib {

// kInvalidArgument, saying what is wrong with the name.
absl::Status CheckObjectName(std::string_view name);

}  // namespace dynlib

#endif  // DYNLIB_RUNTIME_OBJECT_NAME_H_
