#include "benchmarks/etcd_cluster.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "benchmarks/cleanup.h"
#include "benchmarks/etcd_rpc.grpc.pb.h"
#include "benchmarks/load.h"
#include "benchmarks/member_processes.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::bench {
namespace {

constexpr int kMembers = 3;
constexpr uint64_t kStartLimitNs = 30'000'000'000;

class EtcdCluster {
 public:
  absl::Status Start(const std::filesystem::path& folder) {
    folder_ = folder;
    DYNLIB_ASSIGN_OR_RETURN(ports_, FreePorts(2 * kMembers));
    for (int member = 0; member < kMembers; ++member) {
      DYNLIB_ASSIGN_OR_RETURN(ChildProcess process,
                              ChildProcess::Start(Arguments(member), Output(member)));
      processes_.push_back(std::move(process));
    }
    return AwaitLeader();
  }

  const std::string& leader() const { return leader_; }

 private:
  int ClientPort(int member) const { return ports_[static_cast<size_t>(2 * member)]; }
  int PeerPort(int member) const { return ports_[static_cast<size_t>(2 * member + 1)]; }
  std::string Output(int member) const { return (folder_ / Cat("m", member, ".log")).string(); }

  std::vector<std::string> Arguments(int member) const {
    std::string cluster;
    for (int other = 0; other < kMembers; ++other) {
      cluster +=
          Cat(other == 0 ? "" : ",", "m", other, "=http://", LoopbackAddress(PeerPort(other)));
    }
    const std::string client_url = Cat("http://", LoopbackAddress(ClientPort(member)));
    const std::string peer_url = Cat("http://", LoopbackAddress(PeerPort(member)));
    return {"etcd",
            Cat("--name=m", member),
            Cat("--data-dir=", (folder_ / Cat("m", member)).string()),
            "--listen-client-urls=" + client_url,
            "--advertise-client-urls=" + client_url,
            "--listen-peer-urls=" + peer_url,
            "--initial-advertise-peer-urls=" + peer_url,
            "--initial-cluster=" + cluster,
            "--initial-cluster-state=new",
            "--logger=zap",
            "--log-level=error"};
  }

  absl::Status AwaitLeader() {
    std::vector<std::unique_ptr<etcdserverpb::Maintenance::Stub>> stubs;
    for (int member = 0; member < kMembers; ++member) {
      stubs.push_back(etcdserverpb::Maintenance::NewStub(grpc::CreateChannel(
          LoopbackAddress(ClientPort(member)), grpc::InsecureChannelCredentials())));
    }
    const uint64_t limit_ns = NowNs() + kStartLimitNs;
    while (NowNs() < limit_ns) {
      for (int member = 0; member < kMembers; ++member) {
        if (!processes_[static_cast<size_t>(member)].Running()) {
          return absl::UnavailableError(Cat("etcd ended: ", Tail(Output(member))));
        }
        if (Leads(*stubs[static_cast<size_t>(member)])) {
          leader_ = LoopbackAddress(ClientPort(member));
          return absl::OkStatus();
        }
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return absl::DeadlineExceededError(Cat("etcd chose no leader: ", Tail(Output(0))));
  }

  static bool Leads(etcdserverpb::Maintenance::Stub& stub) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(500));
    context.set_wait_for_ready(true);
    etcdserverpb::StatusResponse response;
    const bool ok = stub.Status(&context, {}, &response).ok();
    return ok && response.leader() != 0 && response.leader() == response.header().member_id();
  }

  std::filesystem::path folder_;
  std::vector<int> ports_;
  std::vector<ChildProcess> processes_;
  std::string leader_;
};

// Puts in flight, one a client; each that ends begins the next.
class PutLoop {
 public:
  PutLoop(const std::string& address, int clients, size_t value_bytes) : stream_(0, value_bytes) {
    // Connections of their own, as etcd's benchmark tool gives its clients; a channel's pool would
    // join them otherwise.
    const int connections = std::min(clients, 16);
    for (int i = 0; i < connections; ++i) {
      grpc::ChannelArguments arguments;
      arguments.SetInt("dynlib.connection", i);
      arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
      stubs_.push_back(etcdserverpb::KV::NewStub(
          grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments)));
    }
    calls_.resize(static_cast<size_t>(clients));
  }

  absl::StatusOr<RunResult> Run(double seconds) {
    const uint64_t begin_ns = NowNs() + static_cast<uint64_t>(WarmUpSeconds(seconds) * 1e9);
    const uint64_t end_ns = begin_ns + static_cast<uint64_t>(seconds * 1e9);
    for (size_t client = 0; client < calls_.size(); ++client) Begin(client);
    RunResult result;
    grpc::Status error;
    size_t in_flight = calls_.size();
    void* tag = nullptr;
    for (bool ok = false; in_flight > 0 && queue_.Next(&tag, &ok);) {
      const size_t client = reinterpret_cast<size_t>(tag);
      const Call& call = *calls_[client];
      const uint64_t now_ns = NowNs();
      if (!call.status.ok()) error = call.status;
      if (now_ns >= begin_ns && now_ns < end_ns)
        result.latencies_ns.push_back(now_ns - call.begin_ns);
      if (now_ns < end_ns && error.ok()) {
        Begin(client);
      } else {
        --in_flight;
      }
    }
    if (!error.ok()) return absl::UnavailableError(Cat("etcd: ", error.error_message()));
    result.seconds = seconds;
    result.operations = result.latencies_ns.size();
    return result;
  }

 private:
  struct Call {
    grpc::ClientContext context;
    etcdserverpb::PutResponse response;
    grpc::Status status;
    std::unique_ptr<grpc::ClientAsyncResponseReader<etcdserverpb::PutResponse>> reader;
    uint64_t begin_ns = 0;
  };

  void Begin(size_t client) {
    etcdserverpb::PutRequest request;
    request.set_key(std::string(stream_.NextKey()));
    request.set_value(std::string(stream_.NextValue()));
    calls_[client] = std::make_unique<Call>();
    Call& call = *calls_[client];
    call.context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    call.begin_ns = NowNs();
    call.reader = stubs_[client % stubs_.size()]->AsyncPut(&call.context, request, &queue_);
    call.reader->Finish(&call.response, &call.status, reinterpret_cast<void*>(client));
  }

  PutStream stream_;
  std::vector<std::unique_ptr<etcdserverpb::KV::Stub>> stubs_;
  std::vector<std::unique_ptr<Call>> calls_;
  grpc::CompletionQueue queue_;
};

}  // namespace

Runner EtcdPuts(int clients, size_t value_bytes) {
  return [=](const RunContext& context) -> absl::StatusOr<RunResult> {
    EtcdCluster cluster;
    DYNLIB_RETURN_IF_ERROR(cluster.Start(context.folder));
    return PutLoop(cluster.leader(), clients, value_bytes).Run(context.seconds);
  };
}

}  // namespace dynlib::bench
