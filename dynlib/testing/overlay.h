// Writes to a file that are kept beside it: byte ranges that do not overlap, newest wins.
#ifndef DYNLIB_TESTING_OVERLAY_H_
#define DYNLIB_TESTING_OVERLAY_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>

namespace dynlib {

class Overlay {
 public:
  void Write(uint64_t offset, std::string_view data);
  // Forgets [begin, end).
  void Erase(uint64_t begin, uint64_t end);
  void Clear();

  // Lays what falls in [offset, offset + out.size()) over `out`.
  void ApplyTo(uint64_t offset, std::span<char> out) const;

  // The ranges, by offset.
  const std::map<uint64_t, std::string>& ranges() const { return ranges_; }
  size_t bytes() const { return bytes_; }
  // Where the last range ends; 0 if there is none.
  uint64_t end() const;

 private:
  using Ranges = std::map<uint64_t, std::string>;
  // Appending makes ranges grow up to this; then the next begins.
  static constexpr size_t kRangeBytes = 1 << 20;

  Ranges::const_iterator FirstEndingAfter(uint64_t offset) const;

  Ranges ranges_;
  size_t bytes_ = 0;
};

}  // namespace dynlib

#endif  // DYNLIB_TESTING_OVERLAY_H_
