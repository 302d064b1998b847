// The processor that takes the interrupts of a file's disk, where that is always the same one.
//
// A disk with a single request queue, as small virtual machines have them, has one interrupt, and
// Linux gives it to one processor. What completes a write happens there, whoever waits for it: a
// thread that waits on that processor hears of it sooner, and one that computes there is
// interrupted twice a durable write.
//
// Internal to the posix runtime. Threads: any.
#ifndef DYNLIB_RUNTIME_POSIX_INTERRUPT_PROCESSOR_H_
#define DYNLIB_RUNTIME_POSIX_INTERRUPT_PROCESSOR_H_

#include <sys/types.h>

#include <filesystem>
#include <optional>

namespace dynlib {

// Nothing where there are several queues, where the device is made of others, or where the system
// does not say. `root` is where /sys and /proc are: another one is for tests.
std::optional<int> InterruptProcessor(dev_t device, const std::filesystem::path& root = "/");

}  // namespace dynlib

#endif  // DYNLIB_RUNTIME_POSIX_INTERRUPT_PROCESSOR_H_
