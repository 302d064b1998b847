// How long a thread keeps a processor that others wait for.
//
// Linux lets a running thread have its slice, some milliseconds, before one that wakes gets its
// turn, and since 6.12 a thread may ask for shorter ones: it is no less of the processor, in
// smaller pieces, and a thread that wakes goes before one that runs with a longer slice. So what
// answers others, and computes for microseconds at a time, asks for the shortest.
//
// Internal to the posix runtime. Threads: each sets its own; threads that it makes inherit it.
#ifndef DYNLIB_RUNTIME_POSIX_TIME_SLICE_H_
#define DYNLIB_RUNTIME_POSIX_TIME_SLICE_H_

#include <chrono>

#include "dynlib/base/time.h"

namespace dynlib {

constexpr Duration kTimeSliceMin = std::chrono::microseconds(100);  // the kernel's bounds
constexpr Duration kTimeSliceMax = std::chrono::milliseconds(100);

// The calling thread's from now on. False where the system has no such thing, or does not allow it;
// nothing has changed then. Policy and priority stay.
bool SetTimeSlice(Duration slice);
// The calling thread's; zero where the system does not say.
Duration TimeSlice();

}  // namespace dynlib

#endif  // DYNLIB_RUNTIME_POSIX_TIME_SLICE_H_
