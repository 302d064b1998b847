#include "dynlib/runtime/rpc.h"

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/cord.h"
#include "dynlib/base/ids.h"
#include "dynlib/runtime/local/local_network.h"
#include "dynlib/runtime/posix/system_clock.h"
#include "dynlib/runtime/posix/thread_executor.h"
#include "dynlib/runtime/rpc_message.h"
#include "dynlib/runtime/transport.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/runtime/counting_sink.h"
#include "tests/runtime/real_environment.h"

namespace dynlib {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr NodeId kOne{1};
constexpr NodeId kTwo{2};
constexpr NodeId kThree{3};
constexpr Channel kChannel{1};
constexpr Rpc::Method kMethod{1};

TEST(RpcMessage, GoldenBytes) {
  EXPECT_EQ(EncodeRpcMessage({.kind = RpcMessage::Kind::kRequest,
                              .method = 0x04030201,
                              .incarnation = 2,
                              .call = 3,
                              .argument = 0x1122,
                              .body = "body"}),
            std::string("body"
                        "\x22\x11\0\0\0\0\0\0"
                        "\x02\0\0\0\0\0\0\0"
                        "\x03\0\0\0\0\0\0\0"
                        "\x01\x02\x03\x04"
                        "\x01",
                        33));
}

TEST(RpcMessage, StatusGoldenBytesWithPayloadsByType) {
  absl::Status status = absl::NotFoundError("gone");
  status.SetPayload("b", absl::Cord("2"));
  status.SetPayload("a", absl::Cord("1"));
  RpcMessage reply{.kind = RpcMessage::Kind::kReply};
  SetRpcResult(reply, status);
  EXPECT_EQ(reply.argument, 5u);
  EXPECT_EQ(reply.body,
            "\x04gone\x02\x01"
            "a\x01"
            "1\x01"
            "b\x01"
            "2");
  const auto result = TakeRpcResult(reply);
  ASSERT_TRUE(result.has_value());
  EXPECT_EQ(result->status(), status);
}

TEST(RpcMessage, NoPrefixOfAStatusIsTakenForOne) {
  absl::Status status = absl::AbortedError("why");
  status.SetPayload("type", absl::Cord("value"));
  RpcMessage whole{.kind = RpcMessage::Kind::kReply};
  SetRpcResult(whole, status);
  for (size_t size = 0; size < whole.body.size(); ++size) {
    RpcMessage cut = whole;
    cut.body.resize(size);
    EXPECT_EQ(TakeRpcResult(cut), std::nullopt) << size;
  }
  whole.body += 'x';
  EXPECT_EQ(TakeRpcResult(whole), std::nullopt);
}

TEST(RpcMessage, CodesThatAbseilDoesNotKnowAreRefused) {
  for (uint64_t code : {uint64_t{17}, uint64_t{1} << 32, UINT64_MAX}) {
    RpcMessage reply{.kind = RpcMessage::Kind::kReply};
    SetRpcResult(reply, absl::UnknownError(""));
    reply.argument = code;
    EXPECT_EQ(TakeRpcResult(reply), std::nullopt) << code;
  }
}

TEST(RpcMessage, OtherBytesAreRefused) {
  const std::string good = EncodeRpcMessage({.body = "x"});
  for (size_t size = 0; size < 29; ++size) {
    EXPECT_FALSE(DecodeRpcMessage(good.substr(0, size)).has_value()) << size;
  }
  std::string kind = good;
  kind.back() = 3;
  EXPECT_FALSE(DecodeRpcMessage(kind).has_value());
  EXPECT_TRUE(DecodeRpcMessage(good).has_value());
}

// Node one is an Rpc, node two writes messages by hand.
class RpcTest : public ::testing::Test {
 protected:
  RpcTest() {
    rpc_ = std::make_unique<Rpc>(Rpc::Options{.incarnation = 77}, one_.get(), kChannel, &executor_,
                                 &clock_, &counts_);
    two_->Listen(kChannel, &executor_, [this](NodeId, std::string bytes) {
      if (auto message = DecodeRpcMessage(std::move(bytes))) {
        last_ = *std::move(message);
        ++messages_;
      }
    });
  }
  ~RpcTest() override {
    executor_.Post([this] { rpc_.reset(); });
    executor_.ShutDown();
  }
  void Call(Duration timeout) {
    rpc_->Call(kTwo, kMethod, "request", timeout, [this](absl::StatusOr<std::string> result) {
      result_ = std::move(result);
      ++results_;
    });
    ASSERT_TRUE(env_.RunUntil([&] { return messages_ == 1; }, seconds(10)));
  }
  void Reply(Transport& from, uint64_t incarnation, uint64_t call, std::string body) {
    from.Send(kOne, kChannel,
              EncodeRpcMessage({.kind = RpcMessage::Kind::kReply,
                                .incarnation = incarnation,
                                .call = call,
                                .body = std::move(body)}));
  }

