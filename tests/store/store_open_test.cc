// What a Store refuses to open, and leaves as it is.
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "dynlib/base/checksum.h"
#include "dynlib/base/coding.h"
#include "dynlib/base/metrics.h"
#include "dynlib/base/strings.h"
#include "dynlib/base/time.h"
#include "dynlib/runtime/clock.h"
#include "dynlib/sim/disk.h"
#include "dynlib/sim/file_image.h"
#include "dynlib/store/log_format.h"
#include "dynlib/store/node_log.h"
#include "dynlib/store/node_log_record.h"
#include "dynlib/store/page.h"
#include "dynlib/store/store.h"
#include "dynlib/store/store_folder.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/store/log_harness.h"
#include "tests/store/store_harness.h"

namespace dynlib::store {
namespace {

using absl::StatusCode;
using sim::DiskFault;
using sim::SimDisk;
using sim::UnsyncedFate;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

struct Files {
  explicit Files(const SimDisk& disk) {
    for (const std::string& path : disk.Paths()) bytes[path] = disk.ReadRaw(path);
  }
  std::map<std::string, std::string> bytes;
  friend bool operator==(const Files&, const Files&) = default;
};

// As a writer of another version would.
void AppendToLog(SimDisk* disk, std::string payload) {
  ManualExecutor executor;
  ManualClock clock;
  NodeLog::Recovery found;
  DYNLIB_ASSERT_OK_AND_ASSIGN(const auto log,
                              NodeLog::Open(SmallStore().log, disk, "db/log", &executor, &clock,
                                            MetricsSink::None(), &found));
  uint64_t last = 0;
  for (const LogRecord& entry : found.streams[StreamId{1}].entries) last = entry.slot;
  std::optional<absl::Status> done;
  log->Append({{StreamId{1}, RecordKind::kEntry, last + 1, 0, std::move(payload)}}, &executor,
              [&](absl::Status status) { done = std::move(status); });
  while (executor.RunOne()) {
  }
  DYNLIB_ASSERT_OK(*done);
}

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
  refuses(StatusCode::kInvalidArgument, "max_pending_bytes = 1 is not in [4096, ");
  // What the log's default stands for counts: a larger write would wait for ever.
  h.options = SmallStore();
  h.options.log = NodeLog::Options();
  h.options.max_pending_bytes = (4 << 20) - 1;
  refuses(StatusCode::kInvalidArgument, "max_pending_bytes = 4194303 is not in [4194304, ");
  h.options.log.segment_bytes = 1 << 20;
  h.options.max_pending_bytes = (256 << 10) - 1;
  refuses(StatusCode::kInvalidArgument, "max_pending_bytes = 262143 is not in [262144, ");
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
  disk.WriteRaw("db/STORE", 0, EncodeStoreMark({.version = kStoreVersion + 1}));
  refuses(StatusCode::kFailedPrecondition, "format version 2; this program knows versions up to 1");
  disk.WriteRaw("db/STORE", 0, mark);
  disk.FlipBit("db/STORE", 100);
  refuses(StatusCode::kDataLoss, "db/STORE: at offset 0: checksum");
  disk.FlipBit("db/STORE", 100);

