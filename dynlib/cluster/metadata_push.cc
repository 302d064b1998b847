#include "dynlib/cluster/metadata_push.h"

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"
#include "dynlib/base/check.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/service.h"

namespace dynlib::cluster {
namespace {

constexpr Duration kTimeMax = std::chrono::minutes(10);

absl::Status CheckTime(std::string_view field, Duration value, Duration min, Duration max) {
  if (value >= min && value <= max) return absl::OkStatus();
  return absl::InvalidArgumentError(
      Cat(field, " is ", ToMicros(value), " us; allowed: ", ToMicros(min), " to ", ToMicros(max)));
}

}  // namespace

absl::Status Validate(const MetadataPushOptions& options) {
  DYNLIB_RETURN_IF_ERROR(CheckTime("push.push_interval", options.push_interval,
                                   std::chrono::milliseconds(10), kTimeMax));
  DYNLIB_RETURN_IF_ERROR(
      CheckTime("push.coalesce", options.coalesce, Duration(0), options.push_interval));
  DYNLIB_RETURN_IF_ERROR(
      CheckTime("push.call_timeout", options.call_timeout, std::chrono::milliseconds(1), kTimeMax));
  if (options.batch_bytes < 1024 || options.batch_bytes > 1 << 20) {
    return absl::InvalidArgumentError(
        Cat("push.batch_bytes is ", options.batch_bytes, "; allowed: 1024 to ", 1 << 20));
  }
  return absl::OkStatus();
}

class MetadataPush::Impl : public std::enable_shared_from_this<MetadataPush::Impl> {
 public:
  Impl(const MetadataPushOptions& options, const std::vector<NodeId>& metadata_nodes, Source source,
       Rpc* rpc, Executor* executor, const Clock* clock, MetricsSink* metrics)
      : options_(options),
        source_(std::move(source)),
        rpc_(rpc),
        executor_(executor),
        clock_(clock),
        metrics_(metrics) {
    for (NodeId node : metadata_nodes) peers_.push_back({.node = node});
  }

  void Start();
  void Close();
  void OnChange(PartitionId partition);

 private:
  // A metadata node, as far as this node's records are concerned.
  struct Peer {
    NodeId node{};
    uint64_t incarnation = 0;  // 0: it has not answered yet
    std::set<PartitionId> waiting;
    std::vector<PartitionId> sent;  // and not answered yet; not empty: a message is under way
    int failures = 0;               // in a row
  };

  void PushAll();
  void FlushSoon();
  void Send(size_t index);
  void OnReply(size_t index, absl::StatusOr<std::string> result);

  const MetadataPushOptions options_;
  Source source_;
  Rpc* const rpc_;
  Executor* const executor_;
  const Clock* const clock_;
  MetricsSink* const metrics_;
  bool closed_ = false;
  std::vector<Peer> peers_;
  Executor::TimerId interval_timer_ = Executor::kNoTimer;
  Executor::TimerId flush_timer_ = Executor::kNoTimer;
};

void MetadataPush::Impl::Start() {
  if (!peers_.empty()) PushAll();
}

void MetadataPush::Impl::Close() {
  closed_ = true;
  executor_->Cancel(interval_timer_);
  executor_->Cancel(flush_timer_);
}

// Everything that this node leads, to every metadata node.
void MetadataPush::Impl::PushAll() {
  interval_timer_ =
      executor_->RunAt(clock_->Now() + options_.push_interval, [weak = weak_from_this()] {
        if (auto self = weak.lock()) self->PushAll();
      });
  const std::vector<PartitionId> led = source_.led();
  for (size_t i = 0; i < peers_.size(); ++i) {
    peers_[i].waiting.insert(led.begin(), led.end());
    Send(i);
  }
}

void MetadataPush::Impl::OnChange(PartitionId partition) {
  if (peers_.empty()) return;
  for (Peer& peer : peers_) peer.waiting.insert(partition);
  FlushSoon();
}

void MetadataPush::Impl::FlushSoon() {
  if (flush_timer_ != Executor::kNoTimer) return;
  flush_timer_ = executor_->RunAt(clock_->Now() + options_.coalesce, [weak = weak_from_this()] {
    auto self = weak.lock();
    if (self == nullptr) return;
    self->flush_timer_ = Executor::kNoTimer;
    for (size_t i = 0; i < self->peers_.size(); ++i) self->Send(i);
  });
}

// The records as they are now, however long ago the change was.
void MetadataPush::Impl::Send(size_t index) {
  Peer& peer = peers_[index];
  if (!peer.sent.empty()) return;
  wire::PushRequest request;
  size_t bytes = 0;
  while (!peer.waiting.empty()) {
    const PartitionId partition = *peer.waiting.begin();
    std::optional<partition_map::PartitionRecord> record = source_.record(partition);
    if (record.has_value()) {
      std::string encoded = partition_map::Encode(*record);
      if (bytes > 0 && bytes + encoded.size() > options_.batch_bytes) break;
      bytes += encoded.size();
      request.add_partitions(std::move(encoded));
      peer.sent.push_back(partition);
    }
    peer.waiting.erase(partition);
  }
  if (peer.sent.empty()) return;
  metrics_->Count("push.batches", 1);
  metrics_->Count("push.records", request.partitions_size());
  rpc_->Call(peer.node, kPush, request.SerializeAsString(), options_.call_timeout,
             [weak = weak_from_this(), index](absl::StatusOr<std::string> result) {
               auto self = weak.lock();
               if (self != nullptr && !self->closed_) self->OnReply(index, std::move(result));
             });
}

void MetadataPush::Impl::OnReply(size_t index, absl::StatusOr<std::string> result) {
  Peer& peer = peers_[index];
  const std::vector<PartitionId> sent = std::exchange(peer.sent, {});
  wire::PushReply reply;
  if (!result.ok() || !reply.ParseFromString(*result)) {
    metrics_->Count("push.failures", 1);
    peer.waiting.insert(sent.begin(), sent.end());
    // A message may get lost: once more. A node may be down: then with the next push of all.
    if (peer.failures++ == 0) FlushSoon();
    return;
  }
  peer.failures = 0;
  if (reply.outcome().code() != 0) metrics_->Count("push.refused", 1);
  if (peer.incarnation != 0 && reply.incarnation() != peer.incarnation) {
    const std::vector<PartitionId> led = source_.led();
    peer.waiting.insert(led.begin(), led.end());
  }
  peer.incarnation = reply.incarnation();
  Send(index);
}

MetadataPush::MetadataPush(const MetadataPushOptions& options,
                           const std::vector<NodeId>& metadata_nodes, Source source, Rpc* rpc,
                           Executor* executor, const Clock* clock, MetricsSink* metrics) {
  DYNLIB_CHECK(Validate(options).ok());
  impl_ = std::make_shared<Impl>(options, metadata_nodes, std::move(source), rpc, executor, clock,
                                 metrics);
  impl_->Start();
}

MetadataPush::~MetadataPush() { impl_->Close(); }

void MetadataPush::OnChange(PartitionId partition) { impl_->OnChange(partition); }

}  // namespace dynlib::cluster
