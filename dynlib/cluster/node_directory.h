// Whose directory a disk holds, and in which format.
//
// `LOCK` keeps a second process out. `FORMAT` is written last when a directory is made, so that a
// directory without it was never used, and one with it is whole.
#ifndef DYNLIB_CLUSTER_NODE_DIRECTORY_H_
#define DYNLIB_CLUSTER_NODE_DIRECTORY_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/runtime/disk.h"

namespace dynlib::cluster {

struct NodeDirectory {
  std::unique_ptr<DiskLock> lock;
  bool fresh = false;  // No FORMAT yet: nothing in it was ever relied on.
};

// Locks the directory and checks FORMAT. Writes nothing but the lock.
//   kAlreadyExists       another process has it
//   kFailedPrecondition  another node's, another format version, or files in it that a node does
//   not make
absl::StatusOr<NodeDirectory> OpenNodeDirectory(Disk* disk, NodeId node);

// Makes the directory the node's, durably.
absl::Status WriteFormat(Disk* disk, NodeId node);

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_NODE_DIRECTORY_H_
