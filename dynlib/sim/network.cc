#include "dynlib/sim/network.h"

#include <algorithm>

#include "dynlib/base/checksum.h"
#include "dynlib/base/random.h"

namespace dynlib::sim {
namespace {

constexpr Duration kBaseDelay = std::chrono::microseconds(100);
constexpr Duration kSelfDelay = std::chrono::microseconds(1);

}  // namespace

SimTransport::SimTransport(SimNetwork* network, const Process* process, MetricsSink* metrics)
    : network_(network), process_(process), inbox_({}, metrics) {}

void SimTransport::Send(NodeId to, Channel channel, std::string message) {
  if (!process_->alive()) return;
  network_->Send({self(), to, channel, std::move(message)});
}

void SimTransport::Listen(Channel channel, Executor* executor, Receiver receiver) {
  if (process_->alive()) inbox_.Listen(channel, executor, std::move(receiver));
}

void SimTransport::StopListening(Channel channel) { inbox_.StopListening(channel); }

SimNetwork::SimNetwork(Engine* engine, const FaultOptions* faults, MetricsSink* metrics)
    : engine_(engine), faults_(faults), metrics_(metrics) {}

SimNetwork::PartitionId SimNetwork::Partition(const std::set<NodeId>& a, const std::set<NodeId>& b,
                                              bool one_way) {
  const PartitionId id{++last_partition_};
  auto& pairs = partitions_[id];
  for (const NodeId from : a) {
    for (const NodeId to : b) {
      pairs.insert({from, to});
      if (!one_way) pairs.insert({to, from});
    }
  }
  return id;
}

void SimNetwork::Heal() {
  blocked_.clear();
  partitions_.clear();
  filter_ = nullptr;
  held_.clear();
}

bool SimNetwork::IsBlocked(NodeId from, NodeId to) const {
  if (blocked_.contains({from, to})) return true;
  return std::any_of(partitions_.begin(), partitions_.end(), [&](const auto& p) {
    return p.second.contains({from, to});
  });
}

void SimNetwork::ReleaseHeld() {
  std::vector<Message> held = std::move(held_);
  held_.clear();
  for (Message& message : held) Route(std::move(message));
}

void SimNetwork::Send(Message message) {
  if (message.bytes.size() > Transport::kMaxMessageBytes) {
    metrics_->Count("transport.dropped", 1);
    return;
  }
  engine_->Trace(message.from, EventKind::kSend, Checksum(message.bytes, ToUint(message.channel)));
  if (message.from == message.to) return Travel(std::move(message), kSelfDelay, true);
  const Verdict verdict = filter_ ? filter_(message) : Verdict::kPass;
  if (verdict == Verdict::kPass) return Route(std::move(message));
  if (verdict == Verdict::kDrop) return Drop(message, "network.filtered");
  held_.push_back(std::move(message));
}

void SimNetwork::Route(Message message) {
  if (IsBlocked(message.from, message.to)) return Drop(message, "network.cut_off");
  Random& random = engine_->random();
  if (random.Chance(faults_->network_loss)) return Drop(message, "network.loss");
  Duration delay = kBaseDelay;
  if (faults_->network_delay_us_max > 0) {
    delay += std::chrono::microseconds(
        random.Between(faults_->network_delay_us_min, faults_->network_delay_us_max));
    engine_->CountFault("network.delay");
  }
  const auto late = [&] {
    return delay + std::chrono::microseconds(random.Between(0, faults_->network_reorder_us_max));
  };
  if (random.Chance(faults_->network_repeat)) {
    engine_->CountFault("network.repeat");
    Travel(message, late(), false);
  }
  if (random.Chance(faults_->network_reorder)) {
    engine_->CountFault("network.reorder");
    return Travel(std::move(message), late(), false);
  }
  Travel(std::move(message), delay, true);
}

void SimNetwork::Travel(Message message, Duration delay, bool in_order) {
  Link& link = links_[{message.from, message.to}];
  const size_t size = message.bytes.size();
  if (link.messages >= kMaxMessagesInFlight || link.bytes + size > kMaxBytesInFlight) {
    metrics_->Count("transport.dropped", 1);
    return Drop(message, nullptr);
  }
  link.messages += 1;
  link.bytes += size;
  Instant arrival = engine_->Now() + delay;
  if (in_order) {
    arrival = std::max(arrival, link.last_arrival);
    link.last_arrival = arrival;
  }
  const NodeId to = message.to;
  engine_->At(arrival, to, EventKind::kDeliver, size,
              [this, message = std::move(message)]() mutable { Arrive(std::move(message)); });
}

void SimNetwork::Arrive(Message message) {
  Link& link = links_[{message.from, message.to}];
  link.messages -= 1;
  link.bytes -= message.bytes.size();
  if (message.from != message.to && IsBlocked(message.from, message.to)) {
    return Drop(message, "network.cut_off");
  }
  const auto end = ends_.find(message.to);
  if (end == ends_.end() || end->second == nullptr) return Drop(message, nullptr);
  end->second->inbox_.Deliver(message.from, message.channel, std::move(message.bytes));
}

void SimNetwork::Drop(const Message& message, const char* why) {
  engine_->Trace(message.to, EventKind::kDrop, message.bytes.size());
  if (why != nullptr) engine_->CountFault(why);
}

}  // namespace dynlib::sim
