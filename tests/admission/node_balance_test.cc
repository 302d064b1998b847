#include "dynlib/admission/node_balance.h"

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "dynlib/base/random.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dynlib::admission {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr NodeCapacity kNode{.units_per_second = 1000, .bytes = 10'000};

ReplicaLoad Load(uint64_t partition, double units_per_second, uint64_t bytes = 0) {
  return {PartitionId{partition}, units_per_second, bytes};
}

TEST(NodeBalance, BelowTheThresholdNothingMoves) {
  const ReplicaLoad replicas[] = {Load(1, 400, 4000), Load(2, 400, 4000)};
  const MoveAdvice advice = AdviseMoves(replicas, kNode, {});
  EXPECT_EQ(advice.verdict, MoveVerdict::kBalanced);
  EXPECT_THAT(advice.candidates, IsEmpty());
}

TEST(NodeBalance, OverItsThroughputTheFewestThatBringItDown) {
  const ReplicaLoad replicas[] = {Load(1, 100), Load(2, 240), Load(3, 200),
                                  Load(4, 50),  Load(5, 190), Load(6, 130)};
  const MoveAdvice advice = AdviseMoves(replicas, kNode, {});
  EXPECT_EQ(advice.verdict, MoveVerdict::kMove);
  EXPECT_THAT(advice.candidates, ElementsAre(PartitionId{2}));
  EXPECT_EQ(advice.reason, "throughput: 910 of 1000 units a second");
}

TEST(NodeBalance, OverItsSpace) {
  const ReplicaLoad replicas[] = {Load(1, 1, 2400), Load(2, 1, 2300), Load(3, 1, 2200),
                                  Load(4, 1, 2100)};
  const MoveAdvice advice = AdviseMoves(replicas, kNode, {});
  EXPECT_THAT(advice.candidates, ElementsAre(PartitionId{1}));
  EXPECT_EQ(advice.reason, "space: 9000 of 10000 bytes");
}

// It would make its next node the hot one.
TEST(NodeBalance, AReplicaThatIsMostOfTheLoadIsToBeSplit) {
  const ReplicaLoad one[] = {Load(1, 900)};
  EXPECT_EQ(AdviseMoves(one, kNode, {}).verdict, MoveVerdict::kTooLarge);
  const ReplicaLoad beside[] = {Load(1, 700), Load(2, 100), Load(3, 90)};
  const MoveAdvice advice = AdviseMoves(beside, kNode, {});
  EXPECT_EQ(advice.verdict, MoveVerdict::kMove);
  EXPECT_THAT(advice.candidates, ElementsAre(PartitionId{2}, PartitionId{3}));
}

TEST(NodeBalance, TheOrderOfReplicasDoesNotMatterAndTheListIsBounded) {
  Random random(1);
  std::vector<ReplicaLoad> replicas;
  for (uint64_t i = 1; i <= 200; ++i) replicas.push_back(Load(i, 5));
  const MoveAdvice first = AdviseMoves(replicas, kNode, {.candidates_max = 7});
  EXPECT_EQ(first.candidates.size(), 7u);
  std::shuffle(replicas.begin(), replicas.end(), random);
  EXPECT_EQ(AdviseMoves(replicas, kNode, {.candidates_max = 7}).candidates, first.candidates);
}

TEST(NodeBalance, WhatIsNoLoadCountsAsNone) {
  const ReplicaLoad replicas[] = {Load(1, std::numeric_limits<double>::quiet_NaN()),
                                  Load(2, std::numeric_limits<double>::infinity()), Load(3, -5)};
  EXPECT_EQ(AdviseMoves(replicas, kNode, {}).verdict, MoveVerdict::kBalanced);
}

TEST(NodeBalance, OptionsAreChecked) {
  EXPECT_TRUE(Validate(kNode, {}).ok());
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto refused = [](const absl::Status& status, const char* field) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << field;
    EXPECT_THAT(std::string(status.message()), HasSubstr(field));
  };
  refused(Validate({.units_per_second = nan}, {}), "units_per_second");
  refused(Validate({.bytes = 0}, {}), "bytes");
  refused(Validate({}, {.move_above = 1.5}), "move_above");
  refused(Validate({}, {.move_down_to = 0.9}), "move_down_to");
  refused(Validate({}, {.replica_share_max = 0}), "replica_share_max");
  refused(Validate({}, {.candidates_max = 0}), "candidates_max");
}

}  // namespace
}  // namespace dynlib::admission
