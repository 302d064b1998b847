// What a Store offers beyond put and get: named trees, batches across them, conditions, snapshots
// of one moment, and what it refuses.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/strings.h"
#include "dynlib/sim/disk.h"
#include "dynlib/store/local_store.h"
#include "dynlib/store/page_file.h"
#include "dynlib/store/store.h"
#include "dynlib/store/store_batch.h"
#include "dynlib/store/store_folder.h"
#include "dynlib/store/store_snapshot.h"
#include "dynlib/store/tree.h"
#include "dynlib/store/write_batch.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/store/store_harness.h"

namespace dynlib::store {
namespace {

using absl::StatusCode;
using sim::SimDisk;
using sim::UnsyncedFate;
using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::vector<std::string> KeysOf(Store& store, const ScanOptions& options) {
  std::vector<std::string> keys;
  EXPECT_THAT(store.Scan(options,
                         [&](std::string_view key, std::string_view) {
                           keys.emplace_back(key);
                           return true;
                         }),
              IsOk());
  return keys;
}

TEST(StoreTreesTest, TreesAreApartAndFoundAgain) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  DYNLIB_ASSERT_OK_AND_ASSIGN(NamedTree users, h.OpenTree("users"));
  DYNLIB_ASSERT_OK_AND_ASSIGN(NamedTree orders, h.OpenTree("orders"));
  DYNLIB_ASSERT_OK_AND_ASSIGN(const NamedTree again, h.OpenTree("users"));
  EXPECT_EQ(users, again);
  StoreBatch batch;
  batch.Put("k", "default");
  batch.Put(users, "k", "user");
  batch.Put(orders, "k", "order");
  batch.Delete(users, "none");
  DYNLIB_ASSERT_OK(h.Write(std::move(batch)).status);
  EXPECT_THAT(h.store->ListTrees(), ElementsAre("orders", "users"));
  // From the log alone, from checkpoints and the log, and from a checkpoint.
  for (int round = 0; round < 3; ++round) {
    DYNLIB_ASSERT_OK(h.Reopen());
    users = *h.store->FindTree("users");
    orders = *h.store->FindTree("orders");
    EXPECT_THAT(h.store->Get("k"), IsOkAndHolds("default"));
    EXPECT_THAT(h.store->Get(users, "k"), IsOkAndHolds("user"));
    EXPECT_THAT(h.store->Get(orders, "k"), IsOkAndHolds("order"));
    EXPECT_EQ(h.store->FindTree("none"), std::nullopt);
    DYNLIB_ASSERT_OK(h.Checkpoint());
  }
}

TEST(StoreTreesTest, DroppedTreesAreGoneAndTheirNameIsFree) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  DYNLIB_ASSERT_OK_AND_ASSIGN(NamedTree first, h.OpenTree("t"));
  StoreBatch batch;
  batch.Put(first, "k", "old");
  DYNLIB_ASSERT_OK(h.Write(batch).status);
  const StoreSnapshot before = h.store->snapshot();
  DYNLIB_ASSERT_OK(h.DropTree(first));
  EXPECT_THAT(before.Get(first, "k"), IsOkAndHolds("old"));
  EXPECT_THAT(h.store->Get(first, "k"), StatusIs(StatusCode::kNotFound, HasSubstr("dropped")));
  EXPECT_THAT(h.Write(batch).status, StatusIs(StatusCode::kFailedPrecondition));
  EXPECT_THAT(h.DropTree(first), StatusIs(StatusCode::kNotFound));
  DYNLIB_ASSERT_OK_AND_ASSIGN(NamedTree second, h.OpenTree("t"));
  EXPECT_NE(first, second);
  EXPECT_THAT(h.store->Get(second, "k"), IsOkAndHolds(std::nullopt));
  for (int round = 0; round < 2; ++round) {
    DYNLIB_ASSERT_OK(h.Reopen());
    EXPECT_EQ(h.store->ListTrees().size(), 1u);
    EXPECT_THAT(h.store->Get(*h.store->FindTree("t"), "k"), IsOkAndHolds(std::nullopt));
    DYNLIB_ASSERT_OK(h.Checkpoint());
  }
}

