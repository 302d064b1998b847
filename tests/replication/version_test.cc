// R10: what commands mean changes by a version in the log, which every member has said it reads.
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/ids.h"
#include "dynlib/replication/group_host.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/replication/group_host_fixture.h"

namespace dynlib::replication {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class VersionTest : public GroupHostTest {
 protected:
  std::shared_ptr<Asked> AskToRaise(Server& server, uint64_t version) {
    auto asked = std::make_shared<Asked>();
    world_.RunAs(server.executor, [&] {
      server.host->RaiseVersion(kGroup, version, [asked](ProposalResult result) {
        asked->results.push_back(std::move(result));
      });
    });
    return asked;
  }
  // By whoever leads, once all are heard.
  absl::Status Raise(uint64_t version) {
    Server& leader = Leader();
    world_.RunFor(seconds(1));
    auto asked = AskToRaise(leader, version);
    EXPECT_TRUE(Await(asked));
    return asked->done() ? asked->results[0].status : absl::DeadlineExceededError("no answer");
  }
  // Another program, which reads commands up to `version`.
  void Upgrade(uint64_t id, uint64_t version) {
    if (servers_[id] != nullptr) Kill(id);
    options_.reads_version = version;
    Reopen(id);
  }
};

TEST_F(VersionTest, R10ItIsRaisedOnceEveryMemberReadsIt) {
  Boot(3);
  MustPropose(1, "a");
  EXPECT_THAT(Raise(2), StatusIs(absl::StatusCode::kFailedPrecondition,
                                 AllOf(HasSubstr("version 2"), HasSubstr("reads up to 1"))));
  for (uint64_t id = 1; id <= 3; ++id) {
    EXPECT_FALSE(Raise(2).ok());
    MustPropose(1 + id, "b");
    Upgrade(id, 2);
  }
  EXPECT_THAT(Raise(3), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("up to 2")));
  EXPECT_THAT(Raise(0), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("version is 0")));
  DYNLIB_ASSERT_OK(Raise(2));
  MustPropose(5, "c");
  DYNLIB_ASSERT_OK(Raise(2));  // It is.
  ASSERT_TRUE(AllApplied(5));
  for (auto& [id, server] : servers_) {
    EXPECT_THAT(server->journal.versions, ElementsAre(1, 1, 1, 1, 2)) << id;
    EXPECT_EQ(server->journal.stored_version, 2u) << id;
    EXPECT_EQ(server->Status().version, 2u) << id;
  }
  // Whoever applies the log anew gives each command the same meaning.
  Upgrade(2, 3);
  ASSERT_TRUE(AllApplied(5));
  EXPECT_THAT(servers_[2]->journal.versions, ElementsAre(1, 1, 1, 1, 2));
}

TEST_F(VersionTest, ASilentMemberHasNotSaidThatItReadsIt) {
  options_.reads_version = 2;
  Boot(3);
  MustPropose(1, "a");
  const uint64_t silent = LeaderId() % 3 + 1;
  Kill(silent);
  EXPECT_THAT(Raise(2), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("is silent")));
  Reopen(silent);
  DYNLIB_EXPECT_OK(Raise(2));
}

TEST_F(VersionTest, OnlyTheLeaderRaisesIt) {
  options_.reads_version = 2;
  Boot(3);
  Leader();
  world_.RunFor(seconds(1));
  Server& follower = *servers_[LeaderId() % 3 + 1];
  auto asked = AskToRaise(follower, 2);
  ASSERT_TRUE(Await(asked));
  EXPECT_THAT(asked->results[0].status, StatusIs(absl::StatusCode::kFailedPrecondition));
  ASSERT_TRUE(asked->results[0].leader_hint.has_value());
  EXPECT_EQ(asked->results[0].leader_hint->node, NodeId{LeaderId()});
}

