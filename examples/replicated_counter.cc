// A counter replicated on three nodes: what it takes to embed the replication block. It runs in the
// simulator, where a node's power can be cut; the same classes run on threads, files and sockets
// (dynlib/runtime/posix, dynlib/runtime/tcp).
//
// An application supplies
//   - a state machine: what commands do (Counter)
//   - the log: the node log of the store block, which all groups of a node share (Member)
//   - an executor on which everything of the host happens, and one on which commands are applied
// and from then on proposes, reads, and looks at states and events.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dynlib/base/metrics.h"
#include "dynlib/cluster/node_log_adapter.h"
#include "dynlib/replication/replication.h"
#include "dynlib/sim/world.h"
#include "dynlib/store/node_log.h"

namespace {

using namespace dynlib;  // An example's liberty.

constexpr PartitionId kGroup{1};
constexpr int kTimes = 100;

// State that lives in memory: after a restart it is applied again from the log, which is never
// released. One that keeps its state on disk says in applied() how far it is, stores the session
// records with it, and tells the host by Checkpointed when the log may go.
class Counter : public replication::StateMachine {
 public:
  Slot applied() const override { return 0; }
  absl::Status LoadSessions(absl::FunctionRef<void(std::string_view, std::string_view)>) override {
    return absl::OkStatus();
  }
  // A function of state and commands alone: every replica comes to the same. The result is what the
  // proposer is told, also when it asks again.
  absl::Status Evaluate(std::span<const replication::AppliedCommand> commands,
                        std::vector<std::string>* results) override {
    for (const replication::AppliedCommand& command : commands) {
      next_ += command.command == "increment";
      results->push_back(std::to_string(next_));
    }
    return absl::OkStatus();
  }
  absl::Status Publish(const replication::PublishedStep&) override {
    value = next_;
    return absl::OkStatus();
  }
  int value = 0;  // What readers see; of the apply executor.

 private:
  int next_ = 0;
};

// One node with its replica.
class Member {
 public:
  explicit Member(sim::Node* node)
      : node_(node),
        executor_(node->NewExecutor("main")),
        apply_(node->NewBlockingExecutor("apply")),
        log_executor_(node->NewBlockingExecutor("log")),
        trace_({.bytes_max = 64 << 10}, node->clock()) {
    // Opening reads files: on an executor that may wait for the disk.
    log_executor_->Post([this] { Open(); });
  }

  bool Leads() const {
    const auto status = host_ == nullptr ? std::nullopt : host_->Status(kGroup);
    return status.has_value() && status->role == replication::Role::kLeader;
  }
  // The host is asked on its executor; it answers there.
  void Propose(replication::Command command, replication::ProposeCallback done) {
    executor_->Post([this, command = std::move(command), done = std::move(done)]() mutable {
      host_->Propose(kGroup, std::move(command), std::move(done));
    });
  }
  // The newest state: the leader holds a lease, or asks a quorum whether it still leads.
  void Read(std::function<void(absl::StatusOr<int>)> done) {
    executor_->Post([this, done = std::move(done)] {
      auto value = std::make_shared<int>(0);
      host_->Read(
          kGroup, [this, value] { *value = counter_.value; },
          [value, done](absl::Status status) {
            status.ok() ? done(*value) : done(std::move(status));
          });
    });
  }
  std::vector<std::string> TakeEvents() { return trace_.Take(); }

 private:
  void Open() {
    store::NodeLog::Recovery found;
    auto log = store::NodeLog::Open({.segment_bytes = 1 << 20}, node_->disk(), "log", log_executor_,
                                    node_->clock(), MetricsSink::None(), &found);
    if (!log.ok()) std::abort();
    log_ = *std::move(log);
    adapter_ =
        std::make_unique<cluster::NodeLogAdapter>(log_.get(), 256 << 10, executor_, [](size_t) {});
    replication::HostOptions options;
    options.seed = ToUint(node_->id());
    options.group.proposal_bytes_max = 64 << 10;
    host_ = std::make_unique<replication::GroupHost>(options, node_->id(), node_->transport(),
                                                     Channel{1}, adapter_.get(), executor_,
                                                     node_->clock(), &trace_);
    // Any number of groups may share the host; here is one, on the same three nodes.
    replication::Configuration members;
    for (uint64_t i = 1; i <= 3; ++i) members.members.push_back({ReplicaId{i}, NodeId{i}});
    const replication::GroupSetup setup{.configuration = members,
                                        .self = ReplicaId{ToUint(node_->id())}};
    const absl::Status added =
        host_->AddGroup(kGroup, setup, &counter_, apply_, cluster::TakeStream(found, kGroup));
    if (!added.ok()) std::abort();
    // A log that fails is closed for good: whoever runs the node then opens it anew.
    host_->OnFatal([](absl::Status) { std::abort(); });
    host_->Start(cluster::TakeStream(found, PartitionId{0}), [](absl::Status) {});
  }

