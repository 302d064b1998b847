#include "dynlib/replication/payload_blocks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace dynlib::replication {
namespace {

constexpr size_t kSlab = PayloadSlabs::kSlabBytes;

Payload Copy(PayloadBlocks& blocks, std::string_view bytes, size_t held = 0) {
  auto [to, payload] = blocks.Take(bytes.size(), held);
  std::copy(bytes.begin(), bytes.end(), to);
  return payload;
}

TEST(PayloadBlocksTest, WhoTakesOneATurnHasItAlone) {
  PayloadBlocks blocks(std::make_shared<PayloadSlabs>(0, 0));
  const Payload first = Copy(blocks, "first");
  blocks.EndTurn();
  const Payload second = Copy(blocks, "second");
  EXPECT_EQ(*first, "first");
  EXPECT_EQ(*second, "second");
  EXPECT_NE(first.owner(), second.owner());
}

TEST(PayloadBlocksTest, EntriesOfATurnLieInOneBlockThoughTurnsWithoutAnyLieBetween) {
  PayloadBlocks blocks(std::make_shared<PayloadSlabs>(0, 0));
  for (int i = 0; i < 60; ++i) Copy(blocks, "0123456789");
  blocks.EndTurn();
  blocks.EndTurn();  // Nothing was taken.
  blocks.EndTurn();
  std::vector<Payload> taken;
  for (int i = 0; i < 60; ++i) taken.push_back(Copy(blocks, "0123456789"));
  for (const Payload& payload : taken) EXPECT_EQ(payload.owner(), taken.front().owner());
}

TEST(PayloadBlocksTest, BlocksGrowWithWhatTheLogHolds) {
  PayloadBlocks blocks(std::make_shared<PayloadSlabs>(0, 0));
  const Payload first = Copy(blocks, std::string(100, 'a'), /*held=*/8000);
  for (int i = 1; i < 10; ++i)
    EXPECT_EQ(Copy(blocks, std::string(100, 'b'), 8000).owner(), first.owner());
  EXPECT_NE(Copy(blocks, std::string(100, 'c'), 8000).owner(), first.owner());
}

TEST(PayloadBlocksTest, AnEntryLongerThanASlabHasABlockOfItsOwn) {
  PayloadBlocks blocks(std::make_shared<PayloadSlabs>(kSlab, 0));
  const std::string bytes(kSlab + 1, 'x');
  EXPECT_EQ(*Copy(blocks, bytes, 100 * kSlab), bytes);
}

TEST(PayloadBlocksTest, SlabsThatAreLetGoOfAreKeptForTheNext) {
  const auto slabs = std::make_shared<PayloadSlabs>(2 * kSlab, 0);
  PayloadBlocks blocks(slabs);
  std::vector<Payload> held;
  for (int i = 0; i < 4; ++i) held.push_back(Copy(blocks, std::string(kSlab, 'x'), 8 * kSlab));
  EXPECT_EQ(slabs->kept(), 0u);
  held.pop_back();
  blocks.Clear();
  EXPECT_EQ(slabs->kept(), 1u);
  held.clear();
  EXPECT_EQ(slabs->kept(), 2u);  // The bound.
  const Payload again = Copy(blocks, "again", 8 * kSlab);
  EXPECT_EQ(slabs->kept(), 1u);
  EXPECT_EQ(*again, "again");
}

TEST(PayloadBlocksTest, SlabsAreThereFromTheStart) {
  EXPECT_EQ(std::make_shared<PayloadSlabs>(4 * kSlab, 3 * kSlab)->kept(), 3u);
}

// As the log's and the applier's threads do.
TEST(PayloadBlocksTest, EntriesAreLetGoOfOnAnyThread) {
  const auto slabs = std::make_shared<PayloadSlabs>(2 * kSlab, 0);
  PayloadBlocks blocks(slabs);
  for (int round = 0; round < 100; ++round) {
    Payload payload = Copy(blocks, std::string(kSlab, 'x'), 8 * kSlab);
    blocks.Clear();
    std::thread([payload = std::move(payload)]() mutable { payload = nullptr; }).join();
  }
  EXPECT_EQ(slabs->kept(), 1u);  // The same one all the time.
}

}  // namespace
}  // namespace dynlib::replication
