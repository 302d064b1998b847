#include "dynlib/replication/read_rounds.h"

#include <vector>

#include "gtest/gtest.h"

namespace dynlib::replication {
namespace {

using std::chrono::milliseconds;

Instant At(int64_t ms) { return Instant::FromNanos(1'000'000'000 + ms * 1'000'000); }
const std::vector<ReplicaId> kOthers = {ReplicaId{2}, ReplicaId{3}};

class ReadRoundsTest : public testing::Test {
 protected:
  void Answer(uint64_t member, uint64_t round) {
    rounds_.Answer(ReplicaId{member}, round);
    rounds_.Count(kOthers, 2);
  }
  ReadRounds rounds_{milliseconds(100)};
};

TEST_F(ReadRoundsTest, AQuorumConfirmsARound) {
  EXPECT_EQ(rounds_.Join(), 1u);
  EXPECT_EQ(rounds_.Due(At(0)), 1u);
  EXPECT_EQ(rounds_.confirmed(), 0u);
  Answer(3, 1);
  EXPECT_EQ(rounds_.confirmed(), 1u);
  EXPECT_EQ(rounds_.Due(At(0)), 0u);
  EXPECT_EQ(rounds_.next_deadline(), Instant::Infinite());
}

TEST_F(ReadRoundsTest, ReadsThatArriveDuringARoundShareTheNext) {
  rounds_.Join();
  rounds_.Due(At(0));
  EXPECT_EQ(rounds_.Join(), 2u);
  EXPECT_EQ(rounds_.Join(), 2u);
  EXPECT_EQ(rounds_.Due(At(1)), 0u);
  Answer(2, 1);
  EXPECT_EQ(rounds_.confirmed(), 1u);  // What was said before they arrived is not for them.
  EXPECT_EQ(rounds_.Due(At(1)), 2u);
  Answer(2, 2);
  EXPECT_EQ(rounds_.confirmed(), 2u);
}

TEST_F(ReadRoundsTest, AnswersToEarlierRoundsAndToNoneCountForNothing) {
  rounds_.Join();
  rounds_.Due(At(0));
  Answer(2, 1);
  rounds_.Join();
  rounds_.Due(At(1));
  Answer(2, 1);
  Answer(3, 1);
  Answer(3, 3);  // Nobody asked.
  EXPECT_EQ(rounds_.confirmed(), 1u);
}

TEST_F(ReadRoundsTest, WhoIsNoMemberIsNotCounted) {
  rounds_.Join();
  rounds_.Due(At(0));
  Answer(4, 1);
  EXPECT_EQ(rounds_.confirmed(), 0u);
}

TEST_F(ReadRoundsTest, AskedAgainAFewTimesThenLeftAloneUntilSomebodyJoins) {
  rounds_.Join();
  int asked = 0;
  for (int64_t ms = 0; ms <= 5000; ms += 50) asked += rounds_.Due(At(ms)) != 0;
  EXPECT_EQ(asked, 6);
  EXPECT_EQ(rounds_.next_deadline(), Instant::Infinite());
  EXPECT_EQ(rounds_.Join(), 2u);
  EXPECT_EQ(rounds_.Due(At(5000)), 2u);
  Answer(2, 2);
  EXPECT_EQ(rounds_.confirmed(), 2u);  // For the reads of the first round too.
}

TEST_F(ReadRoundsTest, AGroupOfOneNeedsNobody) {
  rounds_.Join();
  rounds_.Due(At(0));
  rounds_.Count({}, 1);
  EXPECT_EQ(rounds_.confirmed(), 1u);
}

}  // namespace
}  // namespace dynlib::replication
