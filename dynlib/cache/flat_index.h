// An index of a constant-work cache for small values that are copied: the fastest one.
//
//   struct Route { uint64_t key, version; uint32_t nodes[3], leader; };
//   struct RouteTraits {
//     using Key = uint64_t;
//     using Value = Route;
//     static uint64_t KeyOf(const Route& r) { return r.key; }
//     // The same on every machine and in every run: it decides what is evicted.
//     static uint64_t Hash(uint64_t key) { return key; }
//     // Whether `a` replaces `b`, a value of the same key. Neither newer: the same version.
//     static bool Newer(const Route& a, const Route& b) { return a.version > b.version; }
//   };
//   ConstantWorkCache<FlatIndex<RouteTraits>> routes(...);
//
// Value is trivially copyable and has a default; Key has ==. A hit reads a word of tags and the
// value's slot, and writes nothing. Slots are sequence locks (Boehm, "Can seqlocks get along with
// programming language memory models?", MSPC 2012), in groups of eight: a byte of each key's hash
// says which slot of its group to look at, so that a look-up hardly ever takes a branch that
// depends on memory, and the processor overlaps its cache misses with those of the next look-up
// (with linear probing over slots a look-up of a million took 66 ns, so 44). A key prefers one slot
// of its group, which is fetched before the tags have said that it is there, as it is for two of
// three keys (without, a hit takes a quarter longer); and the table asks for huge pages (37 to 31
// ns). What is left is bound by how many look-ups the processor holds at once, and so by their
// instructions: every one of about 85 counts. A reader that meets a slot in the few nanoseconds in
// which it is written reads it again; a reader that finds nothing looks again if an entry was moved
// meanwhile, so no value that is held is ever missed.
//
// Sixteen shards (one below 1,024 entries), each with a lock for its writers. A shard holds its
// part of max_entries and its slots, allocated at the start: 2 slots an entry (with 1.6, as with
// 2.7, a look-up took 3 to 4 % longer: groups overflow, or lines are further apart), each of 24
// bytes and the value, rounded up to a power of two up to 64 bytes, beyond to a multiple of 64.
// Eviction is by second chance and looks at 33 entries at most.
//
// The time of a value's last confirmation is written when it has moved on by 100 ms: the constant
// stream of refreshes would otherwise take the hottest lines from their readers. So an age may be
// told up to 100 ms too long.
//
// Threads: any.
#ifndef DYNLIB_CACHE_FLAT_INDEX_H_
#define DYNLIB_CACHE_FLAT_INDEX_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <type_traits>
#include <unordered_map>
#include <vector>

#include "dynlib/base/huge_array.h"
#include "dynlib/base/time.h"
#include "dynlib/cache/absent_keys.h"
#include "dynlib/cache/entry.h"
#include "dynlib/cache/options.h"
#include "dynlib/cache/tag_group.h"

namespace dynlib::cache {

// A copy of a value, or none: read as a pointer is. Unlike std::optional it leaves the value's
// bytes alone until it is given one.
template <typename Value>
class Copy {
 public:
  Copy() {}
  Copy(const Value& value) : held_(true) { std::memcpy(bytes_, &value, sizeof value); }
  explicit operator bool() const { return held_; }
  const Value& operator*() const { return *reinterpret_cast<const Value*>(bytes_); }
  const Value* operator->() const { return &**this; }

 private:
  template <typename Traits>
  friend class FlatIndex;
  alignas(Value) std::byte bytes_[sizeof(Value)];
  bool held_ = false;
};

template <typename Traits>
class FlatIndex {
 public:
  using Key = typename Traits::Key;
  using Value = typename Traits::Value;
  using Ref = Copy<Value>;
  static_assert(std::is_trivially_copyable_v<Value>);
  struct KeyHash {
    size_t operator()(const Key& key) const { return Traits::Hash(key); }
  };
  template <typename Mapped>
  using KeyMap = std::unordered_map<Key, Mapped, KeyHash>;

  explicit FlatIndex(const CacheOptions& options);