  RealTime<Environment> env_;
  SystemClock clock_;
  CountingSink counts_;
  LocalNetwork network_{{}};
  std::unique_ptr<Transport> one_ = network_.Attach(kOne);
  std::unique_ptr<Transport> two_ = network_.Attach(kTwo);
  std::unique_ptr<Transport> three_ = network_.Attach(kThree);
  std::atomic<int> messages_{0};
  RpcMessage last_;
  std::atomic<int> results_{0};
  absl::StatusOr<std::string> result_ = absl::UnknownError("none");
  ThreadExecutor executor_;
  std::unique_ptr<Rpc> rpc_;
};

TEST_F(RpcTest, TheRequestOnTheWire) {
  Call(milliseconds(1500));
  EXPECT_EQ(last_.kind, RpcMessage::Kind::kRequest);
  EXPECT_EQ(last_.method, 1u);
  EXPECT_EQ(last_.incarnation, 77u);
  EXPECT_EQ(last_.argument, 1'500'000u);
  EXPECT_EQ(last_.body, "request");
}

TEST_F(RpcTest, OnlyTheReplyOfThatPeerToThatCallOfThatIncarnationCounts) {
  Call(seconds(100));
  Reply(*three_, 77, last_.call, "from another node");
  Reply(*two_, 76, last_.call, "of another incarnation");
  Reply(*two_, 77, last_.call + 1, "to another call");
  ASSERT_TRUE(env_.RunUntil([&] { return counts_["rpc.unmatched_replies"] == 3; }, seconds(10)));
  EXPECT_EQ(results_, 0);
  Reply(*two_, 77, last_.call, "ours");
  Reply(*two_, 77, last_.call, "repeated by the network");
  ASSERT_TRUE(env_.RunUntil([&] { return counts_["rpc.unmatched_replies"] == 4; }, seconds(10)));
  EXPECT_EQ(results_, 1);
  EXPECT_THAT(result_, IsOkAndHolds("ours"));
}

TEST_F(RpcTest, MalformedBytesAreCounted) {
  two_->Send(kOne, kChannel, "too short");
  std::string bad_status = EncodeRpcMessage(
      {.kind = RpcMessage::Kind::kReply, .incarnation = 77, .call = 1, .argument = 99});
  two_->Send(kOne, kChannel, bad_status);
  EXPECT_TRUE(env_.RunUntil([&] { return counts_["rpc.malformed"] == 2; }, seconds(10)));
}

TEST_F(RpcTest, AReplyAfterTheDeadlineIsNotSent) {
  std::optional<Rpc::Reply> held;
  std::atomic<bool> is_held{false};
  rpc_->Handle(kMethod, [&](NodeId, Instant, std::string, Rpc::Reply reply) {
    held = std::move(reply);
    is_held = true;
  });
  two_->Send(kOne, kChannel,
             EncodeRpcMessage({.method = 1, .incarnation = 1, .call = 1, .argument = 1000}));
  ASSERT_TRUE(env_.RunUntil([&] { return is_held.load(); }, seconds(10)));
  const Instant late = clock_.Now() + milliseconds(2);
  env_.RunUntil([&] { return clock_.Now() > late; }, seconds(1));
  (*held)("too late");
  EXPECT_EQ(counts_["rpc.late_replies"], 1);
  EXPECT_EQ(messages_, 0);
}

TEST_F(RpcTest, ANewIncarnationIsTakenFromTheClock) {
  const auto incarnation = [&](NodeId node) {
    const auto transport = network_.Attach(node);
    Rpc rpc({}, transport.get(), kChannel, &executor_, &clock_);
    const int before = messages_;
    rpc.Call(kTwo, kMethod, "", seconds(10), [](absl::StatusOr<std::string>) {});
    EXPECT_TRUE(env_.RunUntil([&] { return messages_ == before + 1; }, seconds(10)));
    return last_.incarnation;
  };
  const uint64_t first = incarnation(kThree);
  EXPECT_NE(first, incarnation(kThree));
  EXPECT_NE(first, 0u);
}

// Calls, cancels and replies from several threads: each callback runs once.
TEST_F(RpcTest, ThreadsCallAndCancel) {
  constexpr int kThreads = 3;
  constexpr int kCalls = 500;
  ThreadExecutor other;
  std::unique_ptr<Rpc> echo;
  three_->StopListening(kChannel);
  other.Post([&] {
    echo = std::make_unique<Rpc>(Rpc::Options{}, three_.get(), kChannel, &other, &clock_);
    echo->Handle(kMethod, [](NodeId, Instant, std::string request, Rpc::Reply reply) {
      reply(std::move(request));
    });
  });
  std::atomic<int> runs{0};
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kCalls; ++i) {
        std::string text = std::to_string(t * kCalls + i);
        const Rpc::CallId id =
            rpc_->Call(kThree, kMethod, text, milliseconds(i % 7 == 0 ? 1 : 2000),
                       [&, text](absl::StatusOr<std::string> result) {
                         if (result.ok() && *result != text) ++wrong;
                         ++runs;
                       });
        if (i % 5 == 0) rpc_->Cancel(id);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(env_.RunUntil([&] { return runs == kThreads * kCalls; }, seconds(20)));
  EXPECT_EQ(wrong, 0);
  other.Post([&] { echo.reset(); });
  other.ShutDown();
  EXPECT_EQ(runs, kThreads * kCalls);
}

}  // namespace
}  // namespace dynlib
