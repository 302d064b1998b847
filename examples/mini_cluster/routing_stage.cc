#include "examples/mini_cluster/routing_stage.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/router_options.h"
#include "examples/mini_cluster/latencies.h"
#include "examples/mini_cluster/report.h"
#include "examples/mini_cluster/wait.h"

namespace dynlib::mini_cluster {
namespace {

constexpr Duration kForgetEvery = std::chrono::milliseconds(20);
constexpr Duration kPoll = std::chrono::milliseconds(20);
constexpr Duration kLearnLimit = std::chrono::seconds(30);

struct Counts {
  uint64_t requests = 0;  // that the routers got
  uint64_t look_ups = 0;  // that the metadata nodes got
};

absl::StatusOr<Counts> CountAll(const Stage& stage) {
  Counts counts;
  for (Client* client : stage.clients)
    counts.requests += static_cast<uint64_t>(client->Counted("router.requests"));
  DYNLIB_ASSIGN_OR_RETURN(const Client::MetadataState state, stage.client().GetMetadataState());
  counts.look_ups = state.look_ups;
  return counts;
}

// Over stage.pace; with routers that are made to forget again and again, if `cold`.
absl::StatusOr<Counts> Measure(const Stage& stage, bool cold) {
  DYNLIB_ASSIGN_OR_RETURN(const Counts before, CountAll(stage));
  const Instant end = stage.Now() + stage.pace;
  while (stage.Now() < end) {
    if (cold) {
      for (Client* client : stage.clients)
        RunThere(client->executor(), [&] { client->router().ForgetRoutes(); });
    }
    std::this_thread::sleep_for(kForgetEvery);
  }
  DYNLIB_ASSIGN_OR_RETURN(const Counts after, CountAll(stage));
  return Counts{after.requests - before.requests, after.look_ups - before.look_ups};
}

void SayCounts(const Stage& stage, const char* name, const Counts& counts) {
  const double each = static_cast<double>(counts.look_ups) /
                      static_cast<double>(std::max<uint64_t>(counts.requests, 1));
  const double fan_out = static_cast<double>(cluster::RouterOptions().look_up_fan_out);
  Say("            ", name, " caches: ", WithCommas(counts.requests), " requests, ",
      WithCommas(counts.look_ups), " look-ups came to the metadata nodes: ", Decimals(each, 3),
      " a request",
      stage.switches.cache ? Cat(", ", Decimals(each / fan_out, 3), " of the fan-out of ",
                                 cluster::RouterOptions().look_up_fan_out)
                           : "");
}

absl::Status ShowWithoutMetadata(Stage& stage) {
  DYNLIB_ASSIGN_OR_RETURN(const Client::MetadataState full, stage.client().GetMetadataState());
  const size_t failures = stage.load.Failures().size();
  const Instant off = stage.Now();
  uint64_t before = 0;
  uint64_t after = 0;
  stage.cluster.StopMetadata();
  for (Client* client : stage.clients)
    before += static_cast<uint64_t>(client->Counted("router.requests"));
  std::this_thread::sleep_for(stage.pace);
  for (Client* client : stage.clients)
    after += static_cast<uint64_t>(client->Counted("router.requests"));
  const size_t failed = stage.load.Failures().size() - failures;
  const Duration away = stage.Now() - off;
  DYNLIB_RETURN_IF_ERROR(stage.cluster.StartMetadata());
  const Instant on = stage.Now();
  while (true) {
    DYNLIB_ASSIGN_OR_RETURN(const Client::MetadataState state, stage.client().GetMetadataState());
    if (state.partitions_min >= full.partitions_min && state.tables_min >= full.tables_min) break;
    if (stage.Now() - on > kLearnLimit) {
      return absl::DeadlineExceededError(Cat("a metadata node that came back knows ",
                                             state.partitions_min, " of ", full.partitions_min,
                                             " partitions after ", Seconds(kLearnLimit)));
    }
    std::this_thread::sleep_for(kPoll);
  }
  Say("            all metadata nodes off for ", Seconds(away), ": ", WithCommas(after - before),
      " requests went on from the caches, ", failed, " failed; back, they had heard of all ",
      full.partitions_min, " partitions after ", Seconds(stage.Now() - on));
  return absl::OkStatus();
}

}  // namespace

absl::Status ShowRouting(Stage& stage) {
  Progress("routing: caches cold, then warm, then no metadata nodes");
  DYNLIB_ASSIGN_OR_RETURN(const Counts cold, Measure(stage, true));
  DYNLIB_ASSIGN_OR_RETURN(const Counts warm, Measure(stage, false));
  Say("routing     ", stage.clients.size(), " routers with ",
      stage.switches.cache ? "constant-work" : "conventional", " caches, ",
      stage.cluster.config().metadata_nodes.size(), " metadata nodes");
  SayCounts(stage, "cold", cold);
  SayCounts(stage, "warm", warm);
  if (!stage.switches.cache) {
    Say("            without the constant-work cache metadata nodes see a fraction of the requests "
        "on quiet days, and all at once when routers are new");
  }
  return ShowWithoutMetadata(stage);
}

}  // namespace dynlib::mini_cluster
