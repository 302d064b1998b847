#include "examples/mini_cluster/setup.h"

#include <chrono>
#include <random>
#include <string>
#include <utility>

#include "dynlib/base/checksum.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/base/time.h"
#include "dynlib/cluster/catalogue.h"
#include "examples/mini_cluster/names.h"

namespace dynlib::mini_cluster {
namespace {

constexpr Duration kStartLimit = std::chrono::seconds(60);
constexpr uint64_t kFirstClient = 1000;

// Different in each run, whatever the seed: a client id is never used twice in a directory.
ClientId NewClientId() {
  std::random_device device;
  return ClientId{(uint64_t{device()} << 32 | device()) | 2};
}

cluster::TableSpec CountersSpec() {
  return {.name = kCountersTable,
          .schema = {.partition_key = {kCounterName, cluster::KeyType::kString}, .sort_key = {}},
          .partitions = kCounterPartitions};
}

}  // namespace

absl::StatusOr<Setup> SetUp(const RunOptions& options) {
  if (options.in_flight < 1 || options.in_flight > 4000) {
    return absl::InvalidArgumentError(
        Cat("--clients is ", options.in_flight, "; allowed: 1 to 4000"));
  }
  DYNLIB_RETURN_IF_ERROR(ValidateNodes(options.nodes));
  Setup setup;
  DYNLIB_ASSIGN_OR_RETURN(setup.data, DataSet::Open(options.data));
  setup.spec = {
      .name = kRecordsTable, .schema = setup.data.schema(), .partitions = options.partitions};
  // Says what is wrong with it.
  DYNLIB_RETURN_IF_ERROR(
      cluster::Validate(setup.spec, ConfigOf(options.nodes, /*metadata_nodes=*/0)));
  const Digest128 digest = setup.data.digest();
  setup.wanted = {.nodes = options.nodes,
                  .partitions = options.partitions,
                  .data = Cat(Hex(digest.high).substr(2), Hex(digest.low).substr(2)),
                  .loaded = 0};
  DYNLIB_ASSIGN_OR_RETURN(setup.found, ReadManifest(options.directory));
  if (setup.found.has_value())
    DYNLIB_RETURN_IF_ERROR(CheckManifest(options.directory, *setup.found, setup.wanted));
  return setup;
}

Clients::Clients(MiniCluster* cluster, const RunOptions& options, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    owned_.push_back(
        std::make_unique<Client>(cluster, Client::Options{.id = NodeId{kFirstClient + i},
                                                          .client = NewClientId(),
                                                          .max_in_flight = 4000,
                                                          .seed = options.seed + i,
                                                          .switches = options.switches}));
    all_.push_back(owned_.back().get());
  }
}

absl::Status CreateTables(Client& client, const cluster::ClusterConfig& config,
                          const cluster::TableSpec& records) {
  DYNLIB_RETURN_IF_ERROR(
      client.WaitUntilCaughtUp(cluster::CatalogueTable(config.catalogue_nodes), kStartLimit));
  DYNLIB_RETURN_IF_ERROR(client.CreateTable(records));
  DYNLIB_RETURN_IF_ERROR(client.CreateTable(CountersSpec()));
  for (const char* table : {kRecordsTable, kCountersTable})
    DYNLIB_RETURN_IF_ERROR(client.WaitUntilWhole(table, kStartLimit).status());
  return absl::OkStatus();
}

}  // namespace dynlib::mini_cluster
