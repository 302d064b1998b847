#include "dynlib/replication/group_host.h"

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/replication/event_trace.h"
#include "dynlib/replication/message.h"
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
using testing::Each;
using testing::HasSubstr;

constexpr Channel kChannel{1};
constexpr PartitionId kGroup{5};

// What a node's log holds; outlives the process.
using Stored = std::vector<LogFrame>;

RecoveredStream Recover(const Stored& stored, PartitionId group) {
  RecoveredStream stream;
  std::map<Slot, Entry> entries;
  for (const LogFrame& frame : stored) {
    if (frame.group != group) continue;
    if (frame.is_state) {
      stream.state = frame.header;
      continue;
    }
    Entry& entry = entries[frame.slot];
    if (entry.payload != nullptr && frame.ballot < entry.ballot) continue;
    std::string bytes = frame.header;
    if (frame.payload != nullptr) bytes += *frame.payload;
    entry = {frame.slot, frame.ballot, std::make_shared<const std::string>(std::move(bytes))};
  }
  for (auto& [slot, entry] : entries) stream.entries.push_back(entry);
  return stream;
}

// A log in memory, with the refusals of a real one: at the door when its queue is full, later when
// there is no space, for good when it is closed.
class FakeLog final : public ReplicaLog {
 public:
  FakeLog(Stored* stored, Executor* executor, const Clock* clock)
      : stored_(stored), executor_(executor), clock_(clock) {}

  size_t append_bytes_max() const override { return bytes_max; }
  void Append(std::vector<LogFrame> frames, absl::AnyInvocable<void(absl::Status)> done) override {
    size_t bytes = 0;
    for (const LogFrame& frame : frames) {
      bytes += kFrameOverheadBytes + frame.header.size() +
               (frame.payload == nullptr ? 0 : frame.payload->size());
    }
    EXPECT_FALSE(frames.empty());
    EXPECT_TRUE(frames.size() == 1 || bytes <= bytes_max) << bytes;
    ++appends;
    if (queued_ + bytes > queue_max) {
      ++refused;
      executor_->Post([done = std::move(done)]() mutable {
        done(absl::ResourceExhaustedError("the queue is full"));
      });
      return;
    }
    queued_ += bytes;
    executor_->RunAt(clock_->Now() + milliseconds(1),
                     [this, bytes, frames = std::move(frames), done = std::move(done)]() mutable {
                       queued_ -= bytes;
                       if (hang) {
                         hung.push_back(std::move(done));
                       } else if (closed) {
                         done(absl::UnknownError("the sync failed"));
                       } else if (full > 0) {
                         --full;
                         ++refused;
                         done(absl::ResourceExhaustedError("no space"));
                       } else {
                         for (LogFrame& frame : frames) stored_->push_back(std::move(frame));
                         done(absl::OkStatus());
                       }
                     });
  }
  void Release(PartitionId, Slot through) override { released = through; }
  std::optional<Instant> OldestPendingSince() const override { return std::nullopt; }

  size_t bytes_max = 256 << 10;
  size_t queue_max = SIZE_MAX;
  int full = 0;  // So many appends find no space.
  bool closed = false;
  bool hang = false;
  size_t appends = 0;
  size_t refused = 0;
  Slot released = 0;
  std::vector<absl::AnyInvocable<void(absl::Status)>> hung;

 private:
  Stored* const stored_;
  Executor* const executor_;
  const Clock* const clock_;
  size_t queued_ = 0;
};

// Passes tasks on, or keeps them back for a while.
class HeldExecutor final : public Executor {
 public:
  explicit HeldExecutor(Executor* executor) : executor_(executor) {}
  void Post(Task task) override {
    if (held_) return tasks_.push_back(std::move(task));
    executor_->Post(std::move(task));
  }
  TimerId RunAt(Instant when, Task task) override {
    return executor_->RunAt(when, std::move(task));
  }
  bool Cancel(TimerId timer) override { return executor_->Cancel(timer); }
  bool IsCurrent() const override { return executor_->IsCurrent(); }
  void Hold() { held_ = true; }
  void LetGo() {
    held_ = false;
    for (Task& task : std::exchange(tasks_, {})) executor_->Post(std::move(task));
  }

 private:
  Executor* const executor_;
  bool held_ = false;
  std::vector<Task> tasks_;
};

// Keeps the commands that it was given; its result is how many there were.
class Journal final : public StateMachine {
 public:
  Slot applied() const override { return 0; }
  absl::Status LoadSessions(absl::FunctionRef<void(std::string_view, std::string_view)>) override {
    return absl::OkStatus();
  }
  absl::Status Evaluate(std::span<const AppliedCommand> commands,
                        std::vector<std::string>* results) override {
    if (!failure.ok()) return failure;
    for (const AppliedCommand& command : commands) {
      next_.emplace_back(command.command);
      results->push_back(std::to_string(next_.size()));
    }
    return absl::OkStatus();
  }
  absl::Status Publish(const PublishedStep&) override {
    commands = next_;
    shown.push_back(commands.empty() ? "" : commands.back());
    return absl::OkStatus();
  }
  bool EndsStep(std::string_view command) const override { return command.starts_with("cut"); }
  std::vector<std::string> commands;
  std::vector<std::string> shown;  // the last command, of each step
  absl::Status failure;

 private:
  std::vector<std::string> next_;
};