// Started again with an older program: it must not guess.
TEST_F(VersionTest, R10WhoCannotReadItStopsApplyingAndIsNotElected) {
  options_.reads_version = 2;
  Boot(3);
  MustPropose(1, "a");
  DYNLIB_ASSERT_OK(Raise(2));
  MustPropose(2, "b");
  const uint64_t old = LeaderId() % 3 + 1;
  Upgrade(old, 1);
  ASSERT_TRUE(world_.RunUntil([&] { return servers_[old]->Status().failed; }, seconds(10)));
  MustPropose(3, "c");
  world_.RunFor(seconds(1));
  Server& failed = *servers_[old];
  EXPECT_THAT(failed.journal.commands, ::testing::Not(::testing::Contains("b")));
  EXPECT_TRUE(failed.fatal.empty());  // Its node serves other groups.
  std::string lines;
  for (const std::string& line : failed.trace.Take()) lines += line;
  EXPECT_THAT(lines, AllOf(HasSubstr("replication.replica_failed"), HasSubstr("reads up to 1")));
  // It votes: with the leader gone the third is elected, by its word.
  const uint64_t leader = LeaderId();
  const uint64_t third = 6 - leader - old;
  Kill(leader);
  MustPropose(4, "d");
  EXPECT_EQ(LeaderId(), third);
  // Alone with one that starts anew, which it could outrun.
  for (int i = 0; i < 5; ++i) {
    world_.RunAs(servers_[third]->executor,
                 [&] { servers_[third]->host->TransferLeadership(kGroup); });
    for (int j = 0; j < 200; ++j) {
      world_.RunFor(milliseconds(10));
      ASSERT_NE(failed.Status().role, Role::kLeader);
    }
  }
  MustPropose(5, "e");
  // With the right program it goes on where it was.
  Upgrade(old, 2);
  ASSERT_TRUE(AllApplied(5));
  EXPECT_THAT(servers_[old]->journal.versions, ElementsAre(1, 2, 2, 2, 2));
}

// What its tree holds is of a version that it does not read: it need not meet the entry.
TEST_F(VersionTest, ATreeOfALaterVersionFailsItsReplicaAtOnce) {
  Boot(1);
  Server& server = Leader();
  Journal later;
  later.stored_version = 2;
  for (bool at_rest : {false, true}) {
    const PartitionId group{at_rest ? 71u : 70u};
    DYNLIB_ASSERT_OK(server.host->AddGroup(
        group, {.configuration = server.configuration, .self = ReplicaId{1}, .at_rest = at_rest},
        &later, &server.apply, {}));
    world_.RunFor(seconds(3));
    EXPECT_TRUE(server.host->Status(group)->failed);
    EXPECT_NE(server.host->Status(group)->role, Role::kLeader);
  }
  EXPECT_TRUE(later.commands.empty());
  EXPECT_TRUE(server.fatal.empty());
}

TEST_F(VersionTest, WhoJoinsMustReadIt) {
  options_.reads_version = 2;
  Boot(3);
  MustPropose(1, "a");
  DYNLIB_ASSERT_OK(Raise(2));
  options_.reads_version = 1;
  world_.AddNode(NodeId{4});
  Open(4);
  const Member joins{ReplicaId{4}, NodeId{4}};
  const std::vector<Member> members = {{ReplicaId{1}, NodeId{1}}, {ReplicaId{2}, NodeId{2}}, joins};
  std::optional<absl::StatusOr<LearnerStatus>> fed;
  auto feed = [&] {
    Server& leader = Leader();
    world_.RunAs(leader.executor, [&] {
      leader.host->AddLearner(kGroup, joins, 0, [&](absl::StatusOr<LearnerStatus> s) { fed = s; });
    });
    world_.RunFor(seconds(1));
    return fed.has_value() && fed->ok() && (*fed)->caught_up;
  };
  auto change = [&] {
    std::optional<absl::StatusOr<uint64_t>> changed;
    Server& leader = Leader();
    world_.RunAs(leader.executor, [&] {
      leader.host->ChangeMembers(kGroup, 0, members,
                                 [&](absl::StatusOr<uint64_t> result) { changed = result; });
    });
    world_.RunUntil([&] { return changed.has_value(); }, seconds(5));
    return changed.has_value() ? changed->status() : absl::DeadlineExceededError("no answer");
  };
  for (int i = 0; i < 5 && !feed(); ++i) {
  }
  EXPECT_THAT(change(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                 HasSubstr("replica 4 on node 4 reads up to 1")));
  Upgrade(4, 2);
  for (int i = 0; i < 5 && !feed(); ++i) {
  }
  DYNLIB_EXPECT_OK(change());
}

}  // namespace
}  // namespace dynlib::replication
