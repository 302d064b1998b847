#include "dynlib/store/store.h"

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
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/random.h"
#include "dynlib/base/strings.h"
#include "dynlib/base/time.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/runtime/posix/thread_executor.h"
#include "dynlib/runtime/signal.h"
#include "dynlib/sim/disk.h"
#include "dynlib/sim/file_image.h"
#include "dynlib/store/local_store.h"
#include "dynlib/store/page.h"
#include "dynlib/store/store_batch.h"
#include "dynlib/store/store_record.h"
#include "dynlib/store/store_snapshot.h"
#include "dynlib/store/tree.h"
#include "dynlib/store/write_batch.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/store/store_harness.h"

namespace dynlib::store {
namespace {

using sim::DiskFault;
using sim::SimDisk;
using sim::UnsyncedFate;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(StoreRecordTest, AGroupComesBackAndDamageDoesNot) {
  WriteBatch batch;
  batch.Put("key", "value");
  batch.Delete("gone");
  batch.Put("", "");
  GroupEncoder encoder;
  encoder.Add(kDefaultTree, batch);
  encoder.EndWrite();
  encoder.CreateTree(TreeId{16}, "t");
  encoder.EndWrite();
  encoder.Add(TreeId{16}, batch);
  encoder.EndWrite();
  WriteBatch range;
  range.DeleteRange("a", "b");
  encoder.Add(kDefaultTree, range);
  encoder.EndWrite();
  encoder.DropTree(TreeId{16});
  encoder.EndWrite();
  const std::string bytes = encoder.Take();
  const std::string operations("\x01\x03key\x05value\x02\x04gone\x01\x00\x00", 20);
  EXPECT_EQ(bytes, "\x02" + operations + std::string("\0\x05\x10\x01t\0\x04\x10", 8) + operations +
                       std::string("\0\3\1a\1b\0\x06\x10\0", 10));
  DYNLIB_ASSERT_OK_AND_ASSIGN(const LoggedGroup group, DecodeGroup(bytes));
  EXPECT_EQ(group.writes, 5u);
  ASSERT_EQ(group.changes.size(), 5u);
  EXPECT_EQ(group.changes[2].tree, TreeId{16});
  EXPECT_EQ(std::get<LoggedChange::Create>(group.changes[1].what).name, "t");
  for (size_t length = 0; length < bytes.size(); ++length) {
    const absl::StatusOr<LoggedGroup> part = DecodeGroup(bytes.substr(0, length));
    if (part.ok()) {
      EXPECT_LT(part->writes, 5u);  // Cut between two writes; the log knows the length.
    } else {
      EXPECT_THAT(part, StatusIs(absl::StatusCode::kDataLoss));
    }
  }
  EXPECT_THAT(DecodeGroup("\x03"),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("version 3")));
}

TEST(StoreTest, WritesAreReadBackNowAndAfterAPowerFailure) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  WriteBatch batch = Put("a", "1");
  batch.Put("b", "2");
  DYNLIB_ASSERT_OK(h.Write(batch));
  batch.Clear();
  batch.Delete("a");
  DYNLIB_ASSERT_OK(h.Write(batch));
  EXPECT_THAT(h.store->Get("a"), IsOkAndHolds(std::nullopt));
  EXPECT_THAT(h.store->Get("b"), IsOkAndHolds("2"));
  h.Kill();
  disk.PowerOff(UnsyncedFate::kAllLost);
  disk.Restart();
  DYNLIB_ASSERT_OK(h.Open());
  EXPECT_EQ(h.Scan(), (Contents{{"b", "2"}}));
  EXPECT_EQ(h.found.replayed_batches, 2u);
  EXPECT_FALSE(h.found.clean_close);
}

