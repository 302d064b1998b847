#include "dynlib/testing/power_loss_disk.h"

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "dynlib/base/random.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/runtime/posix/posix_disk.h"
#include "dynlib/testing/disk_conformance.h"
#include "dynlib/testing/environment.h"
#include "dynlib/testing/overlay.h"
#include "dynlib/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "tests/runtime/real_environment.h"

namespace dynlib {
namespace {

constexpr auto kUnavailable = absl::StatusCode::kUnavailable;

class PowerLossEnvironment final : public RealFiles<DiskEnvironment> {
 public:
  explicit PowerLossEnvironment(PowerLossDisk::Options options) : options_(options) { Start(); }
  Disk* disk() override { return disk_.get(); }
  bool PowerLoss() override {
    disk_->PowerOff();
    Start();
    return true;
  }

 private:
  void Start() { disk_ = std::make_unique<PowerLossDisk>(posix_.get(), options_); }

  const PowerLossDisk::Options options_;
  ScratchFolder folder_;
  std::unique_ptr<PosixDisk> posix_ = *PosixDisk::Open({.root = folder_.path()});
  std::unique_ptr<PowerLossDisk> disk_;
};

DiskConformanceParam WithBound(std::string name, size_t bound) {
  return {std::move(name), [=] {
            return std::make_unique<PowerLossEnvironment>(
                PowerLossDisk::Options{.max_unsynced_bytes = bound});
          }};
}

// Also where writes go through at once, and where they sometimes do.
INSTANTIATE_TEST_SUITE_P(PowerLoss, DiskConformance,
                         ::testing::Values(WithBound("InMemory", 1 << 20), WithBound("Mixed", 3000),
                                           WithBound("Through", 0)));

class PowerLossDiskTest : public ::testing::Test {
 protected:
  std::string Below(const std::string& path) {
    const auto file = posix_->Open(path, OpenMode::kRead);
    if (!file.ok()) return "(no file)";
    std::string bytes(*(*file)->Size(), '?');
    DYNLIB_EXPECT_OK((*file)->ReadAt(0, bytes));
    return bytes;
  }