TEST(StoreTreesTest, NamesAndOtherStoresTreesAreChecked) {
  SimDisk disk(1);
  SimDisk other_disk(2);
  StoreHarness h(&disk);
  StoreHarness other(&other_disk);
  DYNLIB_ASSERT_OK(h.Open());
  DYNLIB_ASSERT_OK(other.Open());
  EXPECT_THAT(h.OpenTree(""), StatusIs(StatusCode::kInvalidArgument, HasSubstr("1 to 255")));
  EXPECT_THAT(h.OpenTree(std::string(256, 'n')), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(h.DropTree(NamedTree()), StatusIs(StatusCode::kInvalidArgument));
  DYNLIB_ASSERT_OK_AND_ASSIGN(NamedTree foreign, other.OpenTree("t"));
  StoreBatch batch;
  batch.Put(foreign, "k", "v");
  EXPECT_THAT(h.Write(batch).status,
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("another store")));
  EXPECT_THAT(h.store->Get(foreign, "k"), StatusIs(StatusCode::kNotFound));
}

TEST(StoreConditionsTest, AllHoldOrNothingIsWritten) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  DYNLIB_ASSERT_OK(h.Write(Put("there", "1")));
  struct Case {
    void (*demand)(StoreBatch&);
    std::optional<size_t> failed;
    std::string why;
  };
  const Case cases[] = {
      {[](StoreBatch& b) { b.IfAbsent("none"); }, std::nullopt, ""},
      {[](StoreBatch& b) { b.IfAbsent("there"); }, 0, "is 1"},
      {[](StoreBatch& b) { b.IfPresent("there"); }, std::nullopt, ""},
      {[](StoreBatch& b) { b.IfPresent("none"); }, 0, "is absent"},
      {[](StoreBatch& b) { b.IfEquals("there", "1"); }, std::nullopt, ""},
      {[](StoreBatch& b) { b.IfEquals("there", "2"); }, 0, "is 1, not 2"},
      {[](StoreBatch& b) { b.IfEquals("none", ""); }, 0, "is absent, not"},
      {[](StoreBatch& b) {
         b.IfPresent("there");
         b.IfAbsent("there");
       },
       1, "condition 1 does not hold: key there is 1"},
  };
  int number = 0;
  for (const Case& c : cases) {
    SCOPED_TRACE(testing::Message() << "case " << number);
    const std::string key = Cat("out", number++);
    StoreBatch batch;
    c.demand(batch);
    batch.Put(key, "written");
    const WriteResult result = h.Write(std::move(batch));
    EXPECT_EQ(result.failed_condition, c.failed);
    if (c.failed.has_value()) {
      EXPECT_THAT(result.status, StatusIs(StatusCode::kFailedPrecondition, HasSubstr(c.why)));
      EXPECT_EQ(result.sequence, 0u);
      EXPECT_THAT(h.store->Get(key), IsOkAndHolds(std::nullopt));
    } else {
      EXPECT_THAT(result.status, IsOk());
      EXPECT_GT(result.sequence, 0u);
      EXPECT_THAT(h.store->Get(key), IsOkAndHolds("written"));
    }
  }
  EXPECT_EQ(h.store->stats().conditions_failed, 5u);
}