TEST(StoreTest, ACheckpointShortensTheReplay) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  for (int i = 0; i < 10; ++i) DYNLIB_ASSERT_OK(h.Write(Put("k" + std::to_string(i), "v")));
  DYNLIB_ASSERT_OK(h.Checkpoint());
  DYNLIB_ASSERT_OK(h.Write(Put("after", "v")));
  DYNLIB_ASSERT_OK(h.Close());
  DYNLIB_ASSERT_OK(h.Open());
  EXPECT_TRUE(h.found.clean_close);
  EXPECT_EQ(h.found.replayed_batches, 1u);
  EXPECT_EQ(h.Scan().size(), 11u);
}

TEST(StoreTest, TheLogStaysBoundedUnderSteadyWrites) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  Contents expected;
  for (int i = 0; i < 1000; ++i) {
    const std::string key = "k" + std::to_string(i % 50);
    expected[key] = std::string(1000, static_cast<char>('a' + i % 26));
    DYNLIB_ASSERT_OK(h.Write(Put(key, expected[key])));
    ASSERT_LE(h.store->LogStats().segments_in_use, 6u);
  }
  DYNLIB_ASSERT_OK(h.Reopen());
  EXPECT_EQ(h.Scan(), expected);
}

// A log too small for what the checkpoint interval lets gather: checkpoints free it.
TEST(StoreTest, AFullLogIsFreedByCheckpoints) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  h.options.checkpoint_after_bytes = 1 << 30;
  DYNLIB_ASSERT_OK(h.Open());
  int refused = 0;
  for (int i = 0; i < 600; ++i) {
    absl::Status status = h.Write(Put("k" + std::to_string(i % 20), std::string(3000, 'x')));
    for (int attempt = 0; !status.ok() && attempt < 4; ++attempt) {
      EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted));
      ++refused;
      status = h.Write(Put("k" + std::to_string(i % 20), std::string(3000, 'x')));
    }
    DYNLIB_ASSERT_OK(status);
  }
  EXPECT_GT(refused, 0);
}

TEST(StoreTest, LimitsAreCheckedBeforeAnythingIsLogged) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  const auto files = [&] {
    std::map<std::string, std::string> bytes;
    for (const std::string& path : disk.Paths()) bytes[path] = disk.ReadRaw(path);
    return bytes;
  };
  const auto before = files();
  EXPECT_THAT(h.Write(Put("k", std::string(kMaxValueBytes + 1, 'v'))),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("limit is 1048576")));
  EXPECT_THAT(h.Write(Put(std::string(9000, 'k'), "v")),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("limit is 8192")));
  EXPECT_THAT(h.Write(Put("k", std::string(5000, 'v'))),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("max_batch_bytes")));
  EXPECT_TRUE(files() == before);
  DYNLIB_ASSERT_OK(h.Write(Put("k", "v")));
  DYNLIB_ASSERT_OK(h.Reopen());
  EXPECT_EQ(h.Scan(), (Contents{{"k", "v"}}));
}

TEST(StoreTest, AFailedSyncEndsTheWrites) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  DYNLIB_ASSERT_OK(h.Write(Put("a", "1")));
  disk.FailCall(2, DiskFault::kEio);
  EXPECT_THAT(h.Write(Put("b", "2")), StatusIs(absl::StatusCode::kUnknown));
  EXPECT_THAT(h.Write(Put("c", "3")), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(h.store->Get("a"), IsOkAndHolds("1"));
  DYNLIB_ASSERT_OK(h.Reopen());
  EXPECT_THAT(h.store->Get("a"), IsOkAndHolds("1"));
}

TEST(StoreTest, DestroyingItAnswersEveryWrite) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  int answers = 0;
  for (int i = 0; i < 5; ++i) {
    h.store->Write(StoreBatch(Put("k", "v")), {}, &h.caller, [&](const WriteResult& result) {
      EXPECT_THAT(result.status, StatusIs(absl::StatusCode::kCancelled));
      ++answers;
    });
  }
  h.Kill();
  EXPECT_EQ(answers, 5);
}

