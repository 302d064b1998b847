#include "dynlib/base/huge_array.h"

#include <cstdint>
#include <memory>

#include "gtest/gtest.h"

namespace dynlib {
namespace {

struct alignas(64) Line {
  uint64_t words[8] = {7};
};

TEST(HugeArray, IsInitialisedAlignedAndWritable) {
  for (const size_t size : {0u, 1u, 1'000u, 100'000u}) {
    HugeArray<Line> lines(size);
    EXPECT_EQ(lines.size(), size);
    for (size_t i = 0; i < size; ++i) {
      EXPECT_EQ(lines[i].words[0], 7u);
      EXPECT_EQ(lines[i].words[7], 0u);
      lines[i].words[7] = i;
    }
    if (size > 0) {
      const size_t alignment = size * sizeof(Line) >= 2 << 20 ? 2 << 20 : 64;
      EXPECT_EQ(reinterpret_cast<uintptr_t>(&lines[0]) % alignment, 0u);
      EXPECT_EQ(lines[size - 1].words[7], size - 1);
    }
  }
}

TEST(HugeArray, DestroysItsElements) {
  const auto shared = std::make_shared<int>(1);
  {
    HugeArray<std::shared_ptr<int>> copies(1'000);
    for (size_t i = 0; i < copies.size(); ++i) copies[i] = shared;
    EXPECT_EQ(shared.use_count(), 1'001);
  }
  EXPECT_EQ(shared.use_count(), 1);
}

}  // namespace
}  // namespace dynlib
