// Members that change, on real hosts in the simulator: learners, swaps, log replicas, removal, the
// end of a log, and leadership handed over.
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/replication/group_host.h"
#include "dynlib/sim/world.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dynlib::replication {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::Each;
using testing::HasSubstr;

constexpr PartitionId kGroup{5};

// A log in memory that outlives its host.
class MemoryLog final : public ReplicaLog {
 public:
  MemoryLog(std::vector<LogFrame>* stored, Executor* executor, const Clock* clock)
      : stored_(stored), executor_(executor), clock_(clock) {}
  size_t append_bytes_max() const override { return 256 << 10; }
  void Append(std::vector<LogFrame> frames, absl::AnyInvocable<void(absl::Status)> done) override {
    executor_->RunAt(clock_->Now() + milliseconds(1),
                     [this, frames = std::move(frames), done = std::move(done)]() mutable {
                       for (LogFrame& frame : frames) stored_->push_back(std::move(frame));
                       done(absl::OkStatus());
                     });
  }
  void Release(PartitionId, Slot) override {}
  std::optional<Instant> OldestPendingSince() const override { return std::nullopt; }

  static RecoveredStream Recover(const std::vector<LogFrame>& stored, PartitionId group) {
    RecoveredStream stream;
    std::map<Slot, Entry> entries;
    for (const LogFrame& frame : stored) {
      if (frame.group != group) continue;
      if (frame.is_state) stream.state = frame.header;
      if (frame.is_state || entries[frame.slot].ballot > frame.ballot) continue;
      const std::string bytes = frame.header + std::string(*frame.payload);
      entries[frame.slot] = {frame.slot, frame.ballot, std::make_shared<const std::string>(bytes)};
    }
    for (auto& [slot, entry] : entries) stream.entries.push_back(entry);
    return stream;
  }

 private:
  std::vector<LogFrame>* const stored_;
  Executor* const executor_;
  const Clock* const clock_;
};

// Keeps the commands and what else it was given.
class Journal final : public StateMachine {
 public:
  Slot applied() const override { return 0; }
  absl::Status LoadSessions(absl::FunctionRef<void(std::string_view, std::string_view)>) override {
    return absl::OkStatus();
  }
  absl::Status Evaluate(std::span<const AppliedCommand> applied,
                        std::vector<std::string>* results) override {
    for (const AppliedCommand& command : applied) {
      commands.emplace_back(command.command);
      if (command.ends) end = command.slot;
      results->push_back("done");
    }
    return absl::OkStatus();
  }
  absl::Status Publish(const PublishedStep& step) override {
    through = step.through;
    if (step.configuration != nullptr) configuration = *step.configuration;
    return absl::OkStatus();
  }
  std::vector<std::string> commands;
  Slot through = 0;
  std::optional<Configuration> configuration;
  std::optional<Slot> end;
};

struct Server {
  Server(sim::Node* node, std::vector<LogFrame>* stored, std::optional<GroupSetup> setup)
      : executor(node->NewExecutor("main")),
        apply(node->NewExecutor("apply")),
        log(stored, executor, node->clock()) {
    HostOptions options;
    options.group.proposal_bytes_max = 2 << 10;
    options.seed = ToUint(node->id());  // Elections are not contested for want of jitter.
    host = std::make_unique<GroupHost>(options, node->id(), node->transport(), Channel{1}, &log,
                                       executor, node->clock());
    host->OnChange([this](PartitionId group) { changes += group == kGroup; });
    if (setup.has_value()) Add(*setup, &journal, MemoryLog::Recover(*stored, kGroup));
    host->Start(MemoryLog::Recover(*stored, PartitionId{0}), [](absl::Status) {});
  }
  void Add(const GroupSetup& setup, Journal* machine, const RecoveredStream& stream = {}) {
    DYNLIB_EXPECT_OK(host->AddGroup(kGroup, setup, machine, apply, stream));
  }
  GroupStatus Status() const { return host->Status(kGroup).value_or(GroupStatus{}); }

