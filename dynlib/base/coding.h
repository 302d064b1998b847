// Little-endian integers and varints in byte strings: the one way in which dynlib writes numbers to
// disk and wire.
//
//   std::string out;
//   PutFixed64(out, lsn);
//   PutLengthPrefixed(out, key);
//
//   ByteReader in(out);
//   uint64_t lsn = in.Fixed64();
//   std::string_view key = in.LengthPrefixed();
//   if (!in.ok()) return absl::DataLossError("...");
//
// A ByteReader never reads past its end: the first read that would, or a malformed varint, makes
// ok() false for good, and every read from then on returns zero or an empty view. So a decoder
// reads its fields and checks once.
#ifndef DYNLIB_BASE_CODING_H_
#define DYNLIB_BASE_CODING_H_

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace dynlib {

static_assert(std::endian::native == std::endian::little,
              "dynlib's formats are little-endian, read by memcpy");

template <typename T>
T LoadFixed(const char* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}
template <typename T>
void StoreFixed(char* to, T value) {
  std::memcpy(to, &value, sizeof(T));
}

inline void PutFixed8(std::string& out, uint8_t value) { out.push_back(static_cast<char>(value)); }
inline void PutFixed16(std::string& out, uint16_t value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}
inline void PutFixed32(std::string& out, uint32_t value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}
inline void PutFixed64(std::string& out, uint64_t value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

// LEB128: seven bits a byte, least significant first, at most ten bytes.
void PutVarint(std::string& out, uint64_t value);
size_t VarintLength(uint64_t value);
inline constexpr size_t kVarintBytesMax = 10;
// Writes it where there is room for kVarintBytesMax; returns where it ends.
inline char* StoreVarint(char* to, uint64_t value) {
  for (; value >= 0x80; value >>= 7) *to++ = static_cast<char>(value | 0x80);
  *to++ = static_cast<char>(value);
  return to;
}

// A varint length, then the bytes.
void PutLengthPrefixed(std::string& out, std::string_view bytes);

class ByteReader {
 public:
  explicit ByteReader(std::string_view bytes) : rest_(bytes) {}

  uint8_t Fixed8() { return Fixed<uint8_t>(); }
  uint16_t Fixed16() { return Fixed<uint16_t>(); }
  uint32_t Fixed32() { return Fixed<uint32_t>(); }
  uint64_t Fixed64() { return Fixed<uint64_t>(); }
  // Fails on more bytes than PutVarint makes of a number: one value, one encoding.
  uint64_t Varint();
  // Views point into the bytes given to the constructor.
  std::string_view LengthPrefixed();
  std::string_view Bytes(uint64_t count);

  bool ok() const { return ok_; }
  // True when everything was read and nothing went wrong: what a decoder of a whole message
  // demands.
  bool done() const { return ok_ && rest_.empty(); }
  std::string_view rest() const { return rest_; }
  // For decoders that find a value out of range.
  void Fail() {
    ok_ = false;
    rest_ = {};
  }

 private:
  template <typename T>
  T Fixed() {
    if (rest_.size() < sizeof(T)) {
      Fail();
      return 0;
    }
    T value = LoadFixed<T>(rest_.data());
    rest_.remove_prefix(sizeof(T));
    return value;
  }

  std::string_view rest_;
  bool ok_ = true;
};

}  // namespace dynlib

#endif  // DYNLIB_BASE_CODING_H_
