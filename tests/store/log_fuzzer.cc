// For libFuzzer:
//
//   bazel run --config=clang --copt=-fsanitize=fuzzer-no-link,address
//     --linkopt=-fsanitize=fuzzer,address //tests/store:log_fuzzer
#include <cstddef>
#include <cstdint>
#include <string>

#include "dynlib/store/log_format.h"
#include "tests/store/log_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string bytes(reinterpret_cast<const char*>(data), size);
  dynlib::store::CheckAnySegment(bytes);
  for (uint64_t at = 0; at < size; at += dynlib::store::kLogSectorBytes) {
    dynlib::store::ResealBatchHeader(bytes, at);
  }
  dynlib::store::CheckAnySegment(bytes);
  return 0;
}
