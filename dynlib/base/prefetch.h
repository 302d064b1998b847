// Asks the processor for a line of memory that will be read soon.
//
//   Prefetch(&table[next]);
//
// As __builtin_prefetch, which GCC (12 at least) takes for nothing: a function that does no more
// than that has no effect, so calls of it are left out. Memory that is not there is no error.
#ifndef DYNLIB_BASE_PREFETCH_H_
#define DYNLIB_BASE_PREFETCH_H_

namespace dynlib {

inline void Prefetch(const void* at) {
#if defined(__x86_64__)
  asm volatile("prefetcht0 %0" : : "m"(*static_cast<const char*>(at)));
#elif defined(__aarch64__)
  asm volatile("prfm pldl1keep, %0" : : "Q"(*static_cast<const char*>(at)));
#else
  __builtin_prefetch(at);
#endif
}

}  // namespace dynlib

#endif  // DYNLIB_BASE_PREFETCH_H_
