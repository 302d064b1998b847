// The network of a simulated world: it loses, delays, repeats and reorders, and can be cut.
//
//   world.network().Block(NodeId{1}, NodeId{2});                 // one way
//   auto cut = world.network().Partition({NodeId{1}}, {NodeId{2}, NodeId{3}});
//   world.network().EndPartition(cut);
//   world.network().SetFilter([](const SimNetwork::Message& m) {
//     return m.channel == kVotes ? SimNetwork::Verdict::kHold : SimNetwork::Verdict::kPass; });
//   world.network().ReleaseHeld();
//
// A message takes 100 us and what FaultOptions adds. Those between two nodes stay in order unless
// reordered, repeated or held. A cut drops what is sent and what would arrive while it lasts. A
// message on its way outlives its sender, and reaches whichever incarnation of the receiver is up
// then: old promises arrive after crashes. Messages of a node to itself take 1 us and meet no
// fault.
//
// At most 10,000 messages and 256 MiB are on their way between two nodes; more are dropped and
// counted ("transport.dropped"), as are those that are too long.
//
// Threads: the world's.
#ifndef DYNLIB_SIM_NETWORK_H_
#define DYNLIB_SIM_NETWORK_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "dynlib/base/ids.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/time.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/runtime/inbox.h"
#include "dynlib/runtime/transport.h"
#include "dynlib/sim/engine.h"
#include "dynlib/sim/executor.h"
#include "dynlib/sim/faults.h"

namespace dynlib::sim {

class SimNetwork;

// One incarnation's end.
class SimTransport final : public Transport {
 public:
  SimTransport(SimNetwork* network, const Process* process, MetricsSink* metrics);

  NodeId self() const override { return process_->node(); }
  void Send(NodeId to, Channel channel, std::string message) override;
  void Listen(Channel channel, Executor* executor, Receiver receiver) override;
  void StopListening(Channel channel) override;

  // For Node: nothing goes in any more; what goes out is dropped since the process is not alive.
  void Close() { inbox_.Close(); }

 private:
  friend class SimNetwork;
  SimNetwork* const network_;
  const Process* const process_;
  Inbox inbox_;
};

class SimNetwork {
 public:
  static constexpr size_t kMaxMessagesInFlight = 10'000;
  static constexpr size_t kMaxBytesInFlight = 256 << 20;

  struct Message {
    NodeId from;
    NodeId to;
    Channel channel;
    std::string bytes;
  };
  enum class Verdict { kPass, kDrop, kHold };
  enum class PartitionId : uint64_t {};

  SimNetwork(Engine* engine, const FaultOptions* faults, MetricsSink* metrics);

  // Cuts one direction, until Unblock. Twice is as once.
  void Block(NodeId from, NodeId to) { blocked_.insert({from, to}); }
  void Unblock(NodeId from, NodeId to) { blocked_.erase({from, to}); }
  // Cuts every node of `a` from every node of `b`: both ways, or only what `a` sends.
  PartitionId Partition(const std::set<NodeId>& a, const std::set<NodeId>& b, bool one_way = false);
  void EndPartition(PartitionId partition) { partitions_.erase(partition); }
  // Ends all of these, and the filter; what was held is dropped.
  void Heal();
  bool IsBlocked(NodeId from, NodeId to) const;

  // Asked about every message to another node as it is sent, before anything else happens to it.
  void SetFilter(std::function<Verdict(const Message&)> filter) { filter_ = std::move(filter); }
  size_t held() const { return held_.size(); }
  // Sends what was held, in the order in which it was, past the filter.
  void ReleaseHeld();

  // For Node: the transport that receives for a node; null = none.
  void Attach(NodeId node, SimTransport* transport) { ends_[node] = transport; }

 private:
  friend class SimTransport;
  struct Link {
    size_t messages = 0;
    size_t bytes = 0;
    Instant last_arrival;
  };

  void Send(Message message);
  void Route(Message message);
  void Travel(Message message, Duration delay, bool in_order);
  void Arrive(Message message);
  void Drop(const Message& message, const char* why);

  Engine* const engine_;
  const FaultOptions* const faults_;
  MetricsSink* const metrics_;
  std::map<NodeId, SimTransport*> ends_;
  std::map<std::pair<NodeId, NodeId>, Link> links_;
  std::set<std::pair<NodeId, NodeId>> blocked_;
  std::map<PartitionId, std::set<std::pair<NodeId, NodeId>>> partitions_;
  uint64_t last_partition_ = 0;
  std::function<Verdict(const Message&)> filter_;
  std::vector<Message> held_;
};

}  // namespace dynlib::sim

#endif  // DYNLIB_SIM_NETWORK_H_
