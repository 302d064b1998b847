#include "examples/mini_cluster/mixed_load.h"

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <set>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "dynlib/base/check.h"
#include "dynlib/base/random.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/condition.h"
#include "dynlib/cluster/decimal.h"
#include "dynlib/cluster/key.h"
#include "dynlib/cluster/retry_after.h"
#include "examples/mini_cluster/names.h"
#include "examples/mini_cluster/wait.h"

namespace dynlib::mini_cluster {
namespace {

constexpr uint64_t kCounters = 8;
constexpr size_t kFailuresMax = 10;

using cluster::Item;
using Found = absl::StatusOr<std::optional<Item>>;

Item CounterItem(const std::string& name, uint64_t value) {
  Item item;
  item[kCounterName] = cluster::Value::String(name);
  item[kCounterValue] = cluster::Value::Number(static_cast<int64_t>(value));
  return item;
}

uint64_t ValueOf(const std::optional<Item>& item) {
  if (!item.has_value()) return 0;
  return std::strtoull(item->at(kCounterValue).number().ToString().c_str(), nullptr, 10);
}

// The value is still what it was.
cluster::Condition Still(uint64_t value) {
  if (value == 0) return {{{kCounterName, cluster::Clause::Op::kNotExists, {}}}};
  return {{{kCounterValue, cluster::Clause::Op::kEqual,
            cluster::Value::Number(static_cast<int64_t>(value))}}};
}

}  // namespace

// Lives on the client's executor.
class MixedLoad::Impl : public std::enable_shared_from_this<MixedLoad::Impl> {
 public:
  Impl(Client* client, const cluster::TableInfo& table, const std::vector<SampleItem>& sample,
       const Options& options)
      : client_(client), options_(options), random_(options.seed) {
    DYNLIB_CHECK(!sample.empty());
    for (const SampleItem& item : sample) {
      absl::StatusOr<std::string> storage_key = cluster::EncodeItemKey(table.schema, item.item);
      DYNLIB_CHECK(storage_key.ok());
      sample_.push_back(
          {item, *cluster::KeyOf(table.schema, item.item), table.PartitionOf(*storage_key).id});
    }
  }

  void Start();
  void MarkFailure();
  bool WritesAgain(PartitionId partition) { return again_.contains(partition); }
  Duration LongestGap(PartitionId partition);
  std::vector<std::string> Failures() const { return report_.failures; }
  void Stop(absl::AnyInvocable<void(Report)> done);

 private:
  struct Sample {
    SampleItem item;
    cluster::PrimaryKey key;
    PartitionId partition;
  };
  struct Worker {
    size_t number = 0;
    std::string name;  // of its register
    int registers = 0;
    uint64_t value = 0;
  };

  Instant Now() const { return client_->clock().Now(); }
  void Next(size_t worker);
  void Begin(size_t worker);
  void Overwrite(size_t worker);
  void Read(size_t worker);
  void Register(size_t worker);
  void Increment(size_t worker);
  void IncrementFrom(size_t worker, const std::string& name, uint64_t value);
  void NewRegister(Worker& worker);
  void Put(const char* table, Item item, cluster::Condition condition,
           absl::AnyInvocable<void(absl::Status)> done);
  void Get(const char* table, cluster::PrimaryKey key, absl::AnyInvocable<void(Found)> done);
  void NoteAcknowledged(PartitionId partition, Instant begun);
  void NoteGap(PartitionId partition, Instant since, Instant until);
  void Fail(std::string what);

