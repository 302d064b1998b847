#include "dynlib/store/page_file.h"

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "dynlib/base/coding.h"
#include "dynlib/base/random.h"
#include "dynlib/base/strings.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/runtime/posix/byte_rate.h"
#include "dynlib/sim/disk.h"
#include "dynlib/store/superblock.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/store/hooked_disk.h"
#include "tests/store/tree_model.h"

namespace dynlib::store {
namespace {

using absl::StatusCode;
using ::testing::HasSubstr;

const PageFile::Options kSmall = {.growth_bytes_min = 64 << 10, .growth_bytes_max = 64 << 10};

std::unique_ptr<PageFile> OpenFile(Disk& disk) {
  auto file = PageFile::Open(kSmall, &disk, "pages");
  EXPECT_TRUE(file.ok()) << file.status();
  return file.ok() ? *std::move(file) : nullptr;
}

absl::Status PutNext(Tree& tree, std::string key, std::string value) {
  WriteBatch batch;
  batch.Put(std::move(key), std::move(value));
  return tree.Apply(batch, tree.position() + 1);
}

void ExpectSound(PageFile& file) {
  PageFile::VerifyReport report;
  EXPECT_THAT(file.Verify(&report), IsOk());
  EXPECT_EQ(report.damaged, 0u);
  EXPECT_EQ(report.leaked_units, 0u);
}

TEST(PageFileTest, OptionsAreChecked) {
  sim::SimDisk disk(1);
  EXPECT_THAT(PageFile::Open({.growth_bytes_min = 1000}, &disk, "pages"),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("growth_bytes_min is 1000")));
  EXPECT_THAT(
      PageFile::Open({.growth_bytes_min = 1 << 20, .growth_bytes_max = 64 << 10}, &disk, "pages"),
      StatusIs(StatusCode::kInvalidArgument, HasSubstr("growth_bytes_max")));
  EXPECT_THAT(PageFile::Open({.write_bytes_max = 0}, &disk, "pages"),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("write_bytes_max")));
  EXPECT_THAT(PageFile::Open({.create_if_missing = false}, &disk, "pages"),
              StatusIs(StatusCode::kNotFound));
  EXPECT_TRUE(disk.Paths().empty());
}

TEST(PageFileTest, WhatIsNoPageFileIsRefusedAndLeftAsItIs) {
  for (size_t length : {0, 100, 8192, 100'000}) {
    sim::SimDisk disk(1);
    std::string other(length, 'x');
    ASSERT_THAT((*disk.Open("pages", OpenMode::kCreate))->WriteAt(0, other), IsOk());
    EXPECT_THAT(PageFile::Open({}, &disk, "pages"),
                StatusIs(StatusCode::kInvalidArgument, HasSubstr("pages: not a dynlib page file")));
    EXPECT_EQ(disk.ReadRaw("pages"), other);
  }
}

// Of a superblock, with a checksum that is right.
void SetVersion(std::string& block, uint32_t version, uint64_t index) {
  StoreFixed<uint32_t>(block.data() + 8, version);
  const uint64_t checksum = Checksum(std::string_view(block).substr(0, 4088), index);
  StoreFixed<uint64_t>(block.data() + 4088, checksum);
}

TEST(PageFileTest, AnOlderFormatIsReadAndWrittenOnAsTheNewest) {
  sim::SimDisk disk(1);
  {
    auto file = OpenFile(disk);
    ASSERT_THAT(PutNext(**file->CreateTree(TreeId{1}), "a", "1"), IsOk());
    ASSERT_THAT(file->CheckpointTwice(), IsOk());
  }
  for (uint64_t index : {0, 1}) {
    std::string block = disk.ReadRaw("pages").substr(index * kSuperblockBytes, kSuperblockBytes);
    SetVersion(block, 1, index);
    disk.WriteRaw("pages", index * kSuperblockBytes, block);
  }
  auto file = OpenFile(disk);
  EXPECT_THAT(file->FindTree(TreeId{1})->Get("a"), IsOkAndHolds("1"));
  ASSERT_THAT(PutNext(*file->FindTree(TreeId{1}), "a", "2"), IsOk());
  ASSERT_THAT(file->CheckpointTwice(), IsOk());
  for (uint64_t index : {0, 1}) {
    EXPECT_EQ(disk.ReadRaw("pages")[index * kSuperblockBytes + 8], kPageFileVersion);
  }
}

TEST(PageFileTest, ANewerFormatIsRefusedAndLeftAsItIs) {
  sim::SimDisk disk(1);
  OpenFile(disk).reset();
  std::string block = disk.ReadRaw("pages").substr(kSuperblockBytes, kSuperblockBytes);
  SetVersion(block, kPageFileVersion + 1, 1);
  disk.WriteRaw("pages", kSuperblockBytes, block);
  std::string before = disk.ReadRaw("pages");
  EXPECT_THAT(PageFile::Open({}, &disk, "pages"),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("version 3")));
  EXPECT_EQ(disk.ReadRaw("pages"), before);
}