struct Server {
  Server(sim::Node* node, Stored* stored, size_t size, const HostOptions& options, bool lost)
      : executor(node->NewExecutor("main")),
        apply(node->NewExecutor("apply")),
        log(stored, executor, node->clock()),
        trace({}, node->clock(), &metrics) {
    for (uint64_t i = 1; i <= size; ++i) configuration.members.push_back({ReplicaId{i}, NodeId{i}});
    host = std::make_unique<GroupHost>(options, node->id(), node->transport(), kChannel, &log,
                                       executor, node->clock(), &trace);
    host->OnFatal([this](absl::Status why) { fatal.push_back(std::move(why)); });
    RecoveredStream stream = Recover(*stored, kGroup);
    stream.lost = lost;
    DYNLIB_EXPECT_OK(host->AddGroup(
        kGroup, {.configuration = configuration, .self = ReplicaId{ToUint(node->id())}}, &journal,
        &apply, stream));
    host->Start(Recover(*stored, PartitionId{0}),
                [this](absl::Status status) { started = status; });
  }
  GroupStatus Status() const { return host->Status(kGroup).value_or(GroupStatus{}); }

  sim::SimExecutor* executor;
  HeldExecutor apply;
  FakeLog log;
  CountingSink metrics;
  EventTrace trace;
  Journal journal;
  Configuration configuration;
  std::optional<absl::Status> started;
  std::vector<absl::Status> fatal;
  std::unique_ptr<GroupHost> host;
};

struct Asked {
  std::vector<ProposalResult> results;
  bool done() const { return !results.empty(); }
};
struct AskedRead {
  std::vector<absl::Status> results;
  std::vector<std::string> seen;
  bool done() const { return !results.empty(); }
};

class GroupHostTest : public testing::Test {
 protected:
  ~GroupHostTest() override { world_.CrashAll(); }

  void Boot(size_t size) {
    size_ = size;
    for (uint64_t id = 1; id <= size; ++id) {
      world_.AddNode(NodeId{id});
      Open(id);
    }
  }
  void Open(uint64_t id, bool lost = false) {
    servers_[id] =
        std::make_unique<Server>(world_.node(NodeId{id}), &stored_[id], size_, options_, lost);
  }
  void Kill(uint64_t id) {
    world_.node(NodeId{id})->PowerOff();
    servers_[id] = nullptr;
  }
  void Reopen(uint64_t id) {
    world_.node(NodeId{id})->Restart();
    Open(id);
  }
  uint64_t LeaderId() {
    uint64_t leader = 0;
    Ballot highest;
    for (auto& [id, server] : servers_) {
      if (server == nullptr) continue;
      const GroupStatus status = server->Status();
      if (status.role != Role::kLeader || !status.holds_lease || status.promised < highest)
        continue;
      leader = id;
      highest = status.promised;
    }
    return leader;
  }
  Server& Leader() {
    EXPECT_TRUE(world_.RunUntil([&] { return LeaderId() != 0; }, seconds(20)));
    return *servers_.at(LeaderId());
  }
  std::shared_ptr<Asked> Propose(Server& server, uint64_t sequence, std::string command,
                                 uint64_t client = 9) {
    auto asked = std::make_shared<Asked>();
    world_.RunAs(server.executor, [&] {
      server.host->Propose(
          kGroup, {.client = ClientId{client}, .sequence = sequence, .command = std::move(command)},
          [asked](ProposalResult result) { asked->results.push_back(std::move(result)); });
    });
    EXPECT_FALSE(asked->done());  // Never inline.
    return asked;
  }
  std::shared_ptr<AskedRead> Read(Server& server) {
    auto asked = std::make_shared<AskedRead>();
    world_.RunAs(server.executor, [&] {
      server.host->Read(
          kGroup, [asked, &server] { asked->seen = server.journal.commands; },
          [asked](absl::Status status) { asked->results.push_back(std::move(status)); });
    });
    EXPECT_FALSE(asked->done());
    return asked;
  }
  template <typename Awaited>
  bool Await(const std::shared_ptr<Awaited>& asked, Duration limit = seconds(10)) {
    return world_.RunUntil([&] { return asked->done(); }, limit);
  }
  // Sends until it is answered for good, and returns the result.
  std::string MustPropose(uint64_t sequence, const std::string& command) {
    for (int i = 0; i < 50; ++i) {
      auto asked = Propose(Leader(), sequence, command);
      if (Await(asked, seconds(2)) && asked->results[0].status.ok())
        return asked->results[0].result;
      world_.RunFor(milliseconds(50));
    }
    ADD_FAILURE() << "no answer to " << command;
    return "";
  }
  bool AllApplied(size_t count) {
    return world_.RunUntil(
        [&] {
          return std::all_of(servers_.begin(), servers_.end(), [&](const auto& entry) {
            return entry.second == nullptr || entry.second->journal.commands.size() == count;
          });
        },
        seconds(10));
  }

  HostOptions options_{.group = {.proposal_bytes_max = 2 << 10}};
  size_t size_ = 0;
  sim::World world_{/*seed=*/3};
  std::map<uint64_t, Stored> stored_;
  std::map<uint64_t, std::unique_ptr<Server>> servers_;
};

TEST_F(GroupHostTest, AProposalIsAppliedEverywhereAndAnswered) {
  Boot(3);
  EXPECT_EQ(MustPropose(1, "a"), "1");
  EXPECT_EQ(MustPropose(2, "b"), "2");
  ASSERT_TRUE(AllApplied(2));
  for (auto& [id, server] : servers_)
    EXPECT_EQ(server->journal.commands, (std::vector<std::string>{"a", "b"}));
}

