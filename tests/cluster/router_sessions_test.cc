#include "dynlib/cluster/router_sessions.h"

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <set>

#include "dynlib/base/ids.h"
#include "dynlib/base/random.h"
#include "dynlib/base/time.h"
#include "gtest/gtest.h"

namespace dynlib::cluster {
namespace {

using Ticket = RouterSessions::Ticket;

constexpr Instant kStart = Instant::FromNanos(1'000'000'000);

TEST(RouterSessionsTest, TheMarkStopsBelowTheFirstWithoutAnAnswer) {
  RouterSessions sessions(ClientId{1}, PartitionId{1});
  const Ticket one = sessions.Begin(kStart), two = sessions.Begin(kStart),
               three = sessions.Begin(kStart);
  EXPECT_EQ(three.sequence(), 3u);
  EXPECT_EQ(three.acknowledged(), 0u);
  RouterSessions::Answered(two);
  EXPECT_EQ(three.acknowledged(), 0u);
  RouterSessions::Answered(one);
  EXPECT_EQ(three.acknowledged(), 2u);
  EXPECT_EQ(sessions.sessions_begun(), 1u);
}

TEST(RouterSessionsTest, AnAbandonedSequenceHoldsTheMarkForEver) {
  RouterSessions sessions(ClientId{1}, PartitionId{1});
  RouterSessions::Answered(sessions.Begin(kStart));
  const Ticket lost = sessions.Begin(kStart);
  RouterSessions::Abandoned(lost);
  for (uint64_t i = 0; i < 1000; ++i) {
    const Ticket ticket = sessions.Begin(kStart);
    EXPECT_EQ(ticket.acknowledged(), 1u);
    RouterSessions::Answered(ticket);
  }
}

TEST(RouterSessionsTest, BehindAnAbandonedSequenceAnotherSessionBegins) {
  RouterSessions sessions(ClientId{1}, PartitionId{1});
  const Ticket lost = sessions.Begin(kStart);
  RouterSessions::Abandoned(lost);
  Ticket ticket;
  for (uint64_t i = 0; i < RouterSessions::kSpanMax; ++i) {
    ticket = sessions.Begin(kStart);
    RouterSessions::Answered(ticket);
  }
  EXPECT_NE(ticket.client(), lost.client());
  EXPECT_EQ(ticket.sequence(), 1u);
  EXPECT_EQ(sessions.sessions_begun(), 2u);
  EXPECT_EQ(sessions.sessions_kept(), 1u);
}

TEST(RouterSessionsTest, ManyInFlightShareFewSessionsAndTakeThemUpAgain) {
  RouterSessions sessions(ClientId{1}, PartitionId{1});
  std::deque<Ticket> in_flight;
  for (int i = 0; i < 20'000; ++i) {
    in_flight.push_back(sessions.Begin(kStart));
    if (in_flight.size() > 4000) {
      RouterSessions::Answered(in_flight.front());
      in_flight.pop_front();
    }
  }
  EXPECT_LE(sessions.sessions_begun(), 3u);
}

TEST(RouterSessionsTest, AnIdleSessionIsNotUsedAgain) {
  RouterSessions sessions(ClientId{1}, PartitionId{1});
  const Ticket before = sessions.Begin(kStart);
  RouterSessions::Answered(before);
  const Ticket soon = sessions.Begin(kStart + std::chrono::minutes(14));
  EXPECT_EQ(soon.client(), before.client());
  RouterSessions::Answered(soon);
  const Ticket late = sessions.Begin(kStart + std::chrono::minutes(30));
  EXPECT_NE(late.client(), before.client());
}

TEST(RouterSessionsTest, ClientsDifferByRouterAndPartition) {
  std::set<ClientId> clients;
  for (uint64_t router = 1; router <= 10; ++router) {
    for (uint64_t partition = 1; partition <= 10; ++partition) {
      RouterSessions sessions(ClientId{router}, PartitionId{partition});
      clients.insert(sessions.Begin(kStart).client());
    }
  }
  EXPECT_EQ(clients.size(), 100u);
}

// What a replica would hold never passes its bound, whatever times out and in whatever order the
// answers come; and no sequence without an answer is ever acknowledged.
TEST(RouterSessionsTest, TheReplicasBoundIsNeverMet) {
  Random random(7);
  RouterSessions sessions(ClientId{1}, PartitionId{1});
  struct Replica {
    uint64_t acknowledged = 0;
    std::set<uint64_t> results;
    std::set<uint64_t> unanswered;
  };
  std::map<ClientId, Replica> replicas;
  std::deque<Ticket> in_flight;
  for (int i = 0; i < 30'000; ++i) {
    const Ticket ticket = sessions.Begin(kStart);
    Replica& replica = replicas[ticket.client()];
    replica.unanswered.insert(ticket.sequence());
    if (ticket.acknowledged() > replica.acknowledged) {
      replica.acknowledged = ticket.acknowledged();
      replica.results.erase(replica.results.begin(),
                            replica.results.upper_bound(replica.acknowledged));
    }
    ASSERT_LT(replica.acknowledged, *replica.unanswered.begin());
    replica.results.insert(ticket.sequence());
    ASSERT_LE(replica.results.size(), 4096u);
    in_flight.push_back(ticket);
    while (in_flight.size() > 3000) {
      std::swap(in_flight.front(), in_flight[random.Below(10)]);
      if (random.Chance(0.001)) {
        RouterSessions::Abandoned(in_flight.front());
      } else {
        RouterSessions::Answered(in_flight.front());
        replicas[in_flight.front().client()].unanswered.erase(in_flight.front().sequence());
      }
      in_flight.pop_front();
    }
  }
  EXPECT_GT(sessions.sessions_begun(), 2u);
  EXPECT_LE(sessions.sessions_kept(), 4u);
}

}  // namespace
}  // namespace dynlib::cluster
