// The store against plain maps. DYNLIB_MODEL_OPERATIONS says how many operations the seeds make
// together, 300,000 if it is not set; a long run is ten million:
//
//   bazel test --config=opt --test_env=DYNLIB_MODEL_OPERATIONS=10000000 --test_timeout=7200
//     //tests/store:store_model_test
#include "tests/store/store_model.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "gtest/gtest.h"

namespace dynlib::store {
namespace {

constexpr uint64_t kSeeds = 6;

class StoreModelTest : public testing::TestWithParam<uint64_t> {};

TEST_P(StoreModelTest, IsLikeMaps) {
  const char* wanted = std::getenv("DYNLIB_MODEL_OPERATIONS");
  const uint64_t operations = (wanted == nullptr ? 300'000 : std::stoull(wanted)) / kSeeds;
  StoreModel model(GetParam());
  model.Run(operations);
  const StoreModel::Counts& counts = model.counts();
  std::printf(
      "operations %llu, reopenings %llu, power failures %llu (writes lost %llu), snapshots %llu,\n"
      "range deletes %llu, rows scanned %llu, cursor moves %llu, conditions held %llu and failed "
      "%llu,\npages evicted %llu, checkpoints %llu, comparisons of everything %llu\n",
      static_cast<unsigned long long>(counts.operations),
      static_cast<unsigned long long>(counts.reopenings),
      static_cast<unsigned long long>(counts.power_failures),
      static_cast<unsigned long long>(counts.writes_lost),
      static_cast<unsigned long long>(counts.snapshots),
      static_cast<unsigned long long>(counts.range_deletes),
      static_cast<unsigned long long>(counts.rows_scanned),
      static_cast<unsigned long long>(counts.cursor_moves),
      static_cast<unsigned long long>(counts.conditions_held),
      static_cast<unsigned long long>(counts.conditions_failed),
      static_cast<unsigned long long>(counts.pages_evicted),
      static_cast<unsigned long long>(counts.checkpoints),
      static_cast<unsigned long long>(counts.comparisons));
  if (operations < 50'000) return;
  EXPECT_GT(counts.power_failures, 0u);
  EXPECT_GT(counts.reopenings, 0u);
  EXPECT_GT(counts.snapshots, 3u);
  EXPECT_GT(counts.conditions_held, 50u);
  EXPECT_GT(counts.conditions_failed, 50u);
  EXPECT_GT(counts.range_deletes, 20u);
  EXPECT_GT(counts.rows_scanned, 1000u);
  EXPECT_GT(counts.cursor_moves, 1000u);
  EXPECT_GT(counts.pages_evicted, 100u);
  EXPECT_GT(counts.checkpoints, 20u);
}

INSTANTIATE_TEST_SUITE_P(Seeds, StoreModelTest, testing::Range<uint64_t>(1, kSeeds + 1));

}  // namespace
}  // namespace dynlib::store
