// What a user of the cache relies on, with the directory played by the test.
#include "dynlib/cache/constant_work_cache.h"

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/random.h"
#include "dynlib/base/time.h"
#include "dynlib/cache/entry.h"
#include "dynlib/cache/hash_index.h"
#include "dynlib/cache/options.h"
#include "dynlib/cache/range_index.h"
#include "dynlib/cache/stats.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/cache/manual_executor.h"
#include "tests/cache/values.h"
#include "tests/runtime/counting_sink.h"

namespace dynlib::cache {
namespace {

using Cache = ConstantWorkCache<HashIndex<ItemTraits>>;
using ::testing::HasSubstr;

constexpr Duration kMillisecond = std::chrono::milliseconds(1);
constexpr Duration kSecond = std::chrono::seconds(1);

struct Request {
  size_t server;
  int key;
  Cache::FetchDone done;
};

class CacheTest : public ::testing::Test {
 protected:
  void Make(CacheOptions options = {}) {
    options.refresh_timeout = kSecond;
    cache_ = std::make_unique<Cache>(
        options, &executor_, &executor_,
        [this](size_t server, const int& key, Cache::FetchDone done) {
          requests_.push_back({server, key, std::move(done)});
        },
        &sink_);
  }
  // A Get that waits; its result lands in results_.
  bool GetWaiting(int key, Duration within = kSecond) {
    auto now = cache_->Get(key, executor_.Now() + within,
                           [this](Cache::Result result) { results_.push_back(std::move(result)); });
    return !now.has_value();
  }
  void Answer(size_t request, absl::StatusOr<Item> answer) {
    requests_[request].done(std::move(answer));
    executor_.Run();
  }
  void Hold(int key, int version) {
    cache_->Apply(std::make_shared<const Item>(Item{key, version}));
  }
  uint64_t Count(Counter counter) { return cache_->Stats()[counter]; }

