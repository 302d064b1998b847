#include "benchmarks/kv_rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "benchmarks/load.h"
#include "dynlib/base/status_macros.h"

namespace dynlib::bench {
namespace {

constexpr size_t kRowsPerBatch = 1000;
constexpr double kTheta = 0.99;

// Never 0 for row 0 alone: Mix(0) is 0.
uint64_t KeyNumber(uint64_t row) { return Mix(row + 0x9e3779b97f4a7c15); }

}  // namespace

RowKey::RowKey(uint64_t row) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::memcpy(text_.data(), "user", 4);
  uint64_t number = KeyNumber(row);
  for (size_t i = kKeyBytes; i-- > 4; number >>= 4) text_[i] = kDigits[number & 15];
}

std::string_view Rows::Value(uint64_t row, uint64_t version) const {
  return RandomBytes(row * 0x9e3779b97f4a7c15 + version + 1, value_bytes);
}

std::vector<uint32_t> InKeyOrder(uint64_t count) {
  std::vector<uint32_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(),
            [](uint32_t a, uint32_t b) { return KeyNumber(a) < KeyNumber(b); });
  return order;
}

absl::Status FillStore(KvPeer& store, const Rows& rows, bool sorted, double* seconds) {
  std::vector<uint32_t> order;
  if (sorted) order = InKeyOrder(rows.count);
  uint64_t ns = 0;
  std::vector<RowKey> keys;
  std::vector<KvRow> batch;
  for (uint64_t first = 0; first < rows.count; first += kRowsPerBatch) {
    keys.clear();
    batch.clear();
    keys.reserve(kRowsPerBatch);
    for (uint64_t i = first; i < std::min(rows.count, first + kRowsPerBatch); ++i) {
      const uint64_t row = sorted ? order[i] : i;
      keys.emplace_back(row);
      batch.push_back({keys.back().view(), rows.Value(row)});
    }
    const uint64_t begin = NowNs();
    DYNLIB_RETURN_IF_ERROR(store.Fill(batch));
    ns += NowNs() - begin;
  }
  const uint64_t begin = NowNs();
  DYNLIB_RETURN_IF_ERROR(store.Sync());
  ns += NowNs() - begin;
  if (seconds != nullptr) *seconds = static_cast<double>(ns) * 1e-9;
  return absl::OkStatus();
}

Zipf::Zipf(uint64_t count) : count_(static_cast<double>(count)), zeta_(0) {
  for (uint64_t i = 1; i <= count; ++i) zeta_ += 1 / std::pow(static_cast<double>(i), kTheta);
  alpha_ = 1 / (1 - kTheta);
  const double zeta_of_two = 1 + std::pow(0.5, kTheta);
  eta_ = (1 - std::pow(2 / count_, 1 - kTheta)) / (1 - zeta_of_two / zeta_);
}

uint64_t Zipf::Rank(uint64_t random) const {
  const double u = static_cast<double>(random >> 11) * 0x1p-53;
  if (u * zeta_ < 1) return 0;
  if (u * zeta_ < 1 + std::pow(0.5, kTheta)) return 1;
  const double rank = count_ * std::pow(eta_ * u - eta_ + 1, alpha_);
  return static_cast<uint64_t>(std::min(rank, count_ - 1));
}

}  // namespace dynlib::bench
