// The versions of a replica's tree that scrubs compare, and what was written since.
//
// A version is pinned when the marker of a scrub is applied, at exactly its slot (rule R12), and
// held until the scrub lets go of it, nobody has used it for a while, or newer ones need its place.
// A restart lets go of all.
//
// For repairs a pin remembers which keys the log has written since: what is there now is then the
// log's, whatever the pinned version has.
//
// Threads: any. Versions that are let go are returned, since the last reference to one may free
// many pages: drop them where that may take time.
#ifndef DYNLIB_CLUSTER_SCRUB_PINS_H_
#define DYNLIB_CLUSTER_SCRUB_PINS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "dynlib/base/time.h"
#include "dynlib/store/tree.h"

namespace dynlib::cluster {

class ScrubPins {
 public:
  static constexpr size_t kPinsMax = 4;
  // Beyond, every key counts as written.
  static constexpr size_t kWrittenMax = 1'000'000;

  // The version at the marker of `scrub`; the one pinned first gives way to a fifth.
  void Pin(uint64_t scrub, store::Snapshot version);
  // Nothing if it is not pinned. It counts as used from then on.
  std::optional<store::Snapshot> Find(uint64_t scrub, Instant now);
  void Written(std::string_view tree_key);
  // True if it was, or may have been, since the marker of `scrub`; and if that is not pinned.
  bool WasWritten(uint64_t scrub, std::string_view tree_key) const;

  std::optional<store::Snapshot> Release(uint64_t scrub);
  // Lets go of those that nobody used for `idle`.
  std::vector<store::Snapshot> Expire(Instant now, Duration idle);
  std::vector<store::Snapshot> ReleaseAll();
  size_t size() const;

 private:
  struct Entry {
    uint64_t order = 0;
    store::Snapshot version;
    std::optional<Instant> used;           // or first looked at
    std::unordered_set<uint64_t> written;  // hashes of keys; only ever asked whether it has one
  };

  mutable std::mutex mutex_;
  std::map<uint64_t, Entry> pins_;
  uint64_t last_order_ = 0;
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_SCRUB_PINS_H_