  // Behind a mark that is right: either superblock of a newer version, or with other units.
  const auto superblock = [&](uint64_t index, size_t at, uint32_t number) {
    std::string block = disk.ReadRaw("db/pages").substr(index * kUnitBytes, kUnitBytes);
    StoreFixed<uint32_t>(block.data() + at, number);
    StoreFixed(block.data() + kUnitBytes - 8,
               Checksum(std::string_view(block).substr(0, kUnitBytes - 8), index));
    disk.WriteRaw("db/pages", index * kUnitBytes, block);
  };
  const std::string pages = disk.ReadRaw("db/pages");
  for (uint64_t index : {0, 1}) {
    superblock(index, 8, 77);
    refuses(StatusCode::kFailedPrecondition, "page file format version 77; this build reads up to");
    disk.WriteRaw("db/pages", 0, pages);
    superblock(index, 12, 8192);
    refuses(StatusCode::kFailedPrecondition, "units of 8192 bytes; this build reads 4096");
    disk.WriteRaw("db/pages", 0, pages);
  }
  disk.WriteRaw("db/pages", 0, std::string(pages.size(), 'x'));
  refuses(StatusCode::kInvalidArgument, "db/pages: not a dynlib page file");
  disk.WriteRaw("db/pages", 0, pages);
  int segments = 0;
  for (const std::string& path : disk.Paths()) {
    if (!path.ends_with(".seg")) continue;
    const std::string segment = disk.ReadRaw(path);
    const uint64_t number = std::stoull(path.substr(path.rfind('/') + 1));
    std::optional<SegmentHeader> header = DecodeSegmentHeader(segment, number);
    if (!header.has_value()) continue;  // A spare that was never used.
    header->format_version = kLogFormatVersion + 1;
    disk.WriteRaw(path, 0, EncodeSegmentHeader(*header));
    refuses(StatusCode::kFailedPrecondition,
            Cat(path, ": log format version 2; this program knows versions up to 1"));
    disk.WriteRaw(path, 0, segment);
    ++segments;
  }
  EXPECT_GT(segments, 0);

  DYNLIB_ASSERT_OK(h.Open());
  EXPECT_THAT(h.store->Get("k"), IsOkAndHolds("v"));
}

// Also where a crash left something to be tidied up.
TEST(StoreOpenTest, ALogRecordOfANewerVersionIsRefusedAndNothingTouched) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  DYNLIB_ASSERT_OK(h.Write(Put("k", "v")));
  DYNLIB_ASSERT_OK(h.Close());
  AppendToLog(&disk, "\x03 of the future");
  DYNLIB_ASSERT_OK(disk.Open("db/log/00000099.seg.new", OpenMode::kCreate).status());
  const Files before(disk);
  EXPECT_THAT(h.Open(), StatusIs(StatusCode::kFailedPrecondition,
                                 AllOf(HasSubstr("db/log/0000000"), HasSubstr("offset"),
                                       HasSubstr("a log record of version 3; this program knows "
                                                 "versions up to 2"))));
  EXPECT_TRUE(Files(disk) == before);
}

TEST(StoreOpenTest, ALogRecordOfVersionOneIsRead) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  DYNLIB_ASSERT_OK(h.Write(Put("gone", "v")));
  DYNLIB_ASSERT_OK(h.Close());
  const std::string put("\x01\x03old", 5);
  AppendToLog(&disk, std::string("\x01\x02", 2) + put + std::string("\x01v", 2) +
                         std::string("\x02\x04gone", 6));
  DYNLIB_ASSERT_OK(h.Open());
  EXPECT_EQ(h.Scan(), (Contents{{"old", "v"}}));
}

// --- How far it is, and how long it took.

TEST(StoreOpenTest, SaysHowFarItIsAndCanBeEnded) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  h.options.log.segment_bytes = 2 << 20;
  h.options.log.max_batch_bytes = 512 << 10;
  h.options.log.max_queued_bytes = 1 << 20;
  h.options.checkpoint_after_bytes = 64 << 20;
  DYNLIB_ASSERT_OK(h.Open());
  for (int i = 0; i < 10; ++i) {
    DYNLIB_ASSERT_OK(h.Write(Put(Cat("k", i), std::string(400 << 10, 'v'))));
  }
  const Contents rows = h.Scan();
  h.Kill();

  int calls = 0;
  int end_at = 0;
  Store::OpenProgress last;
  h.options.open_progress = [&](const Store::OpenProgress& so_far) {
    EXPECT_GE(so_far.log_bytes, last.log_bytes);
    EXPECT_GE(so_far.log_bytes_total, so_far.log_bytes);
    EXPECT_GE(so_far.applied_bytes, last.applied_bytes);
    EXPECT_GE(so_far.applied_bytes_total, so_far.applied_bytes);
    last = so_far;
    return ++calls != end_at;
  };
  DYNLIB_ASSERT_OK(h.Open());
  h.Kill();
  EXPECT_EQ(last.log_bytes, last.log_bytes_total);
  EXPECT_GT(last.log_bytes, 4u << 20);
  EXPECT_GT(last.applied_bytes, 2u << 20);
  EXPECT_LT(last.applied_bytes_total, 5u << 20);
  const int all = calls;
  EXPECT_GT(all, 6);
  for (end_at = 1; end_at <= all; ++end_at) {
    calls = 0;
    last = {};
    EXPECT_THAT(h.Open(), StatusIs(StatusCode::kCancelled)) << end_at;
    h.Run();
  }
  calls = 0;
  last = {};
  DYNLIB_ASSERT_OK(h.Open());
  EXPECT_EQ(h.Scan(), rows);
}

