// The rows that stores are filled with, and how benchmarks choose among them.
#ifndef DYNLIB_BENCHMARKS_KV_ROWS_H_
#define DYNLIB_BENCHMARKS_KV_ROWS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "benchmarks/kv_peer.h"

namespace dynlib::bench {

inline constexpr size_t kKeyBytes = 20;

// A 20-byte key: "user" and 16 hexadecimal digits. The keys of rows that follow one another are in
// no order.
class RowKey {
 public:
  explicit RowKey(uint64_t row);
  std::string_view view() const { return {text_.data(), text_.size()}; }

 private:
  std::array<char, kKeyBytes> text_;
};

// Rows 0 to count - 1, each with a value of its own that does not compress.
struct Rows {
  uint64_t count = 0;
  size_t value_bytes = 0;

  // Good for ever. Another version of a row has another value.
  std::string_view Value(uint64_t row, uint64_t version = 0) const;
  uint64_t bytes() const { return count * (kKeyBytes + value_bytes); }
};

// The row numbers 0 to count - 1 in the order of their keys.
std::vector<uint32_t> InKeyOrder(uint64_t count);

// Fills the store in batches of 1,000 rows, sorted or in the order of the row numbers (which is
// none of the keys), and makes it durable. `seconds`: how long that took, the making of the rows
// apart.
absl::Status FillStore(KvPeer& store, const Rows& rows, bool sorted, double* seconds = nullptr);

// Ranks 0 to count - 1, the lower the more often: P(rank) ~ 1 / (rank + 1)^0.99, by the method of
// Gray et al., "Quickly generating billion-record synthetic databases" (1994), as YCSB does.
class Zipf {
 public:
  explicit Zipf(uint64_t count);
  // `random`: any 64 bits.
  uint64_t Rank(uint64_t random) const;

 private:
  double count_;
  double zeta_;
  double alpha_;
  double eta_;
};

}  // namespace dynlib::bench

#endif  // DYNLIB_BENCHMARKS_KV_ROWS_H_
