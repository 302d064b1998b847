// Three nodes with a GroupHost each over logs in memory, in the simulator: what the tests of
// GroupHost share.
#ifndef DYNLIB_TESTS_REPLICATION_GROUP_HOST_FIXTURE_H_
#define DYNLIB_TESTS_REPLICATION_GROUP_HOST_FIXTURE_H_

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/replication/event_trace.h"
#include "dynlib/replication/group_host.h"
#include "dynlib/replication/host_options.h"
#include "dynlib/replication/hosted_group.h"
#include "dynlib/replication/replica_log.h"
#include "dynlib/replication/state_machine.h"
#include "dynlib/replication/types.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/runtime/transport.h"
#include "dynlib/sim/world.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/runtime/counting_sink.h"

namespace dynlib::replication {

inline constexpr Channel kChannel{1};
inline constexpr PartitionId kGroup{5};

// What a node's log holds; outlives the process.
using Stored = std::vector<LogFrame>;

inline RecoveredStream Recover(const Stored& stored, PartitionId group) {
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
    executor_->RunAt(clock_->Now() + std::chrono::milliseconds(1),
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

// Keeps the commands that it was given, and of which version they were; its result is how many
// there were.
class Journal final : public StateMachine {
 public:
  Slot applied() const override { return 0; }
  uint64_t version() const override { return stored_version; }
  absl::Status LoadSessions(absl::FunctionRef<void(std::string_view, std::string_view)>) override {
    return absl::OkStatus();
  }
  absl::Status Evaluate(std::span<const AppliedCommand> commands,
                        std::vector<std::string>* results) override {
    if (!failure.ok()) return failure;
    for (const AppliedCommand& command : commands) {
      next_.emplace_back(command.command);
      versions.push_back(command.version);
      results->push_back(std::to_string(next_.size()));
    }
    return absl::OkStatus();
  }
  absl::Status Publish(const PublishedStep& step) override {
    commands = next_;
    if (step.version != 0) stored_version = step.version;
    shown.push_back(commands.empty() ? "" : commands.back());
    return absl::OkStatus();
  }
  bool EndsStep(std::string_view command) const override { return command.starts_with("cut"); }
  std::vector<std::string> commands;
  std::vector<uint64_t> versions;  // of each command
  uint64_t stored_version = 1;
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
    DYNLIB_EXPECT_OK(host->AddGroup(kGroup,
                                    {.configuration = configuration,
                                     .self = ReplicaId{ToUint(node->id())},
                                     .learner = ToUint(node->id()) > size},
                                    &journal, &apply, stream));
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
    EXPECT_TRUE(world_.RunUntil([&] { return LeaderId() != 0; }, std::chrono::seconds(20)));
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
  bool Await(const std::shared_ptr<Awaited>& asked, Duration limit = std::chrono::seconds(10)) {
    return world_.RunUntil([&] { return asked->done(); }, limit);
  }
  // Sends until it is answered for good, and returns the result.
  std::string MustPropose(uint64_t sequence, const std::string& command) {
    for (int i = 0; i < 50; ++i) {
      auto asked = Propose(Leader(), sequence, command);
      if (Await(asked, std::chrono::seconds(2)) && asked->results[0].status.ok())
        return asked->results[0].result;
      world_.RunFor(std::chrono::milliseconds(50));
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
        std::chrono::seconds(10));
  }

  HostOptions options_{.group = {.proposal_bytes_max = 2 << 10}};
  size_t size_ = 0;
  sim::World world_{/*seed=*/3};
  std::map<uint64_t, Stored> stored_;
  std::map<uint64_t, std::unique_ptr<Server>> servers_;
};

}  // namespace dynlib::replication

#endif  // DYNLIB_TESTS_REPLICATION_GROUP_HOST_FIXTURE_H_
