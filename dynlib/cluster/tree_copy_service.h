// Lets other nodes copy the trees of this node's replicas, chunk by chunk, from a pinned version.
//
// A version of a tree never changes (store/tree.h), so that a copy needs nothing of its source but
// that the version is kept: the first request pins the newest one, and later ones name the pin and
// the key that they have got to. Any request may be lost, repeated or late. Nobody waits for a
// copy: the replica goes on as ever, and its log from the pin's position on brings the copy up to
// date.
//
//   TreeCopyService service({.bytes_per_second = 64 << 20},
//                           [&](PartitionId id) { return FindTree(id); },
//                           executor, file_executor, clock);
//   service.Register(&rpc);
//
// A pin holds back the space of what was replaced since; so there are few, and one that nobody
// asked about for `pin_idle` is gone. A node whose first request is repeated, before it went on
// with the pin that it got, gets that pin again.
//
// Outcomes of kCopyTree, beside what the lookup says:
//   NOT_FOUND           no such pin, or not any more: begin anew, here or elsewhere
//   RESOURCE_EXHAUSTED  with retry_after_us: the throttle has no turn before the caller's deadline,
//                       but one then, for the pin that the answer names. Without: pins_max versions
//                       are pinned; another source may have room
//   DATA_LOSS           a page is damaged here: another replica has it
//   CANCELLED           the node shuts down
//   INVALID_ARGUMENT    the request does not parse, or names parts that cannot be (tree_chunk.h)
// kUnpin is answered with OK, whether the pin was there or not.
//
// Counted: "copy.chunks_served", "copy.bytes_served", "copy.bytes_compared" (the asker had them),
// "copy.pins_expired".
//
// Threads: everything on `executor`; trees are read on `file_executor`.
#ifndef DYNLIB_CLUSTER_TREE_COPY_SERVICE_H_
#define DYNLIB_CLUSTER_TREE_COPY_SERVICE_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/time.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/runtime/rpc.h"
#include "dynlib/store/tree.h"

namespace dynlib::cluster {

class TreeCopyService {
 public:
  struct Options {
    size_t pins_max = 16;                          // 1 to 1,000
    Duration pin_idle = std::chrono::seconds(30);  // 1 ms to 1 h
    size_t chunk_bytes_max = 1 << 20;              // 1 KiB to 16 MiB
    // Of all copies; 0: as fast as it goes. What the asker turns out to have counts an eighth.
    uint64_t bytes_per_second = 0;
    // Tells the pins of this object from those of earlier ones of the node. 0: taken from the
    // clock.
    uint64_t pin_seed = 0;
    bool unpinned_for_test = false;  // broken on purpose: each chunk is of the newest version
  };
  // The tree of a partition that is whole here, for a moment; else what to answer.
  using Lookup = absl::AnyInvocable<absl::StatusOr<store::Tree*>(PartitionId)>;

  // kInvalidArgument naming the field, its value and its range.
  static absl::Status Validate(const Options& options);

  // The options are valid (DYNLIB_CHECK).
  TreeCopyService(Options options, Lookup lookup, Executor* executor, Executor* file_executor,
                  const Clock* clock, MetricsSink* metrics = MetricsSink::None());
  // What is being read ends on the file executor.
  ~TreeCopyService();

  // Registers kCopyTree and kUnpin.
  void Register(Rpc* rpc);
  // Lets go of all pins; from now on every request is answered with CANCELLED. The versions are
  // gone when the file executor has run what it has now.
  void Stop();

  size_t pins() const;

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_TREE_COPY_SERVICE_H_