TEST_F(GroupHostTest, AFollowerNamesTheLeaderAndLogsNothing) {
  Boot(3);
  Leader();
  world_.RunFor(seconds(1));
  const uint64_t leader = LeaderId();
  Server& follower = *servers_[leader % 3 + 1];
  auto asked = Propose(follower, 1, "a");
  ASSERT_TRUE(Await(asked));
  EXPECT_THAT(asked->results[0].status, StatusIs(absl::StatusCode::kFailedPrecondition));
  ASSERT_TRUE(asked->results[0].leader_hint.has_value());
  EXPECT_EQ(asked->results[0].leader_hint->node, NodeId{leader});
  auto read = Read(follower);
  ASSERT_TRUE(Await(read));
  EXPECT_THAT(read->results[0], StatusIs(absl::StatusCode::kFailedPrecondition));
  world_.RunFor(seconds(1));
  EXPECT_TRUE(follower.journal.commands.empty());
}

TEST_F(GroupHostTest, BadAndUnknownCommandsAreRefused) {
  Boot(1);
  Server& leader = Leader();
  auto no_sequence = Propose(leader, 0, "a");
  auto no_client = Propose(leader, 1, "a", /*client=*/0);
  auto too_large = Propose(leader, 1, std::string(options_.group.proposal_bytes_max + 1, 'x'));
  std::vector<absl::Status> other;
  world_.RunAs(leader.executor, [&] {
    leader.host->Propose(PartitionId{77}, {}, [&](ProposalResult r) { other.push_back(r.status); });
    leader.host->Read(
        PartitionId{77}, [] { FAIL(); },
        [&](absl::Status status) { other.push_back(std::move(status)); });
  });
  world_.RunFor(seconds(1));
  for (const auto& asked : {no_sequence, no_client, too_large}) {
    ASSERT_EQ(asked->results.size(), 1u);
    EXPECT_THAT(asked->results[0].status, StatusIs(absl::StatusCode::kInvalidArgument));
  }
  ASSERT_EQ(other.size(), 2u);
  EXPECT_THAT(other, Each(StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("77"))));
}

TEST_F(GroupHostTest, ARepeatGetsTheFirstResultAlsoAfterFailoverAndRestart) {
  Boot(3);
  EXPECT_EQ(MustPropose(1, "a"), "1");
  EXPECT_EQ(MustPropose(2, "b"), "2");
  EXPECT_EQ(MustPropose(1, "a"), "1");
  const uint64_t old_leader = LeaderId();
  Kill(old_leader);
  EXPECT_EQ(MustPropose(1, "a"), "1");
  EXPECT_NE(LeaderId(), old_leader);
  Reopen(old_leader);
  EXPECT_EQ(MustPropose(3, "c"), "3");
  for (uint64_t id = 1; id <= 3; ++id) Kill(id);
  for (uint64_t id = 1; id <= 3; ++id) Reopen(id);
  EXPECT_EQ(MustPropose(2, "b"), "2");
  EXPECT_EQ(MustPropose(4, "d"), "4");
  ASSERT_TRUE(AllApplied(4));
}

TEST_F(GroupHostTest, AStepEndsWhereACommandSaysSo) {
  Boot(3);
  MustPropose(1, "a");
  ASSERT_TRUE(AllApplied(1));
  for (auto& [id, server] : servers_) {
    server->apply.Hold();
    server->journal.shown.clear();
  }
  Server& leader = Leader();
  std::vector<std::shared_ptr<Asked>> asked;
  uint64_t sequence = 1;
  for (const char* command : {"x", "b", "cut1", "c", "cut2", "cut3", "d", "e"})
    asked.push_back(Propose(leader, ++sequence, command));
  world_.RunFor(seconds(1));
  for (auto& [id, server] : servers_) server->apply.LetGo();
  ASSERT_TRUE(AllApplied(9));
  for (auto& [id, server] : servers_) {
    // What was applied before the others were chosen, if anything, is a step of its own.
    std::vector<std::string>& shown = server->journal.shown;
    std::erase_if(shown, [](const std::string& last) { return last == "a" || last == "x"; });
    EXPECT_EQ(shown, (std::vector<std::string>{"cut1", "cut2", "cut3", "e"}));
  }
  ASSERT_TRUE(Await(asked.back()));
  EXPECT_EQ(asked.back()->results[0].result, "9");
}

TEST_F(GroupHostTest, AReadWaitsForWhatWasAnsweredBefore) {
  Boot(3);
  MustPropose(1, "a");
  Server& leader = Leader();
  leader.apply.Hold();
  auto write = Propose(leader, 2, "b");
  world_.RunFor(milliseconds(100));
  EXPECT_FALSE(write->done());
  auto read = Read(leader);
  world_.RunFor(milliseconds(100));
  EXPECT_FALSE(read->done());
  leader.apply.LetGo();
  ASSERT_TRUE(Await(read));
  DYNLIB_EXPECT_OK(read->results[0]);
  EXPECT_EQ(read->seen, (std::vector<std::string>{"a", "b"}));
}