TEST(PageFileTest, TheFileKnowsItsIdentity) {
  sim::SimDisk disk(1);
  PageFile::Options options{.file_id = {.low = 5, .high = 6}};
  EXPECT_EQ((*PageFile::Open(options, &disk, "pages"))->file_id(), options.file_id);
  EXPECT_EQ(OpenFile(disk)->file_id(), options.file_id);
  EXPECT_THAT(PageFile::Open({.file_id = {.low = 5, .high = 7}}, &disk, "pages"),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("file_id")));
}

TEST(PageFileTest, ATruncatedFileIsDataLoss) {
  sim::SimDisk disk(1);
  {
    auto file = OpenFile(disk);
    ASSERT_THAT(PutNext(**file->CreateTree(TreeId{1}), "a", "1"), IsOk());
    ASSERT_THAT(file->Checkpoint(), IsOk());
  }
  ASSERT_THAT((*disk.Open("pages", OpenMode::kReadWrite))->Truncate(3 * kUnitBytes), IsOk());
  EXPECT_THAT(PageFile::Open({}, &disk, "pages"), StatusIs(StatusCode::kDataLoss));
}

TEST(PageFileTest, TreesAreFoundAgainWithTheirPositions) {
  sim::SimDisk disk(1);
  {
    auto file = OpenFile(disk);
    for (uint64_t id : {7, 0, 300}) {
      Tree* tree = *file->CreateTree(TreeId{id});
      EXPECT_EQ(tree->durable_position(), 0u);
      WriteBatch batch;
      batch.Put("id", std::to_string(id));
      ASSERT_THAT(tree->Apply(batch, 100 + id), IsOk());
    }
    EXPECT_THAT(file->CreateTree(TreeId{7}), StatusIs(StatusCode::kAlreadyExists));
    ASSERT_THAT(file->Checkpoint(), IsOk());
    ASSERT_THAT(PutNext(*file->FindTree(TreeId{7}), "id", "lost"), IsOk());
    EXPECT_EQ(file->FindTree(TreeId{7})->durable_position(), 107u);
  }
  disk.PowerOff(sim::UnsyncedFate::kAllLost);
  disk.Restart();
  auto file = OpenFile(disk);
  EXPECT_EQ(file->Trees(), (std::vector<TreeId>{TreeId{0}, TreeId{7}, TreeId{300}}));
  for (TreeId id : file->Trees()) {
    Tree* tree = file->FindTree(id);
    EXPECT_THAT(tree->snapshot().Get("id"), IsOkAndHolds(std::to_string(uint64_t(id))));
    EXPECT_EQ(tree->position(), 100 + uint64_t(id));
    EXPECT_EQ(tree->durable_position(), tree->position());
  }
  EXPECT_EQ(file->FindTree(TreeId{1}), nullptr);
}

