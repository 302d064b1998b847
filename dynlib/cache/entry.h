// What an index holds for a key, and what it says of a look-up or an update.
#ifndef DYNLIB_CACHE_ENTRY_H_
#define DYNLIB_CACHE_ENTRY_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

#include "dynlib/base/time.h"

namespace dynlib::cache {

// A value as a Get returns it; it stays valid however the cache goes on. Ref is the index's: a
// std::shared_ptr<const Value> or, where values are copied, a std::optional<Value>. From an index,
// an empty one: nothing is held.
template <typename Ref>
struct Cached {
  Cached() {}
  Cached(Ref held, Instant as_of) : value(std::move(held)), confirmed(as_of) {}

  Ref value;
  // When the last request that was answered with this version was made, or since when the hint
  // that brought it was known.
  Instant confirmed;
  // Grows while the directory is down.
  Duration AgeAt(Instant now) const { return now - confirmed; }
};

// What became of a value that was offered to an index.
struct Applied {
  bool changed = false;    // it is held where it was not
  bool confirmed = false;  // the same version was there
  bool refused = false;    // a newer version was there, or one that it does not replace
  size_t evicted = 0;      // entries that had to go
};

// An entry of an index. Use and Confirm may run at once on several threads that share its lock; all
// else needs it alone.
template <typename Value>
class Entry {
 public:
  Entry(std::shared_ptr<const Value> value, Instant confirmed)
      : value_(std::move(value)), confirmed_(confirmed.nanos()) {}
  // The same value elsewhere: what is left of a range.
  Entry(const Entry& other)
      : value_(other.value_),
        confirmed_(other.confirmed_.load(std::memory_order_relaxed)),
        used_(other.used_.load(std::memory_order_relaxed)) {}
  Entry& operator=(const Entry&) = delete;

  const std::shared_ptr<const Value>& value() const { return value_; }
  Cached<std::shared_ptr<const Value>> Use() {
    // Writing only a change keeps the line shared among the readers of a hot entry.
    if (!used_.load(std::memory_order_relaxed)) used_.store(true, std::memory_order_relaxed);
    return Look();
  }
  Cached<std::shared_ptr<const Value>> Look() const {
    return {value_, Instant::FromNanos(confirmed_.load(std::memory_order_relaxed))};
  }
  void Confirm(Instant as_of) {
    int64_t known = confirmed_.load(std::memory_order_relaxed);
    while (known < as_of.nanos() &&
           !confirmed_.compare_exchange_weak(known, as_of.nanos(), std::memory_order_relaxed)) {
    }
    denied_since_.store(kNever, std::memory_order_relaxed);
  }
  // A server that was asked at `as_of` knows no value. True when that has gone on for long enough.
  bool Deny(Instant as_of, Duration deny_after) {
    if (as_of.nanos() < confirmed_.load(std::memory_order_relaxed)) return false;
    int64_t since = denied_since_.load(std::memory_order_relaxed);
    if (since == kNever || as_of.nanos() < since) {
      since = as_of.nanos();
      denied_since_.store(since, std::memory_order_relaxed);
    }
    return as_of.nanos() - since >= deny_after.count();
  }
  void Replace(std::shared_ptr<const Value> value, Instant confirmed) {
    value_ = std::move(value);
    confirmed_.store(confirmed.nanos(), std::memory_order_relaxed);
    denied_since_.store(kNever, std::memory_order_relaxed);
  }
  // Second chance: false once for an entry that was used since it was last asked.
  bool Idle() { return !used_.exchange(false, std::memory_order_relaxed); }

 private:
  static constexpr int64_t kNever = INT64_MIN;

  std::shared_ptr<const Value> value_;
  std::atomic<int64_t> confirmed_;
  std::atomic<int64_t> denied_since_{kNever};
  std::atomic<bool> used_{false};  // a newcomer proves itself by a second use
};

}  // namespace dynlib::cache

#endif  // DYNLIB_CACHE_ENTRY_H_
