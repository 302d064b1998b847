// A table of items: a storage node and a router, with conditional writes and a query. In the
// simulator, so that the program is short; examples/mini_cluster runs the same classes on threads,
// files and three zones.
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "dynlib/cluster/router.h"
#include "dynlib/cluster/service.h"
#include "dynlib/cluster/storage_node.h"
#include "dynlib/cluster/table_admin.h"
#include "dynlib/sim/world.h"

int main() {
  using namespace dynlib;  // An example's liberty.
  using namespace dynlib::cluster;

  sim::World world(/*seed=*/1);
  sim::Node* node = world.AddNode(NodeId{1});
  const ClusterConfig config{.nodes = {{NodeId{1}, {.zone = "a"}}}, .catalogue_nodes = {NodeId{1}}};
  auto storage = StorageNode::Open({.id = NodeId{1}, .new_cluster = true}, config,
                                   {.disk = node->disk(),
                                    .transport = node->transport(),
                                    .clock = node->clock(),
                                    .executor = node->NewExecutor("main"),
                                    .log_executor = node->NewBlockingExecutor("log"),
                                    .checkpoint_executor = node->NewBlockingExecutor("checkpoint"),
                                    .apply_executor = node->NewBlockingExecutor("apply")});
  if (!storage.ok()) return 1;
  (*storage)->Start([](absl::Status) {});

  sim::Node* client = world.AddNode(NodeId{100});
  Executor* executor = client->NewExecutor("client");
  Rpc rpc({}, client->transport(), kRpcChannel, executor, client->clock());
  Router router({.client = ClientId{7}, .catalogue_nodes = config.catalogue_nodes}, &rpc, executor,
                client->clock());
  TableAdmin admin(config, {.client = ClientId{8}, .catalogue_nodes = config.catalogue_nodes}, &rpc,
                   executor, client->clock());

  // Starts something on the client's executor, and runs the world until it is answered.
  auto run = [&](auto start) {
    std::optional<absl::Status> answer;
    executor->Post([&] { start([&](absl::Status status) { answer = status; }); });
    world.RunUntil([&] { return answer.has_value(); }, std::chrono::seconds(60));
    return answer.value_or(absl::DeadlineExceededError("no answer"));
  };
  const TableSchema schema{.partition_key = {"artist", KeyType::kString},
                           .sort_key = KeyAttribute{"song", KeyType::kString}};
  absl::Status status =
      run([&](auto done) { admin.CreateTable({.name = "music", .schema = schema}, done); });
  for (const char* song : {"Cry", "Call Me Today", "Dust"}) {
    Item item;
    item["artist"] = Value::String("The Acme Band");
    item["song"] = Value::String(song);
    item["plays"] = Value::Number(0);
    if (status.ok()) status = run([&](auto done) { router.Put("music", item, {}, done); });
  }
  // Only if nobody wrote that song before.
  Item again;
  again["artist"] = Value::String("The Acme Band");
  again["song"] = Value::String("Dust");
  const absl::Status refused = run([&](auto done) {
    router.Put("music", again, Condition{{{"song", Clause::Op::kNotExists}}}, done);
  });
  std::printf("create if absent: %s\n", refused.ToString().c_str());

  QueryPage page;
  const Query query{.table = "music",
                    .partition = Value::String("The Acme Band"),
                    .sort = SortCondition::BeginsWith(Value::String("C"))};
  const absl::Status queried = run([&](auto done) {
    router.RunQuery(query, [&page, done](absl::StatusOr<QueryPage> result) {
      if (result.ok()) page = *std::move(result);
      done(result.status());
    });
  });
  for (const Item& item : page.items) std::printf("%s\n", item.at("song").string().c_str());
  world.CrashAll();
  return status.ok() && queried.ok() && absl::IsAborted(refused) && page.items.size() == 2 ? 0 : 1;
}
