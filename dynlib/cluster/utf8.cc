#include "dynlib/cluster/utf8.h"

#include <cstdint>

#include "dynlib/base/coding.h"

namespace dynlib::cluster {
namespace {

// Length of the character that `at` begins, or 0.
size_t CharacterLength(std::string_view at) {
  auto byte = [&](size_t i) { return static_cast<uint8_t>(at[i]); };
  uint8_t lead = byte(0);
  if (lead < 0x80) return 1;
  // The second byte's bounds keep out overlong forms, surrogates and what is above U+10FFFF.
  size_t length = 0;
  uint8_t low = 0x80;
  uint8_t high = 0xbf;
  if (lead >= 0xc2 && lead <= 0xdf) {
    length = 2;
  } else if (lead >= 0xe0 && lead <= 0xef) {
    length = 3;
    if (lead == 0xe0) low = 0xa0;
    if (lead == 0xed) high = 0x9f;
  } else if (lead >= 0xf0 && lead <= 0xf4) {
    length = 4;
    if (lead == 0xf0) low = 0x90;
    if (lead == 0xf4) high = 0x8f;
  }
  if (length == 0 || at.size() < length) return 0;
  if (byte(1) < low || byte(1) > high) return 0;
  for (size_t i = 2; i < length; ++i) {
    if (byte(i) < 0x80 || byte(i) > 0xbf) return 0;
  }
  return length;
}

}  // namespace

size_t ValidUtf8Prefix(std::string_view bytes) {
  size_t at = 0;
  while (at < bytes.size()) {
    if (bytes.size() - at >= 8 &&
        (LoadFixed<uint64_t>(bytes.data() + at) & 0x8080808080808080u) == 0) {
      at += 8;
      continue;
    }
    size_t length = CharacterLength(bytes.substr(at));
    if (length == 0) return at;
    at += length;
  }
  return at;
}

}  // namespace dynlib::cluster
