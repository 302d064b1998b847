// What the scrub block asks and answers, on its way between nodes.
//
// Internal to cluster. Threads: any.
#ifndef DYNLIB_CLUSTER_SCRUB_CODEC_H_
#define DYNLIB_CLUSTER_SCRUB_CODEC_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "dynlib/base/checksum.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/scrub/types.h"

namespace dynlib::cluster {

// 16 bytes.
std::string EncodeDigest(const Digest128& digest);
// kInvalidArgument unless there are 16.
absl::StatusOr<Digest128> DecodeDigest(std::string_view bytes);

// Without id, replica and marker, which the request around it has.
void ToWire(const scrub::Request& request, wire::ScrubQuery& to);
scrub::Request FromWire(const wire::ScrubQuery& query);

void ToWire(const scrub::Answer& answer, wire::ScrubAnswer& to);
// kInvalidArgument for digests that are none. The session checks the rest.
absl::StatusOr<scrub::Answer> FromWire(const wire::ScrubAnswer& answer);

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_SCRUB_CODEC_H_
