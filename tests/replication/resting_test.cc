// Groups at rest on hosts: what wakes them, and what a hundred thousand of them cost.
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/replication/group_core.h"
#include "dynlib/replication/group_host.h"
#include "dynlib/replication/host_options.h"
#include "dynlib/replication/message_codec.h"
#include "dynlib/sim/world.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/runtime/counting_sink.h"

namespace dynlib::replication {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Channel kChannel{1};
constexpr uint64_t kNodes = 3;

// Durable after a millisecond. Nothing is recovered from it here.
class MemoryLog final : public ReplicaLog {
 public:
  MemoryLog(Executor* executor, const Clock* clock) : executor_(executor), clock_(clock) {}
  size_t append_bytes_max() const override { return 4 << 20; }
  void Append(std::vector<LogFrame> frames, absl::AnyInvocable<void(absl::Status)> done) override {
    for (const LogFrame& frame : frames) group_frames += frame.group != PartitionId{0};
    executor_->RunAt(clock_->Now() + milliseconds(1),
                     [done = std::move(done)]() mutable { done(absl::OkStatus()); });
  }
  void Release(PartitionId, Slot) override {}
  std::optional<Instant> OldestPendingSince() const override { return std::nullopt; }

  size_t group_frames = 0;

 private:
  Executor* const executor_;
  const Clock* const clock_;
};

// Counts commands; its result is how many there were. Keeps its sessions, as it is asked to.
class Counter final : public StateMachine {
 public:
  Slot applied() const override { return applied_; }
  absl::Status LoadSessions(
      absl::FunctionRef<void(std::string_view, std::string_view)> visit) override {
    ++loads;
    for (const auto& [key, value] : sessions_) visit(key, value);
    return absl::OkStatus();
  }
  absl::Status Evaluate(std::span<const AppliedCommand> commands,
                        std::vector<std::string>* results) override {
    for (size_t i = 0; i < commands.size(); ++i) results->push_back(std::to_string(++count));
    return absl::OkStatus();
  }
  absl::Status Publish(const PublishedStep& step) override {
    for (const SessionRecord& record : step.sessions) sessions_[record.key] = record.value;
    applied_ = step.through;
    return absl::OkStatus();
  }
  int count = 0;
  int loads = 0;

 private:
  Slot applied_ = 0;
  std::map<std::string, std::string> sessions_;
};

class CountedTransport final : public Transport {
 public:
  explicit CountedTransport(Transport* transport) : transport_(transport) {}
  NodeId self() const override { return transport_->self(); }
  void Send(NodeId to, Channel channel, std::string message) override {
    const auto decoded = DecodeNodeMessage(message);
    if (decoded.ok()) group_messages += decoded->groups.size();
    transport_->Send(to, channel, std::move(message));
  }
  void Listen(Channel channel, Executor* executor, Receiver receiver) override {
    transport_->Listen(channel, executor, std::move(receiver));
  }
  void StopListening(Channel channel) override { transport_->StopListening(channel); }
  size_t group_messages = 0;

 private:
  Transport* const transport_;
};

struct Server {
  Server(sim::Node* node, const HostOptions& options, uint64_t groups)
      : executor(node->NewExecutor("main")),
        log(executor, node->clock()),
        transport(node->transport()),
        machines(groups),
        host(std::make_unique<GroupHost>(options, node->id(), &transport, kChannel, &log, executor,
                                         node->clock(), &metrics)) {}
  sim::SimExecutor* executor;
  MemoryLog log;
  CountedTransport transport;
  CountingSink metrics;
  std::vector<Counter> machines;
  std::unique_ptr<GroupHost> host;
};

class RestingTest : public testing::Test {
 protected:
  ~RestingTest() override { world_.CrashAll(); }

