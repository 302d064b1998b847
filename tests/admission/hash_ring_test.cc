#include "dynlib/admission/hash_ring.h"

#include <map>
#include <vector>

#include "gtest/gtest.h"

namespace dynlib::admission {
namespace {

const std::vector<NodeId> kServers = {NodeId{1}, NodeId{2}, NodeId{3}, NodeId{4}};

TEST(HashRing, SpreadsKeys) {
  const HashRing ring(kServers);
  std::map<NodeId, int> keys;
  for (uint64_t key = 0; key < 40'000; ++key) ++keys[*ring.ServerFor(key)];
  ASSERT_EQ(keys.size(), 4u);
  for (const auto& [server, count] : keys) {
    EXPECT_GT(count, 5'000) << ToUint(server);
    EXPECT_LT(count, 17'000) << ToUint(server);
  }
}

TEST(HashRing, AllAgreeWhateverTheOrder) {
  const HashRing one(kServers);
  const std::vector<NodeId> shuffled = {NodeId{3}, NodeId{1}, NodeId{4}, NodeId{2}, NodeId{1}};
  const HashRing other(shuffled);
  EXPECT_EQ(one.servers(), other.servers());
  for (uint64_t key = 0; key < 1000; ++key) EXPECT_EQ(one.ServerFor(key), other.ServerFor(key));
}

TEST(HashRing, AServerThatGoesMovesOnlyItsOwnKeys) {
  const HashRing ring(kServers);
  const std::vector<NodeId> rest = {NodeId{1}, NodeId{2}, NodeId{4}};
  const HashRing without(rest);
  std::map<NodeId, int> moved;
  for (uint64_t key = 0; key < 10'000; ++key) {
    const NodeId before = *ring.ServerFor(key);
    const NodeId after = *without.ServerFor(key);
    EXPECT_EQ(after, *ring.ServerFor(key, [](NodeId n) { return n != NodeId{3}; }));
    if (before == NodeId{3}) {
      ++moved[after];
    } else {
      EXPECT_EQ(before, after);
    }
  }
  EXPECT_EQ(moved.size(), 3u);
}

TEST(HashRing, TriesSomebodyIfNobodyIsUsable) {
  const HashRing ring(kServers);
  for (uint64_t key = 0; key < 100; ++key) {
    EXPECT_EQ(ring.ServerFor(key, [](NodeId) { return false; }), ring.ServerFor(key));
  }
  EXPECT_EQ(HashRing().ServerFor(1), std::nullopt);
}

}  // namespace
}  // namespace dynlib::admission
