#include "dynlib/sim/disk.h"

#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/random.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/sim/file_image.h"
#include "gtest/gtest.h"

namespace dynlib::sim {
namespace {

using absl::StatusCode;

std::unique_ptr<File> Create(SimDisk& disk, std::string_view path) {
  auto file = disk.Open(path, OpenMode::kCreate);
  EXPECT_TRUE(file.ok()) << file.status();
  return *std::move(file);
}

// A file with durable contents under a durable name.
std::unique_ptr<File> CreateDurable(SimDisk& disk, std::string_view path, std::string_view data) {
  auto file = Create(disk, path);
  EXPECT_TRUE(file->WriteAt(0, data).ok());
  EXPECT_TRUE(file->Sync().ok());
  EXPECT_TRUE(disk.SyncDir("").ok());
  return file;
}

void Cycle(SimDisk& disk, UnsyncedFate fate) {
  disk.PowerOff(fate);
  disk.Restart();
}

TEST(SimDisk, PowerOffLosesExactlyWhatWasNotSynced) {
  SimDisk disk(1);
  auto file = CreateDurable(disk, "f", "durable");
  ASSERT_TRUE(file->WriteAt(0, "DURA").ok());
  ASSERT_TRUE(file->WriteAt(7, " and more").ok());
  EXPECT_EQ(disk.ReadRaw("f"), "DURAble and more");
  Cycle(disk, UnsyncedFate::kAllLost);
  EXPECT_EQ(disk.ReadRaw("f"), "durable");
}

TEST(SimDisk, AnotherDiskIsEmpty) {
  SimDisk disk(1);
  auto file = CreateDurable(disk, "f", "durable");
  disk.PowerOff(UnsyncedFate::kAllKept);
  disk.Replace();
  disk.Restart();
  EXPECT_TRUE(disk.Paths().empty());
  EXPECT_EQ(disk.used_bytes(), 0u);
  EXPECT_FALSE(disk.Open("f", OpenMode::kRead).ok());
}

TEST(SimDisk, PowerOffMayKeepEverything) {
  SimDisk disk(1);
  auto file = CreateDurable(disk, "f", "durable");
  ASSERT_TRUE(file->WriteAt(0, "DURA").ok());
  Create(disk, "g");
  Cycle(disk, UnsyncedFate::kAllKept);
  EXPECT_EQ(disk.ReadRaw("f"), "DURAble");
  EXPECT_EQ(disk.Paths(), (std::vector<std::string>{"f", "g"}));
}

TEST(SimDisk, CrashKeepsWhatTheKernelHasButDoesNotMakeItDurable) {
  SimDisk disk(1);
  auto file = CreateDurable(disk, "f", "old");
  ASSERT_TRUE(file->WriteAt(0, "new").ok());
  disk.Crash();
  disk.Restart();
  EXPECT_EQ(disk.ReadRaw("f"), "new");
  EXPECT_EQ(disk.ReadDurable("f"), "old");
  Cycle(disk, UnsyncedFate::kAllLost);
  EXPECT_EQ(disk.ReadRaw("f"), "old");
}

TEST(SimDisk, FilesOfAnEarlierIncarnationAreDead) {
  SimDisk disk(1);
  auto file = CreateDurable(disk, "f", "x");
  auto lock = disk.Lock("LOCK");
  ASSERT_TRUE(lock.ok());
  EXPECT_EQ(disk.Lock("LOCK").status().code(), StatusCode::kAlreadyExists);
  disk.Crash();
  EXPECT_EQ(disk.List("").status().code(), StatusCode::kAborted);
  disk.Restart();
  EXPECT_EQ(file->WriteAt(0, "y").code(), StatusCode::kAborted);
  EXPECT_EQ(file->Size().status().code(), StatusCode::kAborted);
  auto again = disk.Lock("LOCK");
  EXPECT_TRUE(again.ok()) << "a crash releases locks";
  lock->reset();  // the dead one: it must not release the new one
  EXPECT_EQ(disk.Lock("LOCK").status().code(), StatusCode::kAlreadyExists);
}

TEST(SimDisk, NamesAreDurableAfterSyncDirOnly) {
  SimDisk disk(1);
  auto a = CreateDurable(disk, "a", "a");
  auto b = Create(disk, "b");
  ASSERT_TRUE(b->Sync().ok());
  ASSERT_TRUE(disk.Rename("a", "c").ok());
  ASSERT_TRUE(disk.CreateDir("d/e").ok());
  Cycle(disk, UnsyncedFate::kAllLost);
  EXPECT_EQ(disk.Paths(), (std::vector<std::string>{"a"}));
  EXPECT_EQ(disk.List("d").status().code(), StatusCode::kNotFound);

  ASSERT_TRUE(disk.Rename("a", "c").ok());
  ASSERT_TRUE(disk.SyncDir("").ok());
  ASSERT_TRUE(disk.Remove("c").ok());
  Cycle(disk, UnsyncedFate::kAllLost);
  EXPECT_EQ(disk.Paths(), (std::vector<std::string>{"c"}));
  EXPECT_EQ(disk.ReadRaw("c"), "a");
}

TEST(SimDisk, AFolderIsDurableAfterSyncDirOfTheOneAbove) {
  SimDisk disk(1);
  ASSERT_TRUE(disk.CreateDir("d").ok());
  Create(disk, "d/f");
  ASSERT_TRUE(disk.SyncDir("d").ok());
  ASSERT_TRUE(disk.SyncDir("").ok());
  Cycle(disk, UnsyncedFate::kAllLost);
  EXPECT_EQ(disk.Paths(), (std::vector<std::string>{"d/f"}));

  ASSERT_TRUE(disk.CreateDir("e").ok());
  Create(disk, "e/f");
  ASSERT_TRUE(disk.SyncDir("e").ok());
  Cycle(disk, UnsyncedFate::kAllLost);
  EXPECT_EQ(disk.Paths(), (std::vector<std::string>{"d/f"}));
}

TEST(SimDisk, ARenamedFolderKeepsWhatIsInIt) {
  SimDisk disk(1);
  ASSERT_TRUE(disk.CreateDir("d").ok());
  ASSERT_TRUE(disk.SyncDir("").ok());
  Create(disk, "d/f");
  ASSERT_TRUE(disk.SyncDir("d").ok());
  ASSERT_TRUE(disk.Rename("d", "e").ok());
  EXPECT_EQ(disk.Paths(), (std::vector<std::string>{"e/f"}));
  Cycle(disk, UnsyncedFate::kAllLost);
  EXPECT_EQ(disk.Paths(), (std::vector<std::string>{"d/f"}));
  ASSERT_TRUE(disk.Rename("d", "e").ok());
  ASSERT_TRUE(disk.SyncDir("").ok());
  Cycle(disk, UnsyncedFate::kAllLost);
  EXPECT_EQ(disk.Paths(), (std::vector<std::string>{"e/f"}));
  EXPECT_FALSE(disk.Rename("e", "e/e").ok());
}

// Three writes of a sector each, on three sectors, over durable 'o's.
std::string Outcome(uint64_t seed, UnsyncedFate fate) {
  constexpr size_t kSector = FileImage::kSectorBytes;
  SimDisk disk(seed);
  auto file = CreateDurable(disk, "f", std::string(4 * kSector, 'o'));
  EXPECT_TRUE(file->WriteAt(0, std::string(kSector, 'a')).ok());
  EXPECT_TRUE(file->WriteAt(kSector, std::string(2 * kSector, 'b')).ok());
  EXPECT_TRUE(file->WriteAt(3 * kSector, std::string(kSector, 'c')).ok());
  Cycle(disk, fate);
  const std::string all = disk.ReadRaw("f");
  std::string sectors;
  for (size_t i = 0; i < 4; ++i) {
    sectors += all[i * kSector];
    // A sector is never torn.
    EXPECT_EQ(all.substr(i * kSector, kSector), std::string(kSector, sectors.back()));
  }
  return sectors;
}

TEST(SimDisk, TornKeepsAPrefixCutAtASector) {
  std::set<std::string> seen;
  for (uint64_t seed = 0; seed < 200; ++seed) seen.insert(Outcome(seed, UnsyncedFate::kTorn));
  EXPECT_EQ(seen, (std::set<std::string>{"oooo", "aooo", "aboo", "abbo", "abbc"}));
}

TEST(SimDisk, RandomSubsetKeepsAnySectors) {
  std::set<std::string> seen;
  for (uint64_t seed = 0; seed < 500; ++seed) {
    seen.insert(Outcome(seed, UnsyncedFate::kRandomSubset));
  }
  EXPECT_EQ(seen.size(), 16u);
  EXPECT_TRUE(seen.contains("oobc")) << "later writes without earlier ones";
}

TEST(SimDisk, AFailedSyncIsForGood) {
  SimDisk disk(1);
  auto file = CreateDurable(disk, "f", "old");
  ASSERT_TRUE(file->WriteAt(0, "new").ok());
  disk.FailCall(1, DiskFault::kEio);
  EXPECT_EQ(file->Sync().code(), StatusCode::kDataLoss);
  EXPECT_EQ(file->Sync().code(), StatusCode::kDataLoss);
  EXPECT_EQ(file->WriteAt(0, "x").code(), StatusCode::kDataLoss);
  auto again = disk.Open("f", OpenMode::kReadWrite);
  ASSERT_TRUE(again.ok());
  EXPECT_TRUE((*again)->Sync().ok());
  EXPECT_EQ(disk.ReadRaw("f"), disk.ReadDurable("f"));
}

TEST(SimDisk, AFailedSyncMayLeaveTheCacheThatIsNeverWritten) {
  FaultOptions faults = {.disk_failed_sync_keeps_cache = true};
  bool lost = false;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    SimDisk disk(seed, nullptr, &faults);
    auto file = CreateDurable(disk, "f", "old");
    ASSERT_TRUE(file->WriteAt(0, "newer").ok());
    disk.FailCall(1, DiskFault::kEio);
    ASSERT_FALSE(file->Sync().ok());
    auto again = disk.Open("f", OpenMode::kReadWrite);
    EXPECT_TRUE((*again)->Sync().ok());
    EXPECT_EQ(disk.ReadRaw("f"), "newer");
    Cycle(disk, UnsyncedFate::kAllKept);
    EXPECT_EQ(disk.ReadRaw("f").size(), 5u) << "sizes are journalled";
    lost |= disk.ReadRaw("f") != "newer";
    again = disk.Open("f", OpenMode::kReadWrite);
    ASSERT_TRUE((*again)->WriteAt(0, "again").ok());
    ASSERT_TRUE((*again)->Sync().ok());
    Cycle(disk, UnsyncedFate::kAllLost);
    EXPECT_EQ(disk.ReadRaw("f"), "again");
  }
  EXPECT_TRUE(lost);
}

TEST(SimDisk, FullDiskFailsAllocationAndExtensionAlone) {
  SimDisk disk(1);
  auto file = CreateDurable(disk, "f", "x");
  ASSERT_TRUE(file->Allocate(0, 10'000).ok());
  disk.SetFull(true);
  EXPECT_TRUE(file->WriteAt(9'000, "y").ok());
  EXPECT_EQ(file->WriteAt(20'000, "z").code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(file->Allocate(0, 20'000).code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(*file->Size(), 10'000u);
  disk.SetFull(false);
  EXPECT_TRUE(file->Allocate(0, 20'000).ok());
}

TEST(SimDisk, CapacityIsGivenBackByRemove) {
  SimDisk disk(1);
  disk.SetCapacity(64 << 10);
  auto f = CreateDurable(disk, "f", "");
  ASSERT_TRUE(f->Allocate(0, 40'000).ok());
  auto g = CreateDurable(disk, "g", "");
  EXPECT_EQ(g->Allocate(0, 40'000).code(), StatusCode::kResourceExhausted);
  ASSERT_TRUE(disk.Remove("f").ok());
  EXPECT_TRUE(g->Allocate(0, 40'000).ok());
  EXPECT_EQ(disk.used_bytes(), 40u << 10);
}

TEST(SimDisk, DiscardGivesWholeBlocksBack) {
  SimDisk disk(1);
  auto file = CreateDurable(disk, "f", std::string(20'000, 'x'));
  EXPECT_EQ(disk.used_bytes(), 20u << 10);
  ASSERT_TRUE(file->Discard(4'000, 9'000).ok());
  EXPECT_EQ(disk.used_bytes(), 12u << 10);
  disk.SetFull(true);
  EXPECT_EQ(file->WriteAt(5'000, "y").code(), StatusCode::kResourceExhausted);
  disk.SetFull(false);
  EXPECT_TRUE(file->WriteAt(5'000, "y").ok());
  EXPECT_EQ(disk.used_bytes(), 16u << 10);
}

TEST(SimDisk, FailCallHitsTheNthCall) {
  SimDisk disk(1);
  auto file = CreateDurable(disk, "f", "0123456789");
  const uint64_t before = disk.calls();
  disk.FailCall(2, DiskFault::kEio);
  char byte;
  EXPECT_TRUE(file->ReadAt(0, {&byte, 1}).ok());
  EXPECT_EQ(file->ReadAt(0, {&byte, 1}).code(), StatusCode::kDataLoss);
  EXPECT_TRUE(file->ReadAt(0, {&byte, 1}).ok());
  EXPECT_EQ(disk.calls(), before + 3);

  disk.FailCall(1, DiskFault::kNoSpace);
  EXPECT_TRUE(file->ReadAt(0, {&byte, 1}).ok()) << "needs no space";
  EXPECT_EQ(file->WriteAt(50'000, "x").code(), StatusCode::kResourceExhausted);
  EXPECT_TRUE(file->WriteAt(50'000, "x").ok());
}

TEST(SimDisk, PowerFailsAtTheNthCall) {
  for (const auto fate : {UnsyncedFate::kAllLost, UnsyncedFate::kAllKept}) {
    SimDisk disk(1);
    int told = 0;
    disk.OnPowerOff([&] { ++told; });
    auto file = CreateDurable(disk, "f", "old");
    disk.FailCall(1, DiskFault::kPowerOff, fate);
    EXPECT_EQ(file->WriteAt(0, "new").code(), StatusCode::kAborted);
    EXPECT_TRUE(disk.down());
    EXPECT_EQ(told, 1);
    EXPECT_EQ(file->Sync().code(), StatusCode::kAborted);
    disk.Restart();
    EXPECT_EQ(disk.ReadRaw("f"), fate == UnsyncedFate::kAllLost ? "old" : "new");
  }
}

TEST(SimDisk, DamageSparesTheTailOfAFile) {
  SimDisk disk(1);
  auto file = CreateDurable(disk, "f", "");
  Random random(1);
  std::string data(SimDisk::kCorruptibleTailBytes, '\0');
  for (char& c : data) c = static_cast<char>(random.Next());
  ASSERT_TRUE(file->WriteAt(0, data).ok());
  EXPECT_FALSE(disk.FlipRandomBit()) << "not durable";
  ASSERT_TRUE(file->Sync().ok());
  EXPECT_FALSE(disk.FlipRandomBit()) << "all of it is the tail";

  ASSERT_TRUE(file->WriteAt(data.size(), data).ok());
  ASSERT_TRUE(file->Sync().ok());
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(disk.FlipRandomBit());
  EXPECT_TRUE(disk.MisdirectRandomWrite());
  const std::string after = disk.ReadRaw("f");
  EXPECT_NE(after.substr(0, data.size()), data);
  EXPECT_EQ(after.substr(data.size()), data);
  Cycle(disk, UnsyncedFate::kAllLost);
  EXPECT_EQ(disk.ReadRaw("f"), after) << "damage is to what is durable";
}

TEST(SimDisk, RawAccessChangesBothImages) {
  SimDisk disk(1);
  auto file = CreateDurable(disk, "f", "abc");
  disk.FlipBit("f", 8);  // 'b' ^ 1
  EXPECT_EQ(disk.ReadRaw("f"), "acc");
  disk.WriteRaw("f", 2, "X");
  EXPECT_EQ(disk.ReadDurable("f"), "acX");
  EXPECT_EQ(disk.UnsyncedOperations(), 0u);
}

// Random operations against a string; synced contents survive every fate.
TEST(SimDisk, AgainstAModel) {
  for (uint64_t seed = 0; seed < 60; ++seed) {
    SimDisk disk(seed);
    Random random(seed);
    auto file = CreateDurable(disk, "f", "");
    std::string model, synced;
    for (int step = 0; step < 200; ++step) {
      const uint64_t offset = random.Below(20'000);
      const std::string data(random.Below(6'000), static_cast<char>(random.Below(4)));
      switch (random.Below(5)) {
        case 0:
          ASSERT_TRUE(file->Truncate(offset).ok());
          model.resize(offset);
          break;
        case 1:
          ASSERT_TRUE(file->Allocate(offset, data.size()).ok());
          model.resize(std::max<size_t>(model.size(), offset + data.size()));
          break;
        case 2:
          ASSERT_TRUE(file->Sync().ok());
          synced = model;
          break;
        default:
          ASSERT_TRUE(file->WriteAt(offset, data).ok());
          if (data.empty()) break;
          model.resize(std::max<size_t>(model.size(), offset + data.size()));
          model.replace(offset, data.size(), data);
      }
      ASSERT_EQ(disk.ReadRaw("f"), model) << "seed " << seed << " step " << step;
      ASSERT_EQ(disk.ReadDurable("f"), synced) << "seed " << seed << " step " << step;
    }
    const bool lost = random.Below(2) == 0;
    Cycle(disk, lost ? UnsyncedFate::kAllLost : UnsyncedFate::kAllKept);
    EXPECT_EQ(disk.ReadRaw("f"), lost ? synced : model);
    // The others at least do not break the file.
    file = *disk.Open("f", OpenMode::kReadWrite);
    ASSERT_TRUE(file->Truncate(random.Below(9'000)).ok());
    ASSERT_TRUE(file->WriteAt(random.Below(9'000), "tail").ok());
    Cycle(disk, random.Below(2) == 0 ? UnsyncedFate::kTorn : UnsyncedFate::kRandomSubset);
    EXPECT_EQ(disk.ReadRaw("f"), disk.ReadDurable("f"));
  }
}

}  // namespace
}  // namespace dynlib::sim
