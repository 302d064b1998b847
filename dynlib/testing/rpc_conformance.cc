#include "dynlib/testing/rpc_conformance.h"

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/cord.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/runtime/executor.h"
#include "dynlib/runtime/rpc.h"
#include "dynlib/runtime/transport.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"

namespace dynlib {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

constexpr Duration kLimit = seconds(20);
constexpr Channel kChannel{3};
constexpr NodeId kOne{1};
constexpr NodeId kTwo{2};
constexpr Rpc::Method kEcho{1};
constexpr Rpc::Method kFail{2};
constexpr Rpc::Method kHold{3};
constexpr Rpc::Method kDrop{4};
constexpr Rpc::Method kMissing{5};

// What a callback got, and how often it ran.
struct Outcome {
  std::mutex mutex;
  absl::StatusOr<std::string> result = absl::UnknownError("not yet");
  std::atomic<int> runs{0};
  std::atomic<int> off_executor{0};

  absl::StatusOr<std::string> Get() {
    std::lock_guard lock(mutex);
    return result;
  }
};

// Two nodes with an Rpc each, made and destroyed on their executors.
class Pair {
 public:
  explicit Pair(TransportEnvironment& env, Rpc::Options options = {}) : env_(env) {
    for (NodeId node : {kOne, kTwo}) Make(node, options);
    On(kTwo, [this] { AddHandlers(); });
  }
  ~Pair() {
    for (NodeId node : {kOne, kTwo}) Destroy(node);
  }

  void Make(NodeId node, Rpc::Options options) {
    On(node, [&] {
      rpcs_[node] = std::make_unique<Rpc>(options, env_.transport(node), kChannel,
                                          env_.executor(node), env_.node_clock(node));
    });
  }
  void Destroy(NodeId node) {
    On(node, [&] { DestroyHere(node); });
  }
  // On the node's executor.
  void DestroyHere(NodeId node) { rpcs_[node].reset(); }

  // Runs `body` on the node's executor, to its end.
  void On(NodeId node, std::function<void()> body) {
    std::atomic<bool> done{false};
    env_.executor(node)->Post([&] {
      body();
      done = true;
    });
    ASSERT_TRUE(env_.RunUntil([&] { return done.load(); }, kLimit));
  }

  Rpc& rpc(NodeId node) { return *rpcs_[node]; }

  std::shared_ptr<Outcome> Call(Rpc::Method method, std::string request, Duration timeout,
                                Rpc::CallId* id = nullptr) {
    auto outcome = std::make_shared<Outcome>();
    Executor* const executor = env_.executor(kOne);
    const Rpc::CallId call =
        rpc(kOne).Call(kTwo, method, std::move(request), timeout,
                       [outcome, executor](absl::StatusOr<std::string> result) {
                         if (!executor->IsCurrent()) ++outcome->off_executor;
                         std::lock_guard lock(outcome->mutex);
                         outcome->result = std::move(result);
                         ++outcome->runs;
                       });
    if (id != nullptr) *id = call;
    return outcome;
  }

  absl::StatusOr<std::string> Wait(const std::shared_ptr<Outcome>& outcome) {
    EXPECT_TRUE(env_.RunUntil([&] { return outcome->runs > 0; }, kLimit));
    EXPECT_EQ(outcome->off_executor, 0);
    return outcome->Get();
  }

  size_t held() {
    std::lock_guard lock(mutex_);
    return held_.size();
  }
  // Replies to the requests that kHold holds.
  void Release() {
    std::vector<Rpc::Reply> replies;
    {
      std::lock_guard lock(mutex_);
      replies.swap(held_);
    }
    for (Rpc::Reply& reply : replies) reply("released");
  }
  void ReleaseFirst() {
    Rpc::Reply reply;
    {
      std::lock_guard lock(mutex_);
      reply = std::move(held_.front());
      held_.erase(held_.begin());
    }
    reply("released");
  }
  int64_t handler_deadline_nanos() const { return handler_deadline_; }
  int64_t handler_now_nanos() const { return handler_now_; }

