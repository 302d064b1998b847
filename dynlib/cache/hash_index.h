// An index of a constant-work cache in which each value belongs to one key.
//
//   struct SessionTraits {
//     using Key = std::string;
//     using Value = Session;
//     static const std::string& KeyOf(const Session& s) { return s.id; }
//     // The same on every machine and in every run: it decides what is evicted.
//     static uint64_t Hash(const std::string& key) { return Checksum(key); }
//     // Whether `a` replaces `b`, a value of the same key. Neither newer: the same version.
//     static bool Newer(const Session& a, const Session& b) { return a.version > b.version; }
//   };
//   ConstantWorkCache<HashIndex<SessionTraits>> cache(...);
//
// Key has ==. Sixteen shards, a lock each (one below 1,024 entries); a look-up shares it. A shard
// holds its part of max_entries, so that a full one evicts when another may have room. Eviction is
// by second chance and looks at 33 entries at most, so an update holds a lock for a microsecond or
// two.
//
// Threads: any.
#ifndef DYNLIB_CACHE_HASH_INDEX_H_
#define DYNLIB_CACHE_HASH_INDEX_H_

#include <algorithm>
#include <array>
#include <cstddef>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "dynlib/base/time.h"
#include "dynlib/cache/absent_keys.h"
#include "dynlib/cache/entry.h"
#include "dynlib/cache/options.h"

namespace dynlib::cache {

template <typename Traits>
class HashIndex {
 public:
  using Key = typename Traits::Key;
  using Value = typename Traits::Value;
  using Ref = std::shared_ptr<const Value>;
  struct KeyHash {
    size_t operator()(const Key& key) const { return Traits::Hash(key); }
  };
  template <typename Mapped>
  using KeyMap = std::unordered_map<Key, Mapped, KeyHash>;

  explicit HashIndex(const CacheOptions& options);

  // False if nothing is held.
  bool Find(const Key& key, Cached<Ref>* found);
  // True if the directory said within absent_lifetime that there is no value.
  bool IsAbsent(const Key& key, Instant now);
  static Ref Own(Value value) { return std::make_shared<const Value>(std::move(value)); }
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

  using Place = std::unique_ptr<Entry<Value>>;
  struct alignas(64) Shard {
    mutable std::shared_mutex mutex;
    KeyMap<size_t> places;  // into `ring`
    std::vector<Place> ring;
    size_t hand = 0;
    AbsentKeys<KeyMap<Instant>> absent;
  };

  // The map takes the low bits; the shard, others.
  Shard& ShardOf(const Key& key) {
    return shards_[one_shard_ ? 0 : Traits::Hash(key) * 0x9E3779B97F4A7C15u >> 60];
  }
  void Insert(Shard& shard, std::shared_ptr<const Value> value, Instant as_of, Applied& applied);
  // The place of an entry that can go.
  size_t Victim(Shard& shard);
  void Erase(Shard& shard, const Key& key, size_t place);