TEST_F(GroupHostTest, AReadThatIsNotReadyInTimeIsUnavailable) {
  Boot(3);
  MustPropose(1, "a");
  Server& leader = Leader();
  leader.apply.Hold();
  auto write = Propose(leader, 2, "b");
  world_.RunFor(milliseconds(50));
  const Instant asked_at = world_.Now();
  auto read = Read(leader);
  ASSERT_TRUE(Await(read));
  EXPECT_THAT(read->results[0], StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_TRUE(read->seen.empty());
  EXPECT_GE(world_.Now() - asked_at, options_.read_wait);
  EXPECT_LE(world_.Now() - asked_at, options_.read_wait + milliseconds(50));
  leader.apply.LetGo();
}

TEST_F(GroupHostTest, AReadWithoutAQuorumIsUnavailableAfterReadWait) {
  Boot(3);
  MustPropose(1, "a");
  Server& leader = Leader();
  const NodeId id{LeaderId()};
  std::set<NodeId> others;
  for (uint64_t i = 1; i <= 3; ++i) {
    if (NodeId{i} != id) others.insert(NodeId{i});
  }
  world_.network().Partition({id}, others);
  world_.RunUntil([&] { return !leader.Status().holds_lease; }, seconds(20));
  ASSERT_EQ(leader.Status().role, Role::kLeader);
  const Instant asked_at = world_.Now();
  auto read = Read(leader);
  ASSERT_TRUE(Await(read));
  EXPECT_THAT(read->results[0], StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_TRUE(read->seen.empty());
  EXPECT_GE(world_.Now() - asked_at, options_.read_wait);
}

TEST_F(GroupHostTest, R7WithoutLeasesReadsGoByAQuorum) {
  options_.lease_reads = false;
  Boot(3);
  MustPropose(1, "a");
  Server& leader = Leader();
  std::vector<std::shared_ptr<AskedRead>> reads;
  for (int i = 0; i < 100; ++i) reads.push_back(Read(leader));
  for (auto& read : reads) {
    ASSERT_TRUE(Await(read, milliseconds(50)));
    DYNLIB_EXPECT_OK(read->results[0]);
    EXPECT_EQ(read->seen, (std::vector<std::string>{"a"}));
  }
}

// Longer than the lease, while the others elect and write: the lease is over before anything is
// read, and so is the leadership, which the quorum denies.
TEST_F(GroupHostTest, R7APauseLongerThanTheLeaseReadsNothingStale) {
  for (const bool lease_reads : {true, false}) {
    options_.lease_reads = lease_reads;
    if (servers_.empty()) {
      Boot(3);
    } else {
      for (uint64_t id = 1; id <= 3; ++id) Kill(id);
      for (uint64_t id = 1; id <= 3; ++id) Reopen(id);
    }
    MustPropose(lease_reads ? 1 : 3, "old");
    const uint64_t old_id = LeaderId();
    Server& old = *servers_[old_id];
    world_.node(NodeId{old_id})->Pause(seconds(3));
    ASSERT_TRUE(world_.RunUntil(
        [&] {
          const uint64_t id = LeaderId();
          return id != 0 && id != old_id;
        },
        seconds(2)));
    MustPropose(lease_reads ? 2 : 4, "new");
    auto read = Read(old);  // Asked of it while it slept.
    world_.node(NodeId{old_id})->EndPause();
    ASSERT_TRUE(Await(read));
    EXPECT_FALSE(read->results[0].ok());
  }
}

TEST_F(GroupHostTest, ALeaseThatRunsOutDuringTheReadIsNoAnswer) {
  Boot(3);
  MustPropose(1, "a");
  Server& leader = Leader();
  const NodeId id{LeaderId()};
  leader.apply.Hold();
  auto read = Read(leader);
  for (uint64_t i = 1; i <= 3; ++i) {
    world_.network().Block(id, NodeId{i});
    world_.network().Block(NodeId{i}, id);
  }
  world_.RunUntil([&] { return !leader.Status().holds_lease; }, seconds(20));
  leader.apply.LetGo();
  ASSERT_TRUE(Await(read));
  EXPECT_FALSE(read->results[0].ok());
}

using GroupHostDeathTest = GroupHostTest;

TEST_F(GroupHostDeathTest, CallsOnAnotherExecutorStopTheProcess) {
  Boot(1);
  Server& leader = Leader();
  EXPECT_DEATH(leader.host->Propose(kGroup, {}, [](ProposalResult) {}), "IsCurrent");
  EXPECT_DEATH(leader.host->Read(
                   kGroup, [] {}, [](absl::Status) {}),
               "IsCurrent");
  EXPECT_DEATH(leader.host->TransferLeadership(kGroup), "IsCurrent");
  EXPECT_DEATH(leader.host->Checkpointed(kGroup, 1), "IsCurrent");
  EXPECT_DEATH(leader.host->RemoveGroup(kGroup, [](absl::Status) {}), "IsCurrent");
}

TEST_F(GroupHostTest, StatesAndEventsTellOfAFailover) {
  Boot(3);
  MustPropose(1, "a");
  world_.RunFor(seconds(1));
  const uint64_t first = LeaderId();
  ASSERT_EQ(Leader().Status().peers.size(), 2u);
  for (const PeerStatus& peer : Leader().Status().peers) {
    EXPECT_TRUE(peer.votes && peer.known);
    EXPECT_EQ(peer.match, Leader().Status().last);
    EXPECT_EQ(peer.lag + peer.in_flight_bytes + peer.in_flight_entries, 0u);
  }
  const auto fresh = static_cast<size_t>(ElectionCause::kFresh);
  const auto silent = static_cast<size_t>(ElectionCause::kLeaderSilent);
  EXPECT_EQ(Leader().host->Status().elections[fresh], 1u);
  EXPECT_EQ(Leader().host->Status().leads, 1u);
  Kill(first);
  MustPropose(2, "b");
  const HostStatus status = Leader().host->Status();
  EXPECT_EQ(status.elections[silent], 1u);
  EXPECT_TRUE(status.log_healthy);
  EXPECT_EQ(status.incarnation, 1u);
  for (const Liveness::PeerStatus& peer : status.peers) {
    EXPECT_EQ(peer.heard, peer.node != NodeId{first});
    EXPECT_EQ(peer.supports_us_for > Duration(0), peer.heard);
  }
  std::string lines;
  for (const std::string& line : Leader().trace.Take()) lines += line;
  const std::string node = "\"node\":" + std::to_string(LeaderId());
  EXPECT_THAT(lines, HasSubstr("\"event\":\"replication.peer_lost\"," + node +
                               ",\"peer\":" + std::to_string(first)));
  EXPECT_THAT(lines,
              HasSubstr("\"event\":\"replication.election_started\",\"partition\":5," + node));
  EXPECT_THAT(lines, HasSubstr("\"cause\":\"leader_silent\""));
  EXPECT_THAT(lines, HasSubstr("\"event\":\"replication.elected\""));
}

TEST_F(GroupHostTest, WhoIsFullSaysWhenToTryAgain) {
  options_.group.unchosen_bytes_max = 4 << 10;
  Boot(3);
  MustPropose(1, "a");
  Server& leader = Leader();
  leader.log.hang = true;
  for (uint64_t i = 1; i <= 3; ++i) {
    if (i != LeaderId()) servers_[i]->log.hang = true;
  }
  std::vector<std::shared_ptr<Asked>> asked;
  for (uint64_t i = 2; i <= 4; ++i) asked.push_back(Propose(leader, i, std::string(2000, 'x')));
  ASSERT_TRUE(Await(asked[2]));
  EXPECT_THAT(asked[2]->results[0].status,
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("not yet chosen")));
  ASSERT_TRUE(asked[2]->results[0].retry_after.has_value());
  EXPECT_EQ(*asked[2]->results[0].retry_after, milliseconds(1));
  world_.RunFor(milliseconds(300));  // The longer nothing moves, the later.
  auto later = Propose(leader, 5, std::string(2000, 'x'));
  ASSERT_TRUE(Await(later));
  EXPECT_GE(later->results[0].retry_after.value_or(Duration(0)), milliseconds(300));
  EXPECT_FALSE(asked[0]->done());
  EXPECT_EQ(leader.Status().waiting_proposals, 2u);
  EXPECT_GT(leader.Status().unchosen_bytes, 4000u);
}

// It puts off applying for the sake of its log, but not for ever.
TEST_F(GroupHostTest, AFollowerWhoseLogHangsAppliesWhatIsChosen) {
  Boot(3);
  MustPropose(1, "a");
  ASSERT_TRUE(AllApplied(1));
  Server& follower = *servers_[LeaderId() % 3 + 1];
  follower.log.hang = true;
  MustPropose(2, "b");
  world_.RunFor(milliseconds(100));
  EXPECT_FALSE(follower.log.hung.empty());
  EXPECT_EQ(follower.journal.commands, (std::vector<std::string>{"a", "b"}));
}

TEST_F(GroupHostTest, WaitingReadsAndProposalsAreBounded) {
  options_.waiting_reads_max = 2;
  options_.waiting_proposals_max = 2;
  Boot(1);
  MustPropose(1, "a");
  Server& leader = Leader();
  leader.apply.Hold();
  std::vector<std::shared_ptr<AskedRead>> reads;
  std::vector<std::shared_ptr<Asked>> writes;
  for (uint64_t i = 0; i < 3; ++i) reads.push_back(Read(leader));
  for (uint64_t i = 0; i < 3; ++i) writes.push_back(Propose(leader, 10 + i, "w"));
  world_.RunFor(milliseconds(100));
  ASSERT_TRUE(reads[2]->done());
  EXPECT_THAT(reads[2]->results[0],
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("2 reads wait")));
  ASSERT_TRUE(writes[2]->done());
  EXPECT_THAT(writes[2]->results[0].status, StatusIs(absl::StatusCode::kResourceExhausted));
  leader.apply.LetGo();
  world_.RunFor(milliseconds(100));
  for (int i = 0; i < 2; ++i) {
    ASSERT_EQ(reads[i]->results.size(), 1u);
    DYNLIB_EXPECT_OK(reads[i]->results[0]);
    ASSERT_EQ(writes[i]->results.size(), 1u);
    DYNLIB_EXPECT_OK(writes[i]->results[0].status);
  }
  auto later = Read(leader);
  ASSERT_TRUE(Await(later));
  DYNLIB_EXPECT_OK(later->results[0]);
}

