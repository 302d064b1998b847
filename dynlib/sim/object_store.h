// An object store in memory: the ObjectStore of a simulated world, and of tests.
//
//   sim::SimObjectStore store(seed);            // stands alone: calls take no time
//
// With a Scheduler each call made on a fiber takes 2 ms of virtual time, and fails with
// kUnavailable as often as FaultOptions says; half of the Puts and Deletes that fail so took place.
// kAborted if the caller's node went down meanwhile. Durable always: it is another data centre's
// service.
//
// Threads: any, without a Scheduler; else the world's.
#ifndef DYNLIB_SIM_OBJECT_STORE_H_
#define DYNLIB_SIM_OBJECT_STORE_H_

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/random.h"
#include "dynlib/runtime/object_store.h"
#include "dynlib/sim/faults.h"
#include "dynlib/sim/scheduler.h"

namespace dynlib::sim {

class SimObjectStore final : public ObjectStore {
 public:
  explicit SimObjectStore(uint64_t seed);
  SimObjectStore(uint64_t seed, Scheduler* scheduler, const FaultOptions* faults);

  absl::Status Put(std::string_view name, std::string_view data, uint64_t checksum) override;
  absl::StatusOr<std::string> Get(std::string_view name) override;
  absl::StatusOr<std::vector<ObjectInfo>> List(std::string_view prefix, std::string_view after,
                                               size_t limit) override;
  absl::Status Delete(std::string_view name) override;

  // Every call fails with kUnavailable while true, and does nothing.
  void SetUnavailable(bool unavailable) { unavailable_ = unavailable; }
  // Flips a bit of what is stored; false if there is no such object or byte.
  bool FlipBit(std::string_view name, uint64_t bit_offset);

 private:
  struct Object {
    std::string data;
    uint64_t checksum;
  };

  enum class Outcome { kProceed, kFail, kFailAfter };
  // Lets the call's time pass.
  absl::StatusOr<Outcome> Start(std::string_view operation, std::string_view name);
  absl::Status Unavailable(std::string_view operation, std::string_view name) const;

  Scheduler* const scheduler_;
  const FaultOptions* const faults_;
  std::mutex mutex_;
  Random random_;
  bool unavailable_ = false;
  std::map<std::string, Object, std::less<>> objects_;
};

}  // namespace dynlib::sim

#endif  // DYNLIB_SIM_OBJECT_STORE_H_
