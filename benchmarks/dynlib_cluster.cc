#include "benchmarks/dynlib_cluster.h"

#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "benchmarks/dynlib_member.h"
#include "benchmarks/load.h"
#include "benchmarks/member_processes.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/item.h"
#include "dynlib/cluster/router.h"
#include "dynlib/cluster/router_options.h"
#include "dynlib/cluster/service.h"
#include "dynlib/cluster/table_admin.h"
#include "dynlib/cluster/table_schema.h"
#include "dynlib/runtime/local/local_network.h"
#include "dynlib/runtime/posix/event_loop.h"
#include "dynlib/runtime/posix/system_clock.h"
#include "dynlib/runtime/rpc.h"
#include "dynlib/runtime/transport.h"

namespace dynlib::bench {
namespace {

constexpr char kTable[] = "bench";
constexpr char kKey[] = "key";
constexpr char kValue[] = "value";

// A router on a transport of its own, and puts in flight: each that ends begins the next.
class Client {
 public:
  Client(int clients, size_t value_bytes) : clients_(clients), stream_(0, value_bytes) {}
  // First: with a transport on this client's loop.
  void Start(std::unique_ptr<Transport> transport) {
    transport_ = std::move(transport);
    RunThere([this] {
      rpc_ = std::make_unique<Rpc>(Rpc::Options{}, transport_.get(), cluster::kRpcChannel,
                                   loop_.executor(), &clock_);
      cluster::RouterOptions options;
      options.catalogue_nodes = DynlibConfig().catalogue_nodes;
      options.client = ClientId{1};
      options.attempt_timeout = std::chrono::milliseconds(300);
      admin_ = std::make_unique<cluster::TableAdmin>(DynlibConfig(), options, rpc_.get(),
                                                     loop_.executor(), &clock_);
      options.client = ClientId{2};
      options.attempt_timeout = std::chrono::seconds(2);
      router_ = std::make_unique<cluster::Router>(options, rpc_.get(), loop_.executor(), &clock_);
    });
  }

  EventLoop* loop() { return &loop_; }

  ~Client() {
    RunThere([this] {
      admin_ = nullptr;
      router_ = nullptr;
      rpc_ = nullptr;
    });
    loop_.ShutDown();
  }

  // Makes the table, and puts an item: then it has a leader, and the router knows it.
  absl::Status Prepare() {
    const absl::Status made = Await([this](auto done) {
      admin_->CreateTable(
          {.name = kTable,
           .schema = {.partition_key = {kKey, cluster::KeyType::kString}, .sort_key = std::nullopt},
           .partitions = 1},
          std::move(done));
    });
    DYNLIB_RETURN_IF_ERROR(made);
    return Await([this](auto done) { router_->Put(kTable, NextItem(), {}, std::move(done)); });
  }

  absl::StatusOr<RunResult> Run(double seconds) {
    begin_ns_ = NowNs() + static_cast<uint64_t>(WarmUpSeconds(seconds) * 1e9);
    end_ns_ = begin_ns_ + static_cast<uint64_t>(seconds * 1e9);
    const absl::Status status = Await([this](auto done) {
      done_ = std::move(done);
      in_flight_ = clients_;
      for (int i = 0; i < clients_; ++i) Begin();
    });
    DYNLIB_RETURN_IF_ERROR(status);
    RunResult result;
    result.latencies_ns = std::move(latencies_ns_);
    result.seconds = seconds;
    result.operations = result.latencies_ns.size();
    return result;
  }

 private:
  using Done = absl::AnyInvocable<void(absl::Status)>;

  absl::Status Await(absl::AnyInvocable<void(Done)> start) {
    std::promise<absl::Status> ended;
    loop_.executor()->Post(
        [&] { start([&](absl::Status status) { ended.set_value(std::move(status)); }); });
    return ended.get_future().get();
  }

  void RunThere(absl::AnyInvocable<void()> function) {
    Await([&](Done done) {
      function();
      done(absl::OkStatus());
    }).IgnoreError();
  }

  // The rest runs on the loop.

  cluster::Item NextItem() {
    cluster::Item item;
    item[kKey] = cluster::Value::String(std::string(stream_.NextKey()));
    item[kValue] = cluster::Value::Binary(std::string(stream_.NextValue()));
    return item;
  }

  void Begin() {
    cluster::Item item = NextItem();
    router_->Put(kTable, std::move(item), {}, [this, began_ns = NowNs()](absl::Status status) {
      OnPut(began_ns, std::move(status));
    });
  }

  void OnPut(uint64_t began_ns, absl::Status status) {
    const uint64_t now_ns = NowNs();
    if (!status.ok()) error_ = std::move(status);
    if (now_ns >= begin_ns_ && now_ns < end_ns_) latencies_ns_.push_back(now_ns - began_ns);
    if (now_ns < end_ns_ && error_.ok()) return Begin();
    if (--in_flight_ == 0) done_(error_);
  }

  const int clients_;
  const SystemClock clock_;
  EventLoop loop_{{.name = "client"}};
  std::unique_ptr<Transport> transport_;
  std::unique_ptr<Rpc> rpc_;
  std::unique_ptr<cluster::TableAdmin> admin_;
  std::unique_ptr<cluster::Router> router_;

  uint64_t begin_ns_ = 0;
  uint64_t end_ns_ = 0;
  PutStream stream_;
  int in_flight_ = 0;
  std::vector<uint64_t> latencies_ns_;
  absl::Status error_;
  Done done_;
};

absl::StatusOr<RunResult> PrepareAndRun(Client& client, double seconds) {
  DYNLIB_RETURN_IF_ERROR(client.Prepare());
  return client.Run(seconds);
}

}  // namespace

Runner DynlibPuts(int clients, size_t value_bytes) {
  return [=](const RunContext& context) -> absl::StatusOr<RunResult> {
    DYNLIB_ASSIGN_OR_RETURN(const std::vector<int> ports, FreePorts(kDynlibMembers + 1));
    std::vector<std::vector<std::string>> commands;
    for (uint64_t id = 1; id <= kDynlibMembers; ++id)
      commands.push_back(MemberArguments(NodeId{id}, context.folder / Cat("node-", id), ports));
    MemberProcesses members;
    DYNLIB_RETURN_IF_ERROR(members.Start(context.folder, commands));
    Client client(clients, value_bytes);
    DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<Transport> transport,
                            LoopbackTransport(kDynlibClient, ports, client.loop()));
    client.Start(std::move(transport));
    auto result = PrepareAndRun(client, context.seconds);
    DYNLIB_RETURN_IF_ERROR(members.CheckAll(result.status()));
    return result;
  };
}

Runner DynlibLocalPuts(int clients, size_t value_bytes) {
  return [=](const RunContext& context) -> absl::StatusOr<RunResult> {
    LocalNetwork network({});
    std::vector<std::unique_ptr<DynlibMember>> members;
    for (uint64_t id = 1; id <= kDynlibMembers; ++id) {
      DYNLIB_ASSIGN_OR_RETURN(
          std::unique_ptr<DynlibMember> member,
          DynlibMember::Start(NodeId{id}, context.folder / Cat("node-", id),
                              [&](EventLoop*) -> absl::StatusOr<std::unique_ptr<Transport>> {
                                return network.Attach(NodeId{id});
                              }));
      members.push_back(std::move(member));
    }
    Client client(clients, value_bytes);
    client.Start(network.Attach(kDynlibClient));
    return PrepareAndRun(client, context.seconds);
  };
}

}  // namespace dynlib::bench
