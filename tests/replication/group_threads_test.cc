// Three nodes on real threads and files: 64 groups, whose state machines are applied by two threads
// of each node, over one node log that their commits share.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <future>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "dynlib/base/check.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/node_log_adapter.h"
#include "dynlib/replication/group_host.h"
#include "dynlib/replication/state_machine.h"
#include "dynlib/runtime/local/local_network.h"
#include "dynlib/runtime/posix/posix_disk.h"
#include "dynlib/runtime/posix/system_clock.h"
#include "dynlib/runtime/posix/thread_executor.h"
#include "dynlib/store/node_log.h"
#include "dynlib/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "tests/runtime/real_environment.h"

namespace dynlib::replication {
namespace {

constexpr uint64_t kNodes = 3;
constexpr uint64_t kGroups = 64;
constexpr uint64_t kCommands = 20;  // a group, one after another
constexpr Channel kChannel{1};

// Keeps what it is given, without a lock: the executor that applies is its only thread.
class Journal final : public StateMachine {
 public:
  explicit Journal(ThreadExecutor* apply) : apply_(apply) {}
  Slot applied() const override { return 0; }
  absl::Status LoadSessions(absl::FunctionRef<void(std::string_view, std::string_view)>) override {
    return absl::OkStatus();
  }
  absl::Status Evaluate(std::span<const AppliedCommand> commands,
                        std::vector<std::string>* results) override {
    DYNLIB_CHECK(apply_->IsCurrent());
    for (const AppliedCommand& command : commands) {
      next.emplace_back(command.command);
      results->push_back(Cat(next.size()));
    }
    return absl::OkStatus();
  }
  absl::Status Publish(const PublishedStep&) override {
    DYNLIB_CHECK(apply_->IsCurrent());
    shown.store(next.size());
    return absl::OkStatus();
  }

  std::vector<std::string> next;
  std::atomic<size_t> shown = 0;

 private:
  ThreadExecutor* const apply_;
};

// A node as an owner without an event loop has it: each executor a thread.
class Node {
 public:
  Node(NodeId id, LocalNetwork* network) : id_(id), transport_(network->Attach(id)) {}
  // Nothing runs any more that knows of the rest.
  ~Node() { ShutDown(); }

  void Start() {
    disk_ = *PosixDisk::Open({.root = folder_.path()});
    store::NodeLog::Recovery recovery;
    log_ = *store::NodeLog::Open({.segment_bytes = 4 << 20, .identity = ToUint(id_)}, disk_.get(),
                                 "log", &log_executor_, &clock_, MetricsSink::None(), &recovery);
    adapter_ =
        std::make_unique<cluster::NodeLogAdapter>(log_.get(), 1 << 20, &main_, [](size_t) {});
    Configuration members;
    for (uint64_t i = 1; i <= kNodes; ++i) members.members.push_back({ReplicaId{i}, NodeId{i}});
    HostOptions options{.seed = ToUint(id_)};
    options.group.proposal_bytes_max = 16 << 10;
    std::promise<absl::Status> started;
    main_.Post([&] {
      host_ = std::make_unique<GroupHost>(options, id_, transport_.get(), kChannel, adapter_.get(),
                                          &main_, &clock_);
      for (uint64_t i = 1; i <= kGroups; ++i) {
        ThreadExecutor* apply = &applies_[i % 2];
        journals_.push_back(std::make_unique<Journal>(apply));
        DYNLIB_CHECK(host_
                         ->AddGroup(PartitionId{i},
                                    {.configuration = members, .self = ReplicaId{ToUint(id_)}},
                                    journals_.back().get(), apply, {})
                         .ok());
      }
      host_->Start({}, [&](absl::Status status) { started.set_value(std::move(status)); });
    });
    DYNLIB_ASSERT_OK(started.get_future().get());
  }
  void ShutDown() {
    if (host_ == nullptr) return;
    std::promise<void> stopped;
    main_.Post([&] {
      host_->Stop();
      stopped.set_value();
    });
    stopped.get_future().wait();
    for (ThreadExecutor& apply : applies_) apply.ShutDown();
    log_executor_.ShutDown();
    main_.ShutDown();
    host_ = nullptr;
    log_ = nullptr;
  }

