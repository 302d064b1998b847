#include "benchmarks/group_cluster.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "benchmarks/group_load.h"
#include "benchmarks/group_node.h"
#include "benchmarks/load.h"
#include "benchmarks/member_processes.h"
#include "benchmarks/stats.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/replication/message_codec.h"
#include "dynlib/runtime/local/local_network.h"

namespace dynlib::bench {
namespace {

constexpr uint64_t kStartLimitNs = 30'000'000'000;
constexpr Duration kPutTimeout = std::chrono::seconds(5);
// A follower that was slower to start is fed what was written meanwhile after the first heartbeats
// of its node: by then, and not in a run.
constexpr auto kSettle = std::chrono::milliseconds(300);
// More than any node writes.
constexpr double kBytesASecond = 250e6;

// What a node may write in a run.
uint64_t PreparedBytes(double seconds) {
  return static_cast<uint64_t>((seconds + WarmUpSeconds(seconds)) * kBytesASecond);
}

absl::Status LimitReached(std::string_view what) {
  return absl::DeadlineExceededError(Cat("nodes: ", what, " within 30 s"));
}

// The command line of each of three processes, with a folder of its own.
std::vector<std::vector<std::string>> NodeCommands(const std::filesystem::path& folder,
                                                   uint64_t prepared_bytes,
                                                   const std::vector<int>& ports) {
  std::vector<std::vector<std::string>> commands;
  for (uint64_t id = 1; id <= kGroupNodes; ++id) {
    const std::filesystem::path node_folder = folder / Cat("node-", id);
    std::filesystem::create_directory(node_folder);
    commands.push_back(GroupNodeArguments(NodeId{id}, node_folder, prepared_bytes, ports));
  }
  return commands;
}

// The client of three processes: puts by rpc to whoever leads.
class Client {
 public:
  static absl::StatusOr<std::unique_ptr<Client>> Start(const std::vector<int>& ports, int callers,
                                                       size_t value_bytes) {
    auto client = std::unique_ptr<Client>(new Client);
    DYNLIB_ASSIGN_OR_RETURN(client->transport_,
                            GroupTransport(kGroupClient, ports, &client->loop_));
    client->rpc_ = std::make_unique<Rpc>(Rpc::Options{}, client->transport_.get(), kClientChannel,
                                         client->loop_.executor(), &client->clock_);
    const auto put = [raw = client.get()](ProposeRequest request, PutLoad::Done done) {
      raw->rpc_->Call(raw->leader_, kPropose, EncodePropose(request), kPutTimeout,
                      [done = std::move(done)](absl::StatusOr<std::string> reply) mutable {
                        done(reply.status());
                      });
    };
    client->load_ = std::make_unique<PutLoad>(
        client->loop_.executor(), &client->clock_,
        PutLoad::Options{
            .callers = callers, .value_bytes = value_bytes, .groups = {PartitionId{1}}},
        put);
    const uint64_t limit_ns = NowNs() + kStartLimitNs;
    for (uint64_t id = 1;; id = id % kGroupNodes + 1) {
      client->leader_ = NodeId{id};
      PutLoad once(client->loop_.executor(), &client->clock_,
                   {.value_bytes = value_bytes,
                    .first_client = 1'000'000 + NowNs() % 1'000'000'000,
                    .groups = {PartitionId{1}}},
                   put);
      if (once.PutOne().ok()) {
        std::this_thread::sleep_for(kSettle);
        return client;
      }
      if (NowNs() > limit_ns) return LimitReached("no leader");
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }
  ~Client() {
    loop_.ShutDown();
    rpc_ = nullptr;
  }

  PutLoad& load() { return *load_; }

 private:
  Client() = default;

  const SystemClock clock_;
  EventLoop loop_{{.name = "client"}};
  std::unique_ptr<Transport> transport_;
  std::unique_ptr<Rpc> rpc_;
  NodeId leader_{};
  std::unique_ptr<PutLoad> load_;
};

// Counts the messages of groups that a node sends.
class CountingTransport final : public Transport {
 public:
  CountingTransport(std::unique_ptr<Transport> transport, std::atomic<uint64_t>* count)
      : transport_(std::move(transport)), count_(count) {}

  NodeId self() const override { return transport_->self(); }
  void Send(NodeId to, Channel channel, std::string message) override {
    const auto decoded = replication::DecodeNodeMessage(message);
    if (decoded.ok()) *count_ += decoded->groups.size();
    transport_->Send(to, channel, std::move(message));
  }
  void Listen(Channel channel, Executor* executor, Receiver receiver) override {
    transport_->Listen(channel, executor, std::move(receiver));
  }
  void StopListening(Channel channel) override { transport_->StopListening(channel); }