// Goes on by a millisecond whenever it is asked.
class TickingClock final : public Clock {
 public:
  Instant Now() const override { return Instant::FromNanos(nanos_ += 1'000'000); }
  WallTime WallNow() const override { return WallTime::FromNanos(nanos_); }

 private:
  mutable int64_t nanos_ = 1;
};

TEST(StoreOpenTest, SaysHowLongItTook) {
  SimDisk disk(1);
  ManualExecutor executor;
  TickingClock clock;
  Store::Recovery found;
  DYNLIB_ASSERT_OK_AND_ASSIGN(
      auto store, Store::Open(SmallStore(), &disk, "db", {&executor, &executor, &executor}, &clock,
                              MetricsSink::None(), &found));
  EXPECT_GT(found.log_took, Duration::zero());
  EXPECT_GT(found.apply_took, Duration::zero());
  EXPECT_GT(found.took, found.log_took + found.apply_took);
  store.reset();
  while (executor.RunOne()) {
  }
}

// --- What is missing.

// A store with rows in a checkpoint and in the log.
class MissingPartTest : public testing::Test {
 protected:
  void SetUp() override {
    DYNLIB_ASSERT_OK(h_.Open());
    DYNLIB_ASSERT_OK(h_.Write(Put("checkpointed", "v")));
    DYNLIB_ASSERT_OK(h_.Checkpoint());
    DYNLIB_ASSERT_OK(h_.Write(Put("logged", "v")));
    h_.Kill();
  }
  void Remove(const std::string& path) { DYNLIB_ASSERT_OK(disk_.Remove(path)); }
  void RemoveSegments() {
    for (const std::string& path : disk_.Paths()) {
      if (path.ends_with(".seg")) Remove(path);
    }
  }
  // An older program says nothing of what was there when it wrote STORE.
  void MakeMarkOld() { disk_.WriteRaw("db/STORE", 0, EncodeStoreMark(StoreMark())); }

  SimDisk disk_{1};
  StoreHarness h_{&disk_};
};

TEST_F(MissingPartTest, Pages) {
  Remove("db/pages");
  for (int attempt = 0; attempt < 2; ++attempt) {
    EXPECT_THAT(h_.Open(), StatusIs(StatusCode::kDataLoss, HasSubstr("db/pages: missing")));
    h_.Run();
  }
}

TEST_F(MissingPartTest, PagesOfAnOlderProgramsStore) {
  MakeMarkOld();
  Remove("db/pages");
  for (int attempt = 0; attempt < 2; ++attempt) {
    EXPECT_THAT(h_.Open(), StatusIs(StatusCode::kDataLoss, HasSubstr("db/pages: missing")));
    h_.Run();
  }
}

TEST_F(MissingPartTest, Store) {
  Remove("db/STORE");
  for (const bool create : {false, true}) {
    h_.options.create_if_missing = create;
    EXPECT_THAT(h_.Open(), StatusIs(StatusCode::kDataLoss, HasSubstr("db/STORE: missing")));
  }
}

TEST_F(MissingPartTest, TheLog) {
  RemoveSegments();
  Remove("db/log/LOCK");
  Remove("db/log");
  EXPECT_THAT(h_.Open(), StatusIs(StatusCode::kDataLoss, HasSubstr("db/log: missing")));
}

// The checkpoint says how far the log was durable.
TEST_F(MissingPartTest, AllSegments) {
  RemoveSegments();
  for (int attempt = 0; attempt < 2; ++attempt) {
    EXPECT_THAT(h_.Open(), StatusIs(StatusCode::kDataLoss,
                                    AllOf(HasSubstr("db/pages: batch 1 of the log was durable"),
                                          HasSubstr("ends with batch 0: segments are missing"))));
    h_.Run();
  }
}