  sim::SimExecutor* executor;
  Executor* apply;
  MemoryLog log;
  Journal journal;
  int changes = 0;
  std::unique_ptr<GroupHost> host;
};

Member On(uint64_t replica, uint64_t node, MemberKind kind = MemberKind::kStorage) {
  return {ReplicaId{replica}, NodeId{node}, kind};
}

// Replicas 1 to 3 on nodes 1 to 3, and node 4, empty.
class GroupMembersTest : public testing::Test {
 protected:
  GroupMembersTest() {
    for (uint64_t id = 1; id <= 4; ++id) world_.AddNode(NodeId{id});
    for (uint64_t id = 1; id <= 3; ++id) Open(id, Setup(id));
    Open(4, std::nullopt);
  }
  ~GroupMembersTest() override { world_.CrashAll(); }

  static GroupSetup Setup(uint64_t self) {
    return {.configuration = {.epoch = 0, .members = {On(1, 1), On(2, 2), On(3, 3)}},
            .self = ReplicaId{self}};
  }
  static GroupSetup LearnerSetup(uint64_t self, MemberKind kind = MemberKind::kStorage) {
    GroupSetup setup = Setup(self);
    setup.kind = kind;
    setup.learner = true;
    return setup;
  }
  void Open(uint64_t id, std::optional<GroupSetup> setup) {
    servers_[id] = std::make_unique<Server>(world_.node(NodeId{id}), &stored_[id], setup);
  }
  void Kill(uint64_t id) {
    world_.node(NodeId{id})->PowerOff();
    servers_[id] = nullptr;
  }
  // Calls until the result is accepted.
  template <typename T>
  T Ask(const std::function<void(std::function<void(T)>)>& call,
        const std::function<bool(const T&)>& accept) {
    std::optional<T> result;
    for (int i = 0; i < 100; ++i) {
      result.reset();
      call([&](T r) { result = std::move(r); });
      EXPECT_FALSE(result.has_value());  // Never inline.
      if (!world_.RunUntil([&] { return result.has_value(); }, seconds(10))) break;
      if (accept(*result)) return *std::move(result);
      world_.RunFor(milliseconds(50));
    }
    ADD_FAILURE() << "no answer that was hoped for";
    return *std::move(result);
  }
  Server& Leader() {
    uint64_t leader = 0;
    auto found = [&] {
      for (auto& [id, server] : servers_) {
        if (server != nullptr && server->Status().holds_lease) leader = id;
      }
      return leader != 0;
    };
    EXPECT_TRUE(world_.RunUntil(found, seconds(20)));
    return *servers_.at(leader);
  }
  // As a task of the node's executor.
  void At(Server& server, const std::function<void(GroupHost&)>& action) {
    world_.RunAs(server.executor, [&] { action(*server.host); });
  }
  void AtLeader(const std::function<void(GroupHost&)>& action) { At(Leader(), action); }
  absl::StatusOr<LearnerStatus> Feed(const Member& learner) {
    using Result = absl::StatusOr<LearnerStatus>;
    return Ask<Result>(
        [&](auto done) {
          AtLeader([&](GroupHost& host) { host.AddLearner(kGroup, learner, 0, done); });
        },
        [](const Result& result) { return !result.ok() || result->caught_up; });
  }
  absl::StatusOr<uint64_t> Change(std::vector<Member> members) {
    using Result = absl::StatusOr<uint64_t>;
    return Ask<Result>(
        [&](auto done) {
          AtLeader([&](GroupHost& host) {
            host.ChangeMembers(kGroup, host.Status(kGroup)->configuration.epoch, members, done);
          });
        },
        [](const Result& result) { return result.status().code() != absl::StatusCode::kUnknown; });
  }
  static bool HasEnded(const absl::Status& status) {
    return status.message().find("ended") != std::string::npos;
  }
  absl::Status Propose(const std::string& command, bool ends = false) {
    ++sequence_;
    return Ask<ProposalResult>(
               [&](auto done) {
                 const Command c{.client = ClientId{9}, .sequence = sequence_, .command = command};
                 AtLeader([&](GroupHost& host) {
                   ends ? host.ProposeEnd(kGroup, c, done) : host.Propose(kGroup, c, done);
                 });
               },
               [](const ProposalResult& result) {
                 return result.status.ok() || HasEnded(result.status);
               })
        .status;
  }
  absl::Status Remove(Server& server) {
    return Ask<absl::Status>(
        [&](auto done) { At(server, [&](GroupHost& host) { host.RemoveGroup(kGroup, done); }); },
        [](const absl::Status&) { return true; });
  }
  bool Eventually(const std::function<bool()>& done) { return world_.RunUntil(done, seconds(10)); }

