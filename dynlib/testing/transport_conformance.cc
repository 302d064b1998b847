#include "dynlib/testing/transport_conformance.h"

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/runtime/transport.h"
#include "gmock/gmock.h"

namespace dynlib {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::Contains;
using ::testing::IsEmpty;
using ::testing::Pair;

constexpr Duration kLimit = seconds(20);
constexpr NodeId kOne{1};
constexpr NodeId kTwo{2};
constexpr NodeId kThree{3};
constexpr Channel kChannel{7};
constexpr Channel kOther{8};

// What a receiver got.
class Mailbox {
 public:
  void Listen(TransportEnvironment& env, NodeId node, Channel channel) {
    Executor* const executor = env.executor(node);
    env.transport(node)->Listen(channel, executor, [this, executor](NodeId from, std::string text) {
      if (!executor->IsCurrent()) ++off_executor_;
      std::lock_guard lock(mutex_);
      messages_.emplace_back(from, std::move(text));
    });
  }
  std::vector<std::pair<NodeId, std::string>> messages() const {
    std::lock_guard lock(mutex_);
    return messages_;
  }
  size_t size() const {
    std::lock_guard lock(mutex_);
    return messages_.size();
  }
  bool Has(const std::string& text) const {
    std::lock_guard lock(mutex_);
    for (const auto& message : messages_) {
      if (message.second == text) return true;
    }
    return false;
  }
  int off_executor() const { return off_executor_; }

 private:
  mutable std::mutex mutex_;
  std::vector<std::pair<NodeId, std::string>> messages_;
  std::atomic<int> off_executor_{0};
};

std::string BytesOf(size_t size) {
  std::string bytes(size, '\0');
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i * 131 + (i >> 8));
  return bytes;
}

TEST_P(TransportConformance, KnowsItself) {
  EXPECT_EQ(env_->transport(kOne)->self(), kOne);
  EXPECT_EQ(env_->transport(kTwo)->self(), kTwo);
}

TEST_P(TransportConformance, MessagesArriveWholeWithTheirSender) {
  Mailbox mailbox;
  mailbox.Listen(*env_, kTwo, kChannel);
  const std::vector<std::string> texts = {"", std::string(1, '\0'), "hello", BytesOf(5000),
                                          BytesOf(1 << 20)};
  for (const std::string& text : texts) env_->transport(kOne)->Send(kTwo, kChannel, text);
  env_->transport(kThree)->Send(kTwo, kChannel, "from three");
  ASSERT_TRUE(env_->RunUntil([&] { return mailbox.size() >= 6; }, kLimit));
  for (const std::string& text : texts) {
    // Not by a matcher: it would print a megabyte.
    bool is_there = false;
    for (const auto& [from, got] : mailbox.messages()) is_there |= from == kOne && got == text;
    EXPECT_TRUE(is_there) << text.size() << " bytes";
  }
  EXPECT_THAT(mailbox.messages(), Contains(Pair(kThree, "from three")));
  EXPECT_EQ(mailbox.off_executor(), 0);
}

TEST_P(TransportConformance, TheLongestMessageArrivesAndALongerOneDoesNot) {
  Mailbox mailbox;
  mailbox.Listen(*env_, kTwo, kChannel);
  env_->transport(kOne)->Send(kTwo, kChannel, std::string(Transport::kMaxMessageBytes + 1, 'x'));
  env_->transport(kOne)->Send(kTwo, kChannel, std::string(Transport::kMaxMessageBytes, 'y'));
  ASSERT_TRUE(env_->RunUntil([&] { return mailbox.size() >= 1; }, kLimit));
  const auto messages = mailbox.messages();
  ASSERT_EQ(messages.size(), 1u);
  EXPECT_EQ(messages[0].second.size(), Transport::kMaxMessageBytes);
  EXPECT_TRUE(messages[0].second == std::string(Transport::kMaxMessageBytes, 'y'));
}

TEST_P(TransportConformance, BothWaysAndInAnswerToOneAnother) {
  std::atomic<int> rounds{0};
  for (const auto& [self, peer] : {std::pair(kOne, kTwo), std::pair(kTwo, kOne)}) {
    Transport* const transport = env_->transport(self);
    transport->Listen(kChannel, env_->executor(self),
                      [&rounds, transport](NodeId from, std::string text) {
                        if (++rounds < 100) transport->Send(from, kChannel, std::move(text));
                      });
  }
  env_->transport(kOne)->Send(kTwo, kChannel, "ball");
  EXPECT_TRUE(env_->RunUntil([&] { return rounds >= 100; }, kLimit));
}

TEST_P(TransportConformance, ToItselfAndNotInline) {
  Transport* const transport = env_->transport(kOne);
  Executor* const executor = env_->executor(kOne);
  std::atomic<int> state{0};
  transport->Listen(kChannel, executor, [&](NodeId from, std::string text) {
    if (from == kOne && text == "self" && state == 2) state = 3;
  });
  executor->Post([&] {
    state = 1;
    transport->Send(kOne, kChannel, "self");
    state = 2;
  });
  EXPECT_TRUE(env_->RunUntil([&] { return state == 3; }, kLimit));
}

