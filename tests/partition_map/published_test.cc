#include "dynlib/partition_map/published.h"

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace dynlib::partition_map {
namespace {

// Knows how many of it exist.
struct Counted {
  Counted(int number, std::atomic<int>& alive) : number(number), alive(&alive) { ++alive; }
  ~Counted() {
    number = -1;
    --*alive;
  }
  int number;
  std::atomic<int>* alive;
};

TEST(Published, ReadersSeeTheNewest) {
  std::atomic<int> alive{0};
  {
    Published<Counted> published(std::make_unique<Counted>(0, alive));
    for (int i = 1; i < 10; ++i) {
      published.Publish(std::make_unique<Counted>(i, alive));
      EXPECT_EQ(Published<Counted>::Reader(published)->number, i);
      EXPECT_EQ(published.newest().number, i);
    }
    EXPECT_LE(alive.load(), 4);
  }
  EXPECT_EQ(alive.load(), 0);
}

TEST(Published, AVersionStaysAsLongAsItsReader) {
  std::atomic<int> alive{0};
  Published<Counted> published(std::make_unique<Counted>(0, alive));
  {
    const Published<Counted>::Reader reader(published);
    for (int i = 1; i < 10; ++i) {
      published.Publish(std::make_unique<Counted>(i, alive));
      ASSERT_EQ(reader->number, 0);
    }
  }
  for (int i = 10; i < 13; ++i) published.Publish(std::make_unique<Counted>(i, alive));
  EXPECT_LE(published.unreclaimed(), 2u);
}

// Readers that follow one another without a pause do not keep versions from being freed.
TEST(Published, OverlappingReadersDoNotKeepAll) {
  std::atomic<int> alive{0};
  Published<Counted> published(std::make_unique<Counted>(0, alive));
  auto before = std::make_unique<Published<Counted>::Reader>(published);
  for (int i = 1; i < 1'000; ++i) {
    published.Publish(std::make_unique<Counted>(i, alive));
    auto next = std::make_unique<Published<Counted>::Reader>(published);
    before = std::move(next);
  }
  EXPECT_LE(alive.load(), 8);
}

// Under the thread and address sanitizers.
TEST(Published, ManyReadersBesideAWriter) {
  std::atomic<int> alive{0};
  std::atomic<bool> done{false};
  Published<Counted> published(std::make_unique<Counted>(0, alive));
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([&] {
      int last = 0;
      while (!done) {
        const Published<Counted>::Reader reader(published);
        ASSERT_GE(reader->number, last);
        last = reader->number;
      }
    });
  }
  for (int i = 1; i < 20'000; ++i) published.Publish(std::make_unique<Counted>(i, alive));
  done = true;
  for (std::thread& reader : readers) reader.join();
  published.Publish(std::make_unique<Counted>(20'000, alive));
  published.Publish(std::make_unique<Counted>(20'001, alive));
  EXPECT_LE(alive.load(), 3);
}

}  // namespace
}  // namespace dynlib::partition_map
