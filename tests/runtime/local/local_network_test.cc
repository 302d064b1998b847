#include "dynlib/runtime/local/local_network.h"

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "dynlib/base/ids.h"
#include "dynlib/runtime/posix/thread_executor.h"
#include "dynlib/runtime/transport.h"
#include "dynlib/testing/environment.h"
#include "dynlib/testing/rpc_conformance.h"
#include "dynlib/testing/transport_conformance.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/runtime/counting_sink.h"
#include "tests/runtime/real_environment.h"

namespace dynlib {
namespace {

class LocalEnvironment final : public RealNetwork {
 public:
  ~LocalEnvironment() override {
    ShutDownExecutors();
    transports_.clear();
  }
  Transport* transport(NodeId node) override {
    auto& transport = transports_[node];
    if (transport == nullptr) transport = network_.Attach(node);
    return transport.get();
  }

 private:
  LocalNetwork network_{{}};
  std::map<NodeId, std::unique_ptr<Transport>> transports_;
};

INSTANTIATE_TEST_SUITE_P(Local, TransportConformance,
                         ::testing::Values(TransportConformanceParam{
                             "Local", [] { return std::make_unique<LocalEnvironment>(); }}));
INSTANTIATE_TEST_SUITE_P(Local, RpcConformance,
                         ::testing::Values(RpcConformanceParam{
                             "Local", [] { return std::make_unique<LocalEnvironment>(); }}));

constexpr NodeId kOne{1};
constexpr NodeId kTwo{2};
constexpr Channel kChannel{1};

// Collects the messages of node two; holds the executor until it is released.
class LocalNetworkTest : public ::testing::Test {
 protected:
  void Listen(Transport& transport) {
    transport.Listen(kChannel, &executor_,
                     [this](NodeId, std::string text) { received_.push_back(std::move(text)); });
  }
  void HoldExecutor() {
    executor_.Post([this] {
      while (held_) std::this_thread::yield();
    });
  }
  std::vector<std::string> Received() {
    held_ = false;
    executor_.ShutDown();
    return received_;
  }

  CountingSink counts_;
  std::atomic<bool> held_{true};
  std::vector<std::string> received_;
  ThreadExecutor executor_;
};

TEST_F(LocalNetworkTest, WhatDoesNotFitIsDroppedAndCounted) {
  LocalNetwork network({.inbox = {.max_messages = 3}}, &counts_);
  const auto one = network.Attach(kOne);
  const auto two = network.Attach(kTwo);
  Listen(*two);
  HoldExecutor();
  for (const char* text : {"a", "b", "c", "d", "e"}) one->Send(kTwo, kChannel, text);
  EXPECT_EQ(counts_["transport.dropped"], 2);
  EXPECT_THAT(Received(), ::testing::ElementsAre("a", "b", "c"));
}

TEST_F(LocalNetworkTest, BytesAreBoundedButOneMessageAlwaysFits) {
  LocalNetwork network({.inbox = {.max_bytes = 10}}, &counts_);
  const auto one = network.Attach(kOne);
  const auto two = network.Attach(kTwo);
  Listen(*two);
  HoldExecutor();
  one->Send(kTwo, kChannel, std::string(100, 'x'));
  one->Send(kTwo, kChannel, "y");
  EXPECT_EQ(counts_["transport.dropped"], 1);
  EXPECT_THAT(Received(), ::testing::ElementsAre(std::string(100, 'x')));
}

TEST_F(LocalNetworkTest, ADetachedNodeNeitherReceivesNorSends) {
  LocalNetwork network({}, &counts_);
  const auto one = network.Attach(kOne);
  const auto two = network.Attach(kTwo);
  Listen(*two);
  Listen(*one);
  HoldExecutor();
  one->Send(kTwo, kChannel, "waits when the node goes");
  network.Detach(kTwo);
  one->Send(kTwo, kChannel, "later");
  two->Send(kOne, kChannel, "from the dead");
  EXPECT_THAT(Received(), ::testing::IsEmpty());
  EXPECT_EQ(counts_["transport.dropped"], 2);
}

TEST_F(LocalNetworkTest, ANodeThatAttachesAgainReplacesItsEarlierSelf) {
  LocalNetwork network({}, &counts_);
  const auto one = network.Attach(kOne);
  auto old_two = network.Attach(kTwo);
  const auto new_two = network.Attach(kTwo);
  old_two.reset();  // Does not detach the new one.
  Listen(*new_two);
  one->Send(kTwo, kChannel, "hello");
  held_ = false;
  EXPECT_THAT(Received(), ::testing::ElementsAre("hello"));
}

TEST_F(LocalNetworkTest, TransportsOutliveTheNetwork) {
  auto network = std::make_unique<LocalNetwork>(LocalNetwork::Options{}, &counts_);
  const auto one = network->Attach(kOne);
  Listen(*one);
  network.reset();
  one->Send(kOne, kChannel, "x");
  one->StopListening(kChannel);
  EXPECT_THAT(Received(), ::testing::IsEmpty());
}

}  // namespace
}  // namespace dynlib
