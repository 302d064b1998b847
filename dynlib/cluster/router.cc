#include "dynlib/cluster/router.h"

#include <algorithm>
#include <cstddef>
#include <string_view>
#include <utility>

#include "dynlib/base/check.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/catalogue.h"
#include "dynlib/cluster/router_engine.h"
#include "dynlib/cluster/router_operation.h"
#include "dynlib/cluster/service.h"

namespace dynlib::cluster {
namespace {

constexpr size_t kBatchParallel = 16;

// The items of a batch, kBatchParallel of them under way at a time.
template <typename Result>
class Batch : public std::enable_shared_from_this<Batch<Result>> {
 public:
  using Done = absl::AnyInvocable<void(std::vector<Result>)>;
  // Makes the operation of the item at an index.
  using Make = absl::AnyInvocable<std::unique_ptr<RouterOperation>(
      size_t, absl::AnyInvocable<void(Result)>)>;

  Batch(size_t size, Make make, Done done)
      : results_(size, Result(absl::CancelledError("the router was destroyed"))),
        make_(std::move(make)),
        done_(std::move(done)) {}

  void Run(const std::shared_ptr<RouterEngine>& engine) {
    if (results_.empty()) return engine->Post([self = this->shared_from_this()] { self->End(); });
    engine_ = engine;
    for (size_t i = 0; i < std::min(kBatchParallel, results_.size()); ++i) StartNext(*engine);
  }

 private:
  void StartNext(RouterEngine& engine) {
    const size_t index = started_++;
    engine.Start(make_(index, [self = this->shared_from_this(), index](Result result) {
      self->OnResult(index, std::move(result));
    }));
  }

  void OnResult(size_t index, Result result) {
    results_[index] = std::move(result);
    finished_++;
    const std::shared_ptr<RouterEngine> engine = engine_.lock();
    if (engine == nullptr || engine->closed()) {
      // What was not started stays cancelled; what was started comes back here.
      if (finished_ == started_) End();
      return;
    }
    if (started_ < results_.size()) StartNext(*engine);
    if (finished_ == results_.size()) End();
  }

  void End() { done_(std::move(results_)); }

  std::vector<Result> results_;
  Make make_;
  Done done_;
  std::weak_ptr<RouterEngine> engine_;
  size_t started_ = 0;
  size_t finished_ = 0;
};

absl::Status CheckBatchSize(size_t size, size_t max) {
  if (size <= max) return absl::OkStatus();
  return absl::InvalidArgumentError(Cat("the batch has ", size, " items; allowed: up to ", max));
}

// Ends at once: what is wrong with an item of a batch.
class RefusedOperation final : public RouterOperation {
 public:
  RefusedOperation(absl::Status status, absl::AnyInvocable<void(absl::Status)> done)
      : RouterOperation(std::string(kCatalogueName), kWrite, true),
        status_(std::move(status)),
        done_(std::move(done)) {}
  absl::Status Prepare(const TableInfo&) override { return status_; }
  std::string EncodeRequest(PartitionId, const WriteStamp&) const override { return {}; }
  std::optional<Reply> DecodeReply(std::string_view) override { return std::nullopt; }
  void Finish(absl::Status status) override { done_(std::move(status)); }

 private:
  const absl::Status status_;
  absl::AnyInvocable<void(absl::Status)> done_;
};

}  // namespace

Router::Router(RouterOptions options, Rpc* rpc, Executor* executor, const Clock* clock,
               MetricsSink* metrics) {
  DYNLIB_CHECK(Validate(options).ok());
  engine_ = std::make_shared<RouterEngine>(std::move(options), rpc, executor, clock, metrics);
}

Router::~Router() { engine_->Close(); }

void Router::Put(std::string table, Item item, Condition condition, WriteCallback done) {
  engine_->Start(MakePut(std::move(table), std::move(item), std::move(condition), std::move(done)));
}

void Router::Delete(std::string table, PrimaryKey key, Condition condition, WriteCallback done) {
  engine_->Start(
      MakeDelete(std::move(table), std::move(key), std::move(condition), std::move(done)));
}

void Router::Get(std::string table, PrimaryKey key, Consistency consistency, GetCallback done) {
  engine_->Start(MakeGet(std::move(table), std::move(key), consistency, std::move(done)));
}

void Router::RunQuery(Query query, QueryCallback done) {
  engine_->Start(MakeQuery(std::move(query), std::move(done)));
}

void Router::BatchWrite(std::vector<BatchWriteItem> items, BatchWriteCallback done) {
  if (absl::Status status = CheckBatchSize(items.size(), engine_->options().max_batch);
      !status.ok()) {
    return engine_->Post([results = std::vector<absl::Status>(items.size(), status),
                          done = std::move(done)]() mutable { done(std::move(results)); });
  }
  const size_t size = items.size();
  std::make_shared<Batch<absl::Status>>(
      size,
      [items = std::move(items)](size_t index,
                                 WriteCallback one) mutable -> std::unique_ptr<RouterOperation> {
        BatchWriteItem& item = items[index];
        if (item.put.has_value() == item.erase.has_value()) {
          return std::make_unique<RefusedOperation>(
              absl::InvalidArgumentError(
                  Cat("item ", index, " of the batch needs either put or erase")),
              std::move(one));
        }
        if (item.put.has_value())
          return MakePut(std::move(item.table), *std::move(item.put), {}, std::move(one));
        return MakeDelete(std::move(item.table), *std::move(item.erase), {}, std::move(one));
      },
      std::move(done))
      ->Run(engine_);
}

void Router::BatchGet(std::vector<BatchGetItem> items, Consistency consistency,
                      BatchGetCallback done) {
  using One = absl::StatusOr<std::optional<Item>>;
  if (absl::Status status = CheckBatchSize(items.size(), engine_->options().max_batch);
      !status.ok()) {
    return engine_->Post([results = std::vector<One>(items.size(), One(status)),
                          done = std::move(done)]() mutable { done(std::move(results)); });
  }
  const size_t size = items.size();
  std::make_shared<Batch<One>>(
      size,
      [items = std::move(items), consistency](size_t index, GetCallback one) mutable {
        BatchGetItem& item = items[index];
        return MakeGet(std::move(item.table), std::move(item.key), consistency, std::move(one));
      },
      std::move(done))
      ->Run(engine_);
}

void Router::ReadCatalogue(std::string first, CatalogueCallback done) {
  engine_->Start(MakeCatalogueRead(std::move(first), std::move(done)));
}

std::optional<partition_map::PartitionRecord> Router::FindRoute(
    const std::string& table, const std::string& storage_key) const {
  return engine_->FindRoute(table, storage_key);
}

void Router::ForgetRoutes() { engine_->ForgetRoutes(); }

}  // namespace dynlib::cluster