 private:
  const std::unique_ptr<Transport> transport_;
  std::atomic<uint64_t>* const count_;
};

// Three nodes in this process.
class LocalNodes {
 public:
  // `messages`, if not null, counts what groups send.
  absl::Status Start(const std::filesystem::path& folder, const GroupNode::Options& options,
                     std::atomic<uint64_t>* messages = nullptr) {
    for (uint64_t id = 1; id <= kGroupNodes; ++id) {
      const std::filesystem::path node_folder = folder / Cat("node-", id);
      std::filesystem::create_directory(node_folder);
      DYNLIB_ASSIGN_OR_RETURN(
          std::unique_ptr<GroupNode> node,
          GroupNode::Start(NodeId{id}, node_folder, options,
                           [&](EventLoop*) -> absl::StatusOr<std::unique_ptr<Transport>> {
                             std::unique_ptr<Transport> end = network_.Attach(NodeId{id});
                             if (messages == nullptr) return end;
                             return std::make_unique<CountingTransport>(std::move(end), messages);
                           }));
      nodes_.push_back(std::move(node));
    }
    return AwaitLeaders(options.groups);
  }
  ~LocalNodes() {
    for (auto& node : nodes_) node->loop().ShutDown();
  }

  // The groups that each node leads.
  const std::array<std::vector<PartitionId>, kGroupNodes>& led() const { return led_; }
  GroupNode& node(size_t index) { return *nodes_[index]; }
  GroupNode& leader() {
    for (size_t i = 0; i < kGroupNodes; ++i) {
      if (!led_[i].empty()) return *nodes_[i];
    }
    return *nodes_[0];
  }