  sim::Node* const node_;
  Executor* const executor_;
  Executor* const apply_;
  Executor* const log_executor_;
  replication::EventTrace trace_;
  Counter counter_;
  std::unique_ptr<store::NodeLog> log_;
  std::unique_ptr<cluster::NodeLogAdapter> adapter_;
  std::unique_ptr<replication::GroupHost> host_;
};

// A client: asks whoever leads, and asks again until it is answered.
class Client {
 public:
  Client(sim::World* world, std::map<uint64_t, std::unique_ptr<Member>>* members)
      : world_(world), members_(members) {}

  // 0 if nobody comes to lead.
  uint64_t Leader() {
    uint64_t leader = 0;
    world_->RunUntil(
        [&] {
          for (auto& [id, member] : *members_) {
            if (member != nullptr && member->Leads()) leader = id;
          }
          return leader != 0;
        },
        std::chrono::seconds(10));
    return leader;
  }

  // Sent again with the same sequence until it is answered: applied once, however often it arrives,
  // and whoever leads by then.
  std::string Increment() {
    const replication::Command command{.client = ClientId{9},
                                       .sequence = ++sequence_,
                                       .acknowledged = sequence_ - 1,
                                       .command = "increment"};
    for (int attempt = 0; attempt < 100; ++attempt) {
      auto answer = std::make_shared<std::optional<replication::ProposalResult>>();
      members_->at(Leader())->Propose(
          command, [answer](replication::ProposalResult result) { *answer = std::move(result); });
      world_->RunUntil([&] { return answer->has_value(); }, std::chrono::seconds(2));
      if (answer->has_value() && (*answer)->status.ok()) return (*answer)->result;
    }
    return "no answer";
  }

  int Read() {
    auto answer = std::make_shared<std::optional<absl::StatusOr<int>>>();
    members_->at(Leader())->Read([answer](absl::StatusOr<int> value) { *answer = value; });
    world_->RunUntil([&] { return answer->has_value(); }, std::chrono::seconds(2));
    return answer->has_value() && (*answer)->ok() ? ***answer : -1;
  }

 private:
  sim::World* const world_;
  std::map<uint64_t, std::unique_ptr<Member>>* const members_;
  uint64_t sequence_ = 0;
};

}  // namespace

int main() {
  sim::World world(/*seed=*/7);
  std::map<uint64_t, std::unique_ptr<Member>> members;
  for (uint64_t i = 1; i <= 3; ++i) members[i] = std::make_unique<Member>(world.AddNode(NodeId{i}));
  Client client(&world, &members);

  for (int i = 0; i < kTimes; ++i) client.Increment();
  const uint64_t first = client.Leader();
  std::printf("node %llu leads, the counter is %d; its power goes off\n",
              static_cast<unsigned long long>(first), client.Read());
  world.node(NodeId{first})->PowerOff();
  members[first] = nullptr;

  std::string last;
  for (int i = 0; i < kTimes; ++i) last = client.Increment();
  const uint64_t second = client.Leader();
  std::printf("node %llu leads, the counter is %d\n", static_cast<unsigned long long>(second),
              client.Read());

  // The first node comes back with what is on its disk, and catches up.
  world.node(NodeId{first})->Restart();
  members[first] = std::make_unique<Member>(world.node(NodeId{first}));
  world.RunFor(std::chrono::seconds(3));
  const int value = client.Read();

  std::printf("what node %llu tells of it:\n", static_cast<unsigned long long>(second));
  for (const std::string& line : members[second]->TakeEvents()) std::printf("  %s", line.c_str());
  world.CrashAll();
  return last == std::to_string(2 * kTimes) && value == 2 * kTimes && second != first ? 0 : 1;
}
