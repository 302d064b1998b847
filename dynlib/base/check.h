// DYNLIB_CHECK(condition): stops the process when a programmer broke a contract. On in every build.
//
// Never for what the world does: bytes from disk or network, full disks and dead peers are
// absl::Status.
#ifndef DYNLIB_BASE_CHECK_H_
#define DYNLIB_BASE_CHECK_H_

namespace dynlib::internal {

[[noreturn]] void CheckFailed(const char* file, int line, const char* condition);

}  // namespace dynlib::internal

#define DYNLIB_CHECK(condition)                                          \
  (__builtin_expect(!(condition), 0)                                     \
       ? ::dynlib::internal::CheckFailed(__FILE__, __LINE__, #condition) \
       : (void)0)

#endif  // DYNLIB_BASE_CHECK_H_