TEST_F(GroupHostTest, StopAnswersEverythingOnce) {
  Boot(1);
  MustPropose(1, "a");
  Server& server = Leader();
  std::vector<std::shared_ptr<Asked>> writes;
  std::vector<std::shared_ptr<AskedRead>> reads;
  reads.push_back(Read(server));  // On the apply executor when the host stops.
  server.apply.Hold();
  reads.push_back(Read(server));
  writes.push_back(Propose(server, 2, "chosen, not applied"));
  world_.RunFor(milliseconds(20));
  reads.push_back(Read(server));  // Waits for what is not applied.
  server.log.hang = true;
  writes.push_back(Propose(server, 3, "not durable"));
  world_.RunFor(milliseconds(20));
  writes.push_back(Propose(server, 4, "not flushed"));
  server.host->Stop();
  server.host->Stop();
  writes.push_back(Propose(server, 5, "after"));
  reads.push_back(Read(server));
  world_.RunFor(milliseconds(20));
  server.apply.LetGo();
  for (auto& done : std::exchange(server.log.hung, {})) done(absl::OkStatus());
  world_.RunFor(seconds(2));
  for (const auto& write : writes) {
    ASSERT_EQ(write->results.size(), 1u);
    EXPECT_THAT(write->results[0].status, StatusIs(absl::StatusCode::kCancelled));
  }
  ASSERT_EQ(reads[0]->results.size(), 1u);
  DYNLIB_EXPECT_OK(reads[0]->results[0]);
  for (size_t i = 1; i < reads.size(); ++i) {
    ASSERT_EQ(reads[i]->results.size(), 1u) << i;
    EXPECT_THAT(reads[i]->results[0], StatusIs(absl::StatusCode::kCancelled)) << i;
  }
  EXPECT_TRUE(server.fatal.empty());
}

