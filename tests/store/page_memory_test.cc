// The memory of pages: what is made ahead of need.

#include "dynlib/store/page_memory.h"

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "dynlib/store/node.h"
#include "gtest/gtest.h"

namespace dynlib::store {
namespace {

constexpr uint64_t kHugePage = 2 << 20;
constexpr uint64_t kNoBound = uint64_t{1} << 40;
constexpr uint32_t kPageBytes = 8000;

class PageMemoryTest : public testing::Test {
 protected:
  ~PageMemoryTest() override {
    for (NodeContent* content : contents_) memory_.Free(content);
  }
  void Grow(uint64_t bytes) {
    for (const uint64_t goal = memory_.used_bytes() + bytes; memory_.used_bytes() < goal;) {
      contents_.push_back(memory_.NewContent(kPageBytes, 0));
    }
  }

  PageMemory memory_;
  std::vector<NodeContent*> contents_;
};

TEST_F(PageMemoryTest, WhatIsSmallHasNothingAhead) {
  Grow(1 << 20);
  EXPECT_FALSE(memory_.WantsSpare(kNoBound));
  memory_.MakeSpares(kNoBound);
  EXPECT_EQ(memory_.spare_bytes(), 0u);
}

TEST_F(PageMemoryTest, TheFirstHugePagesAreThereBeforeTheyAreNeeded) {
  Grow(kHugePage * 7 / 8);
  ASSERT_TRUE(memory_.WantsSpare(kNoBound));
  memory_.MakeSpares(kNoBound);
  const uint64_t ahead = PageMemory::kSparesMin * kHugePage;
  EXPECT_EQ(memory_.spare_bytes(), ahead);
  const uint64_t before = memory_.resident_bytes();
  Grow(ahead);
  EXPECT_LE(memory_.resident_bytes(), before + kHugePage / 4);  // of small pieces
}

TEST_F(PageMemoryTest, GrowthIsMetByMemoryThatWasMadeAhead) {
  Grow(2 * kHugePage);
  ASSERT_TRUE(memory_.WantsSpare(kNoBound));
  const uint64_t before = memory_.resident_bytes();
  memory_.MakeSpares(kNoBound);
  EXPECT_FALSE(memory_.WantsSpare(kNoBound));
  const uint64_t spare = memory_.spare_bytes();
  EXPECT_GE(spare, kHugePage);
  EXPECT_EQ(memory_.resident_bytes(), before + spare);

  Grow(spare);
  EXPECT_LT(memory_.spare_bytes(), kHugePage);
  EXPECT_EQ(memory_.resident_bytes(), before + spare);  // it took nothing else
}

TEST_F(PageMemoryTest, FasterGrowthHasMoreAheadUpToABound) {
  for (int i = 0; i < 6; ++i) {
    Grow(9 * kHugePage);
    memory_.MakeSpares(kNoBound);
  }
  EXPECT_EQ(memory_.spare_bytes(), PageMemory::kSparesMax * kHugePage);
}

TEST_F(PageMemoryTest, SlowGrowthHasLessAheadAgain) {
  for (int i = 0; i < 6; ++i) {
    Grow(9 * kHugePage);
    memory_.MakeSpares(kNoBound);
  }
  for (int i = 0; i < 110; ++i) {
    Grow(kHugePage);
    memory_.MakeSpares(kNoBound);
  }
  EXPECT_LE(memory_.spare_bytes(), 2 * kHugePage);
}

TEST_F(PageMemoryTest, NothingIsMadeAheadBeyondTheBudget) {
  Grow(10 * kHugePage);
  const uint64_t now = memory_.resident_bytes();
  memory_.MakeSpares(now + kHugePage - 1);
  EXPECT_EQ(memory_.spare_bytes(), 0u);
  memory_.MakeSpares(now + kHugePage);
  EXPECT_EQ(memory_.spare_bytes(), kHugePage);
}

// For the thread sanitizer.
TEST_F(PageMemoryTest, IsMadeByAnotherThread) {
  std::atomic<bool> done{false};
  std::thread ahead([&] {
    while (!done.load()) memory_.MakeSpares(kNoBound);
  });
  Grow(40 * kHugePage);
  done.store(true);
  ahead.join();
  EXPECT_LE(memory_.spare_bytes(), PageMemory::kSparesMax * kHugePage);
}

}  // namespace
}  // namespace dynlib::store
