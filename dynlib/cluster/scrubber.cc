#include "dynlib/cluster/scrubber.h"

#include <algorithm>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "dynlib/base/check.h"
#include "dynlib/base/checksum.h"
#include "dynlib/base/coding.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/partition_scrubber.h"
#include "dynlib/cluster/service.h"

namespace dynlib::cluster {
namespace {

constexpr size_t kJobsMax = 64;
// Nodes are asked for what there is to scrub this often at most.
constexpr Duration kLookMost = std::chrono::seconds(5);

void SetOutcome(const absl::Status& status, wire::Outcome& outcome) {
  outcome.set_code(static_cast<int>(status.code()));
  outcome.set_message(std::string(ToStd(status.message())));
}

std::string EncodeResult(const ScrubResult& result) {
  wire::ScrubNowReply reply;
  SetOutcome(result.status, *reply.mutable_outcome());
  for (const PartitionScrub& partition : result.partitions) {
    wire::ScrubNowReply::Report& report = *reply.add_reports();
    report.set_partition(ToUint(partition.partition));
    SetOutcome(partition.status, *report.mutable_outcome());
    report.set_items(partition.items);
    report.set_bytes(partition.bytes);
    report.set_differences(partition.differences);
    report.set_vanished(partition.vanished);
    report.set_repaired(partition.repaired);
    report.set_unrepaired(partition.unrepaired);
    report.set_marker(partition.marker);
    report.set_replicas(static_cast<uint32_t>(partition.replicas));
  }
  return reply.SerializeAsString();
}

// Those that somebody leads, and that have not ended.
std::vector<PartitionId> LedPartitions(const NodeStatuses& statuses) {
  std::vector<PartitionId> partitions;
  for (const auto& [node, status] : statuses) {
    for (const wire::ReplicaStatus& replica : status.replicas()) {
      if (replica.leads() && replica.ended() == 0)
        partitions.push_back(PartitionId{replica.partition()});
    }
  }
  std::sort(partitions.begin(), partitions.end());
  partitions.erase(std::unique(partitions.begin(), partitions.end()), partitions.end());
  return partitions;
}

}  // namespace

absl::Status Validate(const ScrubberOptions& options) {
  auto bad = [](std::string_view name, uint64_t value, std::string_view allowed) {
    return absl::InvalidArgumentError(
        Cat("scrubber.", name, " is ", value, "; allowed: ", allowed));
  };
  auto micros = [](Duration duration) { return static_cast<uint64_t>(ToMicros(duration)); };
  if (options.interval < std::chrono::milliseconds(100) ||
      options.interval > std::chrono::hours(2400))
    return bad("interval", micros(options.interval), "100 ms to 100 days, in us");
  if (options.bytes_per_second < 1024 || options.bytes_per_second > 100'000'000'000)
    return bad("bytes_per_second", options.bytes_per_second, "1,024 to 100,000,000,000");
  if (options.call_timeout < std::chrono::milliseconds(10) ||
      options.call_timeout > std::chrono::minutes(10))
    return bad("call_timeout", micros(options.call_timeout), "10 ms to 10 min, in us");
  if (options.retry_delay < std::chrono::milliseconds(1) ||
      options.retry_delay > std::chrono::minutes(10))
    return bad("retry_delay", micros(options.retry_delay), "1 ms to 10 min, in us");
  if (options.markers_max < 1 || options.markers_max > 100)
    return bad("markers_max", options.markers_max, "1 to 100");
  return absl::OkStatus();
}

class Scrubber::Impl : public std::enable_shared_from_this<Impl> {
 public:
  Impl(ScrubberOptions options, std::vector<NodeId> nodes, Rpc* rpc, Executor* executor,
       const Clock* clock, MetricsSink* metrics, absl::AnyInvocable<bool()> may_act)
      : options_(options),
        nodes_(std::move(nodes)),
        rpc_(rpc),
        executor_(executor),
        clock_(clock),
        metrics_(metrics),
        may_act_(std::move(may_act)) {}

  void Register(Rpc* rpc);
  void Start() { Look(); }
  void Close();
  void ScrubNow(PartitionId partition, Done done);

 private:
  // One or all partitions, one after the other.
  struct Job {
    PartitionId partition{};  // 0: all
    std::deque<PartitionId> left;
    ScrubResult result;
    Done done;
  };

  void LookIn(Duration delay);
  void Look();
  void OnStatuses(const NodeStatuses& statuses);
  void StartJob();
  void RunJob();
  void EndJob();
  uint64_t NextScrub();

  const ScrubberOptions options_;
  const std::vector<NodeId> nodes_;
  Rpc* const rpc_;
  Executor* const executor_;
  const Clock* const clock_;
  MetricsSink* const metrics_;
  absl::AnyInvocable<bool()> may_act_;

  bool closed_ = false;
  Executor::TimerId timer_ = Executor::kNoTimer;
  std::deque<Job> jobs_;  // the first is under way, if `running_`
  bool running_ = false;
  std::shared_ptr<PartitionScrubber> partition_;
  std::map<PartitionId, Instant> due_;
  uint64_t last_scrub_ = 0;
};

void Scrubber::Impl::Close() {
  closed_ = true;
  executor_->Cancel(timer_);
  if (partition_ != nullptr) partition_->Close();
  for (Job& job : jobs_) {
    if (job.done != nullptr)
      job.done({.status = absl::CancelledError("shut down"), .partitions = {}});
  }
  jobs_.clear();
}

// Increases over the scrubbers of a cluster as far as their clocks agree: a marker with an id that
// was used up is refused, and tried again with a later one.
uint64_t Scrubber::Impl::NextScrub() {
  const auto now = static_cast<uint64_t>(clock_->WallNow().nanos() / 1000);
  return last_scrub_ = std::max(last_scrub_ + 1, now);
}

void Scrubber::Impl::Register(Rpc* rpc) {
  rpc->Handle(kScrubNow,
              [weak = weak_from_this()](NodeId, Instant, std::string bytes, Rpc::Reply reply) {
                auto self = weak.lock();
                wire::ScrubNowRequest request;
                ScrubResult refused;
                if (self == nullptr || self->closed_) {
                  refused.status = absl::CancelledError("shut down");
                } else if (!request.ParseFromString(bytes)) {
                  refused.status = absl::InvalidArgumentError("the request does not parse");
                }
                if (!refused.status.ok()) return reply(EncodeResult(refused));
                self->ScrubNow(PartitionId{request.partition()},
                               [reply = std::move(reply)](ScrubResult result) mutable {
                                 reply(EncodeResult(result));
                               });
              });
}

void Scrubber::Impl::ScrubNow(PartitionId partition, Done done) {
  ScrubResult refused;
  if (!may_act_()) {
    refused.status = absl::FailedPreconditionError("another node's scrubber acts");
  } else if (jobs_.size() >= kJobsMax) {
    refused.status = absl::ResourceExhaustedError(Cat(jobs_.size(), " scrubs wait"));
  }
  if (!refused.status.ok()) {
    return executor_->Post(
        [done = std::move(done), refused]() mutable { done(std::move(refused)); });
  }
  jobs_.push_back({.partition = partition, .left = {}, .result = {}, .done = std::move(done)});
  if (!running_) StartJob();
}

void Scrubber::Impl::LookIn(Duration delay) {
  executor_->Cancel(timer_);
  timer_ = executor_->RunAt(clock_->Now() + delay, [weak = weak_from_this()] {
    if (auto self = weak.lock(); self != nullptr && !self->closed_) self->Look();
  });
}

void Scrubber::Impl::Look() {
  LookIn(std::min(options_.interval / 4, kLookMost));
  if (!may_act_()) return due_.clear();
  if (running_ || !options_.enabled) return;
  AskNodeStatuses(nodes_, rpc_, options_.call_timeout,
                  [weak = weak_from_this()](const NodeStatuses& statuses) {
                    auto self = weak.lock();
                    if (self != nullptr && !self->closed_) self->OnStatuses(statuses);
                  });
}

void Scrubber::Impl::OnStatuses(const NodeStatuses& statuses) {
  if (!may_act_()) return;
  const Instant now = clock_->Now();
  std::map<PartitionId, Instant> due;
  for (PartitionId partition : LedPartitions(statuses)) {
    const auto known = due_.find(partition);
    std::string seed;
    PutFixed64(seed, ToUint(partition));
    const auto spread = Checksum(seed) % static_cast<uint64_t>(options_.interval.count());
    due[partition] =
        known != due_.end() ? known->second : now + Duration(static_cast<int64_t>(spread));
  }
  due_ = std::move(due);
  if (running_ || due_.empty()) return;
  const auto next = std::min_element(
      due_.begin(), due_.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  if (next->second > now) return;
  jobs_.push_back({.partition = next->first, .left = {}, .result = {}, .done = nullptr});
  StartJob();
}

void Scrubber::Impl::StartJob() {
  running_ = true;
  Job& job = jobs_.front();
  if (ToUint(job.partition) != 0) {
    job.left.push_back(job.partition);
    return RunJob();
  }
  AskNodeStatuses(nodes_, rpc_, options_.call_timeout,
                  [weak = weak_from_this()](const NodeStatuses& statuses) {
                    auto self = weak.lock();
                    if (self == nullptr || self->closed_) return;
                    const std::vector<PartitionId> all = LedPartitions(statuses);
                    self->jobs_.front().left.assign(all.begin(), all.end());
                    self->RunJob();
                  });
}

void Scrubber::Impl::RunJob() {
  Job& job = jobs_.front();
  if (job.left.empty()) return EndJob();
  const PartitionId partition = job.left.front();
  job.left.pop_front();
  partition_ = std::make_shared<PartitionScrubber>(
      PartitionScrubber::Parts{.options = options_,
                               .nodes = nodes_,
                               .rpc = rpc_,
                               .executor = executor_,
                               .clock = clock_,
                               .metrics = metrics_,
                               .next_scrub = [this] { return NextScrub(); }},
      partition, [weak = weak_from_this()](PartitionScrub result) {
        auto self = weak.lock();
        if (self == nullptr || self->closed_) return;
        self->due_[result.partition] = self->clock_->Now() + self->options_.interval;
        self->jobs_.front().result.partitions.push_back(std::move(result));
        self->RunJob();
      });
  partition_->Start();
}

void Scrubber::Impl::EndJob() {
  Job job = std::move(jobs_.front());
  jobs_.pop_front();
  partition_ = nullptr;
  running_ = false;
  const bool single = ToUint(job.partition) != 0 && job.result.partitions.size() == 1;
  if (single && absl::IsNotFound(job.result.partitions[0].status))
    job.result.status = job.result.partitions[0].status;
  if (job.done != nullptr) job.done(std::move(job.result));
  if (closed_) return;
  if (!jobs_.empty() && !running_) return StartJob();
  // The next may be due by now.
  if (options_.enabled) LookIn(std::min(options_.interval / 100, kLookMost));
}

Scrubber::Scrubber(ScrubberOptions options, std::vector<NodeId> nodes, Rpc* rpc, Executor* executor,
                   const Clock* clock, MetricsSink* metrics, absl::AnyInvocable<bool()> may_act) {
  DYNLIB_CHECK(Validate(options).ok());
  impl_ = std::make_shared<Impl>(options, std::move(nodes), rpc, executor, clock, metrics,
                                 std::move(may_act));
}

Scrubber::~Scrubber() { impl_->Close(); }
void Scrubber::Register(Rpc* rpc) { impl_->Register(rpc); }
void Scrubber::Start() { impl_->Start(); }
void Scrubber::ScrubNow(PartitionId partition, Done done) {
  impl_->ScrubNow(partition, std::move(done));
}

}  // namespace dynlib::cluster