// Writes that are logged together: a condition sees those before it, and none behind it.
TEST(StoreConditionsTest, AConditionSeesWhatIsBeforeItInItsGroup) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  std::vector<bool> written;
  const auto write = [&](StoreBatch batch) {
    h.store->Write(std::move(batch), {}, &h.caller,
                   [&](const WriteResult& result) { written.push_back(result.ok()); });
  };
  for (int i = 0; i < 3; ++i) {
    StoreBatch batch;
    batch.IfAbsent("lock");
    batch.Put("lock", std::to_string(i));
    write(std::move(batch));
  }
  StoreBatch release;
  release.IfEquals("lock", "0");
  release.Delete("lock");
  write(std::move(release));
  StoreBatch take;
  take.IfAbsent("lock");
  take.Put("lock", "last");
  write(std::move(take));
  h.Run();
  EXPECT_THAT(written, ElementsAre(true, false, false, true, true));
  EXPECT_THAT(h.store->Get("lock"), IsOkAndHolds("last"));
  DYNLIB_ASSERT_OK(h.Reopen());
  EXPECT_THAT(h.store->Get("lock"), IsOkAndHolds("last"));
}

TEST(StoreConditionsTest, ARangeThatIsDeletedBeforeItInItsGroup) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  DYNLIB_ASSERT_OK(h.Write(Put("b", "1")));
  std::vector<bool> written;
  StoreBatch clear;
  clear.DeleteRange("a", "c");
  StoreBatch demand;
  demand.IfAbsent("b");
  demand.Put("c", "2");
  for (StoreBatch* batch : {&clear, &demand}) {
    h.store->Write(std::move(*batch), {}, &h.caller,
                   [&](const WriteResult& result) { written.push_back(result.ok()); });
  }
  h.Run();
  EXPECT_THAT(written, ElementsAre(true, true));
  DYNLIB_ASSERT_OK(h.Reopen());
  EXPECT_EQ(h.Scan(), (Contents{{"c", "2"}}));
}

TEST(StoreConditionsTest, NotWrittenSinceKeepsTransactionsApart) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  DYNLIB_ASSERT_OK(h.Write(Put("a", "1")));
  const auto write_since = [&](uint64_t position) {
    StoreBatch batch;
    batch.IfNotWrittenSince(NamedTree(), "a", position);
    batch.Put("b", "seen");
    return h.Write(std::move(batch)).status;
  };
  EXPECT_THAT(write_since(0),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("may have been")));
  const uint64_t position = h.store->snapshot().position();
  EXPECT_THAT(write_since(position), IsOk());
  DYNLIB_ASSERT_OK(h.Write(Put("unrelated", "2")));
  EXPECT_THAT(write_since(position), IsOk());
  DYNLIB_ASSERT_OK(h.Write(Put("a", "2")));
  EXPECT_THAT(write_since(position), StatusIs(StatusCode::kFailedPrecondition));
}

