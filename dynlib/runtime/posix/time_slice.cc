#include "dynlib/runtime/posix/time_slice.h"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <optional>

#include "dynlib/base/check.h"

namespace dynlib {
namespace {

// sched_setattr(2); the C library has no declaration of it.
struct Attributes {
  uint32_t size;
  uint32_t policy;
  uint64_t flags;
  int32_t nice;
  uint32_t priority;
  uint64_t runtime;  // ns; of a thread of the usual policies its slice
  uint64_t deadline;
  uint64_t period;
};
static_assert(sizeof(Attributes) == 48);

std::optional<Attributes> Get() {
  Attributes attributes = {};
  if (syscall(SYS_sched_getattr, 0, &attributes, sizeof(attributes), 0) != 0) return std::nullopt;
  return attributes;
}

}  // namespace

bool SetTimeSlice(Duration slice) {
  DYNLIB_CHECK(slice >= kTimeSliceMin && slice <= kTimeSliceMax);
  std::optional<Attributes> attributes = Get();
  if (!attributes.has_value()) return false;
  const bool usual = attributes->policy == SCHED_OTHER || attributes->policy == SCHED_BATCH;
  if (!usual) return false;
  attributes->size = sizeof(Attributes);
  attributes->runtime = static_cast<uint64_t>(slice.count());
  return syscall(SYS_sched_setattr, 0, &*attributes, 0) == 0 && TimeSlice() == slice;
}

Duration TimeSlice() {
  const std::optional<Attributes> attributes = Get();
  return attributes.has_value() ? Duration(static_cast<int64_t>(attributes->runtime))
                                : Duration::zero();
}

}  // namespace dynlib
