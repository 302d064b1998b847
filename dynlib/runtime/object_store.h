// Immutable named objects, in the shape of S3: what archives and backups are kept in.
//
// Names are 1 to 1,024 bytes of letters, digits, '.', '_', '-', '=' and '/', with no empty, "." or
// ".." part between slashes; others are kInvalidArgument. A Put is atomic: readers see the whole
// object or the one before.
//
// Blocking; call it on an executor of its own. Threads: any.
#ifndef DYNLIB_RUNTIME_OBJECT_STORE_H_
#define DYNLIB_RUNTIME_OBJECT_STORE_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace dynlib {

struct ObjectInfo {
  std::string name;
  uint64_t size_bytes = 0;
};

class ObjectStore {
 public:
  virtual ~ObjectStore() = default;

  // Stores `data` durably, replacing what has the name. The store verifies that what it received
  // has `checksum` (Checksum(data), XXH3-64) and keeps it; a mismatch is kDataLoss and stores
  // nothing.
  virtual absl::Status Put(std::string_view name, std::string_view data, uint64_t checksum) = 0;
  // The object, verified against its checksum (kDataLoss if it does not match), or kNotFound.
  virtual absl::StatusOr<std::string> Get(std::string_view name) = 0;
  // Objects whose names start with `prefix` and come after `after`, in byte order, at most `limit`
  // of them.
  virtual absl::StatusOr<std::vector<ObjectInfo>> List(std::string_view prefix,
                                                       std::string_view after = "",
                                                       size_t limit = 1000) = 0;
  // OK if there is no such object.
  virtual absl::Status Delete(std::string_view name) = 0;
};

}  // namespace dynlib

#endif  // DYNLIB_RUNTIME_OBJECT_STORE_H_