  // False, and what was in `found` may be gone, if nothing is held.
  bool Find(const Key& key, Cached<Ref>* found);
  // True if the directory said within absent_lifetime that there is no value.
  bool IsAbsent(const Key& key, Instant now);
  static Ref Own(Value value) { return value; }
  // True of a value that may be returned for `key`.
  static bool Covers(const Value& value, const Key& key) { return Traits::KeyOf(value) == key; }
  // `as_of`: when the request that brought it was made.
  Applied Apply(Ref value, Instant as_of);
  // The directory, asked at `as_of`, knows no value for `key`. True if a value went.
  bool Deny(const Key& key, Instant as_of, Instant now);
  // Values held; exact when nothing else runs.
  size_t size() const;
  std::vector<Cached<Ref>> Entries() const;

 private:
  static constexpr size_t kShards = 16;
  static constexpr size_t kSmall = 1'024;
  static constexpr size_t kLookMax = 32;
  static constexpr size_t kGroup = 8;
  static constexpr size_t kWords = (sizeof(Value) + 7) / 8;
  static constexpr Duration kConfirmGrain = std::chrono::milliseconds(100);
  static constexpr int64_t kNever = INT64_MIN;

  static constexpr size_t kSlotBytes = 24 + 8 * kWords;
  struct alignas(std::min<size_t>(std::bit_ceil(kSlotBytes), 64)) Slot {
    std::atomic<uint32_t> sequence{0};  // odd: being written
    std::atomic<bool> used{false};      // a newcomer proves itself by a second use
    std::atomic<int64_t> confirmed{0};
    int64_t denied_since = kNever;  // the writer's
    std::array<std::atomic<uint64_t>, kWords> words{};
  };
  struct alignas(64) Shard {
    // Odd while entries move from slot to slot.
    std::atomic<uint64_t> moves{0};
    mutable std::mutex mutex;  // of writers, and guards what follows
    size_t entries = 0;
    size_t hand = 0;
    AbsentKeys<KeyMap<Instant>> absent;
  };
  struct Place {
    size_t group;      // where probing begins
    size_t preferred;  // slot of that group; where the key is if it was free when it came
    uint8_t tag;
  };
  static constexpr size_t kNowhere = SIZE_MAX;

  Place PlaceOf(const Key& key) const {
    const unsigned __int128 product =
        static_cast<unsigned __int128>(Traits::Hash(key)) * 0x9E3779B97F4A7C15u;
    const uint64_t mixed = static_cast<uint64_t>(product >> 64) ^ static_cast<uint64_t>(product);
    const auto tag = static_cast<uint8_t>(mixed);
    const size_t group = ((mixed >> 32) * tags_.size()) >> 32;
    return {group, mixed >> 8 & (kGroup - 1), static_cast<uint8_t>(tag + (tag == 0))};
  }
  // Shards are runs of groups.
  size_t ShardOf(const Place& place) const { return place.group / groups_; }
  // Groups follow one another around their shard.
  size_t Next(size_t shard, size_t group) const {
    return ++group == (shard + 1) * groups_ ? shard * groups_ : group;
  }
  uint64_t TagsOf(size_t group) const { return tags_[group].load(std::memory_order_relaxed); }
  uint8_t TagOf(size_t slot) const {
    return static_cast<uint8_t>(TagsOf(slot / kGroup) >> 8 * (slot % kGroup));
  }
  void SetTag(size_t slot, uint8_t tag) {
    const size_t shift = 8 * (slot % kGroup);
    const uint64_t others = TagsOf(slot / kGroup) & ~(uint64_t{0xFF} << shift);
    tags_[slot / kGroup].store(others | uint64_t{tag} << shift, std::memory_order_release);
  }

  // Of a slot that nobody writes.
  static Value Read(const Slot& slot);
  static void ReadInto(const Slot& slot, std::byte* to);
  // False if it was written meanwhile.
  static bool ReadShared(const Slot& slot, Cached<Ref>* out);
  static void Use(Slot& slot) {
    // Writing only a change keeps the line shared among the readers of a hot entry.
    if (!slot.used.load(std::memory_order_relaxed)) [[unlikely]]
      slot.used.store(true, std::memory_order_relaxed);
  }
  bool FindAnywhere(const Key& key, Cached<Ref>* found);
  static void Write(Slot& slot, const Value& value, Instant confirmed);