  sim::World world_{/*seed=*/4};
  std::map<uint64_t, std::vector<LogFrame>> stored_;
  std::map<uint64_t, std::unique_ptr<Server>> servers_;
  uint64_t sequence_ = 0;
};

TEST_F(GroupMembersTest, ALearnerCatchesUpAndTakesTheDeadOnesPlace) {
  for (int i = 0; i < 5; ++i) DYNLIB_ASSERT_OK(Propose("before"));
  Kill(3);
  servers_[4]->Add(LearnerSetup(4), &servers_[4]->journal);
  DYNLIB_ASSERT_OK_AND_ASSIGN(LearnerStatus learner, Feed(On(4, 4)));
  EXPECT_EQ(learner.member, On(4, 4));
  EXPECT_EQ(Leader().Status().learners.size(), 1u);
  DYNLIB_ASSERT_OK_AND_ASSIGN(uint64_t epoch, Change({On(1, 1), On(2, 2), On(4, 4)}));
  EXPECT_GT(epoch, 0u);
  EXPECT_TRUE(Leader().Status().learners.empty());
  DYNLIB_ASSERT_OK_AND_ASSIGN(uint64_t again, Change({On(4, 4), On(1, 1), On(2, 2)}));
  EXPECT_EQ(again, epoch);
  // It votes: one of the old ones may go.
  Kill(ToUint(Leader().Status().self) == 1 ? 2 : 1);
  DYNLIB_ASSERT_OK(Propose("after"));
  const Server& fourth = *servers_[4];
  EXPECT_TRUE(Eventually([&] { return fourth.journal.commands.size() == 6; }));
  EXPECT_TRUE(fourth.Status().member);
  EXPECT_EQ(fourth.Status().configuration.epoch, epoch);
  ASSERT_TRUE(fourth.journal.configuration.has_value());
  EXPECT_EQ(fourth.journal.configuration->epoch, epoch);
  EXPECT_GT(fourth.changes, 0);
  // Also after a restart, from its state record and log alone.
  Kill(4);
  world_.node(NodeId{4})->Restart();
  Open(4, LearnerSetup(4));
  EXPECT_TRUE(Eventually([&] { return servers_[4]->Status().member; }));
  DYNLIB_ASSERT_OK(Propose("again"));
}

TEST_F(GroupMembersTest, AChangeSaysWhatIsMissing) {
  Leader();
  EXPECT_THAT(Change({On(1, 1), On(2, 2), On(4, 4)}),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("learner")));
  EXPECT_THAT(Change({On(1, 1), On(2, 3)}), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(Change({}), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(Feed(On(2, 4)), StatusIs(absl::StatusCode::kAlreadyExists));
  using Result = absl::StatusOr<uint64_t>;
  EXPECT_THAT(
      Ask<Result>(
          [&](auto done) {
            AtLeader([&](GroupHost& host) { host.ChangeMembers(kGroup, 77, {On(1, 1)}, done); });
          },
          [](const Result&) { return true; }),
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("77")));
}

