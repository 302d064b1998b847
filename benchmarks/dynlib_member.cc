#include "benchmarks/dynlib_member.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <future>
#include <utility>

#include "benchmarks/member_processes.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/runtime/tcp/tcp_transport.h"

namespace dynlib::bench {
namespace {

constexpr char kMemberFlag[] = "--serve-as-member";

[[noreturn]] void Fail(const absl::Status& status) {
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  _exit(1);  // Other threads run: nothing may be destroyed under them.
}

NodeId PeerAt(size_t position) {
  return position < kDynlibMembers ? NodeId{position + 1} : kDynlibClient;
}

}  // namespace

cluster::ClusterConfig DynlibConfig() {
  cluster::ClusterConfig config;
  for (uint64_t i = 1; i <= kDynlibMembers; ++i) {
    config.nodes.push_back(
        {NodeId{i}, {.zone = Cat("zone-", i), .rack = Cat("rack-", i), .power = Cat("feed-", i)}});
    config.catalogue_nodes.push_back(NodeId{i});
  }
  return config;
}

absl::StatusOr<std::unique_ptr<DynlibMember>> DynlibMember::Start(
    NodeId id, const std::filesystem::path& folder, const MakeTransport& make_transport) {
  auto member = std::unique_ptr<DynlibMember>(new DynlibMember);
  DYNLIB_ASSIGN_OR_RETURN(member->transport_, make_transport(&member->loop_));
  DYNLIB_ASSIGN_OR_RETURN(member->disk_, PosixDisk::Open({.root = folder.string()}));
  cluster::StorageNodeOptions options;
  options.id = id;
  options.new_cluster = true;
  options.replication.seed = ToUint(id);
  options.admission.enabled = false;  // how fast it is, not how fast it may be
  DYNLIB_ASSIGN_OR_RETURN(
      member->node_, cluster::StorageNode::Open(options, DynlibConfig(),
                                                {.disk = member->disk_.get(),
                                                 .transport = member->transport_.get(),
                                                 .clock = &member->clock_,
                                                 .executor = member->loop_.executor(),
                                                 .log_executor = member->loop_.blocking_executor(),
                                                 .checkpoint_executor = &member->checkpoint_,
                                                 .apply_executor = &member->apply_}));
  std::promise<absl::Status> started;
  member->loop_.executor()->Post([&member = *member, &started] {
    member.node_->OnFatal(Fail);
    member.node_->Start([&](absl::Status status) { started.set_value(std::move(status)); });
  });
  DYNLIB_RETURN_IF_ERROR(started.get_future().get());
  return member;
}

DynlibMember::~DynlibMember() {
  loop_.ShutDown();
  for (ThreadExecutor* executor : {&checkpoint_, &apply_}) executor->ShutDown();
  node_ = nullptr;  // nothing of it runs any more
}

absl::StatusOr<std::unique_ptr<Transport>> LoopbackTransport(NodeId self,
                                                             const std::vector<int>& ports,
                                                             EventLoop* loop) {
  TcpTransport::Options options;
  options.self = self;
  options.loop = loop;
  for (size_t i = 0; i < ports.size(); ++i) {
    const std::string address = LoopbackAddress(ports[i]);
    if (PeerAt(i) == self) {
      options.listen = address;
    } else {
      options.peers[PeerAt(i)] = address;
    }
  }
  return TcpTransport::Start(std::move(options));
}

std::vector<std::string> MemberArguments(NodeId id, const std::filesystem::path& folder,
                                         const std::vector<int>& ports) {
  std::vector<std::string> arguments = {"/proc/self/exe", kMemberFlag, Cat(id), folder.string()};
  for (const int port : ports) arguments.push_back(Cat(port));
  return arguments;
}

void ServeIfMember(int argc, char** argv) {
  if (argc < 5 || std::strcmp(argv[1], kMemberFlag) != 0) return;
  const NodeId id{std::strtoull(argv[2], nullptr, 10)};
  std::vector<int> ports;
  for (int i = 4; i < argc; ++i) ports.push_back(std::atoi(argv[i]));
  const auto member = DynlibMember::Start(
      id, argv[3], [&](EventLoop* loop) { return LoopbackTransport(id, ports, loop); });
  if (!member.ok()) Fail(member.status());
  std::fputs(kMemberReady, stdout);
  std::fflush(stdout);
  while (true) pause();
}

}  // namespace dynlib::bench
