// How many requests are under way: a thread that issues them waits while there are enough.
//
//   Window window(64);
//   for (...) {
//     window.Enter();
//     router.Put(..., [&](absl::Status status) { window.Leave(status); });
//   }
//   absl::Status first_failure = window.Drain();
//
// Threads: any. It must outlive its callbacks: Drain does that.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_WINDOW_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_WINDOW_H_

#include <condition_variable>
#include <cstddef>
#include <mutex>

#include "absl/status/status.h"

namespace dynlib::mini_cluster {

class Window {
 public:
  explicit Window(size_t size) : size_(size) {}

  // Waits for room. False when something has failed already, and there is nothing to leave then.
  bool Enter() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return under_way_ < size_ || !failure_.ok(); });
    if (!failure_.ok()) return false;
    under_way_++;
    return true;
  }

  void Leave(const absl::Status& status) {
    std::lock_guard lock(mutex_);
    failure_.Update(status);
    under_way_--;
    // Under the lock: who drains may destroy the window as soon as it is let go.
    changed_.notify_all();
  }

  // Waits until nothing is under way.
  absl::Status Drain() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return under_way_ == 0; });
    return failure_;
  }

 private:
  const size_t size_;
  std::mutex mutex_;
  std::condition_variable changed_;
  size_t under_way_ = 0;
  absl::Status failure_;  // the first
};

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_WINDOW_H_