// A counter that many threads raise by compare and set: no step is lost.
TEST(StoreConditionsTest, CompareAndSetFromManyThreads) {
  const std::string root = testing::TempDir() + "/compare_and_set";
  std::filesystem::remove_all(root);
  DYNLIB_ASSERT_OK_AND_ASSIGN(auto local, LocalStore::Open(root));
  Store& store = **local;
  DYNLIB_ASSERT_OK_AND_ASSIGN(const NamedTree log, store.OpenTree("log"));
  DYNLIB_ASSERT_OK(store.Put("count", "0"));
  constexpr int kThreads = 8;
  constexpr int kSteps = 25;
  std::atomic<int> refused{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int done = 0; done < kSteps;) {
        const std::string seen = store.Get("count")->value();
        StoreBatch batch;
        batch.IfEquals("count", seen);
        batch.Put("count", std::to_string(std::stoi(seen) + 1));
        batch.Put(log, Cat(t, ".", done), seen);
        const WriteResult result = store.Write(std::move(batch));
        if (!result.ok()) {
          EXPECT_EQ(result.failed_condition, 0u) << result.status;
          ++refused;
          continue;
        }
        ++done;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(store.Get("count"), IsOkAndHolds(std::to_string(kThreads * kSteps)));
  DYNLIB_ASSERT_OK_AND_ASSIGN(
      const ScanResult rows,
      store.Scan({.tree = log}, [](std::string_view, std::string_view) { return true; }));
  EXPECT_EQ(rows.rows, uint64_t{kThreads * kSteps});
  EXPECT_EQ(store.stats().conditions_failed, static_cast<uint64_t>(refused.load()));
  std::filesystem::remove_all(root);
}

// Money moves between two trees: every snapshot sees the same sum.
TEST(StoreSnapshotTest, SeesAllTreesOfOneMoment) {
  const std::string root = testing::TempDir() + "/one_moment";
  std::filesystem::remove_all(root);
  Store::Options options;
  options.checkpoint_after_bytes = 64 << 10;
  DYNLIB_ASSERT_OK_AND_ASSIGN(auto local, LocalStore::Open(root, options));
  Store& store = **local;
  DYNLIB_ASSERT_OK_AND_ASSIGN(const NamedTree a, store.OpenTree("a"));
  DYNLIB_ASSERT_OK_AND_ASSIGN(const NamedTree b, store.OpenTree("b"));
  const auto move = [&](int in_a) {
    StoreBatch batch;
    batch.Put(a, "x", std::to_string(in_a));
    batch.Put(b, "x", std::to_string(100 - in_a));
    batch.Put(a, "pad", std::string(500, 'p'));
    EXPECT_THAT(store.Write(std::move(batch), {.durable = false}).status, IsOk());
  };
  move(50);
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    for (int i = 0; i < 2000; ++i) move(i % 101);
    stop = true;
  });
  int looked = 0;
  uint64_t position = 0;
  while (!stop) {
    const StoreSnapshot snapshot = store.snapshot();
    EXPECT_EQ(std::stoi(**snapshot.Get(a, "x")) + std::stoi(**snapshot.Get(b, "x")), 100);
    EXPECT_GE(snapshot.position(), position);
    position = snapshot.position();
    ++looked;
  }
  writer.join();
  EXPECT_GT(looked, 0);
  std::filesystem::remove_all(root);
}

TEST(StoreReadTest, ScansGoBothWaysAndResume) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  WriteBatch batch;
  for (const char* key : {"a", "b/1", "b/2", "b/3", "b\xff", "c"}) batch.Put(key, "v");
  DYNLIB_ASSERT_OK(h.Write(batch));
  Store& store = *h.store;
  EXPECT_THAT(KeysOf(store, {.prefix = "b/"}), ElementsAre("b/1", "b/2", "b/3"));
  EXPECT_THAT(KeysOf(store, {.prefix = "b/", .order = ScanOrder::kReverse}),
              ElementsAre("b/3", "b/2", "b/1"));
  EXPECT_THAT(KeysOf(store, {.start = "b/2", .prefix = "b/"}), ElementsAre("b/2", "b/3"));
  EXPECT_THAT(KeysOf(store, {.end = "b/3", .prefix = "b/"}), ElementsAre("b/1", "b/2"));
  EXPECT_THAT(KeysOf(store, {.start = "b\xff", .end = "c"}), ElementsAre("b\xff"));
  EXPECT_THAT(KeysOf(store, {.prefix = "b\xff"}), ElementsAre("b\xff"));
  EXPECT_THAT(KeysOf(store, {.start = "c", .prefix = "a"}), IsEmpty());
  for (const ScanOrder order : {ScanOrder::kForward, ScanOrder::kReverse}) {
    std::vector<std::string> keys;
    ScanOptions options = {.order = order, .max_rows = 4};
    for (int pages = 1;; ++pages) {
      DYNLIB_ASSERT_OK_AND_ASSIGN(const ScanResult page,
                                  store.Scan(options, [&](std::string_view key, std::string_view) {
                                    keys.emplace_back(key);
                                    return true;
                                  }));
      if (!page.resume.has_value()) {
        EXPECT_EQ(pages, 2);
        break;
      }
      (order == ScanOrder::kForward ? options.start : options.end) = *page.resume;
    }
    if (order == ScanOrder::kReverse) std::reverse(keys.begin(), keys.end());
    EXPECT_THAT(keys, ElementsAre("a", "b/1", "b/2", "b/3", "b\xff", "c"));
  }
  DYNLIB_ASSERT_OK_AND_ASSIGN(
      const ScanResult bytes,
      store.Scan({.max_bytes = 5}, [](std::string_view, std::string_view) { return true; }));
  EXPECT_EQ(bytes.rows, 2u);
  EXPECT_EQ(bytes.bytes, 6u);
}