  const bool one_shard_;
  const Duration absent_lifetime_;
  const Duration deny_after_;
  const size_t shard_entries_max_;
  std::array<Shard, kShards> shards_;
};

template <typename Traits>
HashIndex<Traits>::HashIndex(const CacheOptions& options)
    : one_shard_(options.max_entries < kSmall),
      absent_lifetime_(options.absent_lifetime),
      deny_after_(options.deny_after),
      shard_entries_max_(options.max_entries / (one_shard_ ? 1 : kShards)) {
  const size_t absent_max = options.max_absent_entries / (one_shard_ ? 1 : kShards);
  for (Shard& shard : shards_) shard.absent.set_max(std::max<size_t>(absent_max, 1));
}

template <typename Traits>
bool HashIndex<Traits>::Find(const Key& key, Cached<Ref>* found) {
  Shard& shard = ShardOf(key);
  std::shared_lock lock(shard.mutex);
  const auto place = shard.places.find(key);
  if (place == shard.places.end()) return false;
  *found = shard.ring[place->second]->Use();
  return true;
}

template <typename Traits>
bool HashIndex<Traits>::IsAbsent(const Key& key, Instant now) {
  Shard& shard = ShardOf(key);
  std::shared_lock lock(shard.mutex);
  return shard.absent.Contains(key, now);
}

template <typename Traits>
Applied HashIndex<Traits>::Apply(Ref value, Instant as_of) {
  const Key& key = Traits::KeyOf(*value);
  Shard& shard = ShardOf(key);
  Applied applied;
  {
    // Nearly every answer brings what is known; it excludes no reader.
    std::shared_lock lock(shard.mutex);
    if (const auto found = shard.places.find(key); found != shard.places.end()) {
      Entry<Value>& entry = *shard.ring[found->second];
      if (!Traits::Newer(*value, *entry.value())) {
        applied.refused = Traits::Newer(*entry.value(), *value);
        applied.confirmed = !applied.refused;
        if (applied.confirmed) entry.Confirm(as_of);
        return applied;
      }
    }
  }
  std::unique_lock lock(shard.mutex);
  Insert(shard, std::move(value), as_of, applied);
  return applied;
}

template <typename Traits>
void HashIndex<Traits>::Insert(Shard& shard, std::shared_ptr<const Value> value, Instant as_of,
                               Applied& applied) {
  const Key& key = Traits::KeyOf(*value);
  if (const auto found = shard.places.find(key); found != shard.places.end()) {
    // Another thread may have been here between the two locks.
    Entry<Value>& entry = *shard.ring[found->second];
    applied.changed = Traits::Newer(*value, *entry.value());
    applied.refused = !applied.changed && Traits::Newer(*entry.value(), *value);
    applied.confirmed = !applied.changed && !applied.refused;
    if (applied.changed) entry.Replace(std::move(value), as_of);
    if (applied.confirmed) entry.Confirm(as_of);
    return;
  }
  applied.changed = true;
  shard.absent.Erase(key);
  if (shard.ring.size() < shard_entries_max_) {
    shard.places.emplace(key, shard.ring.size());
    shard.ring.push_back(std::make_unique<Entry<Value>>(std::move(value), as_of));
    return;
  }
  const size_t place = Victim(shard);
  shard.places.erase(Traits::KeyOf(*shard.ring[place]->value()));
  shard.places.emplace(key, place);
  shard.ring[place] = std::make_unique<Entry<Value>>(std::move(value), as_of);
  ++applied.evicted;
}

template <typename Traits>
size_t HashIndex<Traits>::Victim(Shard& shard) {
  for (size_t looked = 0;; ++looked) {
    const size_t place = shard.hand++ % shard.ring.size();
    if (shard.ring[place]->Idle() || looked == kLookMax) return place;
  }
}

template <typename Traits>
bool HashIndex<Traits>::Deny(const Key& key, Instant as_of, Instant now) {
  Shard& shard = ShardOf(key);
  std::unique_lock lock(shard.mutex);
  const auto found = shard.places.find(key);
  bool went = false;
  if (found != shard.places.end()) {
    if (!shard.ring[found->second]->Deny(as_of, deny_after_)) return false;
    Erase(shard, key, found->second);
    went = true;
  }
  shard.absent.Add(key, now, absent_lifetime_);
  return went;
}

// The last entry of the ring takes its place.
template <typename Traits>
void HashIndex<Traits>::Erase(Shard& shard, const Key& key, size_t place) {
  shard.places.erase(key);
  if (place + 1 != shard.ring.size()) {
    shard.ring[place] = std::move(shard.ring.back());
    shard.places[Traits::KeyOf(*shard.ring[place]->value())] = place;
  }
  shard.ring.pop_back();
}

template <typename Traits>
size_t HashIndex<Traits>::size() const {
  size_t sum = 0;
  for (const Shard& shard : shards_) {
    std::shared_lock lock(shard.mutex);
    sum += shard.ring.size();
  }
  return sum;
}

template <typename Traits>
auto HashIndex<Traits>::Entries() const -> std::vector<Cached<Ref>> {
  std::vector<Cached<Ref>> entries;
  for (const Shard& shard : shards_) {
    std::shared_lock lock(shard.mutex);
    for (const Place& place : shard.ring) entries.push_back(place->Look());
  }
  return entries;
}

}  // namespace dynlib::cache

#endif  // DYNLIB_CACHE_HASH_INDEX_H_
