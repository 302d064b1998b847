#include "benchmarks/group_node.h"

#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <future>
#include <thread>
#include <utility>

#include "benchmarks/member_processes.h"
#include "dynlib/base/check.h"
#include "dynlib/base/coding.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/runtime/tcp/tcp_transport.h"

namespace dynlib::bench {
namespace {

constexpr char kNodeFlag[] = "--serve-as-group-node";
constexpr size_t kAppendBytesMax = 4 << 20;
constexpr uint32_t kSegmentBytes = 64 << 20;
constexpr uint64_t kSparesMax = 16;

[[noreturn]] void Fail(const absl::Status& status) {
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  _exit(1);  // Other threads run: nothing may be destroyed under them.
}

replication::Configuration Members() {
  replication::Configuration configuration;
  for (uint64_t i = 1; i <= kGroupNodes; ++i)
    configuration.members.push_back({.replica = ReplicaId{i}, .node = NodeId{i}});
  return configuration;
}

// Runs it on the executor and waits for the status that it gives.
absl::Status Await(Executor* executor,
                   absl::AnyInvocable<void(absl::AnyInvocable<void(absl::Status)>)> start) {
  std::promise<absl::Status> ended;
  executor->Post([&] { start([&](absl::Status status) { ended.set_value(std::move(status)); }); });
  return ended.get_future().get();
}

}  // namespace

std::string EncodePropose(const ProposeRequest& request) {
  std::string out;
  out.reserve(40 + request.command.command.size() + 32);  // and what rpc puts behind it
  PutFixed64(out, ToUint(request.group));
  PutFixed64(out, ToUint(request.command.client));
  PutFixed64(out, request.command.sequence);
  PutFixed64(out, request.command.acknowledged);
  PutFixed64(out, static_cast<uint64_t>(request.command.issued.nanos()));
  out.append(request.command.command);
  return out;
}

ProposeRequest DecodePropose(std::string_view bytes) {
  ByteReader in(bytes);
  ProposeRequest request;
  request.group = PartitionId{in.Fixed64()};
  request.command.client = ClientId{in.Fixed64()};
  request.command.sequence = in.Fixed64();
  request.command.acknowledged = in.Fixed64();
  request.command.issued = WallTime::FromNanos(static_cast<int64_t>(in.Fixed64()));
  request.command.command = in.rest();
  return request;
}

absl::StatusOr<std::unique_ptr<GroupNode>> GroupNode::Start(NodeId id,
                                                            const std::filesystem::path& folder,
                                                            const Options& options,
                                                            const MakeTransport& make_transport) {
  auto node = std::unique_ptr<GroupNode>(new GroupNode(id));
  DYNLIB_ASSIGN_OR_RETURN(node->transport_, make_transport(&node->loop_));
  DYNLIB_RETURN_IF_ERROR(node->Open(folder, options));
  return node;
}

GroupNode::~GroupNode() {
  loop_.ShutDown();
  // Nothing of it runs any more.
  rpc_ = nullptr;
  host_ = nullptr;
  log_ = nullptr;
}

absl::Status GroupNode::Open(const std::filesystem::path& folder, const Options& options) {
  DYNLIB_ASSIGN_OR_RETURN(disk_, PosixDisk::Open({.root = folder.string()}));
  store::NodeLog::Options log_options;
  log_options.identity = ToUint(id_);
  log_options.max_batch_bytes = kAppendBytesMax;
  log_options.segment_bytes = kSegmentBytes;
  const uint64_t segments = options.prepared_bytes / kSegmentBytes + 1;
  const auto spares = static_cast<uint32_t>(std::clamp<uint64_t>(segments, 3, kSparesMax));
  log_options.spare_segments = log_options.spares_at_open = spares;
  if (segments <= kSparesMax) {  // All that there will be.
    log_options.max_segments = spares + 1;
    log_options.copy_forward_above = spares - 2;
  }
  store::NodeLog::Recovery recovery;
  DYNLIB_ASSIGN_OR_RETURN(
      log_, store::NodeLog::Open(log_options, disk_.get(), "log", loop_.blocking_executor(),
                                 &clock_, MetricsSink::None(), &recovery));
  for (int i = 0; i < 10'000 && log_->GetStats().segments_spare < spares; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  replica_log_ = std::make_unique<cluster::NodeLogAdapter>(log_.get(), kAppendBytesMax,
                                                           loop_.executor(), [](size_t) {});
  return Await(loop_.executor(), [&](auto done) {
    replication::HostOptions host_options;
    host_options.seed = ToUint(id_);
    host_options.entry_memory_kept = host_options.entry_memory_at_start = options.prepared_bytes;
    host_ = std::make_unique<replication::GroupHost>(host_options, id_, transport_.get(),
                                                     kReplicationChannel, replica_log_.get(),
                                                     loop_.executor(), &clock_);
    if (absl::Status added = AddGroups(recovery, options); !added.ok()) return done(added);
    host_->OnFatal(Fail);
    Serve();
    host_->Start(cluster::TakeStream(recovery, PartitionId{0}), std::move(done));
  });
}

absl::Status GroupNode::AddGroups(store::NodeLog::Recovery& recovery, const Options& options) {
  constexpr size_t kPairBytes = 1000;
  const size_t pairs = options.prepared_bytes / kPairBytes / static_cast<uint64_t>(options.groups);
  arena_ = std::make_unique<Arena>(options.prepared_bytes);
  for (int i = 1; i <= options.groups; ++i) {
    const PartitionId group{static_cast<uint64_t>(i)};
    maps_.push_back(std::make_unique<ReplicatedMap>(pairs, arena_.get()));
    DYNLIB_RETURN_IF_ERROR(host_->AddGroup(
        group, {.configuration = Members(), .self = ReplicaId{ToUint(id_)}}, maps_.back().get(),
        loop_.executor(), cluster::TakeStream(recovery, group)));
  }
  return absl::OkStatus();
}

void GroupNode::Serve() {
  rpc_ = std::make_unique<Rpc>(Rpc::Options{}, transport_.get(), kClientChannel, loop_.executor(),
                               &clock_);
  rpc_->Handle(kPropose, [this](NodeId, Instant, std::string bytes, Rpc::Reply reply) {
    ProposeRequest request = DecodePropose(bytes);
    host_->Propose(request.group, std::move(request.command),
                   [reply = std::move(reply)](replication::ProposalResult result) mutable {
                     if (!result.status.ok()) return reply(std::move(result.status));
                     reply(std::move(result.result));
                   });
  });
}

void KeepFreedMemory() {
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  mallopt(M_TOP_PAD, 16 << 20);
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
}

absl::StatusOr<std::unique_ptr<Transport>> GroupTransport(NodeId self,
                                                          const std::vector<int>& ports,
                                                          EventLoop* loop) {
  TcpTransport::Options options;
  options.self = self;
  options.loop = loop;
  for (size_t i = 0; i < ports.size(); ++i) {
    const std::string address = LoopbackAddress(ports[i]);
    const NodeId node = i < kGroupNodes ? NodeId{i + 1} : kGroupClient;
    if (node == self) {
      options.listen = address;
    } else {
      options.peers[node] = address;
    }
  }
  return TcpTransport::Start(std::move(options));
}

std::vector<std::string> GroupNodeArguments(NodeId id, const std::filesystem::path& folder,
                                            uint64_t prepared_bytes,
                                            const std::vector<int>& ports) {
  std::vector<std::string> arguments = {"/proc/self/exe", kNodeFlag, Cat(id), folder.string(),
                                        Cat(prepared_bytes)};
  for (const int port : ports) arguments.push_back(Cat(port));
  return arguments;
}

void ServeIfGroupNode(int argc, char** argv) {
  if (argc < 6 || std::strcmp(argv[1], kNodeFlag) != 0) return;
  KeepFreedMemory();
  const NodeId id{std::strtoull(argv[2], nullptr, 10)};
  std::vector<int> ports;
  for (int i = 5; i < argc; ++i) ports.push_back(std::atoi(argv[i]));
  const auto node = GroupNode::Start(
      id, argv[3], {.groups = 1, .prepared_bytes = std::strtoull(argv[4], nullptr, 10)},
      [&](EventLoop* loop) { return GroupTransport(id, ports, loop); });
  if (!node.ok()) Fail(node.status());
  std::fputs(kMemberReady, stdout);
  std::fflush(stdout);
  while (true) pause();
}

}  // namespace dynlib::bench
