#include "dynlib/runtime/posix/time_slice.h"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <future>
#include <thread>

#include "dynlib/base/time.h"
#include "dynlib/runtime/posix/event_loop.h"
#include "gtest/gtest.h"

namespace dynlib {
namespace {

using std::chrono::microseconds;

// What a new thread gets to be told.
Duration InThread(Duration slice, bool* set) {
  Duration found;
  std::thread([&] {
    *set = SetTimeSlice(slice);
    found = TimeSlice();
  }).join();
  return found;
}

TEST(TimeSlice, IsTheThreadsOwn) {
  const Duration mine = TimeSlice();
  bool set = false;
  const Duration found = InThread(microseconds(300), &set);
  // Systems older than Linux 6.12 keep none.
  EXPECT_EQ(set, found == microseconds(300));
  EXPECT_EQ(TimeSlice(), mine);
}

TEST(TimeSlice, ItsPriorityStays) {
  std::thread([] {
    const int lower = std::min(getpriority(PRIO_PROCESS, 0) + 1, 19);
    ASSERT_EQ(setpriority(PRIO_PROCESS, 0, lower), 0);
    SetTimeSlice(microseconds(300));
    EXPECT_EQ(getpriority(PRIO_PROCESS, 0), lower);
  }).join();
}

TEST(TimeSlice, OfALoopIsThatOfItsThreads) {
  bool set = false;
  const Duration shortest = InThread(microseconds(100), &set);
  const auto of_loop = [](EventLoop::Options options, bool blocking) {
    EventLoop loop(options);
    std::promise<Duration> found;
    (blocking ? loop.blocking_executor() : loop.executor())->Post([&] {
      found.set_value(TimeSlice());
    });
    return found.get_future().get();
  };
  for (const bool blocking : {false, true}) {
    if (set) {
      EXPECT_EQ(of_loop({}, blocking), shortest);
      EXPECT_EQ(of_loop({.time_slice = microseconds(700)}, blocking), microseconds(700));
    }
    EXPECT_EQ(of_loop({.time_slice = Duration::zero()}, blocking), TimeSlice());
  }
}

TEST(TimeSliceDeathTest, OutOfRange) {
  EXPECT_DEATH(SetTimeSlice(microseconds(99)), "slice");
  EXPECT_DEATH(EventLoop({.time_slice = std::chrono::seconds(1)}), "time_slice");
}

}  // namespace
}  // namespace dynlib
