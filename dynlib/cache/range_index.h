// An index of a constant-work cache in which a value covers a range of keys, and a look-up finds
// the value whose range has the key.
//
//   struct RouteTraits {
//     using Key = RouteKey;  // (table, storage key), ordered
//     using Value = PartitionRecord;
//     static Key First(const PartitionRecord& r) { return {r.table, r.first}; }
//     // Where the range ends, the end excluded; nullopt: after every key there is.
//     static std::optional<Key> End(const PartitionRecord& r);
//     // Whether `a` replaces `b` where their ranges overlap. Neither newer, and the same range:
//     the
//     // same version. Neither newer, but another range: what is held stays.
//     static bool Newer(const PartitionRecord& a, const PartitionRecord& b);
//   };
//   ConstantWorkCache<RangeIndex<RouteTraits>> routes(...);
//
// Held ranges never overlap. A newer value takes its whole range: what it overlaps is trimmed, and
// cut in two if need be; what is left of an older value is served on, since it is still the best
// that is known of those keys. An older value takes only what nothing newer holds. A value whose
// range is empty or reversed is refused.
//
// Key has == and <. One lock; a look-up shares it, and so does the answer that confirms what is
// held, which nearly all do. An update takes time in proportion to the entries that it overlaps.
// Eviction is by second chance in the order of the keys and looks at 33 entries at most.
//
// Threads: any.
#ifndef DYNLIB_CACHE_RANGE_INDEX_H_
#define DYNLIB_CACHE_RANGE_INDEX_H_

#include <cstddef>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <utility>
#include <vector>

#include "dynlib/base/time.h"
#include "dynlib/cache/absent_keys.h"
#include "dynlib/cache/entry.h"
#include "dynlib/cache/options.h"

namespace dynlib::cache {

template <typename Traits>
class RangeIndex {
 public:
  using Key = typename Traits::Key;
  using Value = typename Traits::Value;
  using Ref = std::shared_ptr<const Value>;
  template <typename Mapped>
  using KeyMap = std::map<Key, Mapped>;

  explicit RangeIndex(const CacheOptions& options)
      : absent_lifetime_(options.absent_lifetime),
        deny_after_(options.deny_after),
        entries_max_(options.max_entries) {
    absent_.set_max(options.max_absent_entries);
  }

  // False if nothing is held.
  bool Find(const Key& key, Cached<Ref>* found);
  // True if the directory said within absent_lifetime that there is no value.
  bool IsAbsent(const Key& key, Instant now);
  static Ref Own(Value value) { return std::make_shared<const Value>(std::move(value)); }
  // True of a value that may be returned for `key`.
  static bool Covers(const Value& value, const Key& key) {
    return !(key < Traits::First(value)) && IsBefore(key, Traits::End(value));
  }
  // `as_of`: when the request that brought it was made.
  Applied Apply(Ref value, Instant as_of);
  // The directory, asked at `as_of`, knows no value for `key`. True if a value went; it goes from
  // its whole range.
  bool Deny(const Key& key, Instant as_of, Instant now);
  // Ranges held.
  size_t size() const;
  // In the order of their ranges; a value that was cut in two appears twice.
  std::vector<Cached<Ref>> Entries() const;

 private:
  static constexpr size_t kLookMax = 32;
  using End = std::optional<Key>;

  // What is held of a value's range; the map's key is where it begins.
  struct Range {
    Range(End range_end, Entry<Value> range_entry)
        : end(std::move(range_end)), entry(std::move(range_entry)) {}
    End end;
    Entry<Value> entry;
  };
  using Map = std::map<Key, Range>;
  using Iterator = typename Map::iterator;

  static bool IsBefore(const Key& key, const End& end) { return !end.has_value() || key < *end; }
  // The range that has `key`, or end().
  Iterator Floor(const Key& key);
  // The first range that ends after `key`.
  Iterator FirstEndingAfter(const Key& key);
  bool Confirm(const Key& first, const End& end, const Value& value, Instant as_of);
  void Insert(const Key& first, const End& end, const std::shared_ptr<const Value>& value,
              Instant as_of, Applied& applied);
  // Takes [first, end) from a range that overlaps it. Returns the range after what is left of it
  // in front of `end`.
  Iterator Cut(Iterator range, const Key& first, const End& end);
  void Fill(Key first, const End& end, const std::shared_ptr<const Value>& value, Instant as_of);
  void Evict();