  ManualExecutor executor_;
  CountingSink sink_;
  std::vector<Request> requests_;
  std::vector<Cache::Result> results_;
  std::unique_ptr<Cache> cache_;
};

TEST_F(CacheTest, EveryGetMakesOneRequestHitOrMiss) {
  Make({.servers = 3, .max_in_flight = 100});
  Hold(1, 1);
  for (int i = 0; i < 10; ++i) DYNLIB_EXPECT_OK(cache_->Get(1));
  for (int i = 0; i < 10; ++i)
    EXPECT_THAT(cache_->Get(2), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_TRUE(requests_.empty()) << "the fetch function ran within Get";
  executor_.Run();
  EXPECT_EQ(requests_.size(), 20u);
  EXPECT_EQ(Count(Counter::kIntents), 20u);
  EXPECT_EQ(Count(Counter::kHits), 10u);
  EXPECT_EQ(Count(Counter::kMisses), 10u);
  EXPECT_EQ(sink_["cache.requests"], 20);
}

TEST_F(CacheTest, FanOutAsksDifferentServersAndAllOfThemEquallyOften) {
  Make({.servers = 5, .fan_out = 2, .max_in_flight = 10'000});
  for (int i = 0; i < 5'000; ++i) {
    (void)cache_->Get(1);
    if (i % 1'000 == 0) executor_.Run();
  }
  executor_.Run();
  ASSERT_EQ(requests_.size(), 10'000u);
  std::map<size_t, int> load;
  std::map<std::pair<size_t, size_t>, int> pairs;
  for (size_t i = 0; i < requests_.size(); i += 2) {
    EXPECT_NE(requests_[i].server, requests_[i + 1].server);
    ++pairs[{requests_[i].server, requests_[i + 1].server}];
    ++load[requests_[i].server];
    ++load[requests_[i + 1].server];
  }
  EXPECT_EQ(load.size(), 5u);
  EXPECT_EQ(pairs.size(), 10u);  // each pair, in the order of their numbers
  for (const auto& [server, count] : load) EXPECT_NEAR(count, 2'000, 200) << server;
}

TEST_F(CacheTest, AMissWaitsForItsOwnRefresh) {
  Make();
  EXPECT_TRUE(GetWaiting(7));
  executor_.Run();
  ASSERT_EQ(requests_.size(), 1u);
  executor_.Advance(20 * kMillisecond);
  requests_[0].done(Item{7, 3});
  EXPECT_TRUE(results_.empty()) << "the callback ran within the fetch callback";
  executor_.Run();
  ASSERT_EQ(results_.size(), 1u);
  DYNLIB_ASSERT_OK(results_[0]);
  EXPECT_EQ(results_[0]->value->version, 3);
  EXPECT_EQ(results_[0]->AgeAt(executor_.Now()), 20 * kMillisecond)
      << "the answer is as old as its request";
  EXPECT_EQ(cache_->Stats().in_flight, 0u);
  DYNLIB_EXPECT_OK(cache_->Get(7));
}

TEST_F(CacheTest, TheFirstAnswerWinsTheLaterOnlyIfNewer) {
  Make({.servers = 2, .fan_out = 2});
  EXPECT_TRUE(GetWaiting(1));
  executor_.Run();
  Answer(1, Item{1, 5});
  ASSERT_EQ(results_.size(), 1u);
  Answer(0, Item{1, 4});
  EXPECT_EQ(cache_->Get(1)->value->version, 5);
  EXPECT_EQ(Count(Counter::kStaleRefused), 1u);
  executor_.Run();
  Answer(2, Item{1, 5});
  Answer(3, Item{1, 6});
  EXPECT_EQ(cache_->Get(1)->value->version, 6);
  EXPECT_EQ(results_.size(), 1u);
}

TEST_F(CacheTest, OneServerThatFailsCostsAHedgedGetNothing) {
  Make({.servers = 2, .fan_out = 2});
  EXPECT_TRUE(GetWaiting(1));
  executor_.Run();
  Answer(0, absl::UnavailableError("down"));
  EXPECT_TRUE(results_.empty());
  Answer(1, Item{1, 1});
  ASSERT_EQ(results_.size(), 1u);
  DYNLIB_EXPECT_OK(results_[0]);
}

TEST_F(CacheTest, AWaitEndsWhenAllRequestsFailed) {
  Make({.servers = 2, .fan_out = 2});
  EXPECT_TRUE(GetWaiting(1));
  executor_.Run();
  Answer(0, absl::UnavailableError("down"));
  Answer(1, absl::UnavailableError("down as well"));
  ASSERT_EQ(results_.size(), 1u);
  EXPECT_THAT(results_[0], StatusIs(absl::StatusCode::kUnavailable, HasSubstr("down as well")));
  EXPECT_EQ(cache_->Stats().in_flight, 0u);
}

TEST_F(CacheTest, AWaitEndsAtItsDeadline) {
  Make();
  EXPECT_TRUE(GetWaiting(1, 100 * kMillisecond));
  executor_.Advance(99 * kMillisecond);
  EXPECT_TRUE(results_.empty());
  executor_.Advance(kMillisecond);
  ASSERT_EQ(results_.size(), 1u);
  EXPECT_THAT(results_[0], StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_EQ(cache_->Stats().in_flight, 1u) << "the request itself may still be answered";
  Answer(0, Item{1, 1});
  EXPECT_EQ(results_.size(), 1u);
  DYNLIB_EXPECT_OK(cache_->Get(1));
}

TEST_F(CacheTest, AHintThatCameMeanwhileIsWhatAWaitGets) {
  Make();
  EXPECT_TRUE(GetWaiting(1));
  EXPECT_TRUE(GetWaiting(1, 10 * kMillisecond));
  executor_.Run();
  Hold(1, 9);
  executor_.Advance(10 * kMillisecond);
  ASSERT_EQ(results_.size(), 1u) << "at its deadline";
  EXPECT_EQ((*results_[0]).value->version, 9);
  Answer(0, Item{1, 8});
  ASSERT_EQ(results_.size(), 2u);
  EXPECT_EQ((*results_[1]).value->version, 9);
}

TEST_F(CacheTest, HintsReplaceAtOnceIfNewer) {
  Make();
  EXPECT_TRUE(cache_->Apply(std::make_shared<const Item>(Item{1, 5})));
  EXPECT_FALSE(cache_->Apply(std::make_shared<const Item>(Item{1, 4})));
  EXPECT_TRUE(cache_->Apply(std::make_shared<const Item>(Item{1, 6}), 3 * kSecond));
  EXPECT_EQ(cache_->Get(1)->value->version, 6);
  EXPECT_EQ(cache_->Get(1)->AgeAt(executor_.Now()), 3 * kSecond);
}

TEST_F(CacheTest, HeldMakesNoRequest) {
  Make();
  EXPECT_FALSE(cache_->Held(7).has_value());
  Hold(7, 3);
  executor_.Advance(kMillisecond);
  const auto held = cache_->Held(7);
  ASSERT_TRUE(held.has_value());
  EXPECT_EQ(held->value->version, 3);
  EXPECT_EQ(held->AgeAt(executor_.Now()), kMillisecond);
  executor_.Run();
  EXPECT_TRUE(requests_.empty());
  EXPECT_EQ(Count(Counter::kHits) + Count(Counter::kMisses), 0u);
}

TEST_F(CacheTest, WithTheDirectoryDownEverythingHeldIsServedWithItsAge) {
  Make({.max_in_flight = 10});
  for (int key = 0; key < 5; ++key) Hold(key, 1);
  for (int round = 1; round <= 100; ++round) {
    for (int key = 0; key < 5; ++key) {
      const Cache::Result result = cache_->Get(key);
      DYNLIB_ASSERT_OK(result);
      EXPECT_EQ(result->AgeAt(executor_.Now()), (round - 1) * 10 * kSecond);
    }
    executor_.Advance(10 * kSecond);  // nobody answers
  }
  EXPECT_EQ(Count(Counter::kExpired), 500u);
  EXPECT_EQ(cache_->Stats().in_flight, 0u);
  // Errors change nothing either.
  (void)cache_->Get(1);
  executor_.Run();
  Answer(requests_.size() - 1, absl::UnavailableError("down"));
  DYNLIB_EXPECT_OK(cache_->Get(1));
}

TEST_F(CacheTest, BeyondMaxInFlightRequestsAreShed) {
  Make({.max_in_flight = 3});
  Hold(1, 1);
  for (int i = 0; i < 3; ++i) DYNLIB_EXPECT_OK(cache_->Get(1));
  DYNLIB_EXPECT_OK(cache_->Get(1));  // a hit, not refreshed
  EXPECT_THAT(cache_->Get(2), StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_FALSE(GetWaiting(2)) << "it must not wait for what was not asked";
  executor_.Run();
  EXPECT_EQ(requests_.size(), 3u);
  EXPECT_EQ(Count(Counter::kShed), 3u);
  EXPECT_EQ(Count(Counter::kIntents), 3u);
  // There is room again when one is answered, or given up.
  Answer(0, Item{1, 1});
  EXPECT_TRUE(GetWaiting(2));
  executor_.Advance(kSecond);
  EXPECT_EQ(cache_->Stats().in_flight, 0u);
}

TEST_F(CacheTest, AbsenceIsRememberedAndEachGetStillAsks) {
  Make({.absent_lifetime = 100 * kMillisecond});
  EXPECT_TRUE(GetWaiting(1));
  executor_.Run();
  Answer(0, absl::NotFoundError("none"));
  ASSERT_EQ(results_.size(), 1u);
  EXPECT_THAT(results_[0], StatusIs(absl::StatusCode::kNotFound));
  EXPECT_FALSE(GetWaiting(1));
  EXPECT_THAT(cache_->Get(1), StatusIs(absl::StatusCode::kNotFound));
  executor_.Run();
  EXPECT_EQ(requests_.size(), 3u);
  EXPECT_EQ(Count(Counter::kAbsentHits), 2u);
  Answer(2, Item{1, 1});  // it was made meanwhile
  DYNLIB_EXPECT_OK(cache_->Get(1));
}

TEST_F(CacheTest, ALaggingServerTakesNothingAway) {
  Make({.deny_after = 5 * kSecond});
  Hold(1, 1);
  for (int i = 0; i < 10; ++i) {
    (void)cache_->Get(1);
    executor_.Advance(kSecond / 2);
    Answer(i, i % 2 == 0 ? absl::StatusOr<Item>(absl::NotFoundError("not here")) : Item{1, 1});
    executor_.Advance(4 * kSecond);
    DYNLIB_EXPECT_OK(cache_->Get(1));
    executor_.Run();
    requests_.pop_back();
  }
  EXPECT_EQ(Count(Counter::kDenied), 0u);
}

TEST_F(CacheTest, ADeletedKeyIsGoneAfterDenyAfter) {
  Make({.deny_after = 5 * kSecond});
  Hold(1, 1);
  for (int i = 0; i < 6; ++i) {
    executor_.Advance(kSecond);
    DYNLIB_EXPECT_OK(cache_->Get(1)) << i;
    executor_.Run();
    Answer(i, absl::NotFoundError("deleted"));
  }
  EXPECT_THAT(cache_->Get(1), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_EQ(Count(Counter::kDenied), 1u);
}

TEST_F(CacheTest, AnAnswerAboutAnotherKeyIsRefused) {
  Make();
  EXPECT_TRUE(GetWaiting(1));
  executor_.Run();
  Answer(0, Item{2, 1});
  ASSERT_EQ(results_.size(), 1u);
  EXPECT_THAT(results_[0],
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("not about the key")));
  EXPECT_EQ(Count(Counter::kWrongRefused), 1u);
  EXPECT_EQ(cache_->Stats().entries, 0u);
}

TEST_F(CacheTest, AFetchFunctionThatThrowsItsCallbackAwayHasFailed) {
  Make({.servers = 2, .fan_out = 2});
  EXPECT_TRUE(GetWaiting(1));
  executor_.Run();
  requests_[0].done = nullptr;
  executor_.Run();
  EXPECT_TRUE(results_.empty());
  requests_[1].done = nullptr;
  executor_.Run();
  ASSERT_EQ(results_.size(), 1u);
  EXPECT_THAT(results_[0], StatusIs(absl::StatusCode::kUnavailable, HasSubstr("dropped")));
  EXPECT_EQ(Count(Counter::kDroppedCallbacks), 2u);
  EXPECT_EQ(cache_->Stats().in_flight, 0u);
}

TEST_F(CacheTest, ASecondCallOfACallbackIsIgnored) {
  Make({.max_in_flight = 1});
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(GetWaiting(i));
    executor_.Run();
    Answer(i, Item{i, 1});
    Answer(i, Item{i, 2});
    EXPECT_EQ(results_.size(), static_cast<size_t>(i) + 1);
    EXPECT_EQ(cache_->Stats().in_flight, 0u);
  }
  EXPECT_EQ(Count(Counter::kExtraCallbacks), 3u);
  EXPECT_EQ(cache_->Get(0)->value->version, 1);
}

TEST_F(CacheTest, ALateAnswerCountsIfItIsNewer) {
  Make();
  Hold(1, 5);
  (void)cache_->Get(1);
  (void)cache_->Get(1);
  executor_.Advance(2 * kSecond);
  EXPECT_EQ(Count(Counter::kExpired), 2u);
  Answer(0, Item{1, 4});
  EXPECT_EQ(cache_->Get(1)->value->version, 5);
  Answer(1, Item{1, 6});
  EXPECT_EQ(cache_->Get(1)->value->version, 6);
  EXPECT_EQ(Count(Counter::kLate), 2u);
  EXPECT_EQ(cache_->Get(1)->AgeAt(executor_.Now()), 2 * kSecond) << "it is as old as its request";
}

TEST_F(CacheTest, DestructionCancelsWhatWaits) {
  Make();
  EXPECT_TRUE(GetWaiting(1));
  executor_.Run();
  EXPECT_TRUE(GetWaiting(2));  // still in the inbox
  cache_.reset();
  EXPECT_TRUE(results_.empty());
  executor_.Run();
  ASSERT_EQ(results_.size(), 2u);
  EXPECT_THAT(results_[0], StatusIs(absl::StatusCode::kCancelled));
  EXPECT_THAT(results_[1], StatusIs(absl::StatusCode::kCancelled));
  EXPECT_EQ(executor_.timers(), 0u);
  Answer(0, Item{1, 1});  // nobody is there
  requests_.clear();
}

TEST_F(CacheTest, ACallbackMayDestroyTheCache) {
  Make({.servers = 1});
  int cancelled = 0;
  auto destroy = [&](Cache::Result) { cache_.reset(); };
  auto count = [&](Cache::Result result) { cancelled += absl::IsCancelled(result.status()); };
  EXPECT_FALSE(cache_->Get(1, executor_.Now() + kSecond, destroy).has_value());
  executor_.Run();
  // In one turn: the answer whose callback destroys, another answer, and a Get.
  EXPECT_FALSE(cache_->Get(2, executor_.Now() + kSecond, count).has_value());
  executor_.Run();
  requests_[0].done(Item{1, 1});
  requests_[1].done(Item{2, 1});
  EXPECT_FALSE(cache_->Get(3, executor_.Now() + kSecond, count).has_value());
  executor_.Run();
  EXPECT_EQ(cache_, nullptr);
  EXPECT_EQ(cancelled, 2);
  EXPECT_EQ(executor_.timers(), 0u);
}

TEST_F(CacheTest, WithCoalescingAKeyIsAskedForOnceATick) {
  Make({.max_in_flight = 100, .coalesce_tick = 10 * kMillisecond});
  Hold(1, 1);
  for (int i = 0; i < 5; ++i) DYNLIB_EXPECT_OK(cache_->Get(1));
  (void)cache_->Get(2);
  executor_.Run();
  EXPECT_EQ(requests_.size(), 2u);
  EXPECT_EQ(Count(Counter::kIntents), 6u);
  EXPECT_EQ(Count(Counter::kCoalesced), 4u);
  EXPECT_EQ(cache_->Stats().in_flight, 2u);
  executor_.Advance(10 * kMillisecond);
  (void)cache_->Get(1);
  executor_.Run();
  EXPECT_EQ(requests_.size(), 3u) << "another tick";
  EXPECT_EQ(cache_->Stats().coalesce_tick, 10 * kMillisecond) << "it is told";
  EXPECT_EQ(sink_["cache.coalescing"], 1);
}

TEST_F(CacheTest, WithCoalescingWaitingGetsShareAnAnswer) {
  Make({.coalesce_tick = 10 * kMillisecond});
  EXPECT_TRUE(GetWaiting(1));
  EXPECT_TRUE(GetWaiting(1, kMillisecond / 2));
  EXPECT_TRUE(GetWaiting(1));
  executor_.Advance(kMillisecond);
  EXPECT_EQ(requests_.size(), 1u);
  ASSERT_EQ(results_.size(), 1u) << "each has its own deadline";
  EXPECT_THAT(results_[0], StatusIs(absl::StatusCode::kDeadlineExceeded));
  Answer(0, absl::UnavailableError("down"));
  ASSERT_EQ(results_.size(), 3u);
  EXPECT_THAT(results_[2], StatusIs(absl::StatusCode::kUnavailable));
  // An answer that has been is nothing to wait for.
  EXPECT_TRUE(GetWaiting(1));
  executor_.Run();
  EXPECT_EQ(requests_.size(), 2u);
  Answer(1, Item{1, 1});
  EXPECT_EQ(results_.size(), 4u);
  DYNLIB_EXPECT_OK(results_[3]);
  EXPECT_EQ(cache_->Stats().in_flight, 0u);
}

TEST_F(CacheTest, WithoutCoalescingNothingIsReported) {
  Make();
  EXPECT_EQ(cache_->Stats().coalesce_tick, Duration(0));
  EXPECT_EQ(sink_["cache.coalescing"], 0);
}

// A Get may leave its intent just as the refresher goes to sleep, too late to be seen and too early
// to wake it: played here by the intent that a timer finds.
TEST_F(CacheTest, TheRefresherLooksAgainAfterItsLastWork) {
  Make();
  (void)cache_->Get(1);
  executor_.Run();
  EXPECT_EQ(requests_.size(), 1u);
  const size_t timers = executor_.timers();
  executor_.Advance(kMillisecond);
  EXPECT_EQ(executor_.timers(), timers - 1) << "one look, then it sleeps";
}

// The directory's load is the request rate times fan_out: with nothing held, with everything held,
// and with half of the servers dead.
TEST_F(CacheTest, TheDirectorySeesTheSameLoadWhateverIsHeld) {
  constexpr int kGets = 2'000;
  Make({.servers = 4, .fan_out = 2, .max_in_flight = 10'000});
  // The requests that kGets make, each a millisecond after the one before.
  auto load = [&](size_t servers_up) {
    requests_.clear();
    for (int i = 0; i < kGets; ++i) {
      const size_t before = requests_.size();
      (void)cache_->Get(i % 500);
      executor_.Advance(kMillisecond);
      for (size_t r = before; r < requests_.size(); ++r) {
        if (requests_[r].server < servers_up) Answer(r, Item{requests_[r].key, 1});
      }
    }
    return requests_.size();
  };
  EXPECT_EQ(load(4), 2u * kGets);
  const uint64_t cold_misses = Count(Counter::kMisses);
  EXPECT_EQ(cold_misses, 500u);
  EXPECT_EQ(load(4), 2u * kGets);
  EXPECT_EQ(Count(Counter::kMisses), cold_misses) << "all was held";
  EXPECT_EQ(load(2), 2u * kGets);
  EXPECT_EQ(load(0), 2u * kGets);
  EXPECT_EQ(Count(Counter::kMisses), cold_misses);
  EXPECT_EQ(Count(Counter::kShed), 0u);
}

// A range cache: the split of a partition, hints and lagging servers together.
TEST(RangeCache, NeverReturnsAValueWhoseRangeLacksTheKeyNorAnOlderVersion) {
  using Routes = ConstantWorkCache<RangeIndex<SpanTraits>>;
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    Random random(seed);
    ManualExecutor executor;
    // Servers know the table as of some version; the newest is the truth. At version v the keys
    // 0..99 are cut at every multiple of 100 / (1 + v % 7).
    int truth = 1;
    auto lookup = [](int version, int key) {
      const int width = 100 / (1 + version % 7);
      const int first = key / width * width;
      return Span{first, first + width, version};
    };
    std::vector<std::pair<Span, Routes::FetchDone>> answers;
    Routes cache({.servers = 3, .fan_out = 2, .max_in_flight = 100}, &executor, &executor,
                 [&](size_t, const int& key, Routes::FetchDone done) {
                   const int lag = static_cast<int>(random.Below(3));
                   answers.emplace_back(lookup(std::max(1, truth - lag), key), std::move(done));
                 });
    std::map<int, int> seen;
    auto check = [&](int key, const Routes::Result& result) {
      if (!result.ok()) return;
      const Span& span = *result->value;
      ASSERT_TRUE(span.first <= key && key < *span.end);
      ASSERT_GE(span.version, seen[key]) << "versions went back for key " << key;
      seen[key] = span.version;
    };
    for (int step = 0; step < 2'000; ++step) {
      if (random.Chance(0.02)) ++truth;
      const int key = static_cast<int>(random.Below(100));
      if (random.Chance(0.05)) cache.Apply(std::make_shared<const Span>(lookup(truth, key)));
      auto now = cache.Get(key, executor.Now() + kSecond,
                           [&, key](Routes::Result result) { check(key, result); });
      if (now.has_value()) check(key, *now);
      executor.Run();
      // Answers arrive in any order, some never.
      while (answers.size() > 10) {
        const size_t pick = random.Below(answers.size());
        if (!random.Chance(0.2)) answers[pick].second(answers[pick].first);
        answers.erase(answers.begin() + static_cast<ptrdiff_t>(pick));
      }
      executor.Advance(kMillisecond);
    }
    EXPECT_GT(cache.Stats()[Counter::kStaleRefused], 0u);
    EXPECT_GT(cache.Stats()[Counter::kHits], 1'000u);
  }
}

}  // namespace
}  // namespace dynlib::cache
