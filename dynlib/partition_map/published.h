// A value that one thread publishes and any thread reads without locks, and without waiting for one
// another: read-copy-update, as in the Linux kernel's SRCU.
//
//   Published<Map> map(std::make_unique<Map>());
//   { Published<Map>::Reader reader(map);  reader->Find(key); }      // any thread
//   map.Publish(std::make_unique<Map>(changed));                     // the writer
//
// A reader counts itself in, in one of several counters, loads the pointer, and counts itself out.
// A version that was replaced is freed by a later Publish (or the destructor), once each counter
// was seen at zero since: so no reader can have it any more. There are two sets of counters, of
// which new readers use one, and a Publish turns to the other; so readers who never pause cannot
// keep a set from coming to rest.
//
// Threads: Reader on any thread, for short: a version is kept as long as one reader has it. Publish
// by one thread at a time. The destructor after all readers.
//
// Cost: two atomic additions a reader, to a cache line that few threads share.
#ifndef DYNLIB_PARTITION_MAP_PUBLISHED_H_
#define DYNLIB_PARTITION_MAP_PUBLISHED_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace dynlib::partition_map {

template <typename T>
class Published {
 public:
  explicit Published(std::unique_ptr<const T> first) : current_(first.release()) {}
  Published(const Published&) = delete;
  Published& operator=(const Published&) = delete;
  ~Published() { delete current_.load(); }

  class Reader {
   public:
    explicit Reader(const Published& published)
        : count_(published.CountOf(published.set_.load(std::memory_order_relaxed))) {
      // Before the load in the one order of all these operations: a writer that sees no count has
      // published before, and the load sees that.
      count_.fetch_add(1, std::memory_order_seq_cst);
      value_ = published.current_.load(std::memory_order_seq_cst);
    }
    Reader(const Reader&) = delete;
    Reader& operator=(const Reader&) = delete;
    ~Reader() { count_.fetch_sub(1, std::memory_order_release); }

    const T& operator*() const { return *value_; }
    const T* operator->() const { return value_; }

   private:
    std::atomic<uint64_t>& count_;
    const T* value_;
  };

  void Publish(std::unique_ptr<const T> next) {
    retired_.emplace_back(current_.exchange(next.release(), std::memory_order_seq_cst));
    Reclaim();
  }

  // The writer's own view.
  const T& newest() const { return *current_.load(std::memory_order_relaxed); }
  // Versions that were replaced and are not freed yet: few, unless a reader stays.
  size_t unreclaimed() const { return retired_.size() + waiting_.size(); }

 private:
  // Threads are spread over so many counters by where their stacks are.
  static constexpr size_t kCounters = 16;
  struct alignas(64) Counter {
    std::atomic<uint64_t> count[2] = {0, 0};
  };

  std::atomic<uint64_t>& CountOf(uint32_t set) const {
    const auto stack = reinterpret_cast<uintptr_t>(__builtin_frame_address(0)) >> 20;
    return counters_[(stack * 0x9e3779b97f4a7c15) >> 60].count[set];
  }

  // What was retired before a set was seen at rest, and then the other, is no reader's.
  void Reclaim() {
    const uint32_t other = 1 - set_.load(std::memory_order_relaxed);
    const bool at_rest = std::all_of(counters_.begin(), counters_.end(), [&](auto& counter) {
      return counter.count[other].load(std::memory_order_seq_cst) == 0;
    });
    if (!at_rest) return;
    waiting_.clear();
    waiting_.swap(retired_);
    set_.store(other, std::memory_order_relaxed);
  }

  std::atomic<const T*> current_;
  std::atomic<uint32_t> set_{0};
  mutable std::array<Counter, kCounters> counters_;
  // The writer's: since the sets were last turned, and before.
  std::vector<std::unique_ptr<const T>> retired_;
  std::vector<std::unique_ptr<const T>> waiting_;
};

}  // namespace dynlib::partition_map

#endif  // DYNLIB_PARTITION_MAP_PUBLISHED_H_
