#include "dynlib/runtime/tcp/tcp_transport.h"

#include <errno.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "dynlib/base/checksum.h"
#include "dynlib/base/ids.h"
#include "dynlib/runtime/posix/thread_executor.h"
#include "dynlib/runtime/tcp/frame.h"
#include "dynlib/runtime/tcp/socket.h"
#include "dynlib/runtime/transport.h"
#include "dynlib/testing/environment.h"
#include "dynlib/testing/rpc_conformance.h"
#include "dynlib/testing/status_matchers.h"
#include "dynlib/testing/transport_conformance.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/runtime/counting_sink.h"
#include "tests/runtime/real_environment.h"

namespace dynlib {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

constexpr NodeId kOne{1};
constexpr NodeId kTwo{2};
constexpr NodeId kThree{3};
constexpr Channel kChannel{1};

class TcpEnvironment final : public RealNetwork {
 public:
  TcpEnvironment() {
    for (NodeId node : {kOne, kTwo, kThree}) {
      transports_[node] = *TcpTransport::Start({.self = node});
    }
    for (auto& [node, transport] : transports_) {
      for (auto& [peer, other] : transports_) {
        if (node == peer) continue;
        DYNLIB_EXPECT_OK(transport->AddPeer(peer, other->address()));
      }
    }
  }
  ~TcpEnvironment() override {
    ShutDownExecutors();
    transports_.clear();
  }
  Transport* transport(NodeId node) override { return transports_.at(node).get(); }

 private:
  std::map<NodeId, std::unique_ptr<TcpTransport>> transports_;
};

INSTANTIATE_TEST_SUITE_P(Tcp, TransportConformance,
                         ::testing::Values(TransportConformanceParam{
                             "Tcp", [] { return std::make_unique<TcpEnvironment>(); }}));
INSTANTIATE_TEST_SUITE_P(Tcp, RpcConformance,
                         ::testing::Values(RpcConformanceParam{
                             "Tcp", [] { return std::make_unique<TcpEnvironment>(); }}));

class TcpTransportTest : public ::testing::Test {
 protected:
  ~TcpTransportTest() override {
    two_.reset();
    executor_.ShutDown();
  }

  void StartTwo(const std::string& listen = "127.0.0.1:0") {
    auto started = TcpTransport::Start({.self = kTwo, .listen = listen}, &counts_);
    DYNLIB_ASSERT_OK(started);
    two_ = *std::move(started);
    two_->Listen(kChannel, &executor_, [this](NodeId, std::string text) {
      std::lock_guard lock(mutex_);
      received_.push_back(std::move(text));
    });
  }
  size_t received() {
    std::lock_guard lock(mutex_);
    return received_.size();
  }
  bool Received(const std::string& text) {
    std::lock_guard lock(mutex_);
    return std::count(received_.begin(), received_.end(), text) > 0;
  }
  // Sends until one arrives: some may be lost while the connection is remade.
  bool SendUntilReceived(Transport& from, const std::string& text) {
    for (int i = 0; i < 100; ++i) {
      from.Send(kTwo, kChannel, text);
      if (env_.RunUntil([&] { return Received(text); }, milliseconds(50))) return true;
    }
    return false;
  }

