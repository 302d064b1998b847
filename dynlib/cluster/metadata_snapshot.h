// The file in which a metadata node keeps its map, so that it starts with what it knew.
//
//   DYNLIB_RETURN_IF_ERROR(SaveMetadataSnapshot(*memds, disk));
//   DYNLIB_ASSIGN_OR_RETURN(std::string bytes, LoadMetadataSnapshot(disk));   // for MemDs::Create
//
// The new file takes the old one's place only when it is durable, so there is always a whole one.
//
// Threads: blocking; on an executor for that. One save at a time.
#ifndef DYNLIB_CLUSTER_METADATA_SNAPSHOT_H_
#define DYNLIB_CLUSTER_METADATA_SNAPSHOT_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/partition_map/memds.h"
#include "dynlib/runtime/disk.h"

namespace dynlib::cluster {

inline constexpr char kMetadataSnapshotPath[] = "metadata.snapshot";

absl::Status SaveMetadataSnapshot(const partition_map::MemDs& memds, Disk* disk);
// kNotFound when there is none.
absl::StatusOr<std::string> LoadMetadataSnapshot(Disk* disk);

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_METADATA_SNAPSHOT_H_