 private:
  void AddHandlers() {
    rpc(kTwo).Handle(kEcho,
                     [this](NodeId from, Instant deadline, std::string request, Rpc::Reply reply) {
                       handler_deadline_ = deadline.nanos();
                       handler_now_ = env_.node_clock(kTwo)->Now().nanos();
                       reply(from == kOne ? absl::StatusOr<std::string>(std::move(request))
                                          : absl::InternalError("from another"));
                     });
    rpc(kTwo).Handle(kFail, [](NodeId, Instant, std::string, Rpc::Reply reply) {
      absl::Status status = absl::FailedPreconditionError("not the leader");
      status.SetPayload("hint/leader", absl::Cord("3"));
      status.SetPayload("hint/other", absl::Cord(""));
      reply(status);
    });
    rpc(kTwo).Handle(kHold, [this](NodeId, Instant, std::string, Rpc::Reply reply) {
      std::lock_guard lock(mutex_);
      held_.push_back(std::move(reply));
    });
    rpc(kTwo).Handle(kDrop, [](NodeId, Instant, std::string, Rpc::Reply) {});
  }

  TransportEnvironment& env_;
  std::map<NodeId, std::unique_ptr<Rpc>> rpcs_;
  std::mutex mutex_;
  std::vector<Rpc::Reply> held_;
  std::atomic<int64_t> handler_deadline_{0};
  std::atomic<int64_t> handler_now_{0};
};

TEST_P(RpcConformance, RequestAndReply) {
  Pair pair(*env_);
  EXPECT_THAT(pair.Wait(pair.Call(kEcho, "hello", seconds(10))), IsOkAndHolds("hello"));
  EXPECT_THAT(pair.Wait(pair.Call(kEcho, "", seconds(10))), IsOkAndHolds(""));
  const std::string large(2 << 20, 'x');
  DYNLIB_ASSERT_OK_AND_ASSIGN(const std::string got,
                              pair.Wait(pair.Call(kEcho, large, seconds(10))));
  EXPECT_TRUE(got == large);
}

TEST_P(RpcConformance, ManyCallsAtOnceGetTheirOwnReplies) {
  Pair pair(*env_);
  std::vector<std::shared_ptr<Outcome>> outcomes;
  for (int i = 0; i < 500; ++i) outcomes.push_back(pair.Call(kEcho, std::to_string(i), kLimit));
  for (int i = 0; i < 500; ++i) {
    ASSERT_THAT(pair.Wait(outcomes[i]), IsOkAndHolds(std::to_string(i)));
  }
  for (const auto& outcome : outcomes) EXPECT_EQ(outcome->runs, 1);
}

TEST_P(RpcConformance, AnErrorTravelsWithItsPayloads) {
  Pair pair(*env_);
  const absl::Status status = pair.Wait(pair.Call(kFail, "", seconds(10))).status();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kFailedPrecondition, "not the leader"));
  EXPECT_EQ(status.GetPayload("hint/leader"), absl::Cord("3"));
  EXPECT_EQ(status.GetPayload("hint/other"), absl::Cord(""));
}

TEST_P(RpcConformance, NoHandlerIsUnimplemented) {
  Pair pair(*env_);
  EXPECT_THAT(pair.Wait(pair.Call(kMissing, "", seconds(10))),
              StatusIs(absl::StatusCode::kUnimplemented));
}

TEST_P(RpcConformance, ADroppedReplyIsInternal) {
  Pair pair(*env_);
  EXPECT_THAT(pair.Wait(pair.Call(kDrop, "", seconds(10))), StatusIs(absl::StatusCode::kInternal));
}

TEST_P(RpcConformance, TheHandlerSeesTheDeadline) {
  Pair pair(*env_);
  DYNLIB_ASSERT_OK(pair.Wait(pair.Call(kEcho, "", seconds(10))));
  const Duration left(pair.handler_deadline_nanos() - pair.handler_now_nanos());
  EXPECT_LE(left, seconds(10));
  EXPECT_GT(left, seconds(5));
}

