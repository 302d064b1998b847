// A Store that is damaged where an Open for writing refuses it: what is whole can be read, and
// nothing on disk changes.
#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "dynlib/base/strings.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/sim/disk.h"
#include "dynlib/store/page.h"
#include "dynlib/store/store.h"
#include "dynlib/store/store_batch.h"
#include "dynlib/store/superblock.h"
#include "dynlib/store/write_batch.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/store/hooked_disk.h"
#include "tests/store/store_harness.h"

namespace dynlib::store {
namespace {

using absl::StatusCode;
using sim::SimDisk;
using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

constexpr char kSegment[] = "db/log/00000001.seg";

class StoreDamagedTest : public testing::Test {
 protected:
  void Flip(const std::string& path, const std::string& bytes) {
    const size_t at = disk_.ReadRaw(path).find(bytes);
    ASSERT_NE(at, std::string::npos);
    disk_.FlipBit(path, 8 * at);
  }
  std::map<std::string, std::string> Files() const {
    std::map<std::string, std::string> files;
    for (const std::string& path : disk_.Paths()) files[path] = disk_.ReadRaw(path);
    return files;
  }
  // It is refused as a rule, and open for reading if asked for; what `look` does changes nothing.
  void ReadOnly(const std::string& file, const std::function<void()>& look) {
    h_.options.read_only_if_damaged = true;
    const auto before = Files();
    hooked_.SetHook([] { ADD_FAILURE() << "something is written"; });
    for (int i = 0; i < 2; ++i) {
      DYNLIB_ASSERT_OK(h_.Open());
      const auto says_why =
          StatusIs(StatusCode::kDataLoss, AllOf(HasSubstr("for reading alone"), HasSubstr(file),
                                                HasSubstr("offset"), HasSubstr("checksum")));
      EXPECT_THAT(h_.store->Health(), says_why);
      EXPECT_THAT(h_.Write(Put("a", "new")), says_why);
      EXPECT_THAT(h_.OpenTree("new").status(), says_why);
      EXPECT_THAT(h_.Checkpoint(), says_why);
      EXPECT_THAT(h_.found.notes, Contains(HasSubstr(file)));
      look();
      h_.Rest();
      DYNLIB_EXPECT_OK(h_.Close());
      EXPECT_TRUE(Files() == before);
    }
    hooked_.SetHook(nullptr);
    h_.options.read_only_if_damaged = false;
    EXPECT_THAT(h_.Open(), StatusIs(StatusCode::kDataLoss));
    h_.Run();
  }