  void Propose(PartitionId group, Command command, ProposeCallback done) {
    main_.Post([this, group, command = std::move(command), done = std::move(done)]() mutable {
      host_->Propose(group, std::move(command), std::move(done));
    });
  }
  ThreadExecutor& main() { return main_; }
  const SystemClock& clock() const { return clock_; }
  uint64_t batches() const { return log_->GetStats().batches; }
  const Journal& journal(uint64_t group) const { return *journals_[group - 1]; }

 private:
  const NodeId id_;
  ScratchFolder folder_;
  SystemClock clock_;
  ThreadExecutor main_{{.name = "main"}};
  ThreadExecutor log_executor_{{.name = "log"}};
  ThreadExecutor applies_[2];
  std::unique_ptr<Transport> transport_;
  std::unique_ptr<PosixDisk> disk_;
  std::unique_ptr<store::NodeLog> log_;
  std::unique_ptr<cluster::NodeLogAdapter> adapter_;
  std::vector<std::unique_ptr<Journal>> journals_;
  std::unique_ptr<GroupHost> host_;
};

// Puts one command after another to a group, each until it is answered.
class Client {
 public:
  Client(std::vector<std::unique_ptr<Node>>* nodes, uint64_t group, std::atomic<uint64_t>* answered)
      : nodes_(nodes), group_(group), at_(group % kNodes), answered_(answered) {}

  void Ask() {
    Node& node = *(*nodes_)[at_];
    node.Propose(PartitionId{group_},
                 {.client = ClientId{group_},
                  .sequence = sequence_,
                  .acknowledged = sequence_ - 1,
                  .command = Cat("g", group_, " c", sequence_)},
                 [this, &node](ProposalResult result) { Answered(node, std::move(result)); });
  }

 private:
  void Answered(Node& node, ProposalResult result) {
    if (result.status.ok()) {
      DYNLIB_CHECK(result.result == Cat(sequence_));  // Once each, in order.
      answered_->fetch_add(1);
      if (++sequence_ <= kCommands) Ask();
      return;
    }
    if (absl::IsCancelled(result.status)) return;
    at_ =
        result.leader_hint.has_value() ? ToUint(result.leader_hint->node) - 1 : (at_ + 1) % kNodes;
    node.main().RunAt(node.clock().Now() + std::chrono::milliseconds(5), [this] { Ask(); });
  }

  std::vector<std::unique_ptr<Node>>* const nodes_;
  const uint64_t group_;
  uint64_t at_;
  uint64_t sequence_ = 1;
  std::atomic<uint64_t>* const answered_;
};

template <typename Condition>
bool WaitFor(Condition condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

TEST(GroupThreadsTest, GroupsOnSeveralThreadsShareTheirNodesSyncs) {
  LocalNetwork network({});
  std::vector<std::unique_ptr<Node>> nodes;
  std::vector<std::unique_ptr<Client>> clients;
  for (uint64_t id = 1; id <= kNodes; ++id) {
    nodes.push_back(std::make_unique<Node>(NodeId{id}, &network));
    nodes.back()->Start();
  }
  std::atomic<uint64_t> answered = 0;
  for (uint64_t group = 1; group <= kGroups; ++group) {
    clients.push_back(std::make_unique<Client>(&nodes, group, &answered));
    clients.back()->Ask();
  }
  constexpr uint64_t kCommits = kGroups * kCommands;
  ASSERT_TRUE(WaitFor([&] { return answered == kCommits; })) << answered;
  ASSERT_TRUE(WaitFor([&] {
    for (const auto& node : nodes) {
      for (uint64_t group = 1; group <= kGroups; ++group) {
        if (node->journal(group).shown != kCommands) return false;
      }
    }
    return true;
  }));
  for (auto& node : nodes) {
    // Every node led some groups and followed in others; both kinds of records share its batches.
    EXPECT_LT(node->batches(), kCommits / 2);
    std::printf("%llu commits in %llu batches\n", static_cast<unsigned long long>(kCommits),
                static_cast<unsigned long long>(node->batches()));
  }
  for (auto& node : nodes) node->ShutDown();
  for (auto& node : nodes) {
    for (uint64_t group = 1; group <= kGroups; ++group) {
      const std::vector<std::string>& journal = node->journal(group).next;
      ASSERT_EQ(journal.size(), kCommands);
      for (uint64_t i = 1; i <= kCommands; ++i) EXPECT_EQ(journal[i - 1], Cat("g", group, " c", i));
    }
  }
}

}  // namespace
}  // namespace dynlib::replication