TEST_F(GroupMembersTest, BadMembersAreRefusedAndNothingIsProposed) {
  DYNLIB_ASSERT_OK(Propose("a"));
  const Slot last = Leader().Status().last;
  const Member log{ReplicaId{2}, NodeId{2}, MemberKind::kLog};
  for (const std::vector<Member>& members : std::vector<std::vector<Member>>{
           {},                              // none
           {On(1, 1), On(1, 1), On(2, 2)},  // a member twice
           {On(1, 1), On(2, 2), On(2, 3)},  // a replica on two nodes
           {On(1, 1), On(2, 2), On(3, 2)},  // two on a node
           {On(0, 1), On(2, 2), On(3, 3)},  // replica 0
           {On(1, 0), On(2, 2), On(3, 3)},  // node 0
           {On(1, 1), log, On(3, 3)},       // another kind than before
           {On(1, 1), On(2, 2), On(3, 3), On(4, 4), On(5, 5), On(6, 6), On(7, 7), On(8, 8)}}) {
    EXPECT_THAT(Change(members), StatusIs(absl::StatusCode::kInvalidArgument));
  }
  EXPECT_EQ(Leader().Status().last, last);
  EXPECT_EQ(Leader().Status().configuration.epoch, 0u);
}

TEST_F(GroupMembersTest, ALearnerThatNobodyAsksAboutIsForgotten) {
  servers_[4]->Add(LearnerSetup(4), &servers_[4]->journal);
  DYNLIB_ASSERT_OK(Feed(On(4, 4)).status());
  EXPECT_EQ(Leader().Status().learners.size(), 1u);
  world_.RunFor(seconds(11));
  EXPECT_TRUE(Leader().Status().learners.empty());
}

TEST_F(GroupMembersTest, ALogReplicaVotesAndIsGivenNothingButTheEnd) {
  DYNLIB_ASSERT_OK(Propose("a"));
  Kill(3);
  const Member log = On(4, 4, MemberKind::kLog);
  servers_[4]->Add(LearnerSetup(4, MemberKind::kLog), &servers_[4]->journal);
  DYNLIB_ASSERT_OK(Feed(log).status());
  DYNLIB_ASSERT_OK(Change({On(1, 1), On(2, 2), log}).status());
  DYNLIB_ASSERT_OK(Propose("b"));
  // Its position follows the durable trees of the others.
  const Journal& journal = servers_[4]->journal;
  EXPECT_EQ(journal.through, 0u);
  const Slot applied = Leader().Status().applied;
  ASSERT_TRUE(Eventually([&] {
    return servers_[1]->Status().applied >= applied && servers_[2]->Status().applied >= applied;
  }));
  for (uint64_t id : {1, 2}) {
    At(*servers_[id], [&](GroupHost& host) { host.Checkpointed(kGroup, applied); });
  }
  DYNLIB_ASSERT_OK(Propose("c"));
  DYNLIB_ASSERT_OK(Propose("d"));
  EXPECT_TRUE(Eventually([&] { return journal.through == applied; }));
  EXPECT_TRUE(journal.configuration.has_value());
  EXPECT_TRUE(journal.commands.empty());
  // The storage replica that is left needs its vote; it never leads itself.
  const uint64_t leader = ToUint(Leader().Status().self);
  Kill(leader);
  DYNLIB_ASSERT_OK(Propose("e"));
  EXPECT_EQ(ToUint(Leader().Status().self), leader == 1 ? 2u : 1u);
  DYNLIB_ASSERT_OK(Propose("last", /*ends=*/true));
  EXPECT_TRUE(Eventually([&] { return journal.end.has_value(); }));
}

TEST_F(GroupMembersTest, AMemberThatLeftIsToldAndAnotherMayLiveInItsPlace) {
  DYNLIB_ASSERT_OK(Propose("a"));
  const uint64_t leaves = ToUint(Leader().Status().self) % 3 + 1;
  std::vector<Member> members;
  for (uint64_t id = 1; id <= 3; ++id) {
    if (id != leaves) members.push_back(On(id, id));
  }
  DYNLIB_ASSERT_OK(Change(members).status());
  Server& gone = *servers_[leaves];
  EXPECT_TRUE(Eventually([&] { return gone.Status().removed; }));
  DYNLIB_EXPECT_OK(Remove(gone));
  EXPECT_FALSE(gone.host->Status(kGroup).has_value());
  EXPECT_THAT(Remove(gone), StatusIs(absl::StatusCode::kNotFound));
  DYNLIB_ASSERT_OK(Propose("b"));
  auto journal = std::make_unique<Journal>();
  gone.Add(LearnerSetup(5), journal.get());
  DYNLIB_ASSERT_OK(Feed(On(5, leaves)).status());
  members.push_back(On(5, leaves));
  DYNLIB_ASSERT_OK(Change(members).status());
  EXPECT_TRUE(Eventually([&] { return journal->commands.size() == 2; }));
  DYNLIB_EXPECT_OK(Remove(gone));
}