TEST(StoreReadTest, MultiGetAndGetAsync) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  DYNLIB_ASSERT_OK(h.Write(Put("a", "1")));
  DYNLIB_ASSERT_OK(h.Write(Put("b", "2")));
  const std::string_view keys[] = {"b", "none", "a"};
  const auto values = h.store->MultiGet(NamedTree(), keys);
  ASSERT_EQ(values.size(), 3u);
  EXPECT_THAT(values[0], IsOkAndHolds("2"));
  EXPECT_THAT(values[1], IsOkAndHolds(std::nullopt));
  EXPECT_THAT(values[2], IsOkAndHolds("1"));
  std::string value = "old";
  EXPECT_THAT(h.store->GetInto(NamedTree(), "a", value), IsOkAndHolds(true));
  EXPECT_EQ(value, "1");
  EXPECT_THAT(h.store->View(NamedTree(), "b", [&](std::string_view found) { value = found; }),
              IsOkAndHolds(true));
  EXPECT_EQ(value, "2");
  EXPECT_THAT(h.store->GetInto(NamedTree(), "none", value), IsOkAndHolds(false));
  DYNLIB_ASSERT_OK(h.Checkpoint());
  DYNLIB_ASSERT_OK(h.Close());
  DYNLIB_ASSERT_OK(h.Open());  // Nothing is in memory but what replaying the log touched.
  for (int round = 0; round < 2; ++round) {
    std::optional<absl::StatusOr<std::optional<std::string>>> answer;
    h.store->GetAsync(NamedTree(), "a", &h.caller, [&](auto value) { answer = std::move(value); });
    EXPECT_FALSE(answer.has_value());  // Never before the call returns.
    h.Run();
    ASSERT_TRUE(answer.has_value());
    EXPECT_THAT(*answer, IsOkAndHolds("1"));
  }
}

// What a crash may lose of writes that did not wait for the disk: the newest.
TEST(StoreNotDurableTest, ACrashKeepsAPrefix) {
  for (uint64_t call = 1; call < 60; ++call) {
    SCOPED_TRACE(testing::Message() << "call " << call);
    SimDisk disk(call);
    int durable = -1;
    {
      StoreHarness h(&disk);
      DYNLIB_ASSERT_OK(h.Open());
      disk.FailCall(call, sim::DiskFault::kPowerOff, UnsyncedFate::kRandomSubset);
      for (int i = 0; i < 40; ++i) {
        StoreBatch batch(Put(Cat("k", 100 + i), std::string(600, 'v')));
        const bool wait = i % 5 == 4;
        h.store->Write(std::move(batch), {.durable = wait}, &h.caller,
                       [&durable, i, wait](const WriteResult& result) {
                         if (wait && result.ok()) durable = i;
                       });
        if (i % 3 == 0) h.Run();
        if (i % 17 == 0) h.store->Checkpoint(&h.caller, [](absl::Status) {});
      }
      h.Run();
    }
    disk.ClearFailCall();
    if (!disk.down()) disk.PowerOff(UnsyncedFate::kAllLost);
    disk.Restart();
    StoreHarness h(&disk);
    DYNLIB_ASSERT_OK(h.Open());
    const Contents found = h.Scan();
    EXPECT_GE(static_cast<int>(found.size()), durable + 1);
    int next = 100;
    for (const auto& [key, value] : found) EXPECT_EQ(key, Cat("k", next++));
  }
}

