// Many groups of a node: their commits share appends on the leader and on the followers, whatever
// executors apply them.
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "dynlib/base/ids.h"
#include "dynlib/base/strings.h"
#include "dynlib/replication/group_host.h"
#include "dynlib/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "tests/replication/group_host_fixture.h"

namespace dynlib::replication {
namespace {

class ManyGroupsTest : public GroupHostTest {
 protected:
  static constexpr uint64_t kGroups = 64;
  static PartitionId GroupId(uint64_t i) { return PartitionId{100 + i}; }

  void AddGroups() {
    for (auto& [id, server] : servers_) {
      Executor* applies[] = {world_.node(NodeId{id})->NewExecutor("apply-a"),
                             world_.node(NodeId{id})->NewExecutor("apply-b")};
      for (uint64_t i = 0; i < kGroups; ++i) {
        journals_[id].push_back(std::make_unique<Journal>());
        DYNLIB_ASSERT_OK(server->host->AddGroup(
            GroupId(i), {.configuration = server->configuration, .self = ReplicaId{id}},
            journals_[id].back().get(), applies[i % 2], {}));
      }
    }
  }
  std::vector<PartitionId> LedBy(uint64_t id) {
    std::vector<PartitionId> led;
    for (const GroupStatus& status : servers_.at(id)->host->AllStatus()) {
      if (status.role == Role::kLeader && status.holds_lease && status.group != kGroup)
        led.push_back(status.group);
    }
    return led;
  }
  // Node 1 leads all: the others hand over what they lead, as often as they are elected.
  bool LetTheFirstLead() {
    return world_.RunUntil(
        [&] {
          for (uint64_t id = 2; id <= 3; ++id) {
            for (PartitionId group : LedBy(id)) {
              world_.RunAs(servers_.at(id)->executor,
                           [&] { servers_.at(id)->host->TransferLeadership(group); });
            }
          }
          return LedBy(1).size() == kGroups;
        },
        std::chrono::seconds(60));
  }

  std::map<uint64_t, std::vector<std::unique_ptr<Journal>>> journals_;
};

TEST_F(ManyGroupsTest, CommitsOfATurnShareOneAppendOnEachMember) {
  options_.rest_after = std::chrono::hours(1);
  Boot(3);
  AddGroups();
  ASSERT_TRUE(LetTheFirstLead());
  constexpr uint64_t kRounds = 5;
  for (uint64_t round = 1; round <= kRounds; ++round) {
    world_.RunFor(std::chrono::milliseconds(100));  // What commits left to be told is told.
    std::map<uint64_t, size_t> before;
    for (auto& [id, server] : servers_) before[id] = server->log.appends;
    uint64_t answered = 0;
    world_.RunAs(servers_.at(1)->executor, [&] {
      for (uint64_t i = 0; i < kGroups; ++i) {
        servers_.at(1)->host->Propose(
            GroupId(i), {.client = ClientId{9}, .sequence = round, .command = Cat("c", round)},
            [&](ProposalResult result) { answered += result.status.ok(); });
      }
    });
    ASSERT_TRUE(world_.RunUntil([&] { return answered == kGroups; }, std::chrono::seconds(1)));
    for (auto& [id, server] : servers_) EXPECT_EQ(server->log.appends - before[id], 1u) << id;
  }
  world_.RunFor(std::chrono::seconds(1));
  for (auto& [id, journals] : journals_) {
    for (const auto& journal : journals) EXPECT_EQ(journal->commands.size(), kRounds) << id;
  }
}

}  // namespace
}  // namespace dynlib::replication
