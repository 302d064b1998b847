#include "dynlib/sim/network.h"

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/runtime/transport.h"
#include "dynlib/sim/faults.h"
#include "dynlib/sim/world.h"
#include "gtest/gtest.h"

namespace dynlib::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr NodeId kOne{1};
constexpr NodeId kTwo{2};
constexpr NodeId kThree{3};
constexpr Channel kChannel{7};

// Three nodes that write down what they get.
class NetworkTest : public ::testing::Test {
 protected:
  void Start(const FaultOptions& faults) {
    world_ = std::make_unique<World>(1, faults);
    for (NodeId node : {kOne, kTwo, kThree}) {
      world_->AddNode(node);
      Listen(node);
    }
  }
  void Listen(NodeId id) {
    Node* node = world_->node(id);
    node->transport()->Listen(kChannel, node->NewExecutor("main"),
                              [this, id](NodeId from, std::string message) {
                                got_[id].push_back(std::to_string(ToUint(from)) + message);
                              });
  }
  void Send(NodeId from, NodeId to, std::string message) {
    world_->node(from)->transport()->Send(to, kChannel, std::move(message));
  }
  // What `to` gets of `count` numbered messages.
  std::vector<std::string> Burst(NodeId from, NodeId to, int count) {
    got_.clear();
    for (int i = 0; i < count; ++i) Send(from, to, std::to_string(1000 + i));
    world_->RunFor(seconds(2));
    return got_[to];
  }
  uint64_t Count(const char* fault) {
    auto it = world_->FaultCounts().find(fault);
    return it == world_->FaultCounts().end() ? 0 : it->second;
  }

  std::unique_ptr<World> world_;
  std::map<NodeId, std::vector<std::string>> got_;
};

TEST_F(NetworkTest, WithoutFaultsEverythingArrivesInOrder) {
  Start({});
  const auto got = Burst(kOne, kTwo, 1000);
  ASSERT_EQ(got.size(), 1000u);
  EXPECT_TRUE(std::is_sorted(got.begin(), got.end()));
  EXPECT_EQ(Burst(kOne, kOne, 10).size(), 10u);
  EXPECT_TRUE(world_->FaultCounts().empty());
}

TEST_F(NetworkTest, Loss) {
  Start({.network_loss = 0.1});
  const size_t arrived = Burst(kOne, kTwo, 1000).size();
  EXPECT_EQ(arrived + Count("network.loss"), 1000u);
  EXPECT_GT(arrived, 850u);
  EXPECT_LT(arrived, 950u);
  EXPECT_EQ(Burst(kOne, kOne, 100).size(), 100u) << "a node reaches itself";
}

