#include "dynlib/runtime/local/local_network.h"

#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>

#include "dynlib/base/check.h"

namespace dynlib {

// A node's inbox while it is attached.
class LocalNetwork::Endpoint {
 public:
  Endpoint(Inbox::Options options, MetricsSink* metrics) : inbox(options, metrics) {}
  Inbox inbox;
};

class LocalNetwork::Hub {
 public:
  Hub(Options options, MetricsSink* metrics) : options_(options), metrics_(metrics) {}

  std::shared_ptr<Endpoint> Attach(NodeId node) {
    auto endpoint = std::make_shared<Endpoint>(options_.inbox, metrics_);
    Replace(node, endpoint);
    return endpoint;
  }

  void Detach(NodeId node) { Replace(node, nullptr); }

  // As Detach, unless the node was attached again since.
  void DetachIf(NodeId node, const std::shared_ptr<Endpoint>& endpoint) {
    {
      std::lock_guard lock(mutex_);
      const auto found = endpoints_.find(node);
      if (found != endpoints_.end() && found->second == endpoint) endpoints_.erase(found);
    }
    endpoint->inbox.Close();
  }

  void DetachAll() {
    std::unordered_map<NodeId, std::shared_ptr<Endpoint>> all;
    {
      std::lock_guard lock(mutex_);
      all.swap(endpoints_);
    }
    for (auto& [node, endpoint] : all) endpoint->inbox.Close();
  }

  // `sender` is the endpoint that the message comes from.
  void Send(NodeId from, const Endpoint* sender, NodeId to, Channel channel, std::string message) {
    std::shared_ptr<Endpoint> receiver;
    if (message.size() <= Transport::kMaxMessageBytes) {
      std::lock_guard lock(mutex_);
      const auto own = endpoints_.find(from);
      const auto found = endpoints_.find(to);
      // One that was detached sends nothing, though its transport is still there.
      if (own != endpoints_.end() && own->second.get() == sender && found != endpoints_.end()) {
        receiver = found->second;
      }
    }
    if (receiver == nullptr) {
      metrics_->Count("transport.dropped", 1);
      return;
    }
    receiver->inbox.Deliver(from, channel, std::move(message));
  }

 private:
  void Replace(NodeId node, std::shared_ptr<Endpoint> endpoint) {
    std::shared_ptr<Endpoint> old;
    {
      std::lock_guard lock(mutex_);
      const auto found = endpoints_.find(node);
      if (found != endpoints_.end()) {
        old = std::move(found->second);
        endpoints_.erase(found);
      }
      if (endpoint != nullptr) endpoints_.emplace(node, std::move(endpoint));
    }
    if (old != nullptr) old->inbox.Close();
  }

  const Options options_;
  MetricsSink* const metrics_;
  std::mutex mutex_;
  std::unordered_map<NodeId, std::shared_ptr<Endpoint>> endpoints_;
};

class LocalNetwork::End final : public Transport {
 public:
  End(std::shared_ptr<Hub> hub, NodeId self)
      : hub_(std::move(hub)), self_(self), endpoint_(hub_->Attach(self)) {}
  ~End() override { hub_->DetachIf(self_, endpoint_); }

  NodeId self() const override { return self_; }

  void Send(NodeId to, Channel channel, std::string message) override {
    hub_->Send(self_, endpoint_.get(), to, channel, std::move(message));
  }
  void Listen(Channel channel, Executor* executor, Receiver receiver) override {
    endpoint_->inbox.Listen(channel, executor, std::move(receiver));
  }
  void StopListening(Channel channel) override { endpoint_->inbox.StopListening(channel); }

 private:
  const std::shared_ptr<Hub> hub_;
  const NodeId self_;
  const std::shared_ptr<Endpoint> endpoint_;
};

LocalNetwork::LocalNetwork(Options options, MetricsSink* metrics)
    : hub_(std::make_shared<Hub>(options, metrics)) {}

LocalNetwork::~LocalNetwork() { hub_->DetachAll(); }

std::unique_ptr<Transport> LocalNetwork::Attach(NodeId node) {
  DYNLIB_CHECK(ToUint(node) != 0);
  return std::make_unique<End>(hub_, node);
}

void LocalNetwork::Detach(NodeId node) { hub_->Detach(node); }

}  // namespace dynlib
