#include "dynlib/base/coding.h"

namespace dynlib {

void PutVarint(std::string& out, uint64_t value) {
  char bytes[kVarintBytesMax];
  out.append(bytes, StoreVarint(bytes, value));
}

size_t VarintLength(uint64_t value) { return (std::bit_width(value | 1) + 6) / 7; }

void PutLengthPrefixed(std::string& out, std::string_view bytes) {
  PutVarint(out, bytes.size());
  out.append(bytes);
}

uint64_t ByteReader::Varint() {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    const uint8_t byte = Fixed8();
    if (!ok_) return 0;
    if (shift == 63 && byte > 1) break;  // More than 64 bits.
    if (shift > 0 && byte == 0) break;   // Longer than PutVarint makes it.
    value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
  Fail();
  return 0;
}

std::string_view ByteReader::LengthPrefixed() { return Bytes(Varint()); }

std::string_view ByteReader::Bytes(uint64_t count) {
  if (!ok_ || count > rest_.size()) {
    Fail();
    return {};
  }
  std::string_view bytes = rest_.substr(0, count);
  rest_.remove_prefix(count);
  return bytes;
}

}  // namespace dynlib
