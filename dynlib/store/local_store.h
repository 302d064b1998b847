// A Store in a folder of this machine, with the files, clock and threads that it needs.
//
//   DYNLIB_ASSIGN_OR_RETURN(auto store, store::LocalStore::Open("/var/lib/app/db"));
//   DYNLIB_RETURN_IF_ERROR((*store)->Put("k", "v"));
//   DYNLIB_ASSIGN_OR_RETURN(std::optional<std::string> value, (*store)->Get("k"));
//
// Five threads: one syncs and applies the writes of many; one answers them; one writes what nobody
// waits for to the log, and makes its segments; one makes checkpoints; one reads for GetAsync. Give
// callbacks an executor of your own.
//
// A thread whose durable write is written by itself polls for its end, up to 0.3 ms, and may find
// itself on another processor afterwards: see PolledWait.
//
// Its destructor closes the store: what was answered is there at the next Open, and so is what was
// written without waiting for the disk.
#ifndef DYNLIB_STORE_LOCAL_STORE_H_
#define DYNLIB_STORE_LOCAL_STORE_H_

#include <memory>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/metrics.h"
#include "dynlib/runtime/posix/polled_wait.h"
#include "dynlib/runtime/posix/posix_disk.h"
#include "dynlib/runtime/posix/system_clock.h"
#include "dynlib/runtime/posix/thread_executor.h"
#include "dynlib/store/store.h"

namespace dynlib::store {

class LocalStore {
 public:
  // As Store::Open, in the folder `path`. `wait`: what a thread may do while it waits for its own
  // write alone.
  static absl::StatusOr<std::unique_ptr<LocalStore>> Open(
      std::string_view path, const Store::Options& options = {},
      MetricsSink* metrics = MetricsSink::None(), Store::Recovery* found = nullptr,
      const PolledWait::Options& wait = {});
  ~LocalStore();

  Store* operator->() { return store_.get(); }
  Store& operator*() { return *store_; }
  // As Store::Close: to hear how it went. No other call may be running or follow.
  absl::Status Close();

 private:
  LocalStore() = default;

  SystemClock clock_;
  std::unique_ptr<PosixDisk> disk_;
  // Ended in the reverse order: what one posts to the next still runs.
  ThreadExecutor apply_{{.name = "store-apply"}};
  ThreadExecutor answer_{{.name = "store-answer"}};
  ThreadExecutor read_{{.name = "store-read"}};
  ThreadExecutor checkpoint_{{.name = "store-checkpt"}};
  ThreadExecutor log_{{.name = "store-log"}};
  std::unique_ptr<Store> store_;
  bool closed_ = false;
};

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_LOCAL_STORE_H_
