// Which units of the page file are free.
//
// A unit is in use while any of these holds it: a node in memory or a page being written ("live"),
// a checkpoint that a superblock on disk names, a checkpoint that Verify is reading. Only what none
// of them holds is given out (rule L5).
//
// Free units may have been discarded: they are part of the file and have no space on the disk.
// Others are given out first.
//
// Internal to the store. Threads: any; makes no file call.
#ifndef DYNLIB_STORE_EXTENT_ALLOCATOR_H_
#define DYNLIB_STORE_EXTENT_ALLOCATOR_H_

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "dynlib/store/page.h"

namespace dynlib::store {

// Shorter free runs are kept for pages to come, if the file system can do without them: a hole for
// each would only scatter the file.
inline constexpr uint64_t kLongRunUnits = (64 << 10) / kUnitBytes;

// A set of units. Units past its end are not in it.
class UnitSet {
 public:
  void Add(Extent extent);
  void Remove(Extent extent);
  bool Contains(uint64_t unit) const {
    return unit / 64 < words_.size() && (words_[unit / 64] >> (unit % 64) & 1) != 0;
  }
  bool ContainsAny(Extent extent) const;
  void AddAll(const UnitSet& other);
  void RemoveAll(const UnitSet& other);
  uint64_t Count() const;
  // Of this set, without `other`'s.
  uint64_t CountWithout(const UnitSet& other) const;
  // One more than the last unit in it; 0 for the empty set.
  uint64_t End() const;
  // First unit in [from, to) that is in the set (or is not), or `to`.
  uint64_t NextIn(uint64_t from, uint64_t to) const { return Next(from, to, true); }
  uint64_t NextOut(uint64_t from, uint64_t to) const { return Next(from, to, false); }

  // Bit u % 8 of byte u / 8, up to the last unit that is in it.
  std::string Encode() const;
  static UnitSet Decode(std::string_view bytes);

 private:
  uint64_t Next(uint64_t from, uint64_t to, bool in) const;

  std::vector<uint64_t> words_;
};

class ExtentAllocator {
 public:
  using Held = std::shared_ptr<const UnitSet>;

  explicit ExtentAllocator(uint64_t file_units) : file_units_(file_units) {}

  // Room for `units` next to each other, live from now on; none if the file must grow first, or
  // discarded units be filled.
  std::optional<Extent> Allocate(uint64_t units);
  // The next Allocate looks from the start of the file.
  void StartOver();
  // No longer live.
  void Release(Extent extent);
  void ReleaseAll(const UnitSet& units);
  // Marks what is on disk already, at opening.
  void SetLive(const UnitSet& live);

  // What the two superblocks hold; null: nothing.
  void SetCheckpoints(std::array<Held, 2> checkpoints);
  // Holds `units` until the matching Unpin.
  void Pin(Held units);
  void Unpin(const Held& units);

  // What is not discarded of free runs of at least `units`, about `count` extents of it, from
  // `*from` on, which moves behind them; it counts as discarded from now on.
  std::vector<Extent> DiscardRuns(uint64_t units, size_t count, uint64_t* from);
  // A free run in which discarded units are, of at least `units` and at most `units_max`; none if
  // there is none.
  std::optional<Extent> DiscardedRun(uint64_t units, uint64_t units_max) const;
  // They have space again.
  void Fill(Extent discarded);
  // Takes the free units behind the last one in use off the file; nothing below `floor`. Returns
  // the units that the file has then.
  uint64_t TrimTail(uint64_t floor);

  uint64_t file_units() const;
  void SetFileUnits(uint64_t file_units);
  uint64_t used_units() const;
  uint64_t discarded_units() const;
  // Free, and with space on the disk.
  uint64_t idle_units() const;

 private:
  void Recount();
  std::optional<Extent> FindFree(uint64_t from, uint64_t to, uint64_t units) const;
  uint64_t NextFree(uint64_t from, uint64_t to) const;
  uint64_t NextTaken(uint64_t from, uint64_t to) const;

  mutable std::mutex mutex_;
  uint64_t file_units_;
  uint64_t cursor_ = 0;  // next fit: pages of one checkpoint come to lie next to each other
  UnitSet live_;
  UnitSet used_;                              // live_ and all that is held
  UnitSet discarded_;                         // disjoint from used_
  std::vector<Held> held_{nullptr, nullptr};  // the superblocks' two, then the pins
};

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_EXTENT_ALLOCATOR_H_