  // Groups 1 to `groups`, of which group i is led by node i % 3 + 1 when it is asked.
  void Boot(uint64_t groups, bool at_rest, bool wake_in_turn = false) {
    for (uint64_t id = 1; id <= kNodes; ++id) {
      world_.AddNode(NodeId{id});
      servers_[id] = std::make_unique<Server>(world_.node(NodeId{id}), options_, groups);
      std::vector<GroupSetup> setups;
      for (uint64_t first = 0; first < kNodes; ++first) {
        GroupSetup setup{.at_rest = at_rest, .wake_in_turn = wake_in_turn};
        for (uint64_t i = 0; i < kNodes; ++i) {
          setup.configuration.members.push_back({ReplicaId{i + 1}, NodeId{(first + i) % 3 + 1}});
        }
        setup.self = setup.configuration.FindNode(NodeId{id})->replica;
        setups.push_back(std::move(setup));
      }
      for (uint64_t i = 1; i <= groups; ++i) {
        DYNLIB_ASSERT_OK(At(id).AddGroup(PartitionId{i}, setups[i % 3],
                                         &servers_[id]->machines[i - 1], servers_[id]->executor,
                                         {}));
      }
      At(id).Start({}, [](absl::Status status) { DYNLIB_EXPECT_OK(status); });
    }
    if (!wake_in_turn) world_.RunFor(seconds(1));
  }
  GroupHost& At(uint64_t id) { return *servers_.at(id)->host; }
  // As a task of the node would.
  void On(uint64_t id, const std::function<void(GroupHost&)>& call) {
    world_.RunAs(servers_.at(id)->executor, [&] { call(At(id)); });
  }
  static uint64_t LeaderOf(uint64_t group) { return group % 3 + 1; }

  absl::StatusOr<std::string> Propose(uint64_t node, uint64_t group, uint64_t sequence) {
    std::optional<ProposalResult> got;
    On(node, [&](GroupHost& host) {
      host.Propose(PartitionId{group},
                   {.client = ClientId{1}, .sequence = sequence, .command = "x"},
                   [&](ProposalResult result) { got = std::move(result); });
    });
    EXPECT_TRUE(world_.RunUntil([&] { return got.has_value(); }, seconds(5)));
    if (!got.has_value()) return absl::DeadlineExceededError("");
    if (!got->status.ok()) return got->status;
    return got->result;
  }
  // Until it is committed, from node to node.
  std::string MustPropose(uint64_t group, uint64_t sequence) {
    for (int i = 0; i < 500; ++i) {
      for (const auto& [id, server] : servers_) {
        if (server == nullptr) continue;
        const absl::StatusOr<std::string> result = Propose(id, group, sequence);
        if (result.ok()) return *result;
      }
      world_.RunFor(milliseconds(10));
    }
    ADD_FAILURE() << "group " << group << " does not commit";
    return "";
  }
  void CheckpointAll() {
    for (const auto& [id, server] : servers_) {
      if (server == nullptr) continue;
      On(id, [&machines = server->machines](GroupHost& host) {
        for (size_t i = 0; i < machines.size(); ++i)
          host.Checkpointed(PartitionId{i + 1}, machines[i].applied());
      });
    }
  }
  size_t Awake() {
    size_t awake = 0;
    for (const auto& [id, server] : servers_) {
      if (server != nullptr) awake += server->host->Status().awake;
    }
    return awake;
  }
  bool AllRest(Duration limit = seconds(5)) {
    return world_.RunUntil([&] { return Awake() == 0; }, limit);
  }
  // A group that has been led and written to, and rests.
  void BootOne() {
    Boot(3, /*at_rest=*/false);
    for (uint64_t group = 1; group <= 3; ++group) MustPropose(group, 1);
    world_.RunFor(seconds(1));
    EXPECT_GT(Awake(), 0u);
    CheckpointAll();
    ASSERT_TRUE(AllRest());
  }
  size_t Messages() {
    size_t messages = 0;
    for (const auto& [id, server] : servers_) messages += server->transport.group_messages;
    return messages;
  }
  bool IsAwake(uint64_t node) { return At(node).Status().awake > 0; }
  Role RoleAt(uint64_t node, uint64_t group) { return At(node).Status(PartitionId{group})->role; }

