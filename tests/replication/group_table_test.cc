#include "dynlib/replication/group_table.h"

#include <chrono>
#include <map>
#include <vector>

#include "dynlib/base/random.h"
#include "gtest/gtest.h"

namespace dynlib::replication {
namespace {

using Index = GroupTable::Index;

RestingMember MemberOf(Random& random) {
  RestingMember member;
  const uint64_t size = 1 + random.Below(7);
  const uint64_t first = 1 + random.Below(60'000);
  for (uint64_t i = 0; i < size; ++i) {
    member.configuration.members.push_back(
        {.replica = ReplicaId{first + i},
         .node = NodeId{(first + i) % 9 + 1},
         .kind = i == 2 ? MemberKind::kLog : MemberKind::kStorage});
  }
  member.configuration.epoch = random.Below(1 << 30);
  member.promised = Ballot(1 + random.Below(1 << 20), ReplicaId{first + random.Below(size)});
  member.chosen = random.Next() % kSlotMax;
  member.leads = random.Chance(0.3);
  member.follows = !member.leads && random.Chance(0.8);
  member.ended = random.Chance(0.1);
  if (member.follows) member.leader_incarnation = 1 + random.Below(1000);
  if (member.leads) member.peer_epochs = {random.Next(), random.Next()};
  return member;
}

GroupTable::Rested RestedOf(Random& random) {
  RestingMember member = MemberOf(random);
  const auto& members = member.configuration.members;
  const ReplicaId self = members[random.Below(members.size())].replica;
  return {.self = self,
          .member = std::move(member),
          .next_expiry = WallTime() + std::chrono::seconds(random.Below(1'000'000))};
}

void ExpectSame(const GroupTable::Rested& a, const GroupTable::Rested& b) {
  EXPECT_EQ(a.self, b.self);
  EXPECT_EQ(a.member, b.member);
  EXPECT_EQ(a.next_expiry, b.next_expiry);
}

TEST(GroupTableTest, WhatIsPutToRestIsTakenOutAgain) {
  GroupTable table;
  Random random(1);
  std::map<PartitionId, GroupTable::Rested> truth;
  for (int step = 0; step < 20'000; ++step) {
    const PartitionId id{1 + random.Below(3000)};
    const auto known = truth.find(id);
    const Index group = table.Find(id);
    ASSERT_EQ(group == GroupTable::kNone, known == truth.end());
    if (known == truth.end()) {
      truth[id] = RestedOf(random);
      table.Rest(table.Add(id, nullptr, nullptr), truth[id], random.Chance(0.2));
      continue;
    }
    ASSERT_EQ(table.IdOf(group), id);
    ExpectSame(table.Look(group), known->second);
    if (random.Chance(0.4)) {
      table.Remove(group);
      truth.erase(known);
    } else {
      ExpectSame(table.Take(group), known->second);
      known->second = RestedOf(random);
      table.Rest(group, known->second);
    }
    ASSERT_EQ(table.size(), truth.size());
  }
  size_t leaders = 0;
  for (const auto& [id, rested] : truth) leaders += rested.member.leads;
  EXPECT_EQ(table.leaders(), leaders);
}

TEST(GroupTableTest, TheFollowersOfALostNodeAreWokenInTurn) {
  GroupTable table;
  Configuration three;
  for (uint64_t i = 1; i <= 3; ++i) three.members.push_back({ReplicaId{i}, NodeId{10 * i}});
  for (uint64_t id = 1; id <= 9; ++id) {
    RestingMember member{.configuration = three, .promised = Ballot(1, ReplicaId{id % 3 + 1})};
    member.leads = id % 3 == 0;
    member.follows = !member.leads;
    table.Rest(table.Add(PartitionId{id}, nullptr, nullptr),
               {.self = ReplicaId{1}, .member = member, .next_expiry = {}});
  }
  EXPECT_EQ(table.NextToWake(), GroupTable::kNone);
  table.WakeFollowersOf(NodeId{30});  // Of replica 3: those of 2, 5 and 8.
  table.Remove(table.Find(PartitionId{5}));
  table.WakeFollowersOf(NodeId{30});
  table.WakeFollowersOf(NodeId{77});
  for (uint64_t id : {2, 8}) {
    const Index next = table.NextToWake();
    ASSERT_NE(next, GroupTable::kNone);
    EXPECT_EQ(table.IdOf(next), PartitionId{id});
    EXPECT_EQ(table.Take(next).member.promised.proposer(), ReplicaId{3});
  }
  EXPECT_EQ(table.NextToWake(), GroupTable::kNone);
  table.WakeFollowersOf(NodeId{20});
  EXPECT_EQ(table.IdOf(table.NextToWake()), PartitionId{1});
}

TEST(GroupTableTest, ManyGroupsOnTheSameNodesTakeLittle) {
  GroupTable table;
  Configuration three;
  for (uint64_t i = 1; i <= 3; ++i) three.members.push_back({ReplicaId{i}, NodeId{i}});
  constexpr uint64_t kGroups = 50'000;
  for (uint64_t id = 1; id <= kGroups; ++id) {
    // Healed so and so often: ids differ, nodes do not.
    for (Member& member : three.members)
      member.replica = ReplicaId{ToUint(member.replica) % 9000 + 1};
    const RestingMember member{.configuration = three};
    table.Rest(table.Add(PartitionId{id << 32}, nullptr, nullptr),
               {.self = three.members[0].replica, .member = member, .next_expiry = {}});
  }
  EXPECT_LE(table.bytes(), 128 * kGroups);
}

}  // namespace
}  // namespace dynlib::replication