TEST(PageFileTest, WhatIsPreparedIsSeenOncePublishedAndOtherwiseNeverWas) {
  sim::SimDisk disk(1);
  auto file = OpenFile(disk);
  Tree& a = **file->CreateTree(TreeId{1});
  Tree& b = **file->CreateTree(TreeId{2});
  for (int i = 0; i < 500; ++i) ASSERT_THAT(PutNext(a, Cat("old", i), "1"), IsOk());
  ASSERT_THAT(file->Checkpoint(), IsOk());
  const Snapshot before = a.snapshot();
  WriteBatch first, second, other;
  for (int i = 0; i < 500; ++i) first.Put(Cat("new", i), std::string(100, 'n'));
  first.Put("both", "first");
  second.Put("both", "second");
  second.DeleteRange("old1", "old2");
  other.Put("x", "y");
  const PageFile::TreeBatch batches[] = {{&a, &first}, {&b, &other}, {&a, &second}};
  {
    auto dropped = file->Prepare(batches, 1000);
    ASSERT_THAT(dropped.status(), IsOk());
    EXPECT_THAT(a.Get("both"), IsOkAndHolds(std::nullopt));
  }
  auto prepared = file->Prepare(batches, 1000);
  ASSERT_THAT(prepared.status(), IsOk());
  // A checkpoint in between holds what is published.
  ASSERT_THAT(file->Checkpoint(), IsOk());
  EXPECT_EQ(a.position(), 500u);
  file->Publish(*std::move(prepared));
  EXPECT_EQ(a.position(), 1000u);
  EXPECT_EQ(b.position(), 1000u);
  EXPECT_THAT(a.Get("both"), IsOkAndHolds("second"));
  EXPECT_THAT(a.Get("new7"), IsOkAndHolds(std::string(100, 'n')));
  EXPECT_THAT(a.Get("old17"), IsOkAndHolds(std::nullopt));
  EXPECT_THAT(a.Get("old2"), IsOkAndHolds("1"));
  EXPECT_THAT(b.Get("x"), IsOkAndHolds("y"));
  EXPECT_THAT(before.Get("old17"), IsOkAndHolds("1"));
  ASSERT_THAT(PutNext(a, "after", "1"), IsOk());
  ASSERT_THAT(file->Checkpoint(), IsOk());
  ExpectSound(*file);
}

TEST(PageFileTest, ACheckpointOfNothingNewWritesNothing) {
  sim::SimDisk disk(1);
  auto file = OpenFile(disk);
  ASSERT_THAT(PutNext(**file->CreateTree(TreeId{1}), "a", "1"), IsOk());
  ASSERT_THAT(file->Checkpoint(), IsOk());
  uint64_t calls = disk.calls();
  ASSERT_THAT(file->Checkpoint(), IsOk());
  EXPECT_EQ(disk.calls(), calls);
}

TEST(PageFileTest, DroppingIsDurableWithTheNextCheckpointAndGivesSpaceBack) {
  sim::SimDisk disk(1);
  auto file = OpenFile(disk);
  uint64_t used_empty = file->stats().used_bytes;
  Tree* tree = *file->CreateTree(TreeId{1});
  WriteBatch batch;
  for (int i = 0; i < 2000; ++i)
    batch.Put(std::to_string(i), std::string(i % 100 ? 40 : 9000, 'v'));
  ASSERT_THAT(tree->Apply(batch, 1), IsOk());
  ASSERT_THAT(file->Checkpoint(), IsOk());
  Snapshot snapshot = tree->snapshot();
  ASSERT_THAT(file->DropTree(TreeId{1}), IsOk());
  EXPECT_THAT(file->DropTree(TreeId{1}), StatusIs(StatusCode::kNotFound));
  EXPECT_EQ(Contents(snapshot).size(), 2000u);

  file = OpenFile(disk);  // no checkpoint since
  EXPECT_NE(file->FindTree(TreeId{1}), nullptr);
  ASSERT_THAT(file->DropTree(TreeId{1}), IsOk());
  ASSERT_THAT(file->Checkpoint(), IsOk());
  ASSERT_THAT(file->CreateTree(TreeId{2}), IsOk());  // something new, for a second checkpoint
  ASSERT_THAT(file->Checkpoint(), IsOk());
  ExpectSound(*file);
  EXPECT_LE(file->stats().used_bytes, used_empty + 4 * kUnitBytes);
  EXPECT_EQ(OpenFile(disk)->FindTree(TreeId{1}), nullptr);
}

