#include "examples/mini_cluster/sample.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "dynlib/base/status_macros.h"
#include "dynlib/cluster/item.h"
#include "dynlib/cluster/key.h"

namespace dynlib::mini_cluster {
namespace {

constexpr uint64_t kSampleItems = 2000;
constexpr uint64_t kKeysMax = 50'000;

}  // namespace

absl::StatusOr<Sample> TakeSample(const DataSet& data) {
  Sample sample;
  std::vector<std::string> keys;
  const uint64_t keys_step = data.rows() / kKeysMax + 1;
  DYNLIB_RETURN_IF_ERROR(data.ForEach([&](uint64_t row, cluster::Item item) {
    // Data sets were checked when they were opened.
    if (row % keys_step == 0) keys.push_back(*cluster::EncodeItemKey(data.schema(), item));
    return true;
  }));
  if (keys.empty()) return sample;
  std::sort(keys.begin(), keys.end());
  sample.quiet_first = keys[keys.size() * 30 / 50];
  sample.quiet_end = keys[keys.size() * 31 / 50];
  const uint64_t step = data.rows() / kSampleItems + 1;
  DYNLIB_RETURN_IF_ERROR(data.ForEach([&](uint64_t row, cluster::Item item) {
    if (row % step != 0) return true;
    const std::string key = *cluster::EncodeItemKey(data.schema(), item);
    const bool quiet = key >= sample.quiet_first && key < sample.quiet_end;
    if (!quiet) sample.items.push_back({row, std::move(item)});
    return true;
  }));
  return sample;
}

}  // namespace dynlib::mini_cluster