// An opening says so as well: no checkpoint was made behind what is lost.
TEST_F(MissingPartTest, TheNewestSegment) {
  DYNLIB_ASSERT_OK(h_.Open());
  DYNLIB_ASSERT_OK(h_.Write(Put("in a fresh segment", "v")));
  h_.Kill();
  DYNLIB_ASSERT_OK(h_.Reopen());
  h_.Kill();
  std::string newest;
  uint64_t generation = 0;
  for (const std::string& path : disk_.Paths()) {
    if (!path.ends_with(".seg")) continue;
    const uint64_t number = std::stoull(path.substr(path.rfind('/') + 1));
    const auto header = DecodeSegmentHeader(disk_.ReadRaw(path), number);
    if (!header.has_value() || header->life.generation <= generation) continue;
    generation = header->life.generation;
    newest = path;
  }
  ASSERT_GT(generation, 1u);
  Remove(newest);
  EXPECT_THAT(h_.Open(), StatusIs(StatusCode::kDataLoss, HasSubstr("segments are missing")));
}

// An older program wrote STORE first: what it left when it did not get further is an empty store.
TEST(StoreOpenTest, ABareMarkOfAnOlderProgramIsAnEmptyStore) {
  SimDisk disk(1);
  DYNLIB_ASSERT_OK(disk.CreateDir("db"));
  DYNLIB_ASSERT_OK_AND_ASSIGN(const auto file, disk.Open("db/STORE", OpenMode::kCreate));
  DYNLIB_ASSERT_OK(file->WriteAt(0, EncodeStoreMark(StoreMark())));
  StoreHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  EXPECT_TRUE(h.Scan().empty());
  h.Kill();
  DYNLIB_ASSERT_OK(disk.Remove("db/pages"));
  EXPECT_THAT(h.Open(), StatusIs(StatusCode::kDataLoss, HasSubstr("db/pages: missing")));
}

// Power lost at each disk call of a creation: no store yet, or a good one; and the next creation
// gets to its end.
TEST(StoreOpenTest, ACreationThatIsCutOffLeavesNoStoreOrAGoodOne) {
  int none = 0;
  int good = 0;
  for (const UnsyncedFate fate : {UnsyncedFate::kAllLost, UnsyncedFate::kAllKept,
                                  UnsyncedFate::kTorn, UnsyncedFate::kRandomSubset}) {
    bool struck = true;
    for (uint64_t call = 1; struck && !testing::Test::HasFailure(); ++call) {
      SCOPED_TRACE(testing::Message() << "call " << call);
      SimDisk disk(call);
      StoreHarness h(&disk);
      disk.FailCall(call, DiskFault::kPowerOff, fate);
      const absl::Status opened = h.Open();
      struck = disk.down();
      EXPECT_NE(struck, opened.ok());
      h.Kill();
      disk.ClearFailCall();
      if (!struck) disk.PowerOff(fate);
      disk.Restart();
      h.options.create_if_missing = false;
      const absl::Status found = h.Open();
      EXPECT_TRUE(found.ok() || absl::IsNotFound(found)) << found;
      ++(found.ok() ? good : none);
      h.Kill();
      h.options.create_if_missing = true;
      DYNLIB_ASSERT_OK(h.Open());
      EXPECT_TRUE(h.Scan().empty());
      DYNLIB_ASSERT_OK(h.Write(Put("k", "v")));
      DYNLIB_ASSERT_OK(h.Reopen());
      EXPECT_EQ(h.Scan(), (Contents{{"k", "v"}}));
    }
  }
  EXPECT_GT(none, 20);
  EXPECT_GT(good, 4);
}

// The bytes that tool_test.sh makes a newer store of.
TEST(StoreOpenTest, TheMarkByteByByte) {
  const std::string bytes = EncodeStoreMark({.version = 77, .has_pages = true, .has_log = true});
  EXPECT_EQ(bytes, std::string("DLSTORE\0\x4d\0\0\0\x03\0\0\0", 16) + std::string(40, '\0') +
                       std::string("\x98^a\xa3\x1c\x98\xa1\xb8", 8));
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

}  // namespace
}  // namespace dynlib::store