TEST(PageFileTest, ADamagedTreeCanBeDropped) {
  sim::SimDisk disk(1);
  auto file = OpenFile(disk);
  WriteBatch batch;
  for (int i = 0; i < 1000; ++i) batch.Put(std::to_string(i), std::string(40, 'v'));
  ASSERT_THAT((*file->CreateTree(TreeId{1}))->Apply(batch, 1), IsOk());
  ASSERT_THAT(file->Checkpoint(), IsOk());
  file.reset();
  disk.FlipBit("pages", 2 * kUnitBytes * 8 + 1000);  // the first page written: a leaf
  file = OpenFile(disk);
  EXPECT_THAT(file->FindTree(TreeId{1})->snapshot().Get("0"),
              StatusIs(StatusCode::kDataLoss, HasSubstr("pages: page at offset 8192")));
  EXPECT_THAT(file->FindTree(TreeId{1})->snapshot().Get("999"), IsOkAndHolds(std::string(40, 'v')));
  EXPECT_THAT(file->Verify(), StatusIs(StatusCode::kDataLoss, HasSubstr("expected 0x")));
  ASSERT_THAT(file->DropTree(TreeId{1}), IsOk());
  ASSERT_THAT(file->Checkpoint(), IsOk());
  ASSERT_THAT(file->CreateTree(TreeId{2}), IsOk());
  ASSERT_THAT(file->Checkpoint(), IsOk());
  ExpectSound(*file);
}

// L5, steady state: the same keys overwritten for ever need bounded space, and no page that anyone
// may still read is overwritten on the way.
TEST(PageFileTest, FreedSpaceIsReusedAndOnlyFreedSpace) {
  sim::SimDisk disk(1);
  Random random(2);
  Model model;
  {
    auto file = OpenFile(disk);
    WriteBatch batch;
    for (int i = 0; i < 400; ++i) {
      model[std::to_string(i)] = std::string(i % 50 == 0 ? 6000 : 200, 'v');
      batch.Put(std::to_string(i), model[std::to_string(i)]);
    }
    ASSERT_THAT((*file->CreateTree(TreeId{1}))->Apply(batch, 1), IsOk());
    ASSERT_THAT(file->Checkpoint(), IsOk());
  }
  // The snapshot is of an opened file: it will have to read its pages from disk, later.
  auto file = OpenFile(disk);
  Tree* tree = file->FindTree(TreeId{1});
  Snapshot pinned = tree->snapshot();
  Model pinned_model = model;
  uint64_t settled = 0;
  for (int step = 0; step < 300; ++step) {
    WriteBatch batch;
    for (int n = 0; n < 15; ++n) {
      std::string key = std::to_string(random.Below(400));
      model[key] = std::string(random.Below(20) == 0 ? 6000 : 200, 'a' + step % 26);
      batch.Put(key, model[key]);
    }
    ASSERT_THAT(tree->Apply(batch, 2 + step), IsOk());
    ASSERT_THAT(file->Checkpoint(), IsOk());
    ExpectSound(*file);
    if (step == 100) settled = file->stats().file_bytes;
  }
  EXPECT_EQ(file->stats().file_bytes, settled);
  EXPECT_EQ(Contents(pinned), pinned_model);
  EXPECT_EQ(Contents(tree->snapshot()), model);

  uint64_t used = file->stats().used_bytes;
  pinned = Snapshot();
  EXPECT_LT(file->stats().used_bytes, used);
  file.reset();
  EXPECT_EQ(Contents(OpenFile(disk)->FindTree(TreeId{1})->snapshot()), model);
}