TEST_F(GroupMembersTest, WhatARemovedGroupWasAskedIsCancelled) {
  Server& leader = Leader();
  std::vector<absl::Status> results;
  At(leader, [&](GroupHost& host) {
    host.Propose(kGroup, {.client = ClientId{9}, .sequence = 1, .command = "a"},
                 [&](ProposalResult r) { results.push_back(r.status); });
  });
  DYNLIB_EXPECT_OK(Remove(leader));
  EXPECT_THAT(results, Each(StatusIs(absl::StatusCode::kCancelled)));
  EXPECT_EQ(results.size(), 1u);
}

TEST_F(GroupMembersTest, NothingFollowsTheEnd) {
  DYNLIB_ASSERT_OK(Propose("a"));
  DYNLIB_ASSERT_OK(Propose("end", /*ends=*/true));
  const Slot ended = Leader().Status().ended;
  EXPECT_GT(ended, 0u);
  EXPECT_THAT(Propose("b"), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("ended")));
  for (uint64_t id = 1; id <= 3; ++id) {
    EXPECT_TRUE(Eventually([&] { return servers_[id]->journal.end == ended; }));
  }
  // Nor under another leader, nor after a restart.
  const uint64_t leader = ToUint(Leader().Status().self);
  Kill(leader);
  world_.node(NodeId{leader})->Restart();
  Open(leader, Setup(leader));
  world_.RunFor(seconds(3));
  EXPECT_TRUE(HasEnded(Propose("c")));
  EXPECT_EQ(Leader().Status().ended, ended);
  EXPECT_EQ(Leader().Status().chosen, ended);
}

TEST_F(GroupMembersTest, LeadershipIsHandedOverAtOnce) {
  DYNLIB_ASSERT_OK(Propose("a"));
  const uint64_t before = ToUint(Leader().Status().self);
  const Instant asked = world_.node(NodeId{4})->clock()->Now();
  At(*servers_[before], [](GroupHost& host) { host.TransferLeadership(kGroup); });
  world_.RunFor(milliseconds(1));
  DYNLIB_ASSERT_OK(Propose("b"));
  EXPECT_NE(ToUint(Leader().Status().self), before);
  EXPECT_LT(world_.node(NodeId{4})->clock()->Now() - asked, milliseconds(500));
}

TEST_F(GroupMembersTest, ProposalsWaitWhileMembersChange) {
  DYNLIB_ASSERT_OK(Propose("a"));
  servers_[4]->Add(LearnerSetup(4), &servers_[4]->journal);
  DYNLIB_ASSERT_OK(Feed(On(4, 4)).status());
  Server& leader = Leader();
  std::optional<absl::StatusOr<uint64_t>> changed;
  At(leader, [&](GroupHost& host) {
    host.ChangeMembers(kGroup, 0, {On(1, 1), On(2, 2), On(3, 3), On(4, 4)},
                       [&](absl::StatusOr<uint64_t> r) { changed = std::move(r); });
  });
  std::vector<absl::Status> results;
  for (uint64_t i = 1; i <= 3; ++i) {
    At(leader, [&](GroupHost& host) {
      host.Propose(kGroup, {.client = ClientId{8}, .sequence = i, .command = "b"},
                   [&](ProposalResult r) { results.push_back(r.status); });
    });
  }
  ASSERT_TRUE(Eventually([&] { return results.size() == 3; }));
  EXPECT_THAT(results, Each(StatusIs(absl::StatusCode::kOk)));
  ASSERT_TRUE(changed.has_value());
  DYNLIB_EXPECT_OK(changed->status());
}

}  // namespace
}  // namespace dynlib::replication
