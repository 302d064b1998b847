// `<directory>/CLUSTER`: what a mini-cluster's directory was made for, so that nobody goes on in it
// with something else.
//
// Text, "name value" a line, the format's version first:
//
//   dynlib-mini-cluster 1
//   nodes 3
//   partitions 4
//   data 0123456789abcdef0123456789abcdef
//   loaded 34924
//
// Threads: one at a time.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_MANIFEST_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_MANIFEST_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace dynlib::mini_cluster {

struct Manifest {
  uint64_t nodes = 0;
  uint64_t partitions = 0;
  std::string data;     // digest of the data set
  uint64_t loaded = 0;  // items, once all of them were acknowledged; 0 before
  friend bool operator==(const Manifest&, const Manifest&) = default;
};

// Nothing when the directory is missing or empty. kFailedPrecondition, naming the file, when the
// directory has something else in it, or the manifest is of another version; kDataLoss when it does
// not parse.
absl::StatusOr<std::optional<Manifest>> ReadManifest(const std::string& directory);

// Durable when it returns OK. Makes the directory.
absl::Status WriteManifest(const std::string& directory, const Manifest& manifest);

// kFailedPrecondition that names what differs.
absl::Status CheckManifest(const std::string& directory, const Manifest& found,
                           const Manifest& wanted);

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_MANIFEST_H_