TEST_P(TransportConformance, ChannelsAreApart) {
  Mailbox first;
  Mailbox second;
  first.Listen(*env_, kTwo, kChannel);
  second.Listen(*env_, kTwo, kOther);
  env_->transport(kOne)->Send(kTwo, kChannel, "a");
  env_->transport(kOne)->Send(kTwo, kOther, "b");
  ASSERT_TRUE(env_->RunUntil([&] { return first.Has("a") && second.Has("b"); }, kLimit));
  EXPECT_FALSE(first.Has("b"));
  EXPECT_FALSE(second.Has("a"));
}

TEST_P(TransportConformance, WithoutAReceiverMessagesAreDroppedNotKept) {
  Mailbox mailbox;
  Mailbox other;
  other.Listen(*env_, kTwo, kOther);
  env_->transport(kOne)->Send(kTwo, kChannel, "early");
  env_->transport(kOne)->Send(kTwo, kOther, "mark");
  ASSERT_TRUE(env_->RunUntil([&] { return other.Has("mark"); }, kLimit));
  env_->RunUntil([] { return false; }, milliseconds(100));
  mailbox.Listen(*env_, kTwo, kChannel);
  env_->transport(kOne)->Send(kTwo, kChannel, "late");
  ASSERT_TRUE(env_->RunUntil([&] { return mailbox.Has("late"); }, kLimit));
  EXPECT_FALSE(mailbox.Has("early"));
}

TEST_P(TransportConformance, ANewReceiverReplacesTheOld) {
  Mailbox old_one;
  Mailbox new_one;
  old_one.Listen(*env_, kTwo, kChannel);
  new_one.Listen(*env_, kTwo, kChannel);
  env_->transport(kOne)->Send(kTwo, kChannel, "a");
  ASSERT_TRUE(env_->RunUntil([&] { return new_one.Has("a"); }, kLimit));
  EXPECT_THAT(old_one.messages(), IsEmpty());
}

TEST_P(TransportConformance, StopListeningOnTheExecutorIsExact) {
  Transport* const receiver = env_->transport(kTwo);
  Executor* const executor = env_->executor(kTwo);
  std::atomic<int> received{0};
  std::atomic<int> after_stop{0};
  std::atomic<bool> stopped{false};
  receiver->Listen(kChannel, executor, [&](NodeId, std::string) {
    ++received;
    if (stopped) ++after_stop;
  });
  const auto flood = [&] {
    for (int i = 0; i < 200; ++i) env_->transport(kOne)->Send(kTwo, kChannel, "x");
  };
  flood();
  ASSERT_TRUE(env_->RunUntil([&] { return received > 0; }, kLimit));
  executor->Post([&] {
    receiver->StopListening(kChannel);
    stopped = true;
  });
  flood();
  ASSERT_TRUE(env_->RunUntil([&] { return stopped.load(); }, kLimit));
  env_->RunUntil([] { return false; }, milliseconds(50));
  EXPECT_EQ(after_stop, 0);
}

TEST_P(TransportConformance, AReceiverStopsItself) {
  Transport* const receiver = env_->transport(kTwo);
  std::atomic<int> received{0};
  // Held by the receiver: it must live until the receiver returned.
  auto held = std::make_shared<std::string>("held");
  receiver->Listen(kChannel, env_->executor(kTwo),
                   [&received, receiver, held](NodeId, std::string) {
                     receiver->StopListening(kChannel);
                     if (*held == "held") ++received;
                   });
  for (int i = 0; i < 10; ++i) env_->transport(kOne)->Send(kTwo, kChannel, "x");
  ASSERT_TRUE(env_->RunUntil([&] { return received >= 1; }, kLimit));
  env_->RunUntil([] { return false; }, milliseconds(50));
  EXPECT_EQ(received, 1);
}

TEST_P(TransportConformance, ToANodeThatIsNotThereDoesNoHarm) {
  Mailbox mailbox;
  mailbox.Listen(*env_, kTwo, kChannel);
  for (int i = 0; i < 100; ++i) env_->transport(kOne)->Send(NodeId{99}, kChannel, "lost");
  env_->transport(kOne)->Send(kTwo, kChannel, "found");
  ASSERT_TRUE(env_->RunUntil([&] { return mailbox.Has("found"); }, kLimit));
  EXPECT_FALSE(mailbox.Has("lost"));
}

// More than any queue holds: what does not fit is dropped, and afterwards messages pass again.
TEST_P(TransportConformance, AFloodNeitherBlocksNorChokes) {
  std::atomic<size_t> received{0};
  std::atomic<bool> marked{false};
  env_->transport(kTwo)->Listen(kChannel, env_->executor(kTwo), [&](NodeId, std::string text) {
    ++received;
    if (text == "mark") marked = true;
  });
  constexpr size_t kFlood = 30'000;
  for (size_t i = 0; i < kFlood; ++i) {
    env_->transport(kOne)->Send(kTwo, kChannel, std::string(100, 'x'));
  }
  const auto mark_arrives = [&] {
    env_->transport(kOne)->Send(kTwo, kChannel, "mark");
    return env_->RunUntil([&] { return marked.load(); }, milliseconds(200));
  };
  bool arrived = false;
  for (int attempt = 0; attempt < 50 && !arrived; ++attempt) arrived = mark_arrives();
  EXPECT_TRUE(arrived);
  EXPECT_GT(received, 1u);
}

TEST_P(TransportConformance, StopListeningOnAChannelWithoutAReceiverDoesNothing) {
  env_->transport(kOne)->StopListening(kOther);
}

}  // namespace
}  // namespace dynlib