TEST_P(RpcConformance, TheDeadlinePassesOnceAndTheLateReplyIsDropped) {
  Pair pair(*env_);
  const Instant start = env_->clock()->Now();
  const auto outcome = pair.Call(kHold, "", milliseconds(300));
  EXPECT_THAT(pair.Wait(outcome), StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_GE(env_->clock()->Now() - start, milliseconds(295));  // clocks may drift
  pair.Release();
  env_->RunUntil([] { return false; }, milliseconds(100));
  EXPECT_EQ(outcome->runs, 1);
}

TEST_P(RpcConformance, DeadlinesPassInTheirOrderWhateverTheOrderOfTheCalls) {
  Pair pair(*env_);
  const auto longer = pair.Call(kHold, "", milliseconds(600));
  const auto shorter = pair.Call(kHold, "", milliseconds(100));
  EXPECT_THAT(pair.Wait(shorter), StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_EQ(longer->runs, 0);
  EXPECT_THAT(pair.Wait(longer), StatusIs(absl::StatusCode::kDeadlineExceeded));
}

TEST_P(RpcConformance, ATimeoutOfZeroIsExceededAtOnce) {
  Pair pair(*env_);
  EXPECT_THAT(pair.Wait(pair.Call(kEcho, "", Duration::zero())),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_THAT(pair.Wait(pair.Call(kEcho, "", Duration::min())),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
}

TEST_P(RpcConformance, TheLongestTimeoutIsForEver) {
  Pair pair(*env_);
  EXPECT_THAT(pair.Wait(pair.Call(kEcho, "x", Duration::max())), IsOkAndHolds("x"));
  EXPECT_EQ(pair.handler_deadline_nanos(), Instant::Infinite().nanos());
}

TEST_P(RpcConformance, CancelAnswersOnce) {
  Pair pair(*env_);
  Rpc::CallId id{};
  const auto outcome = pair.Call(kHold, "", seconds(10), &id);
  ASSERT_TRUE(env_->RunUntil([&] { return pair.held() == 1; }, kLimit));
  EXPECT_EQ(outcome->runs, 0);
  pair.rpc(kOne).Cancel(id);
  pair.rpc(kOne).Cancel(id);
  EXPECT_THAT(pair.Wait(outcome), StatusIs(absl::StatusCode::kCancelled));
  pair.Release();
  env_->RunUntil([] { return false; }, milliseconds(100));
  EXPECT_EQ(outcome->runs, 1);
}

TEST_P(RpcConformance, MoreCallsThanAllowedAreRefusedHere) {
  Pair pair(*env_, {.max_calls = 3});
  std::vector<std::shared_ptr<Outcome>> held;
  for (int i = 0; i < 3; ++i) held.push_back(pair.Call(kHold, "", seconds(10)));
  EXPECT_THAT(pair.Wait(pair.Call(kEcho, "", seconds(10))),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("3 calls")));
  ASSERT_TRUE(env_->RunUntil([&] { return pair.held() == 3; }, kLimit));
  pair.Release();
  for (const auto& outcome : held) EXPECT_THAT(pair.Wait(outcome), IsOkAndHolds("released"));
  EXPECT_THAT(pair.Wait(pair.Call(kEcho, "again", seconds(10))), IsOkAndHolds("again"));
}

TEST_P(RpcConformance, MoreRequestsThanAllowedAreRefusedThere) {
  Pair pair(*env_, {.max_serving = 2});
  std::vector<std::shared_ptr<Outcome>> held;
  for (int i = 0; i < 2; ++i) held.push_back(pair.Call(kHold, "", seconds(10)));
  ASSERT_TRUE(env_->RunUntil([&] { return pair.held() == 2; }, kLimit));
  EXPECT_THAT(pair.Wait(pair.Call(kEcho, "", seconds(10))),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("2 requests")));
  pair.Release();
  for (const auto& outcome : held) EXPECT_THAT(pair.Wait(outcome), IsOkAndHolds("released"));
  EXPECT_THAT(pair.Wait(pair.Call(kEcho, "again", seconds(10))), IsOkAndHolds("again"));
}

TEST_P(RpcConformance, ATooLongRequestIsRefused) {
  Pair pair(*env_);
  EXPECT_THAT(pair.Wait(pair.Call(kEcho, std::string(Rpc::kMaxRequestBytes + 1, 'x'), seconds(10))),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_P(RpcConformance, DestructionCancelsCallsAndLeavesRepliesHarmless) {
  Pair pair(*env_);
  std::vector<std::shared_ptr<Outcome>> outcomes;
  for (int i = 0; i < 5; ++i) outcomes.push_back(pair.Call(kHold, "", seconds(100)));
  ASSERT_TRUE(env_->RunUntil([&] { return pair.held() == 5; }, kLimit));
  pair.Destroy(kOne);
  for (const auto& outcome : outcomes) {
    EXPECT_THAT(pair.Wait(outcome), StatusIs(absl::StatusCode::kCancelled));
  }
  pair.Destroy(kTwo);
  pair.Release();
  env_->RunUntil([] { return false; }, milliseconds(50));
  for (const auto& outcome : outcomes) EXPECT_EQ(outcome->runs, 1);
}

// Call ids begin again with each Rpc of a node.
TEST_P(RpcConformance, AReplyToAnEarlierIncarnationIsNotTakenForOurs) {
  Pair pair(*env_);
  const auto earlier = pair.Call(kHold, "", seconds(100));
  ASSERT_TRUE(env_->RunUntil([&] { return pair.held() == 1; }, kLimit));
  pair.Destroy(kOne);
  env_->RunUntil([] { return false; }, milliseconds(5));
  pair.Make(kOne, {});
  // The first call of this incarnation, as the other was of its own. It never gets a reply.
  const auto ours = pair.Call(kHold, "", milliseconds(500));
  ASSERT_TRUE(env_->RunUntil([&] { return pair.held() == 2; }, kLimit));
  pair.ReleaseFirst();
  EXPECT_THAT(pair.Wait(ours), StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_THAT(pair.Wait(earlier), StatusIs(absl::StatusCode::kCancelled));
}

TEST_P(RpcConformance, ACallbackCallsAgainAndDestroysTheRpc) {
  Pair pair(*env_);
  std::atomic<int> replies{0};
  std::atomic<bool> destroyed{false};
  env_->executor(kOne)->Post([&] {
    pair.rpc(kOne).Call(kTwo, kEcho, "1", seconds(10), [&](absl::StatusOr<std::string> first) {
      replies += first.ok();
      pair.rpc(kOne).Call(kTwo, kEcho, "2", seconds(10), [&](absl::StatusOr<std::string> second) {
        replies += second.ok();
        pair.DestroyHere(kOne);
        destroyed = true;
      });
    });
  });
  ASSERT_TRUE(env_->RunUntil([&] { return destroyed.load(); }, kLimit));
  EXPECT_EQ(replies, 2);
}

TEST_P(RpcConformance, BytesThatAreNoMessageAreDropped) {
  Pair pair(*env_);
  for (const std::string& bytes :
       {std::string(), std::string("x"), std::string(29, '\0'), std::string(29, '\xff'),
        std::string(28, '\0') + '\x02', std::string(28, '\x11') + '\x02', std::string(1000, 'z')}) {
    env_->transport(kOne)->Send(kTwo, kChannel, bytes);
    env_->transport(kTwo)->Send(kOne, kChannel, bytes);
  }
  EXPECT_THAT(pair.Wait(pair.Call(kEcho, "fine", seconds(10))), IsOkAndHolds("fine"));
}

}  // namespace
}  // namespace dynlib