  SimDisk disk_{1};
  HookedDisk hooked_{&disk_};
  StoreHarness h_{&hooked_};
};

TEST_F(StoreDamagedTest, OfADamagedLogWhatIsBeforeTheDamage) {
  DYNLIB_ASSERT_OK(h_.Open());
  DYNLIB_ASSERT_OK(h_.Write(Put("checkpointed", "1")));
  DYNLIB_ASSERT_OK(h_.Checkpoint());
  DYNLIB_ASSERT_OK_AND_ASSIGN(const NamedTree tree, h_.OpenTree("tree"));
  StoreBatch batch;
  batch.Put(tree, "in", "tree");
  batch.Put("before", "2");
  DYNLIB_ASSERT_OK(h_.Write(std::move(batch)).status);
  DYNLIB_ASSERT_OK(h_.Write(Put("damaged", "three")));
  DYNLIB_ASSERT_OK(h_.Write(Put("behind", "4")));
  h_.Kill();
  Flip(kSegment, "three");
  DYNLIB_ASSERT_OK(disk_.Open("db/log/00000009.new", OpenMode::kCreate).status());
  ReadOnly(kSegment, [&] {
    EXPECT_EQ(h_.Scan(), (Contents{{"checkpointed", "1"}, {"before", "2"}}));
    EXPECT_THAT(h_.store->ListTrees(), ElementsAre("tree"));
    EXPECT_EQ(h_.Scan(*h_.store->FindTree("tree")), (Contents{{"in", "tree"}}));
    EXPECT_EQ(h_.store->stats().position, 3u);
  });
}

// The listing of the batch is lost too: nothing says which writes it held.
TEST_F(StoreDamagedTest, OfALogThatLacksABatchWhatIsBeforeIt) {
  DYNLIB_ASSERT_OK(h_.Open());
  DYNLIB_ASSERT_OK(h_.Write(Put("before", "1")));
  DYNLIB_ASSERT_OK(h_.Write(Put("lost", "two")));
  DYNLIB_ASSERT_OK(h_.Write(Put("behind", "3")));
  h_.Kill();
  const size_t at = disk_.ReadRaw(kSegment).find("lost") / 512 * 512;
  disk_.WriteRaw(kSegment, at, std::string(512, '\0'));
  h_.options.read_only_if_damaged = true;
  DYNLIB_ASSERT_OK(h_.Open());
  EXPECT_EQ(h_.Scan(), (Contents{{"before", "1"}}));
  EXPECT_THAT(h_.store->Health(), StatusIs(StatusCode::kDataLoss, HasSubstr("missing")));
  DYNLIB_ASSERT_OK(h_.Close());
}

TEST_F(StoreDamagedTest, OfADamagedCatalogueTheTrees) {
  DYNLIB_ASSERT_OK(h_.Open());
  DYNLIB_ASSERT_OK_AND_ASSIGN(const NamedTree tree, h_.OpenTree("name-that-is-lost"));
  StoreBatch batch;
  batch.Put(tree, "in", "tree");
  batch.Put("a", "1");
  DYNLIB_ASSERT_OK(h_.Write(std::move(batch)).status);
  DYNLIB_ASSERT_OK(h_.Checkpoint());
  DYNLIB_ASSERT_OK_AND_ASSIGN(const NamedTree later, h_.OpenTree("later"));
  batch.Clear();
  batch.Put(later, "in", "the log");
  batch.Put("b", "2");
  DYNLIB_ASSERT_OK(h_.Write(std::move(batch)).status);
  DYNLIB_ASSERT_OK(h_.Close());
  Flip("db/pages", "name-that-is-lost");
  ReadOnly("db/pages", [&] {
    EXPECT_EQ(h_.Scan(), (Contents{{"a", "1"}, {"b", "2"}}));
    EXPECT_THAT(h_.store->ListTrees(), ElementsAre("#16", "later"));
    EXPECT_EQ(h_.Scan(*h_.store->FindTree("#16")), (Contents{{"in", "tree"}}));
    EXPECT_EQ(h_.Scan(*h_.store->FindTree("later")), (Contents{{"in", "the log"}}));
  });
}

// Damage that loses nothing is seen to as always: the store takes writes.
TEST_F(StoreDamagedTest, AStoreThatCanBeOpenedForWritingIs) {
  h_.options.read_only_if_damaged = true;
  DYNLIB_ASSERT_OK(h_.Open());
  DYNLIB_ASSERT_OK(h_.Write(Put("a", "checkpointed")));
  DYNLIB_ASSERT_OK(h_.Checkpoint());
  DYNLIB_ASSERT_OK(h_.Write(Put("b", "2")));
  h_.Kill();
  Flip(kSegment, "checkpointed");
  DYNLIB_ASSERT_OK(h_.Open());
  DYNLIB_ASSERT_OK(h_.Write(Put("c", "3")));
  EXPECT_EQ(h_.Scan(), (Contents{{"a", "checkpointed"}, {"b", "2"}, {"c", "3"}}));
  DYNLIB_ASSERT_OK(h_.Close());
}

// The list of trees, or of units, of the newest checkpoint is damaged.
class StoreNewestCheckpointTest : public StoreDamagedTest {
 protected:
  void SetUp() override {
    DYNLIB_ASSERT_OK(h_.Open());
    DYNLIB_ASSERT_OK(h_.Write(Put("a", "1")));
    DYNLIB_ASSERT_OK(h_.Checkpoint());
    DYNLIB_ASSERT_OK(h_.OpenTree("tree").status());
    DYNLIB_ASSERT_OK(h_.Write(Put("b", "2")));
    DYNLIB_ASSERT_OK(h_.Checkpoint());
    DYNLIB_ASSERT_OK(h_.Write(Put("c", "third")));
    h_.Kill();
  }
  Superblock Newest() const {
    Superblock newest;
    for (uint64_t i = 0; i < 2; ++i) {
      const std::string block = disk_.ReadRaw("db/pages").substr(i * kUnitBytes, kUnitBytes);
      const auto found = DecodeSuperblock(block, i);
      EXPECT_THAT(found, IsOk());
      if (found->generation > newest.generation) newest = *found;
    }
    return newest;
  }
  static uint64_t LastByte(const PageRef& page) { return page.unit * kUnitBytes + page.length - 1; }
  // The second time it heals.
  void Damage(const PageRef& page) { disk_.FlipBit("db/pages", 8 * LastByte(page)); }