TEST(PageFileTest, WritersAndReadersGoOnWhileACheckpointWrites) {
  sim::SimDisk sim_disk(1);
  HookedDisk disk(&sim_disk);
  auto file = OpenFile(disk);
  Random random(3);
  std::map<TreeId, Model> models;
  auto write_some = [&](TreeId id) {
    if (file->FindTree(id) == nullptr) {
      ASSERT_THAT(file->CreateTree(id), IsOk());
    }
    WriteBatch batch;
    AddRandomOperations(random, 300, 10, batch, models[id]);
    Tree* tree = file->FindTree(id);
    ASSERT_THAT(tree->Apply(batch, tree->position() + 1), IsOk());
  };
  for (int step = 0; step < 60; ++step) {
    write_some(TreeId{1});
    // At every call that the checkpoint makes, pages that it has captured are replaced, and a tree
    // that it has captured is dropped and made anew.
    disk.SetHook([&] {
      EXPECT_THAT(file->Checkpoint(), StatusIs(StatusCode::kUnavailable));
      write_some(TreeId{1});
      if (random.Chance(0.3) && file->FindTree(TreeId{2}) != nullptr) {
        EXPECT_THAT(file->DropTree(TreeId{2}), IsOk());
        models.erase(TreeId{2});
      }
      write_some(TreeId{2});
      EXPECT_EQ(Contents(file->FindTree(TreeId{2})->snapshot()), models[TreeId{2}]);
    });
    ASSERT_THAT(file->Checkpoint(), IsOk());
    disk.SetHook(nullptr);
    ExpectSound(*file);
  }
  ASSERT_THAT(file->Checkpoint(), IsOk());
  write_some(TreeId{1});
  ASSERT_THAT(file->Checkpoint(), IsOk());
  ExpectSound(*file);
  // Nothing is held by anybody: all that is used is in the two checkpoints.
  auto reopened = OpenFile(sim_disk);
  EXPECT_EQ(file->stats().used_bytes, reopened->stats().used_bytes);
  for (const auto& [id, model] : models) {
    EXPECT_EQ(Contents(reopened->FindTree(id)->snapshot()), model);
  }
}

TEST(PageFileTest, AFullDiskFailsTheCheckpointAndNothingElse) {
  sim::SimDisk disk(1);
  auto file = OpenFile(disk);
  Tree* tree = *file->CreateTree(TreeId{1});
  ASSERT_THAT(PutNext(*tree, "a", "1"), IsOk());
  ASSERT_THAT(file->Checkpoint(), IsOk());
  disk.SetFull(true);
  Model model = {{"a", "1"}};
  for (int i = 0; i < 200; ++i) {
    std::string key = std::to_string(i);
    model[key] = std::string(3000, 'v');
    ASSERT_THAT(PutNext(*tree, key, model[key]), IsOk());
  }
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(file->Checkpoint(), StatusIs(StatusCode::kResourceExhausted));
    ExpectSound(*file);
    EXPECT_EQ(tree->durable_position(), 1u);
    model["a"] = std::to_string(i);
    ASSERT_THAT(PutNext(*tree, "a", model["a"]), IsOk());
  }
  EXPECT_EQ(Contents(OpenFile(disk)->FindTree(TreeId{1})->snapshot()), (Model{{"a", "1"}}));
  disk.SetFull(false);
  ASSERT_THAT(file->Checkpoint(), IsOk());
  ExpectSound(*file);
  EXPECT_EQ(Contents(OpenFile(disk)->FindTree(TreeId{1})->snapshot()), model);
}