  Client* const client_;
  const Options options_;
  Random random_;
  std::vector<Sample> sample_;
  std::vector<Worker> workers_;
  std::map<PartitionId, Instant> last_acknowledged_;
  std::optional<Instant> failure_;
  std::map<PartitionId, bool> again_;
  std::map<PartitionId, Duration> longest_gap_;
  Report report_;
  size_t running_ = 0;
  absl::AnyInvocable<void(Report)> stopped_;
};

void MixedLoad::Impl::Start() {
  for (const Sample& sample : sample_) last_acknowledged_[sample.partition] = Now();
  workers_.resize(options_.workers);
  for (size_t i = 0; i < workers_.size(); ++i) {
    workers_[i].number = i;
    NewRegister(workers_[i]);
    running_++;
    Begin(i);
  }
}

void MixedLoad::Impl::NewRegister(Worker& worker) {
  // Of no earlier run: whose last write might still be on its way.
  worker.name = Cat("register-", Hex(random_.Next()), "-", worker.number, ".", worker.registers++);
  worker.value = 0;
}

void MixedLoad::Impl::Next(size_t worker) {
  client_->executor().RunAt(Now() + options_.rest,
                            [self = shared_from_this(), worker] { self->Begin(worker); });
}

void MixedLoad::Impl::Begin(size_t worker) {
  if (stopped_ != nullptr) {
    if (--running_ == 0) stopped_(std::move(report_));
    return;
  }
  switch (random_.Below(8)) {
    case 0:
      return Increment(worker);
    case 1:
      return Register(worker);
    case 2:
    case 3:
      return Read(worker);
    default:
      return Overwrite(worker);
  }
}

void MixedLoad::Impl::Put(const char* table, Item item, cluster::Condition condition,
                          absl::AnyInvocable<void(absl::Status)> done) {
  client_->router().Put(table, std::move(item), std::move(condition),
                        [self = shared_from_this(), begun = Now(),
                         done = std::move(done)](absl::Status status) mutable {
                          if (status.ok() || absl::IsAborted(status)) {
                            self->report_.write_latencies.Add(self->Now() - begun);
                            if (status.ok()) self->report_.writes++;
                          } else if (absl::IsDeadlineExceeded(status)) {
                            self->report_.unknown++;
                          } else if (cluster::RetryAfter(status).has_value()) {
                            self->report_.throttled++;
                          } else {
                            self->Fail(Cat("a write failed: ", status.ToString()));
                          }
                          done(std::move(status));
                        });
}

void MixedLoad::Impl::Get(const char* table, cluster::PrimaryKey key,
                          absl::AnyInvocable<void(Found)> done) {
  client_->router().Get(
      table, std::move(key), cluster::Consistency::kStrong,
      [self = shared_from_this(), begun = Now(), done = std::move(done)](Found found) mutable {
        if (found.ok()) {
          self->report_.reads++;
          self->report_.read_latencies.Add(self->Now() - begun);
        } else if (cluster::RetryAfter(found.status()).has_value()) {
          self->report_.throttled++;
        } else if (!absl::IsDeadlineExceeded(found.status())) {
          self->Fail(Cat("a read failed: ", found.status().ToString()));
        }
        done(std::move(found));
      });
}

void MixedLoad::Impl::Overwrite(size_t worker) {
  const Sample& sample = sample_[random_.Below(sample_.size())];
  Put(kRecordsTable, sample.item.item, {},
      [this, worker, &sample, begun = Now()](const absl::Status& status) {
        if (status.ok()) {
          NoteAcknowledged(sample.partition, begun);
          if (options_.journal != nullptr)
            options_.journal->Row(sample.item.row, options_.generation);
        }
        Next(worker);
      });
}

void MixedLoad::Impl::Read(size_t worker) {
  const Sample& sample = sample_[random_.Below(sample_.size())];
  Get(kRecordsTable, sample.key, [this, worker, &sample](const Found& found) {
    if (found.ok() && !found->has_value())
      Fail(Cat("item ", sample.item.row, " was not found by a strong read"));
    if (found.ok() && found->has_value() && **found != sample.item.item)
      Fail(Cat("a strong read of item ", sample.item.row, " gave another item"));
    Next(worker);
  });
}

void MixedLoad::Impl::Register(size_t number) {
  Worker& worker = workers_[number];
  const std::string name = worker.name;
  const uint64_t value = ++worker.value;
  report_.counters[name].high = value;
  Put(kCountersTable, CounterItem(name, value), {},
      [this, number, name, value](const absl::Status& status) {
        if (status.ok()) {
          report_.counters[name].low = value;
          if (options_.journal != nullptr) options_.journal->Counter(name, value);
        } else {
          // It may be applied yet, even after a later one.
          NewRegister(workers_[number]);
        }
        Next(number);
      });
}

void MixedLoad::Impl::Increment(size_t worker) {
  const std::string name = Cat("counter-", random_.Below(kCounters));
  Get(kCountersTable, {.partition = cluster::Value::String(name), .sort = {}},
      [this, worker, name](const Found& found) {
        if (!found.ok()) return Next(worker);
        IncrementFrom(worker, name, ValueOf(*found));
      });
}

void MixedLoad::Impl::IncrementFrom(size_t worker, const std::string& name, uint64_t value) {
  // What earlier runs left counts as acknowledged.
  CounterRange& range = report_.counters[name];
  range.low = std::max(range.low, value);
  range.high = std::max(range.high, value);
  Put(kCountersTable, CounterItem(name, value + 1), Still(value),
      [this, worker, name, value](const absl::Status& status) {
        CounterRange& range = report_.counters[name];
        if (status.ok()) {
          range.low = std::max(range.low, value + 1);
          // Each value is reached once: else an increment was lost, or a condition not evaluated.
          if (!report_.reached[name].insert(value + 1).second)
            Fail(Cat("two increments of ", name, " to ", value + 1, " were acknowledged"));
          if (options_.journal != nullptr) options_.journal->Counter(name, value + 1);
        }
        if (!absl::IsAborted(status)) range.high = std::max(range.high, value + 1);
        Next(worker);
      });
}

void MixedLoad::Impl::MarkFailure() {
  failure_ = Now();
  again_.clear();
  longest_gap_.clear();
}

Duration MixedLoad::Impl::LongestGap(PartitionId partition) {
  NoteGap(partition, last_acknowledged_[partition], Now());
  failure_.reset();
  return longest_gap_[partition];
}

void MixedLoad::Impl::NoteAcknowledged(PartitionId partition, Instant begun) {
  const Instant now = Now();
  NoteGap(partition, last_acknowledged_[partition], now);
  last_acknowledged_[partition] = now;
  if (failure_.has_value() && begun > *failure_) again_[partition] = true;
}

void MixedLoad::Impl::NoteGap(PartitionId partition, Instant since, Instant until) {
  if (!failure_.has_value()) return;
  Duration& longest = longest_gap_[partition];
  longest = std::max(longest, until - since);
}

void MixedLoad::Impl::Fail(std::string what) {
  if (report_.failures.size() < kFailuresMax) report_.failures.push_back(std::move(what));
}

void MixedLoad::Impl::Stop(absl::AnyInvocable<void(Report)> done) { stopped_ = std::move(done); }

MixedLoad::MixedLoad(const std::vector<Client*>& clients, const cluster::TableInfo& table,
                     const std::vector<SampleItem>& sample, const Options& options) {
  DYNLIB_CHECK(!sample.empty());
  busy_key_ = *cluster::EncodeItemKey(table.schema, sample[sample.size() / 2].item);
  Options own = options;
  for (Client* client : clients) {
    parts_.push_back({client, std::make_shared<Impl>(client, table, sample, own)});
    own.seed += 1'000'003;
  }
}

MixedLoad::~MixedLoad() = default;

void MixedLoad::Start() {
  for (Part& part : parts_) RunThere(part.client->executor(), [&] { part.impl->Start(); });
}

void MixedLoad::MarkFailure() {
  for (Part& part : parts_) RunThere(part.client->executor(), [&] { part.impl->MarkFailure(); });
}

bool MixedLoad::WritesAgain(PartitionId partition) {
  bool again = true;
  for (Part& part : parts_) {
    RunThere(part.client->executor(), [&] { again = part.impl->WritesAgain(partition) && again; });
  }
  return again;
}

Duration MixedLoad::LongestGap(PartitionId partition) {
  Duration longest{};
  for (Part& part : parts_) {
    RunThere(part.client->executor(),
             [&] { longest = std::max(longest, part.impl->LongestGap(partition)); });
  }
  return longest;
}

std::vector<std::string> MixedLoad::Failures() {
  std::vector<std::string> all;
  for (Part& part : parts_) {
    RunThere(part.client->executor(), [&] {
      for (std::string& failure : part.impl->Failures()) all.push_back(std::move(failure));
    });
  }
  return all;
}

MixedLoad::Report MixedLoad::Stop() {
  Report all;
  for (Part& part : parts_) {
    Report report = RunAndWait<Report>(part.client->executor(),
                                       [&](auto done) { part.impl->Stop(std::move(done)); });
    all.writes += report.writes;
    all.reads += report.reads;
    all.unknown += report.unknown;
    all.throttled += report.throttled;
    for (std::string& failure : report.failures) all.failures.push_back(std::move(failure));
    for (const auto& [name, range] : report.counters) {
      CounterRange& both = all.counters[name];
      both.low = std::max(both.low, range.low);
      both.high = std::max(both.high, range.high);
    }
    for (const auto& [name, values] : report.reached) {
      for (uint64_t value : values) {
        if (!all.reached[name].insert(value).second)
          all.failures.push_back(
              Cat("two routers had increments of ", name, " to ", value, " acknowledged"));
      }
    }
    all.write_latencies.Add(report.write_latencies);
    all.read_latencies.Add(report.read_latencies);
  }
  return all;
}

}  // namespace dynlib::mini_cluster
