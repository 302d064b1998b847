#include "benchmarks/replication_idle.h"

#include <malloc.h>
#include <sys/resource.h>

#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "benchmarks/cleanup.h"
#include "benchmarks/load.h"
#include "benchmarks/replica_node.h"
#include "benchmarks/stats.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::bench {
namespace {

constexpr char kWorkload[] = "idle_groups/1000000";
constexpr uint64_t kGroups = 1'000'000;
constexpr uint64_t kNodes = 3;
constexpr uint64_t kAsked = 1000;
constexpr double kIdleSeconds = 5;
constexpr uint64_t kStreams = 100'000;

// What the process has from its allocator, whatever part of it is in use.
uint64_t AllocatedBytes() {
  const struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd;
}

double CpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

PartitionId GroupAt(uint64_t i) { return PartitionId{i + 1}; }
// Who is first among the members turns from group to group, and leads the group when it is asked.
size_t FirstNode(uint64_t i) { return i % kNodes; }

struct Figures {
  double start_s = 0;
  double bytes = 0;
  double cpu_percent = 0;
  double messages = 0;
  double deadlines = 0;
  double awake = 0;
  std::vector<uint64_t> commit_us;
};

class IdleCluster {
 public:
  absl::StatusOr<Figures> Run(const std::filesystem::path& folder) {
    for (uint64_t id = 1; id <= kNodes; ++id) {
      DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<ReplicaNode> node,
                              ReplicaNode::Open({.id = NodeId{id},
                                                 .folder = folder / Cat("node-", id),
                                                 .network = &network_,
                                                 .host = {},
                                                 .metrics = MetricsSink::None()}));
      nodes_.push_back(std::move(node));
      machines_.emplace_back(kGroups);
    }
    Figures figures;
    const uint64_t before = AllocatedBytes();
    DYNLIB_RETURN_IF_ERROR(Start(figures));
    figures.bytes = static_cast<double>(AllocatedBytes() - before) / (kGroups * kNodes);
    Idle(figures);
    DYNLIB_RETURN_IF_ERROR(Ask(figures));
    return figures;
  }

 private:
  // From the first group that is added to the last host that takes part.
  absl::Status Start(Figures& figures) {
    const uint64_t began_ns = NowNs();
    std::vector<std::promise<absl::Status>> started(kNodes);
    for (size_t n = 0; n < kNodes; ++n) {
      nodes_[n]->executor()->Post([this, n, &started] {
        absl::Status added = AddAll(n);
        if (!added.ok()) return started[n].set_value(added);
        nodes_[n]->BeginAsync([n, &started](absl::Status status) { started[n].set_value(status); });
      });
    }
    absl::Status all;
    for (auto& one : started) {
      absl::Status status = one.get_future().get();
      if (!status.ok()) all = status;
    }
    figures.start_s = static_cast<double>(NowNs() - began_ns) * 1e-9;
    return all;
  }

  absl::Status AddAll(size_t n) {
    const NodeId self{n + 1};
    std::vector<replication::GroupSetup> setups;
    for (size_t first = 0; first < kNodes; ++first) {
      std::vector<NodeId> nodes;
      for (size_t i = 0; i < kNodes; ++i) nodes.push_back(NodeId{(first + i) % kNodes + 1});
      replication::GroupSetup setup{.configuration = MembersOn(nodes), .at_rest = true};
      setup.self = setup.configuration.FindNode(self)->replica;
      setups.push_back(std::move(setup));
    }
    const replication::RecoveredStream nothing;
    for (uint64_t i = 0; i < kGroups; ++i) {
      DYNLIB_RETURN_IF_ERROR(nodes_[n]->host().AddGroup(
          GroupAt(i), setups[FirstNode(i)], &machines_[n][i], nodes_[n]->executor(), nothing));
    }
    return absl::OkStatus();
  }

  uint64_t Messages() const {
    uint64_t messages = 0;
    for (const auto& node : nodes_) messages += node->group_messages();
    return messages;
  }

  void Idle(Figures& figures) {
    std::this_thread::sleep_for(std::chrono::seconds(1));
    const uint64_t messages = Messages();
    const uint64_t began_ns = NowNs();
    const double cpu = CpuSeconds();
    std::this_thread::sleep_for(std::chrono::duration<double>(kIdleSeconds));
    figures.cpu_percent =
        100 * (CpuSeconds() - cpu) / (static_cast<double>(NowNs() - began_ns) * 1e-9);
    figures.messages = static_cast<double>(Messages() - messages);
    for (const auto& node : nodes_) {
      node->Run([&] {
        const replication::HostStatus stats = node->host().Status();
        figures.deadlines += static_cast<double>(stats.deadlines);
        figures.awake += static_cast<double>(stats.awake);
      });
    }
  }

