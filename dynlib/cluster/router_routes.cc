#include "dynlib/cluster/router_routes.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "dynlib/base/strings.h"
#include "dynlib/cache/entry.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/service.h"

namespace dynlib::cluster {
namespace {

constexpr Duration kAbsentLifetime = std::chrono::milliseconds(1);
constexpr Duration kDenyAfter = std::chrono::seconds(5);
constexpr size_t kIntentsMin = 1000;

cache::CacheOptions CacheOptionsFor(const RouterOptions& options) {
  cache::CacheOptions result;
  result.servers = std::max<size_t>(options.metadata_nodes.size(), 1);
  result.fan_out = std::min(options.look_up_fan_out, result.servers);
  result.max_entries = options.max_routes;
  result.max_in_flight = std::max(kIntentsMin, options.max_in_flight);
  result.refresh_timeout = options.look_up_timeout;
  // A new partition is not known for a moment: whoever waits for it asks again.
  result.absent_lifetime = kAbsentLifetime;
  const bool constant_work =
      !options.metadata_nodes.empty() && options.cache_mode == CacheMode::kConstantWork;
  result.deny_after = constant_work ? kDenyAfter : Duration(0);
  result.seed = options.seed;
  return result;
}

absl::StatusOr<partition_map::PartitionRecord> ParseReply(absl::StatusOr<std::string> result) {
  if (!result.ok()) return absl::UnavailableError(result.status().message());
  wire::LookUpReply reply;
  if (!reply.ParseFromString(*result)) return absl::DataLossError("the reply does not parse");
  if (reply.outcome().code() == 0) return partition_map::DecodePartitionRecord(reply.record());
  if (reply.outcome().code() == static_cast<int>(absl::StatusCode::kNotFound))
    return absl::NotFoundError(reply.outcome().message());
  return absl::UnavailableError(reply.outcome().message());
}

}  // namespace

RouterRoutes::RouterRoutes(const RouterOptions& options, Rpc* rpc, Executor* executor,
                           const Clock* clock, MetricsSink* metrics)
    : options_(options),
      cache_options_(CacheOptionsFor(options)),
      rpc_(rpc),
      executor_(executor),
      clock_(clock),
      metrics_(metrics),
      turn_(options.seed) {
  Forget();
}

void RouterRoutes::Forget() {
  if (options_.metadata_nodes.empty() || options_.cache_mode == CacheMode::kConventional) {
    index_ = std::make_shared<Index>(cache_options_);
    return;
  }
  cache_ = nullptr;
  cache_ = std::make_unique<Cache>(
      cache_options_, executor_, clock_,
      [this](size_t server, const RouteKey& key, Cache::FetchDone done) {
        LookUp(server, key, options_.look_up_timeout, std::move(done));
      },
      metrics_);
}

void RouterRoutes::LookUp(size_t server, const RouteKey& key, Duration timeout,
                          absl::AnyInvocable<void(absl::StatusOr<Record>)> done) {
  metrics_->Count("router.look_ups", 1);
  wire::LookUpRequest request;
  request.set_table(ToUint(key.table));
  request.set_key(key.key);
  const NodeId node = options_.metadata_nodes[server];
  rpc_->Call(node, kLookUp, request.SerializeAsString(), timeout,
             [done = std::move(done), node](absl::StatusOr<std::string> result) mutable {
               absl::StatusOr<Record> record = ParseReply(std::move(result));
               if (record.ok()) return done(*std::move(record));
               done(absl::Status(record.status().code(),
                                 Cat("node ", node, ": ", ToStd(record.status().message()))));
             });
}

std::optional<RouterRoutes::Result> RouterRoutes::Get(const RouteKey& key, Instant deadline,
                                                      Callback done) {
  if (cache_ == nullptr) {
    if (RecordPtr held = Held(key)) return Result(std::move(held));
    GetMissing(key, deadline, std::move(done));
    return std::nullopt;
  }
  auto unwrap = [](Cache::Result result) -> Result {
    if (!result.ok()) return result.status();
    return std::move(result->value);
  };
  std::optional<Cache::Result> now =
      cache_->Get(key, deadline, [unwrap, done = std::move(done)](Cache::Result result) mutable {
        done(unwrap(std::move(result)));
      });
  if (!now.has_value()) return std::nullopt;
  return unwrap(*std::move(now));
}

void RouterRoutes::GetMissing(const RouteKey& key, Instant deadline, Callback done) {
  const Duration left = std::max(deadline - clock_->Now(), Duration(0));
  LookUp(turn_++ % options_.metadata_nodes.size(), key, std::min(options_.look_up_timeout, left),
         [weak = std::weak_ptr<Index>(index_), key, clock = clock_,
          done = std::move(done)](absl::StatusOr<Record> record) mutable {
           std::shared_ptr<Index> index = weak.lock();
           if (index == nullptr) return done(absl::CancelledError("the routes were forgotten"));
           if (!record.ok()) return done(record.status());
           if (!Index::Covers(*record, key))
             return done(absl::UnavailableError("the answer was about another key"));
           const Instant now = clock->Now();
           auto taken = std::make_shared<const Record>(*std::move(record));
           index->Apply(taken, now);
           cache::Cached<RecordPtr> held;  // a hint may have been newer
           done(index->Find(key, &held) ? std::move(held.value) : std::move(taken));
         });
}

RouterRoutes::RecordPtr RouterRoutes::Held(const RouteKey& key) {
  if (cache_ == nullptr) {
    cache::Cached<RecordPtr> found;
    return index_->Find(key, &found) ? std::move(found.value) : nullptr;
  }
  auto held = cache_->Held(key);
  return held.has_value() ? std::move(held->value) : nullptr;
}

bool RouterRoutes::Learn(partition_map::PartitionRecord record) {
  if (options_.faults.stale_hint_accepted) Forget();
  auto value = std::make_shared<const Record>(std::move(record));
  if (cache_ != nullptr) return cache_->Apply(std::move(value));
  return index_->Apply(std::move(value), clock_->Now()).changed;
}

void RouterRoutes::Doubt(const RouteKey& key) {
  const Instant now = clock_->Now();
  if (cache_ == nullptr) index_->Deny(key, now, now);
}

}  // namespace dynlib::cluster