 private:
  absl::Status AwaitLeaders(int groups) {
    const uint64_t limit_ns = NowNs() + kStartLimitNs;
    while (NowNs() < limit_ns) {
      size_t led = 0;
      for (size_t i = 0; i < kGroupNodes; ++i) {
        std::promise<std::vector<PartitionId>> answer;
        nodes_[i]->loop().executor()->Post([&] {
          std::vector<PartitionId> led_here;
          for (const replication::GroupStatus& status : nodes_[i]->host().AllStatus()) {
            if (status.holds_lease && status.applied > 0) led_here.push_back(status.group);
          }
          answer.set_value(std::move(led_here));
        });
        led_[i] = answer.get_future().get();
        led += led_[i].size();
      }
      if (led == static_cast<size_t>(groups)) {
        std::this_thread::sleep_for(kSettle);
        return absl::OkStatus();
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return LimitReached("no leaders");
  }

  LocalNetwork network_{{}};
  std::vector<std::unique_ptr<GroupNode>> nodes_;
  std::array<std::vector<PartitionId>, kGroupNodes> led_;
};

std::unique_ptr<PutLoad> LocalLoad(GroupNode& node, PutLoad::Options options) {
  return std::make_unique<PutLoad>(
      node.loop().executor(), &node.clock(), std::move(options),
      [&host = node.host()](ProposeRequest request, PutLoad::Done done) {
        host.Propose(request.group, std::move(request.command),
                     [done = std::move(done)](replication::ProposalResult result) mutable {
                       done(std::move(result.status));
                     });
      });
}

// 64 reads in flight on the leader's thread: each that ends begins the next.
class ReadLoop {
 public:
  static constexpr int kInFlight = 64;
  static constexpr uint64_t kKeys = 10'000;

  explicit ReadLoop(GroupNode& node) : node_(node) {}

  static std::string Key(uint64_t i) { return Cat("user", 1'000'000'000'000'000 + i % kKeys); }

  absl::Status Fill() {
    std::promise<absl::Status> filled;
    node_.loop().executor()->Post([&] {
      for (uint64_t i = 0; i < kKeys; ++i) {
        replication::Command command{.client = ClientId{1 + i % 100}, .sequence = 1 + i / 100};
        ReplicatedMap::PutCommand(command.command, Key(i), RandomBytes(i, 900));
        node_.host().Propose(PartitionId{1}, std::move(command),
                             [&, i](replication::ProposalResult result) {
                               if (!result.status.ok()) error_ = result.status;
                               if (i + 1 == kKeys) filled.set_value(error_);
                             });
      }
    });
    return filled.get_future().get();
  }

  absl::StatusOr<RunResult> Run(double seconds, std::atomic<uint64_t>& messages) {
    std::promise<void> over;
    uint64_t sent = 0;
    node_.loop().executor()->Post([&] {
      begin_ns_ = NowNs() + static_cast<uint64_t>(WarmUpSeconds(seconds) * 1e9);
      end_ns_ = begin_ns_ + static_cast<uint64_t>(seconds * 1e9);
      sent = messages;
      over_ = [&] {
        sent = messages - sent;
        over.set_value();
      };
      for (int i = 0; i < kInFlight; ++i) Begin();
    });
    over.get_future().wait();
    DYNLIB_RETURN_IF_ERROR(error_);
    if (sent > 0) return absl::InternalError(Cat("lease reads sent ", sent, " messages"));
    RunResult result;
    result.seconds = seconds;
    result.operations = operations_;
    return result;
  }

 private:
  void Begin() {
    ++in_flight_;
    node_.host().Read(
        PartitionId{1},
        [this] {
          if (node_.map(PartitionId{1}).Get(Key(Mix(++reads_))).size() != 900)
            error_ = absl::DataLossError("a key has not its value");
        },
        [this](absl::Status status) {
          --in_flight_;
          if (!status.ok()) error_ = std::move(status);
          const uint64_t now_ns = NowNs();
          operations_ += now_ns >= begin_ns_ && now_ns < end_ns_;
          if (now_ns < end_ns_ && error_.ok()) return Begin();
          if (in_flight_ == 0) over_();
        });
  }

  GroupNode& node_;
  absl::Status error_;
  uint64_t begin_ns_ = 0;
  uint64_t end_ns_ = 0;
  uint64_t reads_ = 0;
  uint64_t operations_ = 0;
  int in_flight_ = 0;
  std::function<void()> over_;
};

// Starts processes and a client, and gives them to `measure`, which has them write in `runs` runs.
template <typename Result>
absl::StatusOr<Result> WithClient(const RunContext& context, int runs, int callers,
                                  size_t value_bytes,
                                  const std::function<absl::StatusOr<Result>(PutLoad&)>& measure) {
  DYNLIB_ASSIGN_OR_RETURN(const std::vector<int> ports, FreePorts(kGroupNodes + 1));
  MemberProcesses nodes;
  DYNLIB_RETURN_IF_ERROR(nodes.Start(
      context.folder, NodeCommands(context.folder, PreparedBytes(runs * context.seconds), ports)));
  DYNLIB_ASSIGN_OR_RETURN(const std::unique_ptr<Client> client,
                          Client::Start(ports, callers, value_bytes));
  absl::StatusOr<Result> result = measure(client->load());
  DYNLIB_RETURN_IF_ERROR(nodes.CheckAll(result.status()));
  return result;
}

}  // namespace

Runner GroupPuts(int clients, size_t value_bytes) {
  return [=](const RunContext& context) -> absl::StatusOr<RunResult> {
    return WithClient<RunResult>(context, 1, clients, value_bytes,
                                 [&](PutLoad& load) { return load.Closed(context.seconds); });
  };
}

Runner LocalGroupPuts(int callers, int groups, size_t value_bytes) {
  return [=](const RunContext& context) -> absl::StatusOr<RunResult> {
    LocalNodes nodes;
    DYNLIB_RETURN_IF_ERROR(nodes.Start(context.folder, {groups, PreparedBytes(context.seconds)}));
    std::vector<std::unique_ptr<PutLoad>> loads;
    std::vector<std::future<absl::StatusOr<RunResult>>> runs;
    for (size_t i = 0; i < kGroupNodes; ++i) {
      const std::vector<PartitionId>& led = nodes.led()[i];
      if (led.empty()) continue;
      const int share = callers * static_cast<int>(led.size()) / groups;
      loads.push_back(LocalLoad(nodes.node(i), {.callers = std::max(share, 1),
                                                .value_bytes = value_bytes,
                                                .first_client = 1 + i * 100'000,
                                                .groups = led}));
      runs.push_back(std::async(std::launch::async, [load = loads.back().get(), &context] {
        return load->Closed(context.seconds);
      }));
    }
    RunResult result;
    result.seconds = context.seconds;
    absl::Status error;
    for (auto& run : runs) {
      absl::StatusOr<RunResult> part = run.get();
      if (!part.ok()) {
        error = part.status();
        continue;
      }
      result.operations += part->operations;
      result.latencies_ns.insert(result.latencies_ns.end(), part->latencies_ns.begin(),
                                 part->latencies_ns.end());
    }
    DYNLIB_RETURN_IF_ERROR(error);
    return result;
  };
}

absl::StatusOr<double> TailAtHalfLoad(const RunContext& context, int clients, size_t value_bytes) {
  return WithClient<double>(
      context, 2, clients, value_bytes, [&](PutLoad& load) -> absl::StatusOr<double> {
        DYNLIB_ASSIGN_OR_RETURN(const RunResult peak, load.Closed(context.seconds));
        const double rate = static_cast<double>(peak.operations) / peak.seconds / 2;
        DYNLIB_ASSIGN_OR_RETURN(RunResult half, load.Open(context.seconds, rate));
        if (half.latencies_ns.empty()) return absl::UnavailableError("no put ended");
        return static_cast<double>(Quantile(half.latencies_ns, 0.99)) /
               static_cast<double>(Quantile(half.latencies_ns, 0.5));
      });
}

Runner LeaseReads() {
  return [](const RunContext& context) -> absl::StatusOr<RunResult> {
    std::atomic<uint64_t> messages{0};
    LocalNodes nodes;
    DYNLIB_RETURN_IF_ERROR(nodes.Start(context.folder, {}, &messages));
    ReadLoop reads(nodes.leader());
    DYNLIB_RETURN_IF_ERROR(reads.Fill());
    // What the last puts have left to say (what is chosen) is said by then.
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    return reads.Run(context.seconds, messages);
  };
}

}  // namespace dynlib::bench