  // One after the other, each until it is committed.
  absl::Status Ask(Figures& figures) {
    for (uint64_t k = 0; k < kAsked; ++k) {
      const uint64_t i = Mix(k) % kGroups;
      const uint64_t began_ns = NowNs();
      absl::Status status = absl::UnavailableError("not asked");
      while (!status.ok() && NowNs() - began_ns < 5'000'000'000) status = Propose(i, k + 1);
      if (!status.ok()) return status;
      figures.commit_us.push_back((NowNs() - began_ns) / 1000);
    }
    return absl::OkStatus();
  }

  absl::Status Propose(uint64_t i, uint64_t sequence) {
    ReplicaNode& node = *nodes_[FirstNode(i)];
    std::promise<absl::Status> answered;
    node.executor()->Post([&] {
      node.host().Propose(
          GroupAt(i),
          {.client = ClientId{1},
           .sequence = sequence,
           .acknowledged = 0,
           .issued = {},
           .command = "x"},
          [&](replication::ProposalResult result) { answered.set_value(result.status); });
    });
    absl::Status status = answered.get_future().get();
    // It is being elected.
    if (!status.ok()) std::this_thread::sleep_for(std::chrono::microseconds(200));
    return status;
  }

  LocalNetwork network_{{}};
  std::vector<std::vector<PositionMachine>> machines_;
  std::vector<std::unique_ptr<ReplicaNode>> nodes_;
};

void Report(Harness& harness, Figures figures) {
  auto row = [&](const std::string& unit, double value, const std::string& workload = kWorkload) {
    harness.Report(workload, {unit, false}, {{kOurs, {value}}});
  };
  row("bytes/replica", figures.bytes);
  row("s to start", figures.start_s);
  row("% of a core", figures.cpu_percent);
  row("messages", figures.messages);
  row("timers", figures.deadlines + figures.awake);
  row("p50_us", static_cast<double>(Quantile(figures.commit_us, 0.5)),
      Cat(kWorkload, "/on_demand"));
  row("p99_us", static_cast<double>(Quantile(figures.commit_us, 0.99)),
      Cat(kWorkload, "/on_demand"));
}

// A state and an entry of each stream, as an elected group has them; the entries are released.
absl::StatusOr<double> LogStreamBytes(const std::filesystem::path& folder) {
  DYNLIB_ASSIGN_OR_RETURN(const std::unique_ptr<PosixDisk> disk,
                          PosixDisk::Open({.root = folder.string()}));
  const SystemClock clock;
  ThreadExecutor executor({.name = "log"});
  store::NodeLog::Recovery recovery;
  DYNLIB_ASSIGN_OR_RETURN(const std::unique_ptr<store::NodeLog> log,
                          store::NodeLog::Open({}, disk.get(), "log", &executor, &clock,
                                               MetricsSink::None(), &recovery));
  const uint64_t before = AllocatedBytes();
  constexpr uint64_t kBatch = 1000;
  for (uint64_t first = 0; first < kStreams; first += kBatch) {
    std::vector<store::LogRecord> records;
    for (uint64_t i = first; i < first + kBatch; ++i) {
      const store::StreamId stream{i + 1};
      records.push_back({stream, store::RecordKind::kState, 1, 1, std::string(40, 's')});
      records.push_back({stream, store::RecordKind::kEntry, 1, 1, "e"});
    }
    DYNLIB_RETURN_IF_ERROR(log->AppendAndWait(std::move(records)));
    for (uint64_t i = first; i < first + kBatch; ++i) log->Release(store::StreamId{i + 1}, 1);
  }
  const double bytes = static_cast<double>(AllocatedBytes() - before) / kStreams;
  executor.ShutDown();
  return bytes;
}

}  // namespace

void MeasureIdleGroups(Harness& harness) {
  if (harness.Wants(kWorkload, /*in_quick_set=*/false) && harness.Wants(kOurs)) {
    absl::StatusOr<Figures> figures = [&]() -> absl::StatusOr<Figures> {
      DYNLIB_ASSIGN_OR_RETURN(const TemporaryFolder folder,
                              TemporaryFolder::Create(harness.flags().dir));
      return IdleCluster().Run(folder.path());
    }();
    if (figures.ok()) {
      Report(harness, *std::move(figures));
    } else {
      harness.Failed(kWorkload, kOurs, figures.status());
    }
  }
  harness.MeasureQuantity(
      Cat(kWorkload, "/log_stream"), kOurs, "bytes/stream", /*higher_is_better=*/false,
      [&]() -> absl::StatusOr<double> {
        DYNLIB_ASSIGN_OR_RETURN(const TemporaryFolder folder,
                                TemporaryFolder::Create(harness.flags().dir));
        return LogStreamBytes(folder.path());
      },
      /*in_quick_set=*/false);
}

}  // namespace dynlib::bench
