// XXH3, the checksum of every message, log frame, page and file.
#ifndef DYNLIB_BASE_CHECKSUM_H_
#define DYNLIB_BASE_CHECKSUM_H_

#include <cstdint>
#include <string_view>

namespace dynlib {

// XXH3-64 of `bytes`. A seed binds the checksum to a place or a purpose: bytes that moved elsewhere
// do not verify.
uint64_t Checksum(std::string_view bytes, uint64_t seed = 0);

// XXH3-128, for digests that stand for contents.
struct Digest128 {
  uint64_t low = 0;
  uint64_t high = 0;
  friend auto operator<=>(const Digest128&, const Digest128&) = default;
};
Digest128 Digest(std::string_view bytes, uint64_t seed = 0);

}  // namespace dynlib

#endif  // DYNLIB_BASE_CHECKSUM_H_