  const Duration absent_lifetime_;
  const Duration deny_after_;
  const size_t entries_max_;
  mutable std::shared_mutex mutex_;
  Map ranges_;
  AbsentKeys<KeyMap<Instant>> absent_;
  std::optional<Key> hand_;  // where eviction looks next
};

template <typename Traits>
auto RangeIndex<Traits>::Floor(const Key& key) -> Iterator {
  Iterator next = ranges_.upper_bound(key);
  if (next == ranges_.begin()) return ranges_.end();
  const Iterator floor = std::prev(next);
  return IsBefore(key, floor->second.end) ? floor : ranges_.end();
}

template <typename Traits>
auto RangeIndex<Traits>::FirstEndingAfter(const Key& key) -> Iterator {
  const Iterator floor = Floor(key);
  return floor != ranges_.end() ? floor : ranges_.lower_bound(key);
}

template <typename Traits>
bool RangeIndex<Traits>::Find(const Key& key, Cached<Ref>* found) {
  std::shared_lock lock(mutex_);
  const Iterator range = Floor(key);
  if (range == ranges_.end()) return false;
  *found = range->second.entry.Use();
  return true;
}

template <typename Traits>
bool RangeIndex<Traits>::IsAbsent(const Key& key, Instant now) {
  std::shared_lock lock(mutex_);
  return absent_.Contains(key, now);
}

template <typename Traits>
Applied RangeIndex<Traits>::Apply(Ref value, Instant as_of) {
  const Key first = Traits::First(*value);
  const End end = Traits::End(*value);
  Applied applied;
  if (!IsBefore(first, end)) {
    applied.refused = true;
    return applied;
  }
  {
    std::shared_lock lock(mutex_);
    applied.confirmed = Confirm(first, end, *value, as_of);
  }
  if (applied.confirmed) return applied;
  std::unique_lock lock(mutex_);
  Insert(first, end, value, as_of, applied);
  while (ranges_.size() > entries_max_) {
    Evict();
    ++applied.evicted;
  }
  return applied;
}

// True if just this value is held, over its whole range.
template <typename Traits>
bool RangeIndex<Traits>::Confirm(const Key& first, const End& end, const Value& value,
                                 Instant as_of) {
  const Iterator range = ranges_.find(first);
  if (range == ranges_.end() || range->second.end != end) return false;
  const Value& held = *range->second.entry.value();
  if (Traits::Newer(value, held) || Traits::Newer(held, value)) return false;
  if (Traits::First(held) != first || Traits::End(held) != end) return false;
  range->second.entry.Confirm(as_of);
  return true;
}

template <typename Traits>
void RangeIndex<Traits>::Insert(const Key& first, const End& end,
                                const std::shared_ptr<const Value>& value, Instant as_of,
                                Applied& applied) {
  // The keys from `open` on, up to the next range that stays, are the new value's.
  End open = first;
  for (Iterator range = FirstEndingAfter(first);
       range != ranges_.end() && IsBefore(range->first, end);) {
    const Value& held = *range->second.entry.value();
    if (Traits::Newer(*value, held)) {
      range = Cut(range, first, end);
      continue;
    }
    const bool same =
        !Traits::Newer(held, *value) && Traits::First(held) == first && Traits::End(held) == end;
    if (same) range->second.entry.Confirm(as_of);
    (same ? applied.confirmed : applied.refused) = true;
    if (open.has_value() && *open < range->first) {
      Fill(*open, range->first, value, as_of);
      applied.changed = true;
    }
    open = range->second.end;
    ++range;
  }
  if (open.has_value() && IsBefore(*open, end)) {
    Fill(*open, end, value, as_of);
    applied.changed = true;
  }
}

template <typename Traits>
auto RangeIndex<Traits>::Cut(Iterator range, const Key& first, const End& end) -> Iterator {
  const Iterator next = std::next(range);
  // What lies behind `end` keeps the value, as a range of its own.
  if (end.has_value() && IsBefore(*end, range->second.end))
    ranges_.emplace(*end, Range(range->second.end, range->second.entry));
  if (range->first < first) {
    range->second.end = first;
  } else {
    ranges_.erase(range);
  }
  return next;
}

template <typename Traits>
void RangeIndex<Traits>::Fill(Key first, const End& end, const std::shared_ptr<const Value>& value,
                              Instant as_of) {
  absent_.EraseRange(first, end.has_value() ? &*end : nullptr);
  ranges_.emplace(std::move(first), Range(end, Entry<Value>(value, as_of)));
}

template <typename Traits>
bool RangeIndex<Traits>::Deny(const Key& key, Instant as_of, Instant now) {
  std::unique_lock lock(mutex_);
  const Iterator range = Floor(key);
  bool went = false;
  if (range != ranges_.end()) {
    if (!range->second.entry.Deny(as_of, deny_after_)) return false;
    ranges_.erase(range);
    went = true;
  }
  absent_.Add(key, now, absent_lifetime_);
  return went;
}

template <typename Traits>
void RangeIndex<Traits>::Evict() {
  Iterator range = hand_.has_value() ? ranges_.lower_bound(*hand_) : ranges_.begin();
  for (size_t looked = 0;; ++looked, ++range) {
    if (range == ranges_.end()) range = ranges_.begin();
    if (range->second.entry.Idle() || looked == kLookMax) break;
  }
  range = ranges_.erase(range);
  hand_ = range == ranges_.end() ? std::nullopt : std::optional<Key>(range->first);
}

template <typename Traits>
size_t RangeIndex<Traits>::size() const {
  std::shared_lock lock(mutex_);
  return ranges_.size();
}

template <typename Traits>
auto RangeIndex<Traits>::Entries() const -> std::vector<Cached<Ref>> {
  std::vector<Cached<Ref>> entries;
  std::shared_lock lock(mutex_);
  for (const auto& [first, range] : ranges_) entries.push_back(range.entry.Look());
  return entries;
}

}  // namespace dynlib::cache

#endif  // DYNLIB_CACHE_RANGE_INDEX_H_