TEST(StoreNotDurableTest, AnsweredWithoutTheDiskAndSeenAtOnce) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  const uint64_t calls = disk.calls();
  std::optional<WriteResult> answer;
  h.store->Write(StoreBatch(Put("a", "1")), {.durable = false}, &h.caller,
                 [&](WriteResult result) { answer = std::move(result); });
  while (!answer.has_value()) ASSERT_TRUE(h.RunAllButTheLog());
  EXPECT_THAT(answer->status, IsOk());
  EXPECT_THAT(h.store->Get("a"), IsOkAndHolds("1"));
  EXPECT_EQ(disk.calls(), calls);
  EXPECT_GT(h.store->stats().pending_bytes, 0u);
  h.Run();
  EXPECT_GT(disk.calls(), calls);
  EXPECT_EQ(h.store->stats().pending_bytes, 0u);
}

// The log is full: what was answered is owed to it, comes to its bound, and is logged once there is
// space again, without another word.
TEST(StoreNotDurableTest, AFullDiskBoundsWhatIsOwed) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  h.options.max_pending_bytes = 16 << 10;
  DYNLIB_ASSERT_OK(h.Open());
  disk.SetFull(true);
  Contents expected;
  absl::Status status;
  for (int i = 0; i < 600 && status.ok(); ++i) {
    const std::string key = Cat("k", 100 + i);
    status = h.Write(StoreBatch(Put(key, std::string(900, 'v'))), {.durable = false}).status;
    if (status.ok()) expected[key] = std::string(900, 'v');
  }
  EXPECT_THAT(status, StatusIs(StatusCode::kResourceExhausted));
  EXPECT_EQ(h.Scan(), expected);
  EXPECT_LE(h.store->stats().pending_bytes, 16u << 10);
  EXPECT_THAT(h.store->stats().culprits, Contains(HasSubstr("the log takes no more")));
  disk.SetFull(false);
  DYNLIB_ASSERT_OK(h.Checkpoint());
  h.Run();
  EXPECT_EQ(h.store->stats().pending_bytes, 0u);
  DYNLIB_ASSERT_OK(h.Write(Put("more", "1")));
  expected["more"] = "1";
  h.Kill();
  disk.PowerOff(UnsyncedFate::kAllLost);
  disk.Restart();
  DYNLIB_ASSERT_OK(h.Open());
  EXPECT_EQ(h.Scan(), expected);
}

struct Files {
  explicit Files(const SimDisk& disk) {
    for (const std::string& path : disk.Paths()) bytes[path] = disk.ReadRaw(path);
  }
  std::map<std::string, std::string> bytes;
  friend bool operator==(const Files&, const Files&) = default;
};

TEST(StoreOpenTest, RefusesWhatIsWrongAndTouchesNothing) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  const auto refuses = [&](StatusCode code, const std::string& why) {
    const Files before(disk);
    EXPECT_THAT(h.Open(), StatusIs(code, HasSubstr(why)));
    EXPECT_TRUE(Files(disk) == before) << why;
  };
  h.options.checkpoint_after_bytes = 1;
  refuses(StatusCode::kInvalidArgument, "checkpoint_after_bytes = 1 is not in [65536, ");
  h.options = SmallStore();
  h.options.max_pending_bytes = 1;
  refuses(StatusCode::kInvalidArgument, "max_pending_bytes = 1");
  h.options = SmallStore();
  h.options.create_if_missing = false;
  refuses(StatusCode::kNotFound, "no store");
  h.options = SmallStore();
  h.options.log.block_bytes = 513;
  refuses(StatusCode::kInvalidArgument, "block_bytes = 513");
  h.options = SmallStore();
  h.options.pages.write_bytes_max = 5;
  refuses(StatusCode::kInvalidArgument, "write_bytes_max");
  h.options = SmallStore();

  DYNLIB_ASSERT_OK(h.Open());
  DYNLIB_ASSERT_OK(h.Write(Put("k", "v")));
  {
    StoreHarness second(&disk);
    EXPECT_THAT(second.Open(), StatusIs(StatusCode::kFailedPrecondition, HasSubstr("in use")));
  }
  DYNLIB_ASSERT_OK(h.Close());
  const std::string mark = disk.ReadRaw("db/STORE");
  disk.WriteRaw("db/STORE", 0, EncodeStoreMark(kStoreVersion + 1));
  refuses(StatusCode::kFailedPrecondition, "format version 2; this program knows versions up to 1");
  disk.WriteRaw("db/STORE", 0, mark);
  disk.FlipBit("db/STORE", 100);
  refuses(StatusCode::kDataLoss, "db/STORE: at offset 0: checksum");
  disk.FlipBit("db/STORE", 100);
  DYNLIB_ASSERT_OK(h.Open());
  EXPECT_THAT(h.store->Get("k"), IsOkAndHolds("v"));
}