TEST(StoreTest, ATornTailIsCutForGood) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  DYNLIB_ASSERT_OK(h.Write(Put("a", "1")));
  // Two writes in one batch of the log, the first of which is then damaged.
  h.store->Write(StoreBatch(Put("b", "torn")), {}, &h.caller, [](const WriteResult&) {});
  h.store->Write(StoreBatch(Put("c", "behind")), {}, &h.caller, [](const WriteResult&) {});
  h.Run();
  h.Kill();
  const char segment[] = "db/log/00000001.seg";
  disk.FlipBit(segment, 8 * disk.ReadRaw(segment).find("torn"));
  DYNLIB_ASSERT_OK(h.Open());
  EXPECT_EQ(h.Scan(), (Contents{{"a", "1"}}));
  EXPECT_EQ(h.found.cut_batches, 1u);  // They went to the log as one.
  EXPECT_FALSE(h.found.notes.empty());
  DYNLIB_ASSERT_OK(h.Write(Put("d", "4")));
  for (int i = 0; i < 2; ++i) {
    DYNLIB_ASSERT_OK(h.Reopen());
    EXPECT_EQ(h.Scan(), (Contents{{"a", "1"}, {"d", "4"}}));
    EXPECT_EQ(h.found.cut_batches, 0u);
  }
}

TEST(StoreTest, DamageInTheMiddleIsDataLossUnlessACheckpointHasIt) {
  for (bool checkpointed : {false, true}) {
    SimDisk disk(1);
    StoreHarness h(&disk);
    DYNLIB_ASSERT_OK(h.Open());
    DYNLIB_ASSERT_OK(h.Write(Put("a", "damaged")));
    if (checkpointed) {
      DYNLIB_ASSERT_OK(h.Checkpoint());
    }
    DYNLIB_ASSERT_OK(h.Write(Put("b", "2")));
    h.Kill();
    const char segment[] = "db/log/00000001.seg";
    disk.FlipBit(segment, 8 * disk.ReadRaw(segment).find("damaged"));
    if (!checkpointed) {
      EXPECT_THAT(h.Open(), StatusIs(absl::StatusCode::kDataLoss, HasSubstr(segment)));
      h.Run();
      continue;
    }
    DYNLIB_ASSERT_OK(h.Open());
    EXPECT_EQ(h.Scan(), (Contents{{"a", "damaged"}, {"b", "2"}}));
    EXPECT_FALSE(h.found.notes.empty());
  }
}

// Power off at every disk call, and again while recovering: the contents are those of a prefix of
// the writes, and of one that has all that was acknowledged.
class StoreCrashTest : public testing::TestWithParam<UnsyncedFate> {
 protected:
  void Workload(StoreHarness& h, const SimDisk& disk) {
    Random random(5);
    for (int i = 0; i < 120 && !disk.down(); ++i) {
      WriteBatch batch;
      for (uint64_t n = random.Between(1, 3); n > 0; --n) {
        const std::string key = "k" + std::to_string(random.Below(25));
        if (random.Chance(0.25)) {
          batch.Delete(key);
        } else {
          batch.Put(key, std::string(random.Below(900), 'v') + std::to_string(i));
        }
      }
      writes_.push_back(batch);
      const size_t count = writes_.size();
      h.store->Write(StoreBatch(batch), {}, &h.caller, [this, count](const WriteResult& result) {
        if (result.ok()) acknowledged_ = std::max(acknowledged_, count);
      });
      if (random.Chance(0.5)) h.Run();
      if (random.Chance(0.05)) h.store->Checkpoint(&h.caller, [](absl::Status) {});
      if (random.Chance(0.05)) h.Rest();
    }
    h.Run();
  }

