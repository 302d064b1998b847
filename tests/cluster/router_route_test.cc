#include "dynlib/cluster/router_route.h"

#include <chrono>
#include <set>

#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "gtest/gtest.h"

namespace dynlib::cluster {
namespace {

using std::chrono::milliseconds;

constexpr NodeId kOne{1}, kTwo{2}, kThree{3}, kStranger{9}, kNobody{0};
constexpr Instant kNow = Instant::FromNanos(1'000'000'000);

RouterRoute ThreeMembers() {
  RouterRoute route;
  route.SetMembers({kOne, kTwo, kThree});
  return route;
}

TEST(RouterRouteTest, WithoutALeaderTheMembersAreTriedInTurn) {
  RouterRoute route = ThreeMembers();
  std::set<NodeId> tried;
  for (int i = 0; i < 3; ++i) tried.insert(route.PickLeader(kNow));
  EXPECT_EQ(tried.size(), 3u);
}

TEST(RouterRouteTest, TheLeaderIsRememberedUntilItSaysOtherwise) {
  RouterRoute route = ThreeMembers();
  route.Leads(kTwo);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(route.PickLeader(kNow), kTwo);
  EXPECT_TRUE(route.DoesNotLead(kTwo, kThree, kNow));
  EXPECT_EQ(route.PickLeader(kNow), kThree);
  EXPECT_FALSE(route.DoesNotLead(kThree, kNobody, kNow));
  EXPECT_EQ(route.leader(), kNobody);
}

TEST(RouterRouteTest, HintsToStrangersAndToItselfAreNotFollowed) {
  RouterRoute route = ThreeMembers();
  EXPECT_FALSE(route.DoesNotLead(kOne, kStranger, kNow));
  EXPECT_FALSE(route.DoesNotLead(kOne, kOne, kNow));
  EXPECT_EQ(route.leader(), kNobody);
}

TEST(RouterRouteTest, ASilentLeaderIsAvoidedEvenWhenOthersPointToIt) {
  RouterRoute route = ThreeMembers();
  route.Leads(kOne);
  route.Silent(kOne, kNow);
  for (int i = 0; i < 6; ++i) EXPECT_NE(route.PickLeader(kNow + milliseconds(1)), kOne);
  EXPECT_FALSE(route.DoesNotLead(kTwo, kOne, kNow + milliseconds(1)));
  // One lost message is no reason to avoid it for long.
  EXPECT_TRUE(route.DoesNotLead(kTwo, kOne, kNow + RouterRoute::kAvoidMin));
  EXPECT_EQ(route.PickLeader(kNow + RouterRoute::kAvoidMin), kOne);
}

TEST(RouterRouteTest, TheLongerItIsSilentTheLongerItIsAvoided) {
  RouterRoute route = ThreeMembers();
  Instant now = kNow;
  Duration last{};
  for (int i = 0; i < 30; ++i) {
    route.Silent(kOne, now);
    route.Silent(kOne, now);  // of the same moment: once
    Duration avoided{};
    while (route.Avoided(kOne, now + avoided)) avoided += milliseconds(10);
    EXPECT_GE(avoided, last);
    EXPECT_LE(avoided, RouterRoute::kAvoidMax);
    last = avoided;
    now = now + avoided;
  }
  EXPECT_EQ(last, RouterRoute::kAvoidMax);
  route.Silent(kOne, now);
  route.Heard(kOne);
  EXPECT_FALSE(route.Avoided(kOne, now));
}

TEST(RouterRouteTest, WhenAllAreSilentSomebodyIsAsked) {
  RouterRoute route = ThreeMembers();
  for (NodeId node : {kOne, kTwo, kThree}) route.Silent(node, kNow);
  std::set<NodeId> tried;
  for (int i = 0; i < 3; ++i) tried.insert(route.PickLeader(kNow));
  EXPECT_EQ(tried.size(), 3u);
}

TEST(RouterRouteTest, NewMembersReplaceWhatWasKnown) {
  RouterRoute route = ThreeMembers();
  route.Leads(kOne);
  route.SetMembers({kTwo, kThree});
  EXPECT_EQ(route.leader(), kNobody);
  EXPECT_NE(route.PickLeader(kNow), kOne);
}

}  // namespace
}  // namespace dynlib::cluster