// L3.
TEST(PageFileTest, AFailedSyncIsForGood) {
  sim::SimDisk disk(1);
  auto file = OpenFile(disk);
  Tree* tree = *file->CreateTree(TreeId{1});
  ASSERT_THAT(PutNext(*tree, "a", "1"), IsOk());
  ASSERT_THAT(file->Checkpoint(), IsOk());
  ASSERT_THAT(PutNext(*tree, "a", "2"), IsOk());
  disk.FailCall(3, sim::DiskFault::kEio);  // pages, blobs, then the sync
  EXPECT_THAT(file->Checkpoint(), StatusIs(StatusCode::kDataLoss));
  disk.ClearFailCall();
  EXPECT_THAT(file->Checkpoint(), StatusIs(StatusCode::kDataLoss));
  EXPECT_EQ(tree->durable_position(), 1u);
  ASSERT_THAT(PutNext(*tree, "b", "2"), IsOk());
  EXPECT_THAT(tree->snapshot().Get("a"), IsOkAndHolds("2"));
  EXPECT_THAT(OpenFile(disk)->FindTree(TreeId{1})->snapshot().Get("a"), IsOkAndHolds("1"));
}

TEST(PageFileTest, WithTheNewestSuperblockGoneTheOlderOneCounts) {
  sim::SimDisk disk(1);
  uint64_t fallback = 0;
  uint64_t newest = 0;
  {
    auto file = OpenFile(disk);
    Tree* tree = *file->CreateTree(TreeId{1});
    for (int i = 0; i < 5; ++i) {
      ASSERT_THAT(PutNext(*tree, "a", std::to_string(i)), IsOk());
      ASSERT_THAT(file->Checkpoint(), IsOk());
    }
    fallback = tree->fallback_position();
    newest = file->stats().generation % 2;
    EXPECT_EQ(fallback, 4u);
  }
  EXPECT_EQ(OpenFile(disk)->FindTree(TreeId{1})->fallback_position(), fallback);
  disk.FlipBit("pages", newest * kSuperblockBytes * 8 + 1000);
  auto file = OpenFile(disk);
  Tree* tree = file->FindTree(TreeId{1});
  EXPECT_EQ(tree->position(), fallback);
  EXPECT_THAT(tree->snapshot().Get("a"), IsOkAndHolds("3"));
  ASSERT_THAT(PutNext(*tree, "a", "new"), IsOk());
  ASSERT_THAT(file->Checkpoint(), IsOk());
  ExpectSound(*file);
}

// A process dies at the n-th write or sync, its kernel lives: what Open finds was never synced.
// Then the power fails, and what Open had found must still be there.
TEST(PageFileTest, OpeningMakesDurableWhatItFinds) {
  bool died = true;
  for (int call = 1; died; ++call) {
    SCOPED_TRACE(call);
    sim::SimDisk sim_disk(call);
    HookedDisk disk(&sim_disk);
    int calls = 0;
    disk.SetHook([&] {
      if (++calls == call) sim_disk.Crash();
    });
    {
      auto file = PageFile::Open(kSmall, &disk, "pages");
      if (file.ok()) {
        ASSERT_THAT(PutNext(**(*file)->CreateTree(TreeId{1}), "a", "1"), IsOk());
        absl::Status status = (*file)->Checkpoint();
        EXPECT_EQ(status.ok(), calls < call);
      }
    }
    died = calls >= call;
    disk.SetHook(nullptr);
    sim_disk.Crash();
    sim_disk.Restart();
    std::vector<TreeId> found = OpenFile(sim_disk)->Trees();
    sim_disk.PowerOff(sim::UnsyncedFate::kAllLost);
    sim_disk.Restart();
    auto file = PageFile::Open({.create_if_missing = false}, &sim_disk, "pages");
    ASSERT_THAT(file, IsOk());
    EXPECT_EQ((*file)->Trees(), found);
  }
}