  HostOptions options_;
  sim::World world_{/*seed=*/5};
  std::map<uint64_t, std::unique_ptr<Server>> servers_;
};

TEST_F(RestingTest, AHundredThousandIdleGroupsSendNothingWaitForNothingAndTakeLittle) {
  constexpr uint64_t kGroups = 100'000;
  Boot(kGroups, /*at_rest=*/true);
  world_.RunFor(seconds(5));
  EXPECT_EQ(Messages(), 0u);
  for (uint64_t id = 1; id <= kNodes; ++id) {
    const HostStatus status = At(id).Status();
    EXPECT_EQ(status.groups, kGroups);
    EXPECT_EQ(status.awake, 0u);
    EXPECT_EQ(status.deadlines, 0u);
    EXPECT_LE(status.table_bytes, 128 * kGroups);
    EXPECT_EQ(servers_[id]->log.group_frames, 0u);
  }
  for (uint64_t group = 1; group <= kGroups; group += 9973) {
    EXPECT_EQ(MustPropose(group, 1), "1");
    EXPECT_EQ(RoleAt(LeaderOf(group), group), Role::kLeader);
  }
  EXPECT_LE(Awake(), 3 * 11u);  // The others slept on.
}

TEST_F(RestingTest, ThoseThatAreToWakeInTurnAreAllLedAFewAtATime) {
  constexpr uint64_t kGroups = 120;
  options_.wakes_at_once = 8;
  Boot(kGroups, /*at_rest=*/true, /*wake_in_turn=*/true);
  size_t unled_most = 0;
  const bool all_led = world_.RunUntil(
      [&] {
        size_t leads = 0;
        for (const auto& [id, server] : servers_) {
          const HostStatus host = At(id).Status();
          leads += host.leads;
          size_t led = 0;
          for (const GroupStatus& status : At(id).AllStatus()) led += status.leader.has_value();
          unled_most = std::max(unled_most, host.awake - std::min(host.awake, led));
        }
        return leads == kGroups;
      },
      seconds(20));
  EXPECT_TRUE(all_led);
  EXPECT_GT(unled_most, 0u);
  // Those in their turn, and those that another member's turn woke.
  EXPECT_LE(unled_most, kNodes * options_.wakes_at_once);
}

TEST_F(RestingTest, AGroupRestsOnceItsLogIsInAllTreesAndNotBefore) {
  Boot(1, /*at_rest=*/false);
  MustPropose(1, 1);
  world_.RunFor(seconds(5));
  EXPECT_EQ(Awake(), 3u);
  // The leader misses one's word of its checkpoint, which is given again after a while.
  ASSERT_EQ(LeaderOf(1), 2u);
  world_.network().Block(NodeId{3}, NodeId{2});
  CheckpointAll();
  world_.RunFor(milliseconds(100));
  world_.network().Unblock(NodeId{3}, NodeId{2});
  world_.RunFor(seconds(3));
  EXPECT_EQ(Awake(), 3u);
  ASSERT_TRUE(AllRest(seconds(20)));
}

TEST_F(RestingTest, StatusTellsOfAGroupAtRestWithoutWakingIt) {
  BootOne();
  for (uint64_t id = 1; id <= kNodes; ++id) {
    for (uint64_t group = 1; group <= 3; ++group) {
      const std::optional<GroupStatus> status = At(id).Status(PartitionId{group});
      ASSERT_TRUE(status.has_value());
      EXPECT_EQ(status->role, id == LeaderOf(group) ? Role::kLeader : Role::kFollower);
      EXPECT_EQ(status->holds_lease, id == LeaderOf(group));
      ASSERT_TRUE(status->leader.has_value());
      EXPECT_EQ(status->leader->node, NodeId{LeaderOf(group)});
      EXPECT_EQ(status->applied, servers_[id]->machines[group - 1].applied());
      EXPECT_TRUE(status->member);
    }
    EXPECT_EQ(At(id).AllStatus().size(), 3u);
    EXPECT_EQ(At(id).Status().leads, 1u);
  }
  On(1, [](GroupHost& host) { host.Checkpointed(PartitionId{1}, 1); });  // Nothing new.
  EXPECT_EQ(Awake(), 0u);
}

TEST_F(RestingTest, AProposalWakesIt) {
  BootOne();
  const uint64_t leader = LeaderOf(1);
  const auto result = Propose(leader, 1, 2);  // At once: it still leads.
  DYNLIB_ASSERT_OK(result);
  EXPECT_EQ(*result, "2");
  EXPECT_TRUE(IsAwake(leader));
  // And the proposal those that follow.
  EXPECT_TRUE(world_.RunUntil([&] { return Awake() == 3; }, seconds(1)));
}

TEST_F(RestingTest, AProposalAtAFollowerIsSentToTheLeader) {
  BootOne();
  std::optional<ProposalResult> got;
  const uint64_t follower = LeaderOf(1) % 3 + 1;
  On(follower, [&](GroupHost& host) {
    host.Propose(PartitionId{1}, {.client = ClientId{1}, .sequence = 2, .command = "x"},
                 [&](ProposalResult result) { got = std::move(result); });
  });
  ASSERT_TRUE(world_.RunUntil([&] { return got.has_value(); }, seconds(1)));
  EXPECT_TRUE(absl::IsFailedPrecondition(got->status));
  ASSERT_TRUE(got->leader_hint.has_value());
  EXPECT_EQ(got->leader_hint->node, NodeId{LeaderOf(1)});
}

TEST_F(RestingTest, ALeaseReadWakesItAndNeedsNoMessage) {
  BootOne();
  const size_t messages = Messages();
  std::optional<absl::Status> done;
  int seen = 0;
  On(LeaderOf(1), [&](GroupHost& host) {
    host.Read(
        PartitionId{1}, [&] { seen = servers_[LeaderOf(1)]->machines[0].count; },
        [&](absl::Status status) { done = std::move(status); });
  });
  ASSERT_TRUE(world_.RunUntil([&] { return done.has_value(); }, seconds(1)));
  DYNLIB_EXPECT_OK(*done);
  EXPECT_EQ(seen, 1);
  EXPECT_EQ(Messages(), messages);
  EXPECT_TRUE(AllRest());
}

TEST_F(RestingTest, CommandsAreStillAppliedOnceAfterIt) {
  BootOne();
  Server& leader = *servers_[LeaderOf(1)];
  const int loads = leader.machines[0].loads;
  EXPECT_EQ(MustPropose(1, 1), "1");  // The same again.
  EXPECT_EQ(MustPropose(1, 2), "2");
  EXPECT_EQ(leader.machines[0].count, 2);
  EXPECT_EQ(leader.machines[0].loads, loads + 1);
}

TEST_F(RestingTest, LeadershipIsHandedOverByOneAtRest) {
  BootOne();
  On(LeaderOf(1), [](GroupHost& host) { host.TransferLeadership(PartitionId{1}); });
  EXPECT_TRUE(world_.RunUntil(
      [&] {
        const auto status = At(LeaderOf(1)).Status(PartitionId{1});
        return status->leader.has_value() && status->leader->node != NodeId{LeaderOf(1)};
      },
      seconds(2)));
}

TEST_F(RestingTest, OneAtRestIsRemovedAndAddedAgain) {
  BootOne();
  std::optional<absl::Status> removed;
  On(1, [&](GroupHost& host) {
    host.RemoveGroup(PartitionId{2}, [&](absl::Status status) { removed = std::move(status); });
  });
  EXPECT_EQ(Awake(), 0u);
  ASSERT_TRUE(world_.RunUntil([&] { return removed.has_value(); }, seconds(1)));
  DYNLIB_EXPECT_OK(*removed);
  EXPECT_FALSE(At(1).Status(PartitionId{2}).has_value());
  EXPECT_EQ(At(1).Status().groups, 2u);
}

TEST_F(RestingTest, ThoseOfALostLeaderElectAnotherAndTheOthersSleepOn) {
  options_.wakes_at_once = 2;  // In turns, then.
  constexpr uint64_t kGroups = 30;
  Boot(kGroups, /*at_rest=*/false);
  for (uint64_t group = 1; group <= kGroups; ++group) MustPropose(group, 1);
  world_.RunFor(seconds(1));
  CheckpointAll();
  ASSERT_TRUE(AllRest());
  world_.node(NodeId{1})->PowerOff();
  servers_[1] = nullptr;
  EXPECT_TRUE(world_.RunUntil(
      [&] {
        for (uint64_t group = 3; group <= kGroups; group += 3) {
          if (RoleAt(2, group) != Role::kLeader && RoleAt(3, group) != Role::kLeader) return false;
        }
        return true;
      },
      seconds(20)));
  for (uint64_t id : {2, 3}) EXPECT_LE(servers_[id]->metrics["replication.groups_woken"], 10);
}

TEST_F(RestingTest, ALeaderThatRestartedIsNotTakenForOneThatLeads) {
  BootOne();
  const uint64_t group = 3;  // Led by node 1.
  ASSERT_EQ(LeaderOf(group), 1u);
  world_.node(NodeId{1})->PowerOff();
  servers_[1] = nullptr;
  EXPECT_TRUE(world_.RunUntil(
      [&] { return RoleAt(2, group) == Role::kLeader || RoleAt(3, group) == Role::kLeader; },
      seconds(3)));
}

// Followers that miss their leader for a moment, and hear it again before they ask for it, support
// it in a new epoch, which nobody tells a group that is at rest.
TEST_F(RestingTest, ALeaderWhoseSupportBeganAnewFindsOutThatItLeads) {
  BootOne();
  const auto supported = [&](uint64_t group) {
    size_t count = 0;
    for (uint64_t id = 1; id <= kNodes; ++id) count += At(id).Status(PartitionId{group})->supported;
    return count;
  };
  size_t unsupported = 0;
  for (int cut_ms = 500; cut_ms < 800; cut_ms += 10) {
    const auto cut = world_.network().Partition({NodeId{1}}, {NodeId{2}, NodeId{3}});
    world_.RunFor(milliseconds(cut_ms));
    world_.network().EndPartition(cut);
    world_.RunFor(seconds(3));
    for (uint64_t group = 1; group <= 3; ++group) unsupported += supported(group) == 0;
    for (uint64_t id = 1; id <= kNodes; ++id) {
      for (uint64_t group = 1; group <= 3; ++group)
        On(id, [&](GroupHost& host) { host.CheckLead(PartitionId{group}); });
    }
    world_.RunFor(milliseconds(500));
    for (uint64_t group = 1; group <= 3; ++group) EXPECT_EQ(supported(group), 1u) << cut_ms;
    CheckpointAll();
    ASSERT_TRUE(AllRest());
  }
  EXPECT_GT(unsupported, 0u);
}

TEST_F(RestingTest, OptionsAreChecked) {
  options_.rest_after = milliseconds(-1);
  EXPECT_THAT(Validate(options_).message(), testing::HasSubstr("rest_after"));
  options_ = {.wakes_at_once = 0};
  EXPECT_THAT(Validate(options_).message(), testing::HasSubstr("wakes_at_once"));
  options_ = {.entry_memory_kept = 1 << 20, .entry_memory_at_start = 2 << 20};
  EXPECT_THAT(Validate(options_).message(), testing::HasSubstr("entry_memory_at_start is 2097152"));
}

}  // namespace
}  // namespace dynlib::replication