TEST_F(NetworkTest, Repeat) {
  Start({.network_repeat = 0.1, .network_reorder_us_max = 1'000});
  auto got = Burst(kOne, kTwo, 1000);
  EXPECT_EQ(got.size(), 1000 + Count("network.repeat"));
  EXPECT_GT(got.size(), 1050u);
  std::sort(got.begin(), got.end());
  got.erase(std::unique(got.begin(), got.end()), got.end());
  EXPECT_EQ(got.size(), 1000u);
}

TEST_F(NetworkTest, Reorder) {
  Start({.network_reorder = 0.1, .network_reorder_us_max = 10'000});
  auto got = Burst(kOne, kTwo, 1000);
  EXPECT_EQ(got.size(), 1000u);
  EXPECT_FALSE(std::is_sorted(got.begin(), got.end()));
}

TEST_F(NetworkTest, Delay) {
  Start({.network_delay_us_min = 500'000, .network_delay_us_max = 900'000});
  Send(kOne, kTwo, "x");
  world_->RunFor(milliseconds(500));
  EXPECT_TRUE(got_[kTwo].empty());
  world_->RunFor(milliseconds(401));
  EXPECT_EQ(got_[kTwo].size(), 1u);
}

TEST_F(NetworkTest, PartitionsCutBothWaysOrOneAndEnd) {
  Start({});
  const auto both = world_->network().Partition({kOne}, {kTwo});
  const auto one_way = world_->network().Partition({kTwo}, {kThree}, /*one_way=*/true);
  EXPECT_TRUE(Burst(kOne, kTwo, 5).empty());
  EXPECT_TRUE(Burst(kTwo, kOne, 5).empty());
  EXPECT_EQ(Burst(kOne, kThree, 5).size(), 5u);
  EXPECT_TRUE(Burst(kTwo, kThree, 5).empty());
  EXPECT_EQ(Burst(kThree, kTwo, 5).size(), 5u);
  EXPECT_EQ(Count("network.cut_off"), 15u);
  world_->network().EndPartition(both);
  EXPECT_EQ(Burst(kTwo, kOne, 5).size(), 5u);
  EXPECT_TRUE(Burst(kTwo, kThree, 5).empty());
  world_->network().EndPartition(one_way);
  EXPECT_EQ(Burst(kTwo, kThree, 5).size(), 5u);
}

TEST_F(NetworkTest, ACutDropsWhatIsOnItsWay) {
  Start({});
  Send(kOne, kTwo, "x");
  world_->network().Block(kOne, kTwo);
  world_->RunFor(seconds(1));
  EXPECT_TRUE(got_[kTwo].empty());
  world_->network().Unblock(kOne, kTwo);
  EXPECT_EQ(Burst(kOne, kTwo, 1).size(), 1u);
}

TEST_F(NetworkTest, HealEndsEveryCut) {
  Start({});
  world_->network().Block(kOne, kTwo);
  world_->network().Partition({kOne}, {kTwo, kThree});
  world_->network().Heal();
  EXPECT_EQ(Burst(kOne, kTwo, 3).size(), 3u);
}

TEST_F(NetworkTest, AFilterDropsAndHolds) {
  Start({});
  world_->network().SetFilter([](const SimNetwork::Message& message) {
    if (message.bytes == "drop") return SimNetwork::Verdict::kDrop;
    return message.bytes == "hold" ? SimNetwork::Verdict::kHold : SimNetwork::Verdict::kPass;
  });
  Send(kOne, kTwo, "hold");
  Send(kOne, kTwo, "drop");
  Send(kOne, kTwo, "pass");
  world_->RunFor(seconds(1));
  EXPECT_EQ(got_[kTwo], std::vector<std::string>{"1pass"});
  EXPECT_EQ(world_->network().held(), 1u);
  world_->network().ReleaseHeld();
  world_->RunFor(seconds(1));
  EXPECT_EQ(got_[kTwo], (std::vector<std::string>{"1pass", "1hold"}));
}

TEST_F(NetworkTest, AMessageOutlivesItsSenderAndReachesTheNextIncarnation) {
  Start({});
  Send(kOne, kTwo, "promise");
  world_->node(kOne)->Crash();
  world_->node(kTwo)->Crash();
  world_->node(kTwo)->Restart();
  Listen(kTwo);
  world_->RunFor(seconds(1));
  EXPECT_EQ(got_[kTwo], std::vector<std::string>{"1promise"});
}

TEST_F(NetworkTest, ADeadTransportSendsAndGetsNothing) {
  Start({});
  SimTransport* old = world_->node(kOne)->transport();
  world_->node(kOne)->Crash();
  old->Send(kTwo, kChannel, "ghost");
  Send(kTwo, kOne, "to the dead");
  world_->RunFor(seconds(1));
  world_->node(kOne)->Restart();
  Listen(kOne);
  world_->RunFor(seconds(1));
  EXPECT_TRUE(got_[kTwo].empty());
  EXPECT_TRUE(got_[kOne].empty());
}

TEST_F(NetworkTest, ALinkIsBounded) {
  Start({});
  for (size_t i = 0; i < SimNetwork::kMaxMessagesInFlight + 100; ++i) Send(kOne, kTwo, "");
  world_->RunFor(seconds(10));
  EXPECT_LE(got_[kTwo].size(), SimNetwork::kMaxMessagesInFlight);
  EXPECT_GT(got_[kTwo].size(), SimNetwork::kMaxMessagesInFlight - 10);
}

}  // namespace
}  // namespace dynlib::sim