// The right answer or kDataLoss, never a wrong value or a crash.
TEST(PageFileTest, EveryByteFlipped) {
  sim::SimDisk disk(1);
  std::map<uint64_t, Model> history;  // by position
  {
    auto file = OpenFile(disk);
    Tree* tree = *file->CreateTree(TreeId{1});
    Model model;
    for (uint64_t position = 1; position <= 2; ++position) {
      WriteBatch batch;
      for (int i = 0; i < 30; ++i) {
        std::string key = "key/" + std::to_string(i * position);
        model[key] = i == 20 ? std::string(2100, 'o') : std::string(70, 'a' + i % 26);
        batch.Put(key, model[key]);
      }
      ASSERT_THAT(tree->Apply(batch, position), IsOk());
      ASSERT_THAT(file->Checkpoint(), IsOk());
      history[position] = model;
    }
  }
  std::string bytes = disk.ReadRaw("pages");
  int damaged = 0;
  Random random(1);
  for (uint64_t at = 0; at < bytes.size(); ++at) {
    // Of the padding, every 61st byte will do.
    bool padding =
        bytes[at] == 0 && bytes.substr(at, 32).find_first_not_of('\0') == std::string::npos;
    if (padding && at % 61 != 0) continue;
    uint64_t bit = at * 8 + random.Below(8);
    disk.FlipBit("pages", bit);
    auto file = PageFile::Open(kSmall, &disk, "pages");
    if (!file.ok()) {
      ASSERT_THAT(file.status(), StatusIs(StatusCode::kDataLoss)) << at;
      ++damaged;
    } else {
      Tree* tree = (*file)->FindTree(TreeId{1});
      ASSERT_TRUE(tree != nullptr) << at;
      const Model& model = history.at(tree->position());
      Model seen;
      absl::Status status = tree->snapshot().Scan(
          "", "", ScanOrder::kForward, [&](std::string_view key, std::string_view value) {
            seen.emplace(key, value);
            return true;
          });
      if (status.ok()) {
        ASSERT_EQ(seen, model) << at;
      } else {
        ASSERT_THAT(status, StatusIs(StatusCode::kDataLoss)) << at;
        ++damaged;
        for (const auto& [key, value] : seen) ASSERT_EQ(model.at(key), value) << at;
        auto got = tree->snapshot().Get("key/8");
        if (got.ok()) {
          ASSERT_EQ(*got, model.at("key/8"));
        }
      }
    }
    disk.FlipBit("pages", bit);
  }
  EXPECT_GT(damaged, 3000);
}