TEST(StoreOpenTest, AFolderWithOtherThingsIsNoStore) {
  SimDisk disk(1);
  DYNLIB_ASSERT_OK(disk.CreateDir("db"));
  DYNLIB_ASSERT_OK(disk.Open("db/holiday.jpg", OpenMode::kCreate).status());
  StoreHarness h(&disk);
  EXPECT_THAT(h.Open(), StatusIs(StatusCode::kFailedPrecondition,
                                 AllOf(HasSubstr("not a store"), HasSubstr("holiday.jpg"))));
  EXPECT_THAT(disk.Paths(), ElementsAre("db/holiday.jpg"));
}

// One tree that is never written again, one snapshot that is never let go.
TEST(StoreStatsTest, AThousandTreesOneColdOneSnapshotHeld) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  std::vector<NamedTree> trees;
  for (int i = 0; i < 1000; ++i) {
    DYNLIB_ASSERT_OK_AND_ASSIGN(NamedTree tree, h.OpenTree(Cat("tree", i)));
    trees.push_back(tree);
  }
  StoreBatch cold;
  cold.Put(trees[0], "cold", "for ever");
  DYNLIB_ASSERT_OK(h.Write(std::move(cold)).status);
  const StoreSnapshot held = h.store->snapshot("forgotten report");
  for (int i = 0; i < 3000; ++i) {
    StoreBatch batch;
    batch.Put(trees[1 + i % 999], "k", std::string(300, 'v'));
    DYNLIB_ASSERT_OK(h.Write(std::move(batch)).status);
    ASSERT_LE(h.store->LogStats().segments_in_use, 8u);
  }
  const Store::Stats stats = h.store->stats();
  EXPECT_EQ(stats.trees.size(), 1001u);
  EXPECT_LE(stats.log_bytes, 8u * (64 << 10));
  ASSERT_EQ(stats.snapshots.size(), 1u);
  EXPECT_EQ(stats.snapshots[0].label, "forgotten report");
  EXPECT_THAT(stats.culprits, Contains(HasSubstr("forgotten report")));
  DYNLIB_ASSERT_OK(h.Reopen());
  EXPECT_THAT(h.store->Get(*h.store->FindTree("tree0"), "cold"), IsOkAndHolds("for ever"));
}

TEST(StoreStatsTest, SnapshotsThatAreGoneAreForgotten) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  DYNLIB_ASSERT_OK(h.Write(Put("k", "v")));
  const StoreSnapshot held = h.store->snapshot("held");
  for (int i = 0; i < 100; ++i) h.store->snapshot("short");
  EXPECT_EQ(h.store->stats().snapshots.size(), 1u);
}

// Pages that no checkpoint has written come to their bound: writes wait for one, and none is
// refused.
TEST(StoreMemoryTest, DirtyPagesHoldUpWritesUntilACheckpoint) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  h.options.pages.memory_bytes = 1 << 20;
  h.options.checkpoint_after_bytes = 1 << 30;
  DYNLIB_ASSERT_OK(h.Open());
  Contents expected;
  for (int i = 0; i < 1500; ++i) {
    const std::string key = Cat("k", 1000000 + i * 7919 % 3000);
    expected[key] = std::string(1000, static_cast<char>('a' + i % 26));
    DYNLIB_ASSERT_OK(h.Write(Put(key, expected[key])));
    ASSERT_LE(h.store->stats().pages.dirty_bytes, 600u << 10);
  }
  EXPECT_GT(h.store->stats().pages.checkpoints, 1u);
  DYNLIB_ASSERT_OK(h.Reopen());
  EXPECT_EQ(h.Scan(), expected);
}

