// Copies the tree of a partition's replica from another node into a tree here.
//
//   TreeCopier::CopyId id = copier.Copy(
//       partition, {NodeId{2}, NodeId{3}}, tree, [&](absl::StatusOr<uint64_t> position) {
//         if (position.ok()) TableStateMachine::FinishCopy(*tree, *position);
//       });
//
// The tree becomes, in all keys that replicas share (TableStateMachine::IsShared), one version of
// the source's, and `position` is that version's. Its other keys stay. The copy begins at the first
// source; lost messages cost an attempt, after which it goes on where it was. When the source is
// silent, lets go of the version or finds a damaged page, the copy begins anew at the next source,
// going round. Nothing is cleared for that. Of what the tree holds, digests are sent, and the
// source sends what is different (tree_chunk.h). So a copy that is taken up again, also after a
// restart of this node or into a tree of an older version, reads everything on both sides once
// more, and sends and writes the difference alone.
//
// Each chunk is verified before anything of it is applied. Chunks are applied at position 0, in
// batches; none of it is durable before a checkpoint, for which OnWritten says how much was.
//
// Memory: one chunk for each copy, and what the tree itself keeps.
// Errors of a copy:
//   kCancelled        Cancel or Stop
//   kInvalidArgument  no sources
//   the last source's, when each source was tried `rounds_max` times
//   the tree's, when it cannot be written here
// Counted: "copy.chunks", "copy.bytes" (of keys and values received), "copy.bytes_same" (that were
// here already, and not sent), "copy.rows_changed", "copy.restarts" (with an event that says why).
//
// Threads: everything on `executor`, where the callbacks run, never inline; the tree is read and
// written on `file_executor`. The tree outlives the copy, and has no other writer meanwhile.
#ifndef DYNLIB_CLUSTER_TREE_COPIER_H_
#define DYNLIB_CLUSTER_TREE_COPIER_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

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

class TreeCopier {
 public:
  struct Options {
    Duration attempt_timeout = std::chrono::seconds(5);     // of one request; 1 ms to 1 h
    Duration retry_delay = std::chrono::milliseconds(200);  // after a failure; 1 ms to 1 h
    // Failures in a row after which a source is given up. 1 to 1,000. All of them should take less
    // time than sources keep an idle pin.
    int attempts_max = 4;
    int rounds_max = 3;              // how often a copy begins at each source; 1 to 1,000
    size_t chunk_bytes = 1 << 20;    // asked for at a time; 1 KiB to 16 MiB
    bool unpinned_for_test = false;  // broken on purpose: takes chunks of different versions
  };
  enum class CopyId : uint64_t {};
  using Done = absl::AnyInvocable<void(absl::StatusOr<uint64_t> position)>;

  // kInvalidArgument naming the field, its value and its range.
  static absl::Status Validate(const Options& options);

  // The options are valid (DYNLIB_CHECK).
  TreeCopier(Options options, Rpc* rpc, Executor* executor, Executor* file_executor,
             const Clock* clock, MetricsSink* metrics = MetricsSink::None());
  // Copies that are under way end without a word; see Stop.
  ~TreeCopier();

  // Hears of what the copies write.
  void OnWritten(absl::AnyInvocable<void(size_t bytes)> written);

  // `done` runs once, when nothing of the copy touches the tree any more.
  CopyId Copy(PartitionId partition, std::vector<NodeId> sources, store::Tree* into, Done done);

  // Ends a copy: its callback gets kCancelled, and then `done` runs. Of a copy that is over, `done`
  // alone. Either way the tree is the caller's then.
  void Cancel(CopyId copy, absl::AnyInvocable<void()> done);
  // Cancels all copies, and refuses new ones.
  void Stop(absl::AnyInvocable<void()> done);

  size_t copies() const;  // under way

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_TREE_COPIER_H_
