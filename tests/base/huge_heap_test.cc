#include "dynlib/base/huge_heap.h"

#include <cstdint>
#include <cstring>
#include <map>
#include <thread>
#include <vector>

#include "dynlib/base/random.h"
#include "gtest/gtest.h"

namespace dynlib {
namespace {

struct Object {
  unsigned char* memory;
  size_t bytes;
  unsigned char mark;
};

Object Make(Random& random, size_t bytes_max) {
  const size_t bytes = random.Chance(0.5) ? random.Below(64) : random.Below(bytes_max);
  Object object{static_cast<unsigned char*>(HugeHeap::Allocate(bytes)), bytes,
                static_cast<unsigned char>(random.Below(256))};
  EXPECT_EQ(reinterpret_cast<uintptr_t>(object.memory) % 16, 0u);
  std::memset(object.memory, object.mark, bytes);
  return object;
}

void CheckAndFree(const Object& object) {
  for (size_t i = 0; i < object.bytes; ++i) ASSERT_EQ(object.memory[i], object.mark) << i;
  HugeHeap::Free(object.memory, object.bytes);
}

// Objects of any size come and go in any order; none has its bytes changed by another.
void ComeAndGo(uint64_t seed, int steps, size_t bytes_max) {
  Random random(seed);
  std::vector<Object> objects;
  for (int i = 0; i < steps; ++i) {
    // Grows and shrinks by turns.
    const bool grow = i / 2'000 % 2 == 0;
    if (objects.empty() || random.Chance(grow ? 0.7 : 0.3)) {
      objects.push_back(Make(random, bytes_max));
    } else {
      std::swap(objects[random.Below(objects.size())], objects.back());
      CheckAndFree(objects.back());
      objects.pop_back();
    }
  }
  for (const Object& object : objects) CheckAndFree(object);
}

TEST(HugeHeap, ObjectsKeepTheirBytes) {
  ComeAndGo(1, 30'000, 9'000);
  ComeAndGo(2, 10'000, 70'000);
  EXPECT_EQ(HugeHeap::GetStats().used_bytes, 0u);
  EXPECT_LE(HugeHeap::GetStats().chunk_bytes, size_t{2} << 20) << "one chunk is kept";
}

TEST(HugeHeap, ThreadsTogether) {
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 3; ++t) threads.emplace_back([t] { ComeAndGo(t, 10'000, 6'000); });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(HugeHeap::GetStats().used_bytes, 0u);
}

// Freed in any order, neighbours join: what was filled with small objects has room for large ones.
TEST(HugeHeap, LittleIsLostBetweenObjects) {
  Random random(3);
  std::vector<Object> objects;
  size_t bytes = 0;
  while (bytes < size_t{20} << 20) {
    objects.push_back(Make(random, 6'000));
    bytes += objects.back().bytes;
  }
  const HugeHeap::Stats full = HugeHeap::GetStats();
  EXPECT_LE(full.chunk_bytes, bytes + bytes / 16 + (size_t{2} << 20));
  for (size_t i = objects.size(); i > 1; --i) {
    std::swap(objects[i - 1], objects[random.Below(i)]);
  }
  while (objects.size() > 100) {
    CheckAndFree(objects.back());
    objects.pop_back();
  }
  std::vector<void*> large;
  for (int i = 0; i < 200; ++i) large.push_back(HugeHeap::Allocate(60'000));
  EXPECT_LE(HugeHeap::GetStats().chunk_bytes, full.chunk_bytes);
  for (void* memory : large) HugeHeap::Free(memory, 60'000);
  for (const Object& object : objects) CheckAndFree(object);
}

TEST(HugeHeapDeathTest, AWrongSizeIsNoticed) {
  void* const memory = HugeHeap::Allocate(1'000);
  const bool checked = HugeHeap::GetStats().used_bytes == 0;
  if (!checked) EXPECT_DEATH(HugeHeap::Free(memory, 2'000), "");
  HugeHeap::Free(memory, 1'000);
  if (checked) GTEST_SKIP() << "memory is checked by a sanitizer";
}

}  // namespace
}  // namespace dynlib
