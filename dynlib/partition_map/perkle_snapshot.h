// A Perkle tree as bytes, and back: what a process that starts reads instead of asking others.
//
//   std::string bytes = EncodeSnapshot(tree);
//   DYNLIB_ASSIGN_OR_RETURN(Perkle again, DecodeSnapshot(bytes));      // the same digest
//
// All of it is checked: each frame has a checksum, and the digest of the whole is in the header. So
// bytes that are damaged, cut off, or put together from several snapshots give kDataLoss, never
// another tree. Decoding is safe on any bytes, and takes memory in proportion to what they unpack
// to: about 120 bytes an entry of 70, until it is done.
//
//   header  "DYNPERK1", entries (8), digest (16), checksum of these (8)
//   frames  unpacked size (4), packed size (4), checksum of these and of what follows, seeded with
//           the frame's number (8); zstd of the entries of about 1 MiB, in key order: what the key
//           shares with the one before it in the frame, what it adds, the value (each size a
//           varint)
//
// Numbers are little-endian.
#ifndef DYNLIB_PARTITION_MAP_PERKLE_SNAPSHOT_H_
#define DYNLIB_PARTITION_MAP_PERKLE_SNAPSHOT_H_

#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/partition_map/perkle.h"

namespace dynlib::partition_map {

// Piece by piece, of about a mebibyte at most (an entry may be larger than that by 80 KiB). An
// error of `write` ends it and is returned. Threads: any; the tree may be a copy that a writer goes
// on from.
absl::Status WriteSnapshot(const Perkle& tree,
                           absl::FunctionRef<absl::Status(std::string_view)> write);
std::string EncodeSnapshot(const Perkle& tree);
absl::StatusOr<Perkle> DecodeSnapshot(std::string_view bytes);

}  // namespace dynlib::partition_map

#endif  // DYNLIB_PARTITION_MAP_PERKLE_SNAPSHOT_H_