  void ExpectPrefix(const Contents& contents) {
    Contents model;
    bool matches = acknowledged_ == 0 && contents.empty();
    for (size_t i = 0; i < writes_.size() && !matches; ++i) {
      for (const WriteBatch::Operation& operation : writes_[i].operations()) {
        if (operation.value.has_value()) {
          model[std::string(operation.key)] = *operation.value;
        } else {
          model.erase(std::string(operation.key));
        }
      }
      matches = i + 1 >= acknowledged_ && model == contents;
    }
    EXPECT_TRUE(matches) << contents.size() << " keys; " << acknowledged_ << " acknowledged";
  }

  bool CrashAt(uint64_t call) {
    SCOPED_TRACE(testing::Message() << "call " << call);
    writes_.clear();
    acknowledged_ = 0;
    SimDisk disk(call);
    bool struck = false;
    {
      StoreHarness h(&disk);
      disk.FailCall(call, DiskFault::kPowerOff, GetParam());
      if (h.Open().ok()) Workload(h, disk);
      struck = disk.down();
      disk.ClearFailCall();
    }
    if (!struck) disk.PowerOff(GetParam());
    disk.Restart();
    {
      StoreHarness h(&disk);
      disk.FailCall(1 + call % 40, DiskFault::kPowerOff, GetParam());
      const bool opened = h.Open().ok();
      disk.ClearFailCall();
      if (opened && !disk.down()) ExpectPrefix(h.Scan());
    }
    if (!disk.down()) disk.PowerOff(GetParam());
    disk.Restart();
    StoreHarness h(&disk);
    EXPECT_THAT(h.Open(), IsOk());
    if (h.store == nullptr) return false;
    const Contents before = h.Scan();
    ExpectPrefix(before);
    EXPECT_THAT(h.Write(Put("alive", "yes")), IsOk());
    EXPECT_THAT(h.Reopen(), IsOk());
    Contents after = before;
    after["alive"] = "yes";
    EXPECT_EQ(h.Scan(), after);
    return struck;
  }

  std::vector<WriteBatch> writes_;
  size_t acknowledged_ = 0;
};

TEST_P(StoreCrashTest, PowerOffAtEveryDiskCall) {
  const uint64_t step = GetParam() == UnsyncedFate::kRandomSubset ? 1 : 3;
  uint64_t call = 1;
  while (CrashAt(call) && !HasFailure()) call += step;
  EXPECT_GT(call, 150u);
}

INSTANTIATE_TEST_SUITE_P(Fates, StoreCrashTest,
                         testing::Values(UnsyncedFate::kAllLost, UnsyncedFate::kAllKept,
                                         UnsyncedFate::kTorn, UnsyncedFate::kRandomSubset));