  ScratchFolder folder_;
  std::unique_ptr<PosixDisk> posix_ = *PosixDisk::Open({.root = folder_.path()});
  std::unique_ptr<PowerLossDisk> disk_ = std::make_unique<PowerLossDisk>(posix_.get());
};

TEST_F(PowerLossDiskTest, OnlyWhatWasSyncedIsThereAfterwards) {
  DYNLIB_ASSERT_OK_AND_ASSIGN(const auto file, disk_->Open("f", OpenMode::kCreate));
  DYNLIB_ASSERT_OK(file->WriteAt(0, "synced"));
  EXPECT_EQ(Below("f"), "");
  DYNLIB_ASSERT_OK(file->Sync());
  DYNLIB_ASSERT_OK(file->WriteAt(0, "SYN"));
  DYNLIB_ASSERT_OK(file->WriteAt(100, "more"));
  EXPECT_EQ(disk_->unsynced_bytes(), 7u);
  disk_->PowerOff();
  EXPECT_EQ(Below("f"), "synced");
  EXPECT_EQ(disk_->unsynced_bytes(), 0u);
}

TEST_F(PowerLossDiskTest, ClosingAFileDoesNotSaveItsWrites) {
  {
    DYNLIB_ASSERT_OK_AND_ASSIGN(const auto file, disk_->Open("f", OpenMode::kCreate));
    DYNLIB_ASSERT_OK(file->WriteAt(0, "lost"));
  }
  disk_->PowerOff();
  EXPECT_EQ(Below("f"), "");
}

TEST_F(PowerLossDiskTest, AfterwardsEveryCallFails) {
  DYNLIB_ASSERT_OK(disk_->CreateDir("d"));
  DYNLIB_ASSERT_OK_AND_ASSIGN(const auto file, disk_->Open("f", OpenMode::kCreate));
  DYNLIB_ASSERT_OK(file->WriteAt(0, "x"));
  DYNLIB_ASSERT_OK_AND_ASSIGN(const auto lock, disk_->Lock("LOCK"));
  disk_->PowerOff();
  disk_->PowerOff();
  char byte;
  EXPECT_THAT(file->ReadAt(0, std::span<char>(&byte, 1)), StatusIs(kUnavailable));
  EXPECT_THAT(file->WriteAt(0, "y"), StatusIs(kUnavailable));
  EXPECT_THAT(file->Sync(), StatusIs(kUnavailable));
  EXPECT_THAT(file->Allocate(0, 1), StatusIs(kUnavailable));
  EXPECT_THAT(file->Truncate(0), StatusIs(kUnavailable));
  EXPECT_THAT(file->Size(), StatusIs(kUnavailable));
  EXPECT_THAT(disk_->Open("f", OpenMode::kRead), StatusIs(kUnavailable));
  EXPECT_THAT(disk_->Rename("f", "g"), StatusIs(kUnavailable));
  EXPECT_THAT(disk_->Remove("f"), StatusIs(kUnavailable));
  EXPECT_THAT(disk_->CreateDir("e"), StatusIs(kUnavailable));
  EXPECT_THAT(disk_->List(""), StatusIs(kUnavailable));
  EXPECT_THAT(disk_->SyncDir(""), StatusIs(kUnavailable));
  EXPECT_THAT(disk_->Lock("LOCK"), StatusIs(kUnavailable));
}

TEST_F(PowerLossDiskTest, AFileOutlivesItsDisk) {
  DYNLIB_ASSERT_OK_AND_ASSIGN(const auto file, disk_->Open("f", OpenMode::kCreate));
  DYNLIB_ASSERT_OK_AND_ASSIGN(const auto lock, disk_->Lock("LOCK"));
  disk_.reset();
  EXPECT_THAT(file->Sync(), StatusIs(kUnavailable));
}

TEST_F(PowerLossDiskTest, ARenameCarriesUnsyncedBytesWhichStillNeedASync) {
  DYNLIB_ASSERT_OK_AND_ASSIGN(const auto file, disk_->Open("a", OpenMode::kCreate));
  DYNLIB_ASSERT_OK(file->WriteAt(0, "one"));
  DYNLIB_ASSERT_OK(disk_->Rename("a", "b"));
  DYNLIB_ASSERT_OK_AND_ASSIGN(const auto reader, disk_->Open("b", OpenMode::kRead));
  std::string got(3, '?');
  DYNLIB_ASSERT_OK(reader->ReadAt(0, got));
  EXPECT_EQ(got, "one");
  EXPECT_EQ(Below("b"), "");
  DYNLIB_ASSERT_OK(reader->Sync());  // what others wrote, too
  EXPECT_EQ(Below("b"), "one");
}

TEST_F(PowerLossDiskTest, PastTheBoundWritesGoThroughInOrder) {
  PowerLossDisk disk(posix_.get(), {.max_unsynced_bytes = 10});
  DYNLIB_ASSERT_OK_AND_ASSIGN(const auto file, disk.Open("f", OpenMode::kCreate));
  DYNLIB_ASSERT_OK(file->WriteAt(0, "12345678"));
  EXPECT_EQ(Below("f"), "");
  DYNLIB_ASSERT_OK(file->WriteAt(4, "abcd"));
  EXPECT_EQ(Below("f"), "1234abcd");
  EXPECT_EQ(disk.unsynced_bytes(), 0u);
}

TEST_F(PowerLossDiskTest, RemovedFilesGiveBackTheirMemory) {
  {
    DYNLIB_ASSERT_OK_AND_ASSIGN(const auto file, disk_->Open("f", OpenMode::kCreate));
    DYNLIB_ASSERT_OK(file->WriteAt(0, "bytes"));
    DYNLIB_ASSERT_OK(disk_->Remove("f"));
  }
  EXPECT_EQ(disk_->unsynced_bytes(), 0u);
  {
    DYNLIB_ASSERT_OK_AND_ASSIGN(const auto file, disk_->Open("g", OpenMode::kCreate));
    DYNLIB_ASSERT_OK(file->WriteAt(0, "bytes"));
  }
  DYNLIB_ASSERT_OK(disk_->Remove("g"));
  EXPECT_EQ(disk_->unsynced_bytes(), 0u);
}

// Random writes, syncs and power losses against a model that keeps two strings.
TEST_F(PowerLossDiskTest, RandomPowerLossesAgainstAModel) {
  Random random(5);
  std::string durable;
  std::string current;
  { DYNLIB_ASSERT_OK(disk_->Open("f", OpenMode::kCreate)); }
  for (int life = 0; life < 30; ++life) {
    disk_ = std::make_unique<PowerLossDisk>(posix_.get());
    DYNLIB_ASSERT_OK_AND_ASSIGN(const auto file, disk_->Open("f", OpenMode::kReadWrite));
    for (uint64_t step = random.Below(40); step > 0; --step) {
      if (random.Chance(0.2)) {
        DYNLIB_ASSERT_OK(file->Sync());
        durable = current;
      } else {
        const uint64_t offset = random.Below(3000);
        const std::string data(1 + random.Below(700), static_cast<char>('a' + random.Below(26)));
        DYNLIB_ASSERT_OK(file->WriteAt(offset, data));
        current.resize(std::max(current.size(), offset + data.size()), '\0');
        current.replace(offset, data.size(), data);
      }
    }
    disk_->PowerOff();
    ASSERT_TRUE(Below("f") == durable) << "life " << life;
    current = durable;
  }
}

TEST(Overlay, AgainstAString) {
  Random random(11);
  Overlay overlay;
  std::string model(500, '.');
  for (int step = 0; step < 5000; ++step) {
    const uint64_t begin = random.Below(500);
    const uint64_t size = random.Below(500 - begin + 1);
    if (random.Chance(0.3)) {
      overlay.Erase(begin, begin + size);
      std::fill_n(model.begin() + begin, size, '.');
    } else {
      const std::string data(size, static_cast<char>('a' + step % 26));
      overlay.Write(begin, data);
      model.replace(begin, size, data);
    }
    std::string got(500, '.');
    overlay.ApplyTo(0, got);
    ASSERT_EQ(got, model) << step;
    ASSERT_EQ(overlay.bytes(), 500u - std::count(model.begin(), model.end(), '.')) << step;
    std::string part(size, '.');
    overlay.ApplyTo(begin, part);
    ASSERT_EQ(part, model.substr(begin, size)) << step;
    ASSERT_EQ(overlay.end(), model.find_last_not_of('.') + 1) << step;
  }
}

}  // namespace
}  // namespace dynlib
