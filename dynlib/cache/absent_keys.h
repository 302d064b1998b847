// Keys that the directory said it does not know, for a while each; the oldest go first at the
// bound.
//
// Map is a map from key to Instant, ordered or not. Threads: the caller's lock; Contains may share.
#ifndef DYNLIB_CACHE_ABSENT_KEYS_H_
#define DYNLIB_CACHE_ABSENT_KEYS_H_

#include <cstddef>
#include <deque>
#include <utility>

#include "dynlib/base/time.h"

namespace dynlib::cache {

template <typename Map>
class AbsentKeys {
 public:
  using Key = typename Map::key_type;

  void set_max(size_t max) { max_ = max; }

  bool Contains(const Key& key, Instant now) const {
    const auto found = until_.find(key);
    return found != until_.end() && now < found->second;
  }

  void Add(const Key& key, Instant now, Duration lifetime) {
    const auto [place, inserted] = until_.emplace(key, now + lifetime);
    if (!inserted) {
      // A key that is asked for all the time is entered a few times a lifetime, not each time.
      if (place->second - now > lifetime / 2) return;
      place->second = now + lifetime;
    }
    order_.emplace_back(place->first, place->second);
    while (order_.size() > max_ || order_.front().second <= now) DropOldest();
  }

  void Erase(const Key& key) { until_.erase(key); }
  // Of an ordered map: `end` null is no end.
  void EraseRange(const Key& first, const Key* end) {
    until_.erase(until_.lower_bound(first),
                 end == nullptr ? until_.end() : until_.lower_bound(*end));
  }

  size_t size() const { return until_.size(); }

 private:
  void DropOldest() {
    const auto found = until_.find(order_.front().first);
    if (found != until_.end() && found->second == order_.front().second) until_.erase(found);
    order_.pop_front();
  }

  size_t max_ = 1;
  Map until_;
  // As entered, so by time; what was erased or entered again since is still in it.
  std::deque<std::pair<Key, Instant>> order_;
};

}  // namespace dynlib::cache

#endif  // DYNLIB_CACHE_ABSENT_KEYS_H_