TEST(StorePosixTest, ThreadsWriteAndReadOnRealFiles) {
  const std::string root = testing::TempDir() + "/store_posix_test";
  std::filesystem::remove_all(root);
  Store::Options options;
  options.log.segment_bytes = 256 << 10;
  options.checkpoint_after_bytes = 64 << 10;
  uint64_t rows = 0;
  // So many threads lead each other's writes by turns, or leave it to the store's.
  for (const int count : {2, 3, 12, 40}) {
    DYNLIB_ASSERT_OK_AND_ASSIGN(std::unique_ptr<LocalStore> local,
                                LocalStore::Open(root + "/db", options));
    Store& store = **local;
    std::vector<std::thread> threads;
    for (int t = 0; t < count; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < 60; ++i) {
          const std::string key = Cat(count, ".", t * 1000 + i);
          EXPECT_THAT(store.Put(key, std::string(1000, 'v')), IsOk());
          EXPECT_THAT(store.Get(key), IsOkAndHolds(std::string(1000, 'v')));
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    DYNLIB_ASSERT_OK_AND_ASSIGN(
        const ScanResult all,
        store.Scan({}, [](std::string_view, std::string_view) { return true; }));
    EXPECT_EQ(all.rows, rows += 60 * count);
    DYNLIB_ASSERT_OK(local->Close());
  }
  std::filesystem::remove_all(root);
}

// Threads that wait lead groups of their own, with others' callbacks in them, between those that
// the store's thread leads.
TEST(StorePosixTest, CallbacksComeInTheOrderOfTheWritesAndBeforeTheEndOfClose) {
  const std::string root = testing::TempDir() + "/store_order_test";
  std::filesystem::remove_all(root);
  ThreadExecutor callbacks{{.name = "callbacks"}};
  std::vector<uint64_t> sequences;  // of the callbacks' thread, until that has ended
  constexpr int kCallbacks = 3000;
  {
    DYNLIB_ASSERT_OK_AND_ASSIGN(std::unique_ptr<LocalStore> local,
                                LocalStore::Open(root + "/db", {.rest_after = Duration::max()}));
    std::atomic<bool> stop{false};
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t) {
      threads.emplace_back([&, t] {
        while (!stop) DYNLIB_EXPECT_OK((*local)->Put(std::to_string(t), "waited for"));
      });
    }
    for (int i = 0; i < kCallbacks; ++i) {
      StoreBatch batch;
      batch.Put("callback", std::to_string(i));
      const WriteOptions options = {.durable = i % 5 != 0};
      (*local)->Write(std::move(batch), options, &callbacks, [&](WriteResult result) {
        DYNLIB_EXPECT_OK(result.status);
        sequences.push_back(result.sequence);
      });
      if (i % 32 == 0) {
        DYNLIB_EXPECT_OK((*local)->Put("x", "y"));
      }
    }
    stop = true;
    for (std::thread& thread : threads) thread.join();
    size_t answered = 0;
    Signal closed;
    (*local)->Close(&callbacks, [&](absl::Status status) {
      DYNLIB_EXPECT_OK(status);
      answered = sequences.size();
      closed.Set();
    });
    closed.Wait();
    EXPECT_EQ(answered, size_t{kCallbacks});
  }
  callbacks.ShutDown();
  EXPECT_TRUE(std::is_sorted(sequences.begin(), sequences.end()));
  std::filesystem::remove_all(root);
}

// Groups of several writers, whose pages are made while the log is asked, and refuses.
TEST(StorePosixTest, WritesThatAFullLogRefusesAreTriedAgainWhole) {
  const std::string root = testing::TempDir() + "/store_full_log_test";
  std::filesystem::remove_all(root);
  Store::Options options;
  options.log.segment_bytes = 256 << 10;
  options.log.max_segments = 4;
  options.log.copy_forward_above = 1;
  options.checkpoint_after_bytes = 1 << 30;
  constexpr int kThreads = 6;
  constexpr int kWrites = 60;
  const auto value = [](const std::string& key) { return key + std::string(9000, 'v'); };
  for (int round = 0; round < 2; ++round) {
    DYNLIB_ASSERT_OK_AND_ASSIGN(std::unique_ptr<LocalStore> local,
                                LocalStore::Open(root + "/db", options));
    Store& store = **local;
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < kWrites; ++i) {
          const std::string key = Cat(round, ".", t, ".", i);
          StoreBatch batch;
          batch.Put(key, value(key));
          batch.Put(key + "b", "1");
          EXPECT_THAT(store.Write(std::move(batch)).status, IsOk());
          EXPECT_THAT(store.Get(key), IsOkAndHolds(value(key)));
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    DYNLIB_ASSERT_OK_AND_ASSIGN(const ScanResult all,
                                store.Scan({}, [&](std::string_view key, std::string_view found) {
                                  if (key.ends_with('b')) return found == "1";
                                  EXPECT_EQ(found, value(std::string(key)));
                                  return true;
                                }));
    EXPECT_EQ(all.rows, 2u * kThreads * kWrites * (round + 1));
    DYNLIB_ASSERT_OK(local->Close());
  }
  std::filesystem::remove_all(root);
}

}  // namespace
}  // namespace dynlib::store