  // For writers, under the shard's lock. The slot of `key`, or kNowhere.
  size_t Locate(const Place& place, const Key& key) const;
  size_t FindEmpty(const Place& place) const;
  void Confirm(Slot& slot, Instant as_of);
  size_t Victim(size_t shard);
  void Erase(size_t shard, size_t hole);
  // An entry of a group behind `group` that probing could find there; kNowhere: there is none.
  size_t Follower(size_t shard, size_t group) const;

  const size_t shard_mask_;
  const Duration absent_lifetime_;
  const Duration deny_after_;
  const size_t shard_entries_max_;
  const size_t groups_;  // of a shard
  // Of each group, a byte for each slot: of its key's hash, or 0: the slot is empty.
  HugeArray<std::atomic<uint64_t>> tags_;
  HugeArray<Slot> slots_;
  std::array<Shard, kShards> shards_;
};

template <typename Traits>
FlatIndex<Traits>::FlatIndex(const CacheOptions& options)
    : shard_mask_(options.max_entries < kSmall ? 0 : kShards - 1),
      absent_lifetime_(options.absent_lifetime),
      deny_after_(options.deny_after),
      shard_entries_max_(options.max_entries / (shard_mask_ + 1)),
      groups_(shard_entries_max_ / 4 + 1),
      tags_((shard_mask_ + 1) * groups_),
      slots_(tags_.size() * kGroup) {
  const size_t absent_max = options.max_absent_entries / (shard_mask_ + 1);
  for (Shard& shard : shards_) shard.absent.set_max(std::max<size_t>(absent_max, 1));
}

template <typename Traits>
auto FlatIndex<Traits>::Read(const Slot& slot) -> Value {
  Copy<Value> copy;
  ReadInto(slot, copy.bytes_);
  return *copy;
}

// Word by word to where it stays: copying it on in wider pieces would wait until these stores have
// left the processor's store buffer.
template <typename Traits>
inline void FlatIndex<Traits>::ReadInto(const Slot& slot, std::byte* to) {
#pragma GCC unroll 16
  for (size_t i = 0; i < kWords; ++i) {
    // Acquire orders the reads before the next one of `sequence`; on x86 it costs nothing.
    const uint64_t word = slot.words[i].load(std::memory_order_acquire);
    std::memcpy(to + 8 * i, &word, std::min<size_t>(8, sizeof(Value) - 8 * i));
  }
}

template <typename Traits>
inline bool FlatIndex<Traits>::ReadShared(const Slot& slot, Cached<Ref>* out) {
  // Of a slot that is being written, a number that it has left behind.
  const uint32_t sequence = slot.sequence.load(std::memory_order_acquire) & ~1u;
  ReadInto(slot, out->value.bytes_);
  out->value.held_ = true;
  out->confirmed = Instant::FromNanos(slot.confirmed.load(std::memory_order_acquire));
  return slot.sequence.load(std::memory_order_relaxed) == sequence;
}

template <typename Traits>
void FlatIndex<Traits>::Write(Slot& slot, const Value& value, Instant confirmed) {
  std::array<uint64_t, kWords> words{};
  std::memcpy(words.data(), &value, sizeof value);
  const uint32_t sequence = slot.sequence.load(std::memory_order_relaxed);
  slot.sequence.store(sequence + 1, std::memory_order_relaxed);
  // Release: whoever reads any of these sees that the sequence is odd, or later.
  slot.confirmed.store(confirmed.nanos(), std::memory_order_release);
  for (size_t i = 0; i < kWords; ++i) slot.words[i].store(words[i], std::memory_order_release);
  slot.denied_since = kNever;
  slot.sequence.store(sequence + 2, std::memory_order_release);
}

// Nearly always the first match of the home group is it.
template <typename Traits>
inline bool FlatIndex<Traits>::Find(const Key& key, Cached<Ref>* found) {
  const Place place = PlaceOf(key);
  Slot* const slots = &slots_[place.group * kGroup];
  __builtin_prefetch(slots + place.preferred);
  const TagMatches matches =
      TagMatches::Of(tags_[place.group].load(std::memory_order_acquire), place.tag);
  if (!matches.empty()) [[likely]] {
    Slot& slot = slots[matches.First()];
    if (ReadShared(slot, found) && Traits::KeyOf(*found->value) == key) [[likely]] {
      Use(slot);
      return true;
    }
  }
  return FindAnywhere(key, found);
}

template <typename Traits>
[[gnu::noinline, gnu::cold]] bool FlatIndex<Traits>::FindAnywhere(const Key& key,
                                                                  Cached<Ref>* found) {
  const Place place = PlaceOf(key);
  const size_t shard = ShardOf(place);
  const std::atomic<uint64_t>& moves = shards_[shard].moves;
  for (;;) {
    const uint64_t moves_before = moves.load(std::memory_order_acquire);
    for (size_t group = place.group;; group = Next(shard, group)) {
      const uint64_t tags = tags_[group].load(std::memory_order_acquire);
      for (TagMatches left = TagMatches::Of(tags, place.tag); !left.empty(); left.DropFirst()) {
        Slot& slot = slots_[group * kGroup + left.First()];
        while (!ReadShared(slot, found)) {
        }
        if (Traits::KeyOf(*found->value) != key) continue;
        Use(slot);
        return true;
      }
      if (!TagMatches::Of(tags, 0).empty()) break;
    }
    if (moves_before % 2 == 0 && moves.load(std::memory_order_relaxed) == moves_before)
      return false;
  }
}

template <typename Traits>
bool FlatIndex<Traits>::IsAbsent(const Key& key, Instant now) {
  Shard& shard = shards_[ShardOf(PlaceOf(key))];
  std::lock_guard lock(shard.mutex);
  return shard.absent.Contains(key, now);
}

template <typename Traits>
size_t FlatIndex<Traits>::Locate(const Place& place, const Key& key) const {
  for (size_t group = place.group;; group = Next(ShardOf(place), group)) {
    const uint64_t tags = TagsOf(group);
    for (TagMatches left = TagMatches::Of(tags, place.tag); !left.empty(); left.DropFirst()) {
      const size_t at = group * kGroup + left.First();
      if (Traits::KeyOf(Read(slots_[at])) == key) return at;
    }
    if (!TagMatches::Of(tags, 0).empty()) return kNowhere;
  }
}

template <typename Traits>
size_t FlatIndex<Traits>::FindEmpty(const Place& place) const {
  const size_t preferred = place.group * kGroup + place.preferred;
  if (TagOf(preferred) == 0) return preferred;
  for (size_t group = place.group;; group = Next(ShardOf(place), group)) {
    const TagMatches empty = TagMatches::Of(TagsOf(group), 0);
    if (!empty.empty()) return group * kGroup + empty.First();
  }
}

template <typename Traits>
Applied FlatIndex<Traits>::Apply(Ref value, Instant as_of) {
  const Key key = Traits::KeyOf(*value);
  const Place place = PlaceOf(key);
  Shard& shard = shards_[ShardOf(place)];
  Applied applied;
  std::lock_guard lock(shard.mutex);
  if (const size_t at = Locate(place, key); at != kNowhere) {
    const Value held = Read(slots_[at]);
    applied.changed = Traits::Newer(*value, held);
    applied.refused = !applied.changed && Traits::Newer(held, *value);
    applied.confirmed = !applied.changed && !applied.refused;
    if (applied.changed) Write(slots_[at], *value, as_of);
    if (applied.confirmed) Confirm(slots_[at], as_of);
    return applied;
  }
  applied.changed = true;
  shard.absent.Erase(key);
  if (shard.entries == shard_entries_max_) {
    Erase(ShardOf(place), Victim(ShardOf(place)));
    ++applied.evicted;
  }
  const size_t at = FindEmpty(place);
  Write(slots_[at], *value, as_of);
  slots_[at].used.store(false, std::memory_order_relaxed);
  SetTag(at, place.tag);
  ++shard.entries;
  return applied;
}

template <typename Traits>
void FlatIndex<Traits>::Confirm(Slot& slot, Instant as_of) {
  const int64_t known = slot.confirmed.load(std::memory_order_relaxed);
  if (as_of.nanos() - known >= kConfirmGrain.count())
    slot.confirmed.store(as_of.nanos(), std::memory_order_relaxed);
  if (slot.denied_since != kNever) slot.denied_since = kNever;
}

template <typename Traits>
size_t FlatIndex<Traits>::Victim(size_t shard) {
  const size_t slots = groups_ * kGroup;
  for (size_t looked = 0;;) {
    const size_t at = shard * slots + shards_[shard].hand++ % slots;
    if (TagOf(at) == 0) continue;
    const bool used = slots_[at].used.exchange(false, std::memory_order_relaxed);
    if (!used || looked++ == kLookMax) return at;
  }
}

// A group that probing passes must be full: one of those behind it fills the hole.
template <typename Traits>
void FlatIndex<Traits>::Erase(size_t shard, size_t hole) {
  std::atomic<uint64_t>& moves = shards_[shard].moves;
  const uint64_t moves_before = moves.load(std::memory_order_relaxed);
  moves.store(moves_before + 1, std::memory_order_relaxed);
  for (;;) {
    const size_t from = Follower(shard, hole / kGroup);
    if (from == kNowhere) break;
    Slot& slot = slots_[from];
    Slot& to = slots_[hole];
    Write(to, Read(slot), Instant::FromNanos(slot.confirmed.load(std::memory_order_relaxed)));
    to.denied_since = slot.denied_since;
    to.used.store(slot.used.load(std::memory_order_relaxed), std::memory_order_relaxed);
    SetTag(hole, TagOf(from));
    hole = from;
  }
  SetTag(hole, 0);
  // Release: who reads it sees the moves. Who saw one of them sees, at least, that it was odd.
  moves.store(moves_before + 2, std::memory_order_release);
  --shards_[shard].entries;
}

template <typename Traits>
size_t FlatIndex<Traits>::Follower(size_t shard, size_t group) const {
  if (!TagMatches::Of(TagsOf(group), 0).empty()) return kNowhere;
  for (size_t behind = Next(shard, group); behind != group; behind = Next(shard, behind)) {
    for (size_t at = behind * kGroup; at < (behind + 1) * kGroup; ++at) {
      if (TagOf(at) == 0) continue;
      // One whose home lies in (group, behind], around the end, is not looked for in `group`.
      const size_t home = PlaceOf(Traits::KeyOf(Read(slots_[at]))).group;
      const bool stays =
          group < behind ? group < home && home <= behind : group < home || home <= behind;
      if (!stays) return at;
    }
    if (!TagMatches::Of(TagsOf(behind), 0).empty()) break;
  }
  return kNowhere;
}

template <typename Traits>
bool FlatIndex<Traits>::Deny(const Key& key, Instant as_of, Instant now) {
  const Place place = PlaceOf(key);
  Shard& shard = shards_[ShardOf(place)];
  std::lock_guard lock(shard.mutex);
  const size_t at = Locate(place, key);
  if (at != kNowhere) {
    Slot& slot = slots_[at];
    if (as_of.nanos() < slot.confirmed.load(std::memory_order_relaxed)) return false;
    if (slot.denied_since == kNever || as_of.nanos() < slot.denied_since)
      slot.denied_since = as_of.nanos();
    if (as_of.nanos() - slot.denied_since < deny_after_.count()) return false;
    Erase(ShardOf(place), at);
  }
  shard.absent.Add(key, now, absent_lifetime_);
  return at != kNowhere;
}

template <typename Traits>
size_t FlatIndex<Traits>::size() const {
  size_t sum = 0;
  for (const Shard& shard : shards_) {
    std::lock_guard lock(shard.mutex);
    sum += shard.entries;
  }
  return sum;
}

template <typename Traits>
auto FlatIndex<Traits>::Entries() const -> std::vector<Cached<Ref>> {
  std::vector<Cached<Ref>> entries;
  const size_t slots = groups_ * kGroup;
  for (size_t shard = 0; shard <= shard_mask_; ++shard) {
    std::lock_guard lock(shards_[shard].mutex);
    for (size_t at = shard * slots; at < (shard + 1) * slots; ++at) {
      if (TagOf(at) == 0) continue;
      const int64_t confirmed = slots_[at].confirmed.load(std::memory_order_relaxed);
      entries.push_back({Read(slots_[at]), Instant::FromNanos(confirmed)});
    }
  }
  return entries;
}

}  // namespace dynlib::cache

#endif  // DYNLIB_CACHE_FLAT_INDEX_H_
