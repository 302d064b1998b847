// For libFuzzer; the first byte of an input says which reader gets the rest:
//
//   bazel run --config=clang --copt=-fsanitize=fuzzer-no-link,address
//     --linkopt=-fsanitize=fuzzer,address //tests/cluster:item_fuzzer
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "tests/cluster/item_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace cluster = dynlib::cluster;
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 4) {
    case 0:
      cluster::FuzzItem(bytes);
      break;
    case 1:
      cluster::FuzzCondition(bytes);
      break;
    case 2:
      cluster::FuzzSchema(bytes);
      break;
    default:
      cluster::FuzzKey(bytes);
  }
  return 0;
}
