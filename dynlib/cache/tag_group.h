// Which of eight bytes equal a given one. Part of FlatIndex, whose look-ups begin with it.
//
// With SSE2, which every x86-64 has, in half a dozen instructions instead of a dozen.
#ifndef DYNLIB_CACHE_TAG_GROUP_H_
#define DYNLIB_CACHE_TAG_GROUP_H_

#include <bit>
#include <cstddef>
#include <cstdint>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace dynlib::cache {

// A set of places of a group, walked from the lowest.
class TagMatches {
 public:
  // The places of `tags` (its lowest byte is place 0) where the byte is `tag`, which may be 0.
  static TagMatches Of(uint64_t tags, uint8_t tag) {
#ifdef __SSE2__
    const __m128i wanted = _mm_cvtsi64_si128(static_cast<int64_t>(tag * kEachByte));
    const __m128i present = _mm_cvtsi64_si128(static_cast<int64_t>(tags));
    return TagMatches(static_cast<uint32_t>(_mm_movemask_epi8(_mm_cmpeq_epi8(wanted, present))));
#else
    // No carry passes from byte to byte.
    constexpr uint64_t kLow = 0x7F * kEachByte;
    const uint64_t difference = tags ^ tag * kEachByte;
    return TagMatches(~(((difference & kLow) + kLow) | difference | kLow));
#endif
  }

  bool empty() const { return (bits_ & kPlaces) == 0; }
  // Of a set that is not empty.
  size_t First() const { return static_cast<unsigned>(std::countr_zero(bits_)) / kBitsEach; }
  void DropFirst() { bits_ &= bits_ - 1; }

 private:
  static constexpr uint64_t kEachByte = 0x0101010101010101;
#ifdef __SSE2__
  // Above the eight bits of a group are eight of nothing, which always match.
  using Bits = uint32_t;
  static constexpr Bits kPlaces = 0xFF;
  static constexpr size_t kBitsEach = 1;
#else
  using Bits = uint64_t;
  static constexpr Bits kPlaces = 0x80 * kEachByte;
  static constexpr size_t kBitsEach = 8;
#endif
  explicit TagMatches(Bits bits) : bits_(bits) {}

  Bits bits_;
};

}  // namespace dynlib::cache

#endif  // DYNLIB_CACHE_TAG_GROUP_H_