TEST_F(GroupHostTest, StopBeforeTheStartIsDurable) {
  world_.AddNode(NodeId{1});
  size_ = 1;
  Open(1);
  servers_[1]->host->Stop();
  world_.RunFor(seconds(2));
  ASSERT_TRUE(servers_[1]->started.has_value());
  EXPECT_THAT(*servers_[1]->started, StatusIs(absl::StatusCode::kCancelled));
  EXPECT_FALSE(servers_[1]->host->Status(kGroup).has_value());
}

TEST_F(GroupHostTest, AFullLogIsTriedAgainInOrderAndNothingIsLost) {
  Boot(1);
  MustPropose(1, "1");
  Server& server = Leader();
  // The first of several that are at the log finds no space; those behind it do.
  server.log.full = 1;
  std::vector<std::shared_ptr<Asked>> writes;
  for (uint64_t i = 2; i <= 20; ++i) {
    writes.push_back(Propose(server, i, std::to_string(i)));
    world_.RunFor(std::chrono::microseconds(100));
  }
  for (const auto& write : writes) {
    ASSERT_TRUE(Await(write));
    DYNLIB_EXPECT_OK(write->results[0].status);
  }
  EXPECT_EQ(server.log.refused, 1u);
  // Given again in order: the state that counts is the newest.
  Slot chosen = 0;
  const RecoveredStream stream = Recover(stored_[1], kGroup);
  for (const Entry& entry : stream.entries) EXPECT_EQ(entry.slot, ++chosen);
  Kill(1);
  Reopen(1);
  EXPECT_EQ(MustPropose(21, "21"), "21");
  for (size_t i = 0; i < 21; ++i)
    EXPECT_EQ(servers_[1]->journal.commands[i], std::to_string(i + 1));
}

TEST_F(GroupHostTest, MoreThanTheLogsQueueHoldsGetsThroughAfterABlock) {
  Boot(1);
  MustPropose(1, "1");
  Server& server = Leader();
  server.log.queue_max = 4096;
  server.log.full = 3;
  std::vector<std::shared_ptr<Asked>> writes;
  for (uint64_t i = 2; i <= 40; ++i) {
    writes.push_back(Propose(server, i, std::to_string(i) + std::string(1000, 'x')));
    world_.RunFor(std::chrono::microseconds(100));
  }
  for (const auto& write : writes) {
    ASSERT_TRUE(Await(write)) << "stuck after " << server.log.refused << " refusals";
    DYNLIB_EXPECT_OK(write->results[0].status);
  }
  EXPECT_GT(server.log.refused, 3u);
  Kill(1);
  Reopen(1);
  EXPECT_EQ(MustPropose(41, "41"), "41");
}

TEST_F(GroupHostTest, WhileTheLogIsFullNothingPilesUp) {
  Boot(1);
  MustPropose(1, "1");
  Server& server = Leader();
  server.log.full = INT32_MAX;
  world_.RunFor(seconds(2));
  const size_t before = server.log.appends;
  world_.RunFor(seconds(5));
  const size_t first = server.log.appends - before;
  world_.RunFor(seconds(60));
  const size_t middle = server.log.appends;
  world_.RunFor(seconds(5));
  EXPECT_LE(server.log.appends - middle, first + 1);  // As many at a time as in the beginning.
  server.log.full = 0;
  EXPECT_EQ(MustPropose(2, "2"), "2");
}

TEST_F(GroupHostTest, ALogThatClosesIsFatalOnceAndTheNodeFallsSilent) {
  Boot(3);
  MustPropose(1, "a");
  const uint64_t id = LeaderId();
  Server& leader = *servers_[id];
  leader.apply.Hold();
  auto read = Read(leader);
  leader.log.closed = true;
  std::vector<std::shared_ptr<Asked>> writes;
  for (uint64_t i = 2; i < 6; ++i) writes.push_back(Propose(leader, i, "w"));
  ASSERT_TRUE(world_.RunUntil([&] { return !leader.fatal.empty(); }, seconds(5)));
  writes.push_back(Propose(leader, 6, "after"));
  auto read_after = Read(leader);
  size_t sent = 0;
  world_.network().SetFilter([&](const sim::SimNetwork::Message& message) {
    sent += message.from == NodeId{id};
    return sim::SimNetwork::Verdict::kPass;
  });
  leader.apply.LetGo();
  world_.RunFor(seconds(5));
  EXPECT_EQ(sent, 0u);
  EXPECT_EQ(leader.fatal.size(), 1u);
  for (const auto& write : writes) {
    ASSERT_EQ(write->results.size(), 1u);
    EXPECT_FALSE(write->results[0].status.ok());
  }
  for (const auto& asked : {read, read_after}) {
    ASSERT_EQ(asked->results.size(), 1u);
    EXPECT_FALSE(asked->results[0].ok());
  }
  // In flight when the log closed: nobody may say that it failed.
  EXPECT_THAT(writes[0]->results[0].status, StatusIs(absl::StatusCode::kUnknown));
  servers_[id]->host->Stop();
  servers_[id]->host->Stop();
  Kill(id);
  Reopen(id);
  EXPECT_EQ(MustPropose(7, "b").empty(), false);
}