// Real threads; meant for tsan.
TEST(PageFileTest, ReadersAWriterCheckpointsAndVerifyTogether) {
  sim::SimDisk disk(1);
  {
    auto file = OpenFile(disk);
    WriteBatch batch;
    for (int i = 0; i < 1000; ++i) batch.Put(std::to_string(i), "0");
    ASSERT_THAT((*file->CreateTree(TreeId{1}))->Apply(batch, 1), IsOk());
    ASSERT_THAT(file->Checkpoint(), IsOk());
  }
  auto file = OpenFile(disk);  // so that the readers race to load pages
  Tree* tree = file->FindTree(TreeId{1});
  std::atomic<bool> stop{false};
  auto reader = [&](uint64_t seed) {
    Random random(seed);
    while (!stop) {
      Snapshot snapshot = tree->snapshot();
      std::string key = std::to_string(random.Below(1000));
      auto value = snapshot.Get(key);
      ASSERT_THAT(value, IsOk());
      ASSERT_TRUE(value->has_value());
      size_t count = 0;
      std::string first;
      ASSERT_THAT(snapshot.Scan("5", "6", ScanOrder::kReverse,
                                [&](std::string_view, std::string_view value) {
                                  // A batch writes all of these keys: one version has one value.
                                  if (count++ == 0) first = std::string(value);
                                  EXPECT_EQ(value, first);
                                  return true;
                                }),
                  IsOk());
      ASSERT_EQ(count, 111u);
    }
  };
  std::vector<std::thread> threads;
  for (uint64_t seed : {1, 2}) threads.emplace_back(reader, seed);
  threads.emplace_back([&] {
    while (!stop) {
      ASSERT_THAT(file->Checkpoint(), IsOk());
      ExpectSound(*file);
    }
  });
  for (int round = 1; round <= 60; ++round) {
    WriteBatch batch;
    for (int i = 0; i < 1000; ++i) {
      std::string key = std::to_string(i);
      if (key[0] == '5' || i % 7 == round % 7) {
        batch.Put(key, round % 20 == 0 ? std::string(3000, 'v') : std::to_string(round));
      }
    }
    ASSERT_THAT(tree->Apply(batch, 1 + round), IsOk());
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  ASSERT_THAT(file->Checkpoint(), IsOk());
  ExpectSound(*file);
  EXPECT_EQ(Contents(OpenFile(disk)->FindTree(TreeId{1})->snapshot()), Contents(tree->snapshot()));
}

class CheckpointRateTest : public ::testing::Test {
 protected:
  // With 6 MB that are not written.
  void Fill(uint64_t memory_bytes, std::function<void(uint64_t)> after_write) {
    auto file = PageFile::Open(
        {.after_checkpoint_write = std::move(after_write), .memory_bytes = memory_bytes}, &disk_,
        "pages");
    DYNLIB_ASSERT_OK(file);
    file_ = *std::move(file);
    DYNLIB_ASSERT_OK(file_->CreateTree(TreeId{1}));
    Tree* const tree = file_->FindTree(TreeId{1});
    for (int i = 0; i < 600; ++i)
      DYNLIB_ASSERT_OK(PutNext(*tree, Cat("k", 1000 + i), std::string(10'000, 'v')));
  }

  sim::SimDisk disk_{1};
  std::unique_ptr<PageFile> file_;
};

TEST_F(CheckpointRateTest, ACheckpointKeepsToItsRate) {
  Fill(/*memory_bytes=*/1 << 30, ByteRate(16 << 20));
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_THAT(file_->Checkpoint(), IsOk());
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(300));
  ExpectSound(*file_);
}

TEST_F(CheckpointRateTest, WhoSleepsIsToldOfAllThatIsWritten) {
  uint64_t told = 0;
  Fill(/*memory_bytes=*/1 << 30, [&](uint64_t bytes) { told += bytes; });
  const uint64_t before = file_->stats().bytes_written;
  EXPECT_THAT(file_->Checkpoint(), IsOk());
  EXPECT_GE(told, 6'000'000);
  EXPECT_EQ(told, file_->stats().bytes_written - before);
}

TEST_F(CheckpointRateTest, NobodySleepsWhileWritersWaitForRoom) {
  uint64_t told = 0;
  Fill(/*memory_bytes=*/8 << 20, [&](uint64_t bytes) { told += bytes; });
  ASSERT_FALSE(file_->HasRoom());
  bool has_room = false;
  file_->WhenRoom([&] { has_room = true; });
  EXPECT_THAT(file_->Checkpoint(), IsOk());
  EXPECT_EQ(told, 0);
  EXPECT_TRUE(has_room);
}

TEST_F(CheckpointRateTest, NorWhenTheOwnerIsInAHurryOrTheLogIsFull) {
  uint64_t told = 0;
  Fill(/*memory_bytes=*/1 << 30, [&](uint64_t bytes) {
    told += bytes;
    file_->Hurry();
  });
  EXPECT_THAT(file_->Checkpoint(), IsOk());
  EXPECT_GT(told, 0);
  EXPECT_LE(told, PageFile::Options().write_bytes_max);
  file_ = nullptr;
  told = 0;
  disk_.Remove("pages").IgnoreError();
  Fill(/*memory_bytes=*/1 << 30, [&](uint64_t bytes) { told += bytes; });
  EXPECT_THAT(file_->CheckpointTwice(), IsOk());
  EXPECT_EQ(told, 0);
}

}  // namespace
}  // namespace dynlib::store
