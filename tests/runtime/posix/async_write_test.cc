#include "dynlib/runtime/posix/async_write.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "dynlib/runtime/disk.h"
#include "gtest/gtest.h"
#include "tests/runtime/real_environment.h"

namespace dynlib {
namespace {

constexpr size_t kUnit = File::kDirectAlignment;
constexpr AsyncWrite::Bounds kPatient = {.total = std::chrono::minutes(1),
                                         .yield = std::chrono::minutes(1)};
constexpr AsyncWrite::Bounds kImpatient = {.total = Duration::zero(), .yield = Duration::zero()};

// A file whose writes take the time of the disk, if the file system has such.
class SlowFile {
 public:
  explicit SlowFile(const std::string& path) {
    fd_ = open(path.c_str(), O_RDWR | O_CREAT | O_DSYNC | O_DIRECT, 0600);
    if (fd_ < 0) fd_ = open(path.c_str(), O_RDWR | O_CREAT | O_DSYNC, 0600);
  }
  ~SlowFile() { close(fd_); }
  int fd() const { return fd_; }

 private:
  int fd_ = -1;
};

struct FreeIt {
  void operator()(char* memory) const { std::free(memory); }
};
using Aligned = std::unique_ptr<char, FreeIt>;

Aligned Units(size_t count) {
  return Aligned(static_cast<char*>(std::aligned_alloc(kUnit, count * kUnit)));
}

// More writes than the kernel's ring has places, polled for and slept for in turns: each is heard
// of once, and with its own result.
void WriteMany(const std::string& path, uint64_t seed) {
  SlowFile file(path);
  ASSERT_GE(file.fd(), 0);
  const std::unique_ptr<AsyncWrite> write = AsyncWrite::Make();
  ASSERT_NE(write, nullptr);
  const Aligned memory = Units(3);
  const Aligned found = Units(3);
  for (uint64_t i = 0; i < 300; ++i) {
    const size_t length = kUnit * (1 + (seed + i) % 3);
    std::fill_n(memory.get(), length, static_cast<char>(seed + i));
    ASSERT_TRUE(write->Start(file.fd(), 0, {memory.get(), length}));
    const auto length_or_error = static_cast<int64_t>(length);
    switch (i % 3) {
      case 0: {
        const AsyncWrite::Polled polled = write->Poll(kPatient);
        EXPECT_EQ(polled.result, length_or_error);
        EXPECT_TRUE(polled.in_time);
        break;
      }
      case 1:
        EXPECT_EQ(write->Poll(kImpatient).result, length_or_error);
        break;
      default:
        EXPECT_EQ(write->Wait(), length_or_error);
    }
    ASSERT_EQ(pread(file.fd(), found.get(), kUnit, 0), static_cast<ssize_t>(kUnit));
    ASSERT_EQ(std::string_view(found.get(), kUnit), std::string_view(memory.get(), kUnit));
  }
}

TEST(AsyncWrite, PolledForAndSleptForInTurns) {
  ScratchFolder folder;
  WriteMany(folder.path() + "/file", 1);
}

TEST(AsyncWrite, EachThreadHasItsOwn) {
  ScratchFolder folder;
  std::vector<std::thread> threads;
  for (uint64_t i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] { WriteMany(folder.path() + "/" + std::to_string(i), i); });
  }
  for (std::thread& thread : threads) thread.join();
}

// Of what a process may write, `limit` bytes a file.
class FileLimit {
 public:
  explicit FileLimit(uint64_t limit) {
    signal(SIGXFSZ, SIG_IGN);
    EXPECT_EQ(getrlimit(RLIMIT_FSIZE, &before_), 0);
    rlimit limited = before_;
    limited.rlim_cur = limit;
    EXPECT_EQ(setrlimit(RLIMIT_FSIZE, &limited), 0);
  }
  ~FileLimit() {
    EXPECT_EQ(setrlimit(RLIMIT_FSIZE, &before_), 0);
    signal(SIGXFSZ, SIG_DFL);
  }

 private:
  rlimit before_;
};

TEST(AsyncWrite, AnErrorOrAPartIsTheResult) {
  ScratchFolder folder;
  SlowFile file(folder.path() + "/file");
  const std::unique_ptr<AsyncWrite> write = AsyncWrite::Make();
  ASSERT_NE(write, nullptr);
  const Aligned memory = Units(2);
  std::fill_n(memory.get(), 2 * kUnit, 'x');
  const std::string_view data(memory.get(), 2 * kUnit);
  for (const AsyncWrite::Bounds& bounds : {kPatient, kImpatient}) {
    FileLimit limit(3 * kUnit);
    ASSERT_TRUE(write->Start(file.fd(), 2 * kUnit, data));
    EXPECT_EQ(write->Poll(bounds).result, static_cast<int64_t>(kUnit));
    ASSERT_TRUE(write->Start(file.fd(), 3 * kUnit, data));
    EXPECT_EQ(write->Poll(bounds).result, -EFBIG);
  }
}

TEST(AsyncWrite, WhatCannotBeStartedIsNot) {
  const std::unique_ptr<AsyncWrite> write = AsyncWrite::Make();
  ASSERT_NE(write, nullptr);
  EXPECT_FALSE(write->Start(-1, 0, "x"));
}

}  // namespace
}  // namespace dynlib
