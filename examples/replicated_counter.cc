// A counter replicated on three nodes: the replication block with a state machine of our own. It
// runs in the simulator, where a node's power can be cut; the same classes run on threads, files
// and sockets.
#include <cstdio>
#include <map>
#include <memory>

#include "dynlib/base/metrics.h"
#include "dynlib/cluster/node_log_adapter.h"
#include "dynlib/replication/replication.h"
#include "dynlib/sim/world.h"
#include "dynlib/store/node_log.h"

namespace {

using namespace dynlib;  // An example's liberty.

// State that lives in memory: after a restart it is applied again from the log, which is never
// released.
class Counter : public replication::StateMachine {
 public:
  Slot applied() const override { return 0; }
  absl::Status LoadSessions(absl::FunctionRef<void(std::string_view, std::string_view)>) override {
    return absl::OkStatus();
  }
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
  int value = 0;

 private:
  int next_ = 0;
};

struct Member {
  explicit Member(sim::Node* node)
      : executor(node->NewExecutor("main")), apply(node->NewBlockingExecutor("apply")) {
    Executor* log_executor = node->NewBlockingExecutor("log");
    log_executor->Post([this, node,
                        log_executor] {  // Opening reads files: on an executor that may wait.
      store::NodeLog::Recovery found;
      log = *store::NodeLog::Open({.segment_bytes = 1 << 20}, node->disk(), "log", log_executor,
                                  node->clock(), MetricsSink::None(), &found);
      adapter =
          std::make_unique<cluster::NodeLogAdapter>(log.get(), 256 << 10, executor, [](size_t) {});
      replication::HostOptions options;
      options.group.proposal_bytes_max = 64 << 10;
      host = std::make_unique<replication::GroupHost>(options, node->id(), node->transport(),
                                                      Channel{1}, adapter.get(), executor,
                                                      node->clock());
      replication::Configuration members;
      for (uint64_t i = 1; i <= 3; ++i) members.members.push_back({ReplicaId{i}, NodeId{i}});
      const replication::GroupSetup setup{.configuration = members,
                                          .self = ReplicaId{ToUint(node->id())}};
      auto added = host->AddGroup(PartitionId{1}, setup, &counter, apply,
                                  cluster::TakeStream(found, PartitionId{1}));
      if (!added.ok()) std::abort();
      host->Start(cluster::TakeStream(found, PartitionId{0}), [](absl::Status) {});
    });
  }
  bool Leads() const {
    auto status = host == nullptr ? std::nullopt : host->Status(PartitionId{1});
    return status.has_value() && status->role == replication::Role::kLeader;
  }
  Executor* executor;
  Executor* apply;
  Counter counter;
  std::unique_ptr<store::NodeLog> log;
  std::unique_ptr<cluster::NodeLogAdapter> adapter;
  std::unique_ptr<replication::GroupHost> host;
};

}  // namespace

int main() {
  sim::World world(/*seed=*/7);
  std::map<uint64_t, std::unique_ptr<Member>> members;
  for (uint64_t i = 1; i <= 3; ++i) members[i] = std::make_unique<Member>(world.AddNode(NodeId{i}));

  uint64_t leader = 0;
  auto elected = [&] {
    for (auto& [id, member] : members) {
      if (member != nullptr && member->Leads()) leader = id;
    }
    return leader != 0;
  };
  std::string last;
  uint64_t sequence = 0;
  auto increment = [&](int times) {
    for (int i = 0; i < times; ++i) {
      std::string result;
      replication::Command command{.client = ClientId{9},
                                   .sequence = ++sequence,
                                   .acknowledged = sequence - 1,
                                   .command = "increment"};
      // Sent again with the same sequence until it is answered: applied once, however often it
      // arrives.
      while (result.empty()) {
        bool answered = false;
        members[leader]->host->Propose(PartitionId{1}, command, [&](replication::ProposalResult r) {
          answered = true;
          result = r.result;
        });
        world.RunUntil([&] { return answered; }, std::chrono::seconds(5));
      }
      last = result;
    }
  };
  if (!world.RunUntil(elected, std::chrono::seconds(10))) return 1;
  increment(100);
  std::printf("node %llu led, counter is %s; its power goes off\n",
              static_cast<unsigned long long>(leader), last.c_str());
  world.node(NodeId{leader})->PowerOff();
  members[leader] = nullptr;
  leader = 0;
  if (!world.RunUntil(elected, std::chrono::seconds(10))) return 1;
  increment(100);
  std::printf("node %llu leads, counter is %s\n", static_cast<unsigned long long>(leader),
              last.c_str());
  world.CrashAll();
  return last == "200" ? 0 : 1;
}