// A damaged leaf: the rest is readable, and what a replica has takes its place.
class StoreRepairTest : public testing::Test {
 protected:
  void SetUp() override {
    DYNLIB_ASSERT_OK(h_.Open());
    WriteBatch batch;
    for (int i = 0; i < 300; ++i) {
      const std::string key = Cat("k", 1000 + i);
      rows_[key] = Cat("value-", i, std::string(100, 'v'));
      batch.Put(key, rows_[key]);
      if (i % 20 == 19) {
        DYNLIB_ASSERT_OK(h_.Write(batch));
        batch.Clear();
      }
    }
    DYNLIB_ASSERT_OK(h_.Checkpoint());
    DYNLIB_ASSERT_OK(h_.Close());
    disk_.FlipBit("db/pages", 8 * disk_.ReadRaw("db/pages").find("value-150"));
  }
  WriteBatch Good(const Store::DamagedRange& range) {
    WriteBatch batch;
    for (const auto& [key, value] : rows_) {
      if (key >= range.first && (range.end.empty() || key < range.end)) batch.Put(key, value);
    }
    return batch;
  }

  SimDisk disk_{1};
  StoreHarness h_{&disk_};
  Contents rows_;
};

TEST_F(StoreRepairTest, TheRestIsReadableAndVerifyFindsIt) {
  DYNLIB_ASSERT_OK(h_.Open());
  EXPECT_THAT(h_.store->Get("k1150"),
              StatusIs(StatusCode::kDataLoss,
                       AllOf(HasSubstr("db/pages"), HasSubstr("offset"), HasSubstr("checksum"))));
  EXPECT_THAT(h_.store->Get("k1000"), IsOkAndHolds(rows_["k1000"]));
  EXPECT_THAT(h_.store->Get("k1299"), IsOkAndHolds(rows_["k1299"]));
  PageFile::VerifyReport report;
  EXPECT_THAT(h_.store->Verify(&report), StatusIs(StatusCode::kDataLoss));
  EXPECT_GE(report.damaged, 1u);
}

TEST_F(StoreRepairTest, AWriteThatMeetsItFetchesTheGoodCopy) {
  int fetched = 0;
  h_.options.fetch_rows = [&](const Store::DamagedRange& range) {
    ++fetched;
    EXPECT_THAT(range.status, StatusIs(StatusCode::kDataLoss));
    return Good(range);
  };
  DYNLIB_ASSERT_OK(h_.Open());
  DYNLIB_ASSERT_OK(h_.Write(Put("k1150", "new")));
  EXPECT_EQ(fetched, 1);
  rows_["k1150"] = "new";
  EXPECT_EQ(h_.Scan(), rows_);
  DYNLIB_ASSERT_OK(h_.Checkpoint());
  DYNLIB_ASSERT_OK(h_.Write(Put("k1000", "next")));
  DYNLIB_ASSERT_OK(h_.Checkpoint());
  EXPECT_THAT(h_.store->Verify(), IsOk());
}

TEST_F(StoreRepairTest, WithoutACopyTheWriteSaysSoAndNoMoreAreTaken) {
  DYNLIB_ASSERT_OK(h_.Open());
  EXPECT_THAT(h_.Write(Put("k1150", "new")),
              StatusIs(StatusCode::kUnknown, HasSubstr("logged but not applied")));
  EXPECT_THAT(h_.Write(Put("k1000", "new")), StatusIs(StatusCode::kUnavailable));
  EXPECT_THAT(h_.store->Get("k1000"), IsOkAndHolds(rows_["k1000"]));
}

}  // namespace
}  // namespace dynlib::store