  const Contents rows_ = {{"a", "1"}, {"b", "2"}, {"c", "third"}};
};

TEST_F(StoreNewestCheckpointTest, TheOneBeforeItAndTheLogLoseNothing) {
  const Superblock newest = Newest();
  for (const PageRef& page : {newest.directory, newest.bitmap}) {
    Damage(page);
    DYNLIB_ASSERT_OK(h_.Open());
    EXPECT_THAT(h_.found.notes,
                Contains(AllOf(HasSubstr("db/pages"), HasSubstr("offset"), HasSubstr("checksum"),
                               HasSubstr("opened the checkpoint before it"))));
    EXPECT_EQ(h_.Scan(), rows_);
    EXPECT_THAT(h_.store->ListTrees(), ElementsAre("tree"));
    h_.Kill();
    Damage(page);  // It can be read again, and nothing has become of it.
    DYNLIB_ASSERT_OK(h_.Open());
    EXPECT_THAT(h_.found.notes, Not(Contains(HasSubstr("db/pages"))));
    EXPECT_EQ(h_.Scan(), rows_);
    h_.Kill();
  }
}

// Once a checkpoint has used its space, it is not to come back.
TEST_F(StoreNewestCheckpointTest, IsAbandonedByTheNextCheckpoint) {
  const Superblock newest = Newest();
  Damage(newest.directory);
  const std::string damaged = disk_.ReadRaw("db/pages");
  uint64_t call = 1;
  for (bool struck = true; struck && !HasFailure(); ++call) {
    SCOPED_TRACE(testing::Message() << "call " << call);
    SimDisk disk(call);
    for (const auto& [path, bytes] : Files()) {
      DYNLIB_ASSERT_OK(disk.CreateDir(path.substr(0, path.rfind('/'))));
      DYNLIB_ASSERT_OK_AND_ASSIGN(const auto file, disk.Open(path, OpenMode::kCreate));
      DYNLIB_ASSERT_OK(file->WriteAt(0, bytes));
      DYNLIB_ASSERT_OK(file->Sync());
    }
    Contents rows = rows_;
    {
      StoreHarness h(&disk);
      DYNLIB_ASSERT_OK(h.Open());
      for (int i = 0; i < 40; ++i) {
        const std::string key = Cat("k", i);
        rows[key] = std::string(900, 'r');
        DYNLIB_ASSERT_OK(h.Write(Put(key, rows[key])));
      }
      const uint64_t before = disk.calls();
      disk.FailCall(call, sim::DiskFault::kPowerOff, sim::UnsyncedFate::kTorn);
      h.Checkpoint().IgnoreError();
      struck = disk.calls() - before >= call;
    }
    disk.ClearFailCall();
    if (!disk.down()) disk.PowerOff(sim::UnsyncedFate::kAllLost);
    disk.Restart();
    const std::string now = disk.ReadRaw("db/pages");
    const bool written = now.substr(2 * kUnitBytes) != damaged.substr(2 * kUnitBytes);
    for (uint64_t i = 0; i < 2 && written; ++i) {
      const auto found = DecodeSuperblock(now.substr(i * kUnitBytes, kUnitBytes), i);
      EXPECT_FALSE(found.ok() && found->directory == newest.directory);
    }
    // The device reads what was damaged, if it is still there.
    const uint64_t at = newest.directory.unit * kUnitBytes;
    if (now.substr(at, kUnitBytes) == damaged.substr(at, kUnitBytes)) {
      disk.FlipBit("db/pages", 8 * LastByte(newest.directory));
    }
    StoreHarness h(&disk);
    DYNLIB_ASSERT_OK(h.Open());
    EXPECT_EQ(h.Scan(), rows);
    EXPECT_THAT(h.store->Verify(), IsOk());
  }
  EXPECT_GT(call, 4u);
}

// What was cut may have been in it.
TEST_F(StoreNewestCheckpointTest, IsMissedWhereTheLogIsNotWhole) {
  Flip(kSegment, "third");
  Damage(Newest().directory);
  ReadOnly("db/pages", [&] {
    EXPECT_EQ(h_.Scan(), (Contents{{"a", "1"}, {"b", "2"}}));
    EXPECT_THAT(h_.store->ListTrees(), ElementsAre("tree"));
  });
}

TEST_F(StoreNewestCheckpointTest, IsMissedWhereTheLogDoesNotGoBackThatFar) {
  const std::string pages = disk_.ReadRaw("db/pages");
  DYNLIB_ASSERT_OK(h_.Open());
  DYNLIB_ASSERT_OK(h_.Checkpoint());
  DYNLIB_ASSERT_OK(h_.Write(Put("d", "4")));
  DYNLIB_ASSERT_OK(h_.Close());
  disk_.WriteRaw("db/pages", 0, pages);
  DYNLIB_ASSERT_OK(h_.Open());
  EXPECT_EQ(h_.Scan().size(), 4u);
  h_.Kill();
  disk_.WriteRaw("db/pages", 0, pages);
  Damage(Newest().directory);
  EXPECT_THAT(h_.Open(), StatusIs(StatusCode::kDataLoss, HasSubstr("are not in the log")));
  h_.Run();
  h_.options.read_only_if_damaged = true;
  DYNLIB_ASSERT_OK(h_.Open());
  EXPECT_EQ(h_.Scan(), (Contents{{"a", "1"}}));
  EXPECT_THAT(h_.store->Health(), StatusIs(StatusCode::kDataLoss, HasSubstr("db/pages")));
}

// The other superblock is the first that there was: the log has forgotten what came after it.
TEST_F(StoreNewestCheckpointTest, IsMissedWhereTheOtherIsNotTheOneBeforeIt) {
  DYNLIB_ASSERT_OK(h_.Open());
  DYNLIB_ASSERT_OK(h_.Checkpoint());
  h_.Rest();
  DYNLIB_ASSERT_OK(h_.Close());
  const Superblock newest = Newest();
  const Superblock first = {.generation = 1 - newest.generation % 2, .file_units = 2};
  disk_.WriteRaw("db/pages", first.generation * kUnitBytes, EncodeSuperblock(first));
  Damage(newest.directory);
  EXPECT_THAT(h_.Open(),
              StatusIs(StatusCode::kDataLoss, AllOf(HasSubstr("db/pages"), HasSubstr("checksum"))));
  h_.Run();
}

}  // namespace
}  // namespace dynlib::store