TEST_F(GroupHostTest, AddGroupSaysWhatIsWrong) {
  Boot(1);
  Server& server = Leader();
  auto add = [&](uint64_t id, std::vector<Member> members) {
    const GroupSetup setup{.configuration = {.epoch = 0, .members = std::move(members)},
                           .self = ReplicaId{1}};
    return server.host->AddGroup(PartitionId{id}, setup, &server.journal, &server.apply, {});
  };
  EXPECT_THAT(add(8, {}), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(add(8, {{ReplicaId{1}, NodeId{2}}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("node 1")));
  EXPECT_THAT(add(0, {{ReplicaId{1}, NodeId{1}}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("partition id is 0")));
  EXPECT_THAT(add(5, {{ReplicaId{1}, NodeId{1}}}),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("5")));
  const Configuration later{.epoch = 1000, .members = {{ReplicaId{1}, NodeId{1}}}};
  EXPECT_THAT(server.host->AddGroup(PartitionId{8}, {.configuration = later, .self = ReplicaId{1}},
                                    &server.journal, &server.apply, {}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("epoch is 1000")));
  server.log.bytes_max = 2 << 10;  // A proposal may not fit.
  EXPECT_THAT(
      add(8, {{ReplicaId{1}, NodeId{1}}}),
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("proposal_bytes_max is 2048")));
  EXPECT_EQ(server.host->AllStatus().size(), 1u);
}

TEST_F(GroupHostTest, ALogWithASlotThatNoneCanHoldIsLost) {
  Boot(1);
  Server& server = Leader();
  const GroupSetup setup{.configuration = {.epoch = 0, .members = {{ReplicaId{1}, NodeId{1}}}},
                         .self = ReplicaId{1}};
  Journal journal;
  RecoveredStream stream;
  stream.unknown = {{.slot = Slot{1} << 60, .ballot = Ballot(1, ReplicaId{1})}};
  DYNLIB_ASSERT_OK(server.host->AddGroup(PartitionId{8}, setup, &journal, &server.apply, stream));
  world_.RunFor(seconds(1));
  EXPECT_TRUE(server.host->Status(PartitionId{8})->failed);
  EXPECT_EQ(server.host->Status(PartitionId{8})->role, Role::kFollower);
}

TEST_F(GroupHostTest, AReplicaThatLostItsLogSaysOnlyThatItGaveUp) {
  for (uint64_t id = 1; id <= 3; ++id) world_.AddNode(NodeId{id});
  size_ = 3;
  Open(1, /*lost=*/true);
  Open(2);
  Open(3);
  std::vector<GroupMessage> said;
  world_.network().SetFilter([&](const sim::SimNetwork::Message& message) {
    if (message.from == NodeId{1}) {
      const NodeMessage decoded = *DecodeNodeMessage(message.bytes);
      said.insert(said.end(), decoded.groups.begin(), decoded.groups.end());
    }
    return sim::SimNetwork::Verdict::kPass;
  });
  EXPECT_EQ(MustPropose(1, "a"), "1");  // The other two are enough.
  EXPECT_TRUE(servers_[1]->Status().failed);
  EXPECT_EQ(servers_[1]->Status().role, Role::kFollower);
  auto asked = Propose(*servers_[1], 2, "b");
  ASSERT_TRUE(Await(asked));
  EXPECT_THAT(asked->results[0].status, StatusIs(absl::StatusCode::kFailedPrecondition));
  said.clear();
  for (uint64_t proposer : {1, 2}) {
    GroupMessage query{.group = kGroup,
                       .from = ReplicaId{3},
                       .to = ReplicaId{1},
                       .epoch = 0,
                       .ballot = Ballot(40, ReplicaId{proposer}),
                       .body = HealthQuery{}};
    world_.node(NodeId{3})->transport()->Send(
        NodeId{1}, kChannel, Encode(NodeMessage{.groups = {query}, .liveness = {}}));
    world_.RunFor(milliseconds(10));
    ASSERT_FALSE(said.empty());
    const auto* reply = std::get_if<HealthReply>(&said.back().body);
    ASSERT_NE(reply, nullptr) << said.back().body.index();
    EXPECT_FALSE(reply->healthy);
    EXPECT_EQ(reply->abandoned, proposer == 1);
    EXPECT_EQ(said.back().ballot, query.ballot);
  }
  world_.RunFor(seconds(5));
  for (const GroupMessage& message : said)
    EXPECT_TRUE(std::holds_alternative<HealthReply>(message.body)) << message.body.index();
  EXPECT_TRUE(servers_[1]->journal.commands.empty());
}

TEST_F(GroupHostTest, AStateMachineThatFailsStepsDownAndIsFatal) {
  Boot(3);
  MustPropose(1, "a");
  const uint64_t id = LeaderId();
  Server& leader = *servers_[id];
  leader.journal.failure = absl::InternalError("no disk");
  auto write = Propose(leader, 2, "b");
  ASSERT_TRUE(Await(write));
  EXPECT_THAT(write->results[0].status, StatusIs(absl::StatusCode::kUnknown));
  ASSERT_TRUE(world_.RunUntil([&] { return !leader.fatal.empty(); }, seconds(5)));
  EXPECT_THAT(leader.fatal[0], StatusIs(absl::StatusCode::kInternal));
  EXPECT_TRUE(leader.Status().failed);
  EXPECT_NE(leader.Status().role, Role::kLeader);
  EXPECT_EQ(MustPropose(2, "b"), "2");  // Another one leads, and it was applied once.
  EXPECT_NE(LeaderId(), id);
  world_.RunFor(seconds(2));
  EXPECT_EQ(leader.fatal.size(), 1u);
  EXPECT_EQ(leader.journal.commands.size(), 1u);
}

TEST_F(GroupHostTest, AStateMachineWithDamageFailsItsReplicaAlone) {
  Boot(3);
  MustPropose(1, "a");
  const uint64_t id = LeaderId();
  Server& leader = *servers_[id];
  int told = 0;
  leader.host->OnChange([&](PartitionId) { told += leader.Status().failed ? 1 : 0; });
  leader.journal.failure = absl::DataLossError("a page is damaged");
  auto write = Propose(leader, 2, "b");
  ASSERT_TRUE(Await(write));
  EXPECT_THAT(write->results[0].status, StatusIs(absl::StatusCode::kUnknown));
  EXPECT_EQ(MustPropose(2, "b"), "2");
  EXPECT_NE(LeaderId(), id);
  EXPECT_TRUE(leader.fatal.empty());
  EXPECT_TRUE(leader.Status().failed);
  EXPECT_GE(told, 1);
  // It votes: without it there is no quorum.
  Kill(6 - id - LeaderId());
  EXPECT_EQ(MustPropose(3, "c"), "3");
}

TEST_F(GroupHostTest, ALargeFlushIsSplitIntoAppendsWithinTheLogsBound) {
  Boot(1);
  Server& server = Leader();
  server.log.bytes_max = 4096;  // FakeLog checks each append.
  const size_t before = server.log.appends;
  std::vector<std::shared_ptr<Asked>> writes;
  for (uint64_t i = 1; i <= 20; ++i) writes.push_back(Propose(server, i, std::string(1000, 'x')));
  for (const auto& write : writes) {
    ASSERT_TRUE(Await(write));
    DYNLIB_EXPECT_OK(write->results[0].status);
  }
  EXPECT_GE(server.log.appends - before, 7u);
}

TEST_F(GroupHostTest, MessagesThatAreNotForThisReplicaAreCountedAndDropped) {
  Boot(3);
  Leader();
  world_.RunFor(seconds(1));
  Server& server = *servers_[1];
  const Ballot promised = server.Status().promised;
  auto send = [&](GroupMessage message) {
    message.body = Prepare{.from_slot = 1};
    message.ballot = Ballot(1000, message.from);
    world_.node(NodeId{3})->transport()->Send(
        NodeId{1}, kChannel, Encode(NodeMessage{.groups = {message}, .liveness = {}}));
    world_.RunFor(milliseconds(5));
  };
  const GroupMessage good{.group = kGroup, .from = ReplicaId{3}, .to = ReplicaId{1}};
  GroupMessage other = good;
  other.group = PartitionId{6};
  send(other);
  EXPECT_EQ(server.metrics["replication.unknown_group_messages"], 1);
  other = good;
  other.from = ReplicaId{2};  // Lives on node 2.
  send(other);
  other = good;
  other.to = ReplicaId{2};
  send(other);
  EXPECT_EQ(server.metrics["replication.foreign_messages"], 2);
  other = good;
  other.from = ReplicaId{9};  // No member.
  send(other);
  other = good;
  other.epoch = 1;  // May know more; but the leader's lease comes first.
  send(other);
  world_.node(NodeId{3})->transport()->Send(NodeId{1}, kChannel, "\xff\xff\xff");
  world_.RunFor(milliseconds(5));
  EXPECT_EQ(server.metrics["replication.bad_messages"], 1);
  EXPECT_EQ(server.Status().promised, promised);
  EXPECT_EQ(MustPropose(1, "a"), "1");
}

TEST_F(GroupHostTest, ANodeWhoseBootCountMayBeLostDoesNotStart) {
  world_.AddNode(NodeId{1});
  Stored stored;
  Executor* executor = world_.node(NodeId{1})->NewExecutor("main");
  FakeLog log(&stored, executor, world_.node(NodeId{1})->clock());
  GroupHost host(options_, NodeId{1}, world_.node(NodeId{1})->transport(), kChannel, &log, executor,
                 world_.node(NodeId{1})->clock());
  std::vector<absl::Status> started;
  RecoveredStream stream;
  stream.lost = true;
  host.Start(stream, [&](absl::Status status) { started.push_back(std::move(status)); });
  stream = {};
  stream.state = "\xff";
  host.Start(stream, [&](absl::Status status) { started.push_back(std::move(status)); });
  world_.RunFor(seconds(1));
  ASSERT_EQ(started.size(), 2u);
  EXPECT_THAT(started, Each(StatusIs(absl::StatusCode::kDataLoss)));
  EXPECT_EQ(log.appends, 0u);
}

}  // namespace
}  // namespace dynlib::replication
