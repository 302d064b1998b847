#include "dynlib/cluster/node_directory.h"

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/sim/disk.h"
#include "dynlib/sim/file_image.h"
#include "dynlib/testing/forwarding_disk.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dynlib::cluster {
namespace {

using sim::DiskFault;
using sim::SimDisk;
using sim::UnsyncedFate;
using testing::AllOf;
using testing::HasSubstr;

constexpr NodeId kNode{7};

void WriteFile(Disk& disk, const std::string& path, const std::string& text) {
  DYNLIB_ASSERT_OK_AND_ASSIGN(auto file, disk.Open(path, OpenMode::kCreate));
  DYNLIB_ASSERT_OK(file->WriteAt(0, text));
  DYNLIB_ASSERT_OK(file->Sync());
  DYNLIB_ASSERT_OK(disk.SyncDir(""));
}

std::map<std::string, std::string> Contents(const SimDisk& disk) {
  std::map<std::string, std::string> contents;
  for (const std::string& path : disk.Paths()) contents[path] = disk.ReadRaw(path);
  return contents;
}

// Opening fails like this, and leaves every byte as it was.
void ExpectRefused(SimDisk& disk, const std::string& why) {
  const auto before = Contents(disk);
  EXPECT_THAT(OpenNodeDirectory(&disk, kNode),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr(why)));
  EXPECT_EQ(Contents(disk), before);
}

TEST(NodeDirectoryTest, AnEmptyDirectoryIsFreshUntilFormatIsWritten) {
  SimDisk disk(1);
  for (int i = 0; i < 2; ++i) {
    DYNLIB_ASSERT_OK_AND_ASSIGN(NodeDirectory directory, OpenNodeDirectory(&disk, kNode));
    EXPECT_TRUE(directory.fresh);
    EXPECT_NE(directory.lock, nullptr);
  }
  DYNLIB_ASSERT_OK(WriteFormat(&disk, kNode));
  DYNLIB_ASSERT_OK_AND_ASSIGN(NodeDirectory directory, OpenNodeDirectory(&disk, kNode));
  EXPECT_FALSE(directory.fresh);
}

TEST(NodeDirectoryTest, WhatAnUnfinishedCreationLeftIsFresh) {
  SimDisk disk(1);
  WriteFile(disk, "pages", "half");
  WriteFile(disk, "pages.new", "half");
  WriteFile(disk, "FORMAT.new", "dynlib sto");
  DYNLIB_ASSERT_OK(disk.CreateDir("log"));
  DYNLIB_ASSERT_OK_AND_ASSIGN(NodeDirectory directory, OpenNodeDirectory(&disk, kNode));
  EXPECT_TRUE(directory.fresh);
  DYNLIB_ASSERT_OK(WriteFormat(&disk, kNode));
  directory.lock = nullptr;
  EXPECT_FALSE(OpenNodeDirectory(&disk, kNode)->fresh);
}

TEST(NodeDirectoryTest, AnotherNodesDirectoryIsRefused) {
  SimDisk disk(1);
  DYNLIB_ASSERT_OK(WriteFormat(&disk, NodeId{70}));
  ExpectRefused(disk, "belongs to node 70, not to node 7");
}

TEST(NodeDirectoryTest, OtherFormatVersionsAreRefused) {
  for (std::string version : {"2", "10", "", "1 "}) {
    SimDisk disk(1);
    WriteFile(disk, "FORMAT", "dynlib storage node\nformat " + version + "\nnode 7\n");
    ExpectRefused(disk, "format version \"" + version + "\"; this program reads version 1");
  }
}

TEST(NodeDirectoryTest, FormatFilesOfOthersAreRefused) {
  for (std::string text : {"", "x", "dynlib storage node", "1\n", "DYNLIB storage node\n"}) {
    SimDisk disk(1);
    WriteFile(disk, "FORMAT", text);
    ExpectRefused(disk, "it is no storage node's");
  }
  for (std::string text : {"dynlib storage node\n", "dynlib storage node\nformat 1",
                           "dynlib storage node\nnode 7\n"}) {
    SimDisk disk(1);
    WriteFile(disk, "FORMAT", text);
    ExpectRefused(disk, "");
  }
  SimDisk disk(1);
  WriteFile(disk, "FORMAT", std::string(5000, 'x'));
  ExpectRefused(disk, "5000 bytes");
}

TEST(NodeDirectoryTest, ADirectoryWithOtherFilesIsRefused) {
  SimDisk disk(1);
  WriteFile(disk, "thesis.tex", "years of work");
  ExpectRefused(disk, "\"thesis.tex\"");
}

TEST(NodeDirectoryTest, ALockedDirectoryIsRefused) {
  SimDisk disk(1);
  DYNLIB_ASSERT_OK(WriteFormat(&disk, kNode));
  DYNLIB_ASSERT_OK_AND_ASSIGN(NodeDirectory first, OpenNodeDirectory(&disk, kNode));
  const auto before = Contents(disk);
  EXPECT_THAT(OpenNodeDirectory(&disk, kNode),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("LOCK")));
  EXPECT_EQ(Contents(disk), before);
  first.lock = nullptr;
  DYNLIB_EXPECT_OK(OpenNodeDirectory(&disk, kNode));
}

// Another process finishes making the directory between the look and the lock.
class RacingDisk final : public ForwardingDisk {
 public:
  RacingDisk(Disk* disk, std::function<void()> before_lock)
      : ForwardingDisk(disk), before_lock_(std::move(before_lock)) {}
  absl::StatusOr<std::unique_ptr<DiskLock>> Lock(std::string_view path) override {
    before_lock_();
    return ForwardingDisk::Lock(path);
  }

 private:
  const std::function<void()> before_lock_;
};

TEST(NodeDirectoryTest, ItIsJudgedWithTheLockHeld) {
  for (uint64_t other : {7, 70}) {
    SimDisk disk(1);
    RacingDisk racing(&disk, [&] { DYNLIB_ASSERT_OK(WriteFormat(&disk, NodeId{other})); });
    absl::StatusOr<NodeDirectory> directory = OpenNodeDirectory(&racing, kNode);
    if (other == 70) {
      EXPECT_THAT(directory, StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("70")));
    } else {
      DYNLIB_ASSERT_OK(directory);
      EXPECT_FALSE(directory->fresh);
    }
  }
}

TEST(NodeDirectoryTest, FormatIsWholeOrAbsentWhereverThePowerFails) {
  for (UnsyncedFate fate : {UnsyncedFate::kAllLost, UnsyncedFate::kAllKept, UnsyncedFate::kTorn}) {
    bool done = false;
    for (uint64_t call = 1; !done; ++call) {
      SimDisk disk(call);
      disk.FailCall(call, DiskFault::kPowerOff, fate);
      done = WriteFormat(&disk, kNode).ok();
      disk.ClearFailCall();
      disk.PowerOff(fate);
      disk.Restart();
      DYNLIB_ASSERT_OK_AND_ASSIGN(NodeDirectory directory, OpenNodeDirectory(&disk, kNode));
      if (done) {
        EXPECT_FALSE(directory.fresh);
      }
      if (directory.fresh) {
        DYNLIB_EXPECT_OK(WriteFormat(&disk, kNode));
      }
    }
  }
}

}  // namespace
}  // namespace dynlib::cluster
