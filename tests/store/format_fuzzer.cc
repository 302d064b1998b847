// For libFuzzer; the first byte of an input says which reader gets the rest:
//
//   bazel run --config=clang --copt=-fsanitize=fuzzer-no-link,address
//     --linkopt=-fsanitize=fuzzer,address //tests/store:format_fuzzer
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "tests/store/format_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace store = dynlib::store;
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 9) {
    case 0:
      store::FuzzGroup(bytes);
      break;
    case 1:
      store::FuzzPage(bytes);
      break;
    case 2:
      store::FuzzCompressedPage(bytes);
      break;
    case 3:
      store::FuzzSuperblock(bytes, /*seal=*/true);
      break;
    case 4:
      store::FuzzBlobs(bytes);
      break;
    case 5:
      store::FuzzManifest(bytes, /*seal=*/true);
      break;
    case 6:
      store::FuzzChunk(bytes);
      break;
    case 7:
      store::FuzzCatalogue(bytes);
      break;
    default:
      store::FuzzStoreMark(bytes);
  }
  return 0;
}
