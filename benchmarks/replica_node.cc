#include "benchmarks/replica_node.h"

#include <condition_variable>
#include <utility>

#include "dynlib/base/check.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/replication/message_codec.h"
#include "dynlib/testing/forwarding_disk.h"

namespace dynlib::bench {
namespace {

constexpr size_t kAppendBytesMax = 4 << 20;

// What hanging files wait for.
class Gate {
 public:
  void Set(bool hang) {
    const std::lock_guard lock(mutex_);
    hang_ = hang;
    changed_.notify_all();
  }
  // Whether the caller had to wait.
  bool Pass() {
    std::unique_lock lock(mutex_);
    const bool hung = hang_;
    changed_.wait(lock, [this] { return !hang_; });
    return hung;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool hang_ = false;
};

class HangingFile final : public ForwardingFile {
 public:
  HangingFile(std::unique_ptr<File> file, Gate* gate)
      : ForwardingFile(std::move(file)), gate_(gate) {}
  absl::Status WriteAt(uint64_t offset, std::string_view data) override {
    DYNLIB_RETURN_IF_ERROR(Pass());
    return ForwardingFile::WriteAt(offset, data);
  }
  absl::Status Sync() override {
    DYNLIB_RETURN_IF_ERROR(Pass());
    return ForwardingFile::Sync();
  }
  absl::Status WriteDurably(uint64_t offset, std::string_view data) override {
    DYNLIB_RETURN_IF_ERROR(Pass());
    return forwarded().WriteDurably(offset, data);
  }

 private:
  absl::Status Pass() {
    if (!gate_->Pass()) return absl::OkStatus();
    return absl::DataLossError("the disk hung and was given up");
  }
  Gate* const gate_;
};

}  // namespace

class HangingDisk final : public ForwardingDisk {
 public:
  using ForwardingDisk::ForwardingDisk;
  void Hang(bool hang) { gate_.Set(hang); }
  absl::StatusOr<std::unique_ptr<File>> Open(std::string_view path, OpenMode mode) override {
    DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<File> file, ForwardingDisk::Open(path, mode));
    return std::unique_ptr<File>(std::make_unique<HangingFile>(std::move(file), &gate_));
  }

 private:
  Gate gate_;
};

void CountingMetrics::Count(std::string_view name, int64_t delta) {
  const std::lock_guard lock(mutex_);
  auto at = counts_.find(name);
  if (at == counts_.end()) at = counts_.emplace(name, 0).first;
  at->second += delta;
}

void CountingMetrics::Event(std::string_view name, std::span<const EventField>) {
  Count(Cat("event ", name), 1);
}

int64_t CountingMetrics::Of(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  const auto at = counts_.find(name);
  return at == counts_.end() ? 0 : at->second;
}

// Looks into what is sent.
class ReplicaNode::Counted final : public Transport {
 public:
  explicit Counted(std::unique_ptr<Transport> transport) : transport_(std::move(transport)) {}
  NodeId self() const override { return transport_->self(); }
  void Send(NodeId to, Channel channel, std::string message) override {
    // Liveness alone is short; the rest is counted as one each, since to decode it all would take
    // as much as to handle it.
    if (message.size() > kShort) {
      ++group_messages_;
    } else if (auto decoded = replication::DecodeNodeMessage(message); decoded.ok()) {
      group_messages_ += decoded->groups.size();
    }
    transport_->Send(to, channel, std::move(message));
  }
  void Listen(Channel channel, Executor* executor, Receiver receiver) override {
    transport_->Listen(channel, executor, std::move(receiver));
  }
  void StopListening(Channel channel) override { transport_->StopListening(channel); }
  uint64_t group_messages() const { return group_messages_; }

 private:
  static constexpr size_t kShort = 512;
  const std::unique_ptr<Transport> transport_;
  std::atomic<uint64_t> group_messages_{0};
};

ReplicaNode::ReplicaNode(Options options)
    : options_(std::move(options)),
      transport_(std::make_unique<Counted>(options_.network->Attach(options_.id))) {}

absl::StatusOr<std::unique_ptr<ReplicaNode>> ReplicaNode::Open(Options options) {
  auto node = std::unique_ptr<ReplicaNode>(new ReplicaNode(std::move(options)));
  DYNLIB_RETURN_IF_ERROR(node->OpenLog());
  node->Run([&] {
    node->replica_log_ = std::make_unique<cluster::NodeLogAdapter>(
        node->log_.get(), kAppendBytesMax, &node->main_, [](size_t) {});
    node->host_ = std::make_unique<replication::GroupHost>(
        node->options_.host, node->options_.id, node->transport_.get(), kChannel,
        node->replica_log_.get(), &node->main_, &node->clock_, node->options_.metrics);
  });
  return node;
}

absl::Status ReplicaNode::OpenLog() {
  std::filesystem::create_directories(options_.folder);
  DYNLIB_ASSIGN_OR_RETURN(disk_, PosixDisk::Open({.root = options_.folder.string()}));
  hanging_disk_ = std::make_unique<HangingDisk>(disk_.get());
  store::NodeLog::Options options;
  options.identity = ToUint(options_.id);
  options.max_batch_bytes = kAppendBytesMax;
  DYNLIB_ASSIGN_OR_RETURN(
      log_, store::NodeLog::Open(options, hanging_disk_.get(), "log", &log_executor_, &clock_,
                                 MetricsSink::None(), &recovery_));
  return absl::OkStatus();
}

ReplicaNode::~ReplicaNode() {
  options_.network->Detach(options_.id);
  Hang(false);
  main_.ShutDown();
  log_executor_.ShutDown();
  host_ = nullptr;
  log_ = nullptr;
}

void ReplicaNode::Run(absl::AnyInvocable<void()> task) {
  std::promise<void> done;
  main_.Post([&] {
    task();
    done.set_value();
  });
  done.get_future().get();
}

absl::Status ReplicaNode::AddGroup(PartitionId group, const replication::GroupSetup& setup) {
  absl::Status status;
  Run([&] {
    auto& machine = machines_[group];
    machine = std::make_unique<PositionMachine>();
    status =
        host_->AddGroup(group, setup, machine.get(), &main_, cluster::TakeStream(recovery_, group));
  });
  return status;
}

void ReplicaNode::BeginAsync(absl::AnyInvocable<void(absl::Status)> done) {
  main_.Post([this, done = std::move(done)]() mutable {
    host_->Start(cluster::TakeStream(recovery_, PartitionId{0}), std::move(done));
    recovery_ = {};
  });
}

absl::Status ReplicaNode::Begin() {
  std::promise<absl::Status> started;
  BeginAsync([&](absl::Status status) { started.set_value(std::move(status)); });
  return started.get_future().get();
}

void ReplicaNode::Hang(bool hang) { hanging_disk_->Hang(hang); }

uint64_t ReplicaNode::group_messages() const { return transport_->group_messages(); }

replication::Configuration MembersOn(const std::vector<NodeId>& nodes) {
  replication::Configuration configuration;
  for (NodeId node : nodes) {
    configuration.members.push_back(
        {.replica = ReplicaId{configuration.members.size() + 1}, .node = node});
  }
  return configuration;
}

}  // namespace dynlib::bench
