// One repair of a replica's tree after a scrub: what is damaged or wrong is replaced by what
// another replica pinned at the same marker, unless the log has written it since.
//
//   TreeRepair repair(scrub, version, request);
//   repair.Examine();                           // which pages are damaged; blocks on files
//   ... rows of repair.wanted() from a good copy: repair.AddRow(key, item) ...
//   TreeRepair::Outcome outcome = repair.Apply(tree, pins);    // where the tree is written
//
// Why this is right. A key that was not written since the marker must be now what it was then, and
// the good copy says what that was. A page that can be read neither on disk nor in memory was not
// changed since this process began, hence not since the marker: a change would have had to read it.
// So all that was in it is as it was then, too. A page that is damaged on disk and good in memory
// is written anew from memory.
//
// The tree's position stays: a repair makes it what the log up to there says.
//
// Internal to cluster. Threads: one at a time.
#ifndef DYNLIB_CLUSTER_TREE_REPAIR_H_
#define DYNLIB_CLUSTER_TREE_REPAIR_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/checksum.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/scrub_pins.h"
#include "dynlib/scrub/types.h"
#include "dynlib/store/tree.h"
#include "dynlib/store/write_batch.h"

namespace dynlib::cluster {

class TreeRepair {
 public:
  // Of rows that are kept in memory; what takes more is not repaired but rebuilt.
  static constexpr uint64_t kRowBytesMax = 64 << 20;

  struct Outcome {
    absl::Status status;
    uint64_t repaired = 0;  // of the request's items and ranges
    uint64_t changed = 0;   // left as the log has them
    // A damaged page has more than items, or is too large: the replica is to be replaced.
    bool rebuild = false;
  };

  // kInvalidArgument for a request that is not well formed.
  static absl::StatusOr<TreeRepair> Make(const wire::RepairRequest& request,
                                         store::Snapshot version);

  absl::Status Examine();
  // Storage keys, in order, disjoint.
  const std::vector<scrub::KeyRange>& wanted() const { return wanted_; }
  // kResourceExhausted: too many.
  absl::Status AddRow(std::string key, std::string item);
  Outcome Apply(store::Tree& tree, const ScrubPins& pins);

  // Whether a page with what a tree holds besides items is damaged on disk.
  static bool MetadataIsDamaged(const store::Snapshot& version);
  // Writes that anew, from memory; kDataLoss if memory does not have it.
  static absl::Status RepairMetadata(store::Tree& tree);

 private:
  using Rows = std::map<std::string, std::string>;  // by tree key

  TreeRepair() = default;
  // Whether one of the damaged pages may hold it.
  bool IsOnPage(std::string_view tree_key) const;
  absl::Status CheckRows() const;
  absl::Status RepairPage(const scrub::KeyRange& page, store::Tree& tree, const ScrubPins& pins,
                          Outcome& outcome) const;
  void TakeRight(const scrub::KeyRange& range, const ScrubPins& pins, Rows& rows) const;

  uint64_t scrub_ = 0;
  store::Snapshot version_;
  std::map<std::string, std::optional<Digest128>> items_;  // by tree key; none: to be absent
  std::vector<scrub::KeyRange> ranges_;                    // tree keys
  std::vector<scrub::KeyRange> pages_;                     // damaged in the version; tree keys
  std::vector<scrub::KeyRange> wanted_;
  Rows right_;
  uint64_t bytes_ = 0;
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_TREE_REPAIR_H_