  // A socket that is connected to node two, by hand.
  Fd RawConnection() {
    Fd fd = *ConnectTo(*ResolveAddress(two_->address()));
    EXPECT_TRUE(
        env_.RunUntil([&] { return send(fd.get(), "", 0, MSG_NOSIGNAL) == 0; }, seconds(5)));
    return fd;
  }
  void SendRaw(const Fd& fd, const std::string& bytes) {
    EXPECT_EQ(send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  bool IsClosedByPeer(const Fd& fd) {
    return env_.RunUntil(
        [&] {
          char byte;
          const ssize_t got = recv(fd.get(), &byte, 1, MSG_DONTWAIT);
          return got == 0 || (got < 0 && errno == ECONNRESET);
        },
        seconds(5));
  }
  static std::string Frame(FrameHeader header, const std::string& text) {
    const auto bytes = EncodeFrameHeader(header);
    return std::string(bytes.data(), bytes.size()) + text;
  }
  static FrameHeader HeaderFor(const std::string& text) {
    return {.length = static_cast<uint32_t>(text.size()),
            .from = kOne,
            .to = kTwo,
            .channel = kChannel,
            .checksum = Checksum(text)};
  }

  RealTime<Environment> env_;
  CountingSink counts_;
  ThreadExecutor executor_;
  std::mutex mutex_;
  std::vector<std::string> received_;
  std::unique_ptr<TcpTransport> two_;
};

TEST_F(TcpTransportTest, BadOptionsAreNamed) {
  const auto code = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(TcpTransport::Start({}), StatusIs(code, HasSubstr("self")));
  EXPECT_THAT(TcpTransport::Start({.self = kOne, .listen = "nonsense"}),
              StatusIs(code, HasSubstr("nonsense")));
  EXPECT_THAT(TcpTransport::Start({.self = kOne, .listen = "127.0.0.1:70000"}),
              StatusIs(code, HasSubstr("70000")));
  EXPECT_THAT(TcpTransport::Start({.self = kOne, .peers = {{kTwo, ":1"}}}),
              StatusIs(code, HasSubstr(":1")));
  EXPECT_THAT(TcpTransport::Start({.self = kOne, .max_queued_messages = 0}),
              StatusIs(code, HasSubstr("max_queued_messages")));
  EXPECT_THAT(TcpTransport::Start({.self = kOne, .reconnect_min = seconds(5)}),
              StatusIs(code, HasSubstr("reconnect_max")));
}

TEST_F(TcpTransportTest, AnAddressInUseIsUnavailableAndNamed) {
  StartTwo();
  EXPECT_THAT(TcpTransport::Start({.self = kOne, .listen = two_->address()}),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr(two_->address())));
}

TEST_F(TcpTransportTest, APeerThatRestartsIsReachedAgain) {
  StartTwo();
  const std::string address = two_->address();
  const auto one = *TcpTransport::Start({.self = kOne, .peers = {{kTwo, address}}}, &counts_);
  ASSERT_TRUE(SendUntilReceived(*one, "before"));
  two_.reset();
  for (int i = 0; i < 20; ++i) one->Send(kTwo, kChannel, "while it is down");
  ASSERT_TRUE(
      env_.RunUntil([&] { return counts_["transport.connection_failures"] > 0; }, seconds(5)));
  StartTwo(address);
  EXPECT_TRUE(SendUntilReceived(*one, "after"));
}

TEST_F(TcpTransportTest, APeerThatMovesIsReachedAtItsNewAddress) {
  StartTwo();
  const auto one =
      *TcpTransport::Start({.self = kOne, .peers = {{kTwo, two_->address()}}}, &counts_);
  ASSERT_TRUE(SendUntilReceived(*one, "before"));
  two_.reset();
  StartTwo();
  DYNLIB_ASSERT_OK(one->AddPeer(kTwo, two_->address()));
  EXPECT_TRUE(SendUntilReceived(*one, "after"));
}

TEST_F(TcpTransportTest, ManyMessagesArriveInOrderOnOneConnection) {
  StartTwo();
  const auto one =
      *TcpTransport::Start({.self = kOne, .peers = {{kTwo, two_->address()}}}, &counts_);
  for (int i = 0; i < 3000; ++i) one->Send(kTwo, kChannel, std::to_string(i));
  ASSERT_TRUE(env_.RunUntil([&] { return received() == 3000; }, seconds(20)));
  for (int i = 0; i < 3000; ++i) ASSERT_EQ(received_[i], std::to_string(i));
  EXPECT_EQ(counts_["transport.connects"], 1);
}

TEST_F(TcpTransportTest, WhatWaitsForADeadPeerIsDropped) {
  StartTwo();
  const std::string address = two_->address();
  two_.reset();
  const auto one = *TcpTransport::Start({.self = kOne,
                                         .peers = {{kTwo, address}},
                                         .max_queued_messages = 10,
                                         .reconnect_min = milliseconds(50)},
                                        &counts_);
  for (int i = 0; i < 1000; ++i) one->Send(kTwo, kChannel, "lost");
  EXPECT_TRUE(env_.RunUntil([&] { return counts_["transport.dropped"] == 1000; }, seconds(10)));
}

// A peer that accepts and never reads: the bound holds, and Send does not block.
TEST_F(TcpTransportTest, TheQueueToAPeerThatDoesNotReadIsBounded) {
  auto silent = *ListenOn(*ResolveAddress("127.0.0.1:0"));
  const auto one = *TcpTransport::Start(
      {.self = kOne, .peers = {{kTwo, ShowAddress(silent.second)}}, .max_queued_bytes = 1 << 20},
      &counts_);
  // 64 MiB, much more than the bound and what the kernel holds for a connection.
  for (int i = 0; i < 1000; ++i) one->Send(kTwo, kChannel, std::string(64 << 10, 'x'));
  EXPECT_GT(counts_["transport.dropped"], 500);
}

TEST_F(TcpTransportTest, AGoodFrameByHandArrives) {
  StartTwo();
  const Fd fd = RawConnection();
  const std::string frame = Frame(HeaderFor("by hand"), "by hand");
  // In two parts, cut within the header.
  SendRaw(fd, frame.substr(0, 20));
  SendRaw(fd, frame.substr(20));
  EXPECT_TRUE(env_.RunUntil([&] { return Received("by hand"); }, seconds(5)));
}

TEST_F(TcpTransportTest, GarbageClosesTheConnectionAndHarmsNobodyElse) {
  StartTwo();
  const auto one =
      *TcpTransport::Start({.self = kOne, .peers = {{kTwo, two_->address()}}}, &counts_);
  ASSERT_TRUE(SendUntilReceived(*one, "before"));
  const Fd fd = RawConnection();
  SendRaw(fd, std::string(200, 'g'));
  EXPECT_TRUE(IsClosedByPeer(fd));
  EXPECT_EQ(counts_["transport.damaged"], 1);
  EXPECT_TRUE(SendUntilReceived(*one, "after"));
}

TEST_F(TcpTransportTest, AnOversizedFrameClosesTheConnection) {
  StartTwo();
  const Fd fd = RawConnection();
  FrameHeader header = HeaderFor("");
  header.length = Transport::kMaxMessageBytes + 1;
  SendRaw(fd, Frame(header, ""));
  EXPECT_TRUE(IsClosedByPeer(fd));
  EXPECT_EQ(counts_["transport.damaged"], 1);
}

TEST_F(TcpTransportTest, AFrameForAnotherNodeClosesTheConnection) {
  StartTwo();
  const Fd fd = RawConnection();
  FrameHeader header = HeaderFor("x");
  header.to = kThree;
  SendRaw(fd, Frame(header, "x"));
  EXPECT_TRUE(IsClosedByPeer(fd));
  EXPECT_EQ(received(), 0u);
}

TEST_F(TcpTransportTest, MoreConnectionsThanAllowedAreClosed) {
  auto started = TcpTransport::Start({.self = kTwo, .max_connections = 1}, &counts_);
  DYNLIB_ASSERT_OK(started);
  two_ = *std::move(started);
  const Fd first = RawConnection();
  SendRaw(first, Frame(HeaderFor(""), ""));
  ASSERT_TRUE(env_.RunUntil([&] { return counts_["transport.no_receiver"] == 1; }, seconds(5)));
  const Fd second = RawConnection();
  EXPECT_TRUE(IsClosedByPeer(second));
}

// Every damaged byte of a frame is found, and no prefix of one yields a message.
TEST(FrameReader, DamageAtEveryByte) {
  const std::string text = "the message";
  const FrameHeader header{.length = static_cast<uint32_t>(text.size()),
                           .from = kOne,
                           .to = kTwo,
                           .channel = kChannel,
                           .checksum = Checksum(text)};
  const auto encoded = EncodeFrameHeader(header);
  const std::string frame = std::string(encoded.data(), encoded.size()) + text;
  int messages = 0;
  const FrameReader::Sink sink = [&](NodeId, Channel, std::string) { ++messages; };
  for (size_t i = 0; i < frame.size(); ++i) {
    std::string damaged = frame;
    damaged[i] ^= 1;
    EXPECT_FALSE(FrameReader(kTwo).Consume(damaged, sink)) << i;
    EXPECT_TRUE(FrameReader(kTwo).Consume(frame.substr(0, i), sink)) << i;
  }
  EXPECT_EQ(messages, 0);
  FrameReader reader(kTwo);
  EXPECT_TRUE(reader.Consume(frame + frame, sink));
  for (char c : frame) EXPECT_TRUE(reader.Consume(std::string(1, c), sink));
  EXPECT_EQ(messages, 3);
}

// The layout that the header of frame.h describes.
TEST(FrameReader, GoldenBytes) {
  const auto bytes = EncodeFrameHeader({.length = 3,
                                        .from = NodeId{0x11},
                                        .to = NodeId{0x22},
                                        .channel = Channel{0x33},
                                        .checksum = 0x8877665544332211});
  EXPECT_EQ(std::string(bytes.data(), 40), std::string("DYT1\x03\0\0\0"
                                                       "\x11\0\0\0\0\0\0\0"
                                                       "\x22\0\0\0\0\0\0\0"
                                                       "\x33\0\0\0\0\0\0\0"
                                                       "\x11\x22\x33\x44\x55\x66\x77\x88",
                                                       40));
}

}  // namespace
}  // namespace dynlib
