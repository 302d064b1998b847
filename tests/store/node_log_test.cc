#include "dynlib/store/node_log.h"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/random.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/sim/disk.h"
#include "dynlib/sim/faults.h"
#include "dynlib/sim/file_image.h"
#include "dynlib/store/node_log_record.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/store/log_harness.h"

namespace dynlib::store {
namespace {

using sim::SimDisk;
using sim::UnsyncedFate;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

using Unknown = NodeLog::RecoveredStream::Unknown;

constexpr absl::StatusCode kUnknownOutcome = absl::StatusCode::kUnknown;

const NodeLog::RecoveredStream& Stream(const LogHarness& h, uint64_t id) {
  static const NodeLog::RecoveredStream none;
  auto it = h.found.streams.find(StreamId{id});
  return it == h.found.streams.end() ? none : it->second;
}

absl::StatusOr<std::string> Contents(Disk* disk, const std::string& path) {
  DYNLIB_ASSIGN_OR_RETURN(const std::unique_ptr<File> file, disk->Open(path, OpenMode::kRead));
  DYNLIB_ASSIGN_OR_RETURN(const uint64_t size, file->Size());
  std::string bytes(size, '\0');
  DYNLIB_RETURN_IF_ERROR(file->ReadAt(0, std::span<char>(bytes)));
  return bytes;
}

// --- What comes back
// ---------------------------------------------------------------------------------

TEST(NodeLogTest, AppendedRecordsComeBack) {
  SimDisk disk(1);
  LogHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  EXPECT_TRUE(h.found.streams.empty());
  DYNLIB_ASSERT_OK(h.Append({Entry(1, 1, 5, "one"), State(1, 0, 5, "vote")}));
  DYNLIB_ASSERT_OK(h.Append({Entry(1, 2, 5, ""), Entry(2, 1, 1, std::string(3000, 'x'))}));
  h.Kill();
  disk.PowerOff(UnsyncedFate::kAllLost);
  disk.Restart();
  DYNLIB_ASSERT_OK(h.Open());
  EXPECT_THAT(Stream(h, 1).entries, ElementsAre(Entry(1, 1, 5, "one"), Entry(1, 2, 5, "")));
  EXPECT_EQ(Stream(h, 1).state, State(1, 0, 5, "vote"));
  EXPECT_THAT(Stream(h, 2).entries, ElementsAre(Entry(2, 1, 1, std::string(3000, 'x'))));
  EXPECT_FALSE(h.found.clean_close);
  DYNLIB_EXPECT_OK(h.found.DataLoss());
}

TEST(NodeLogTest, WhatIsSharedWithTheCallerComesBackAsOnePayload) {
  SimDisk disk(1);
  LogHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  LogRecord record = Entry(1, 1, 5, "head,");
  record.rest = std::make_shared<const std::string>(3000, 'x');
  LogRecord alone = Entry(1, 2, 5, "");
  alone.rest = std::make_shared<const std::string>("rest");
  DYNLIB_ASSERT_OK(h.Append({record, Entry(1, 3, 5, "none"), alone}));
  h.Kill();
  DYNLIB_ASSERT_OK(h.Open());
  EXPECT_THAT(Stream(h, 1).entries, ElementsAre(Entry(1, 1, 5, "head," + std::string(3000, 'x')),
                                                Entry(1, 2, 5, "rest"), Entry(1, 3, 5, "none")));
  DYNLIB_EXPECT_OK(h.found.DataLoss());
}

TEST(NodeLogTest, HigherBallotSupersedesAndOfEqualsTheLater) {
  SimDisk disk(1);
  LogHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  DYNLIB_ASSERT_OK(h.Append({Entry(1, 1, 5, "five"), Entry(1, 2, 5, "first")}));
  DYNLIB_ASSERT_OK(h.Append({Entry(1, 1, 4, "four"), Entry(1, 2, 5, "second")}));
  DYNLIB_ASSERT_OK(h.Append({State(1, 0, 9, "high"), State(1, 0, 3, "low but newer")}));
  DYNLIB_ASSERT_OK(h.Reopen());
  EXPECT_THAT(Stream(h, 1).entries, ElementsAre(Entry(1, 1, 5, "five"), Entry(1, 2, 5, "second")));
  EXPECT_EQ(Stream(h, 1).state, State(1, 0, 3, "low but newer"));
}

TEST(NodeLogTest, ReleasedEntriesDoNotComeBackOnceALaterBatchIsDurable) {
  SimDisk disk(1);
  LogHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  for (uint64_t slot = 1; slot <= 5; ++slot) DYNLIB_ASSERT_OK(h.Append({Entry(1, slot, 1, "x")}));
  h.log->Release(StreamId{1}, 3);
  DYNLIB_ASSERT_OK(h.Append({Entry(2, 1, 1, "carries the mark")}));
  EXPECT_EQ(h.log->RetainedBytes(StreamId{1}), 2 * (1 + NodeLog::kRecordOverheadBytes));
  DYNLIB_ASSERT_OK(h.Reopen());
  EXPECT_THAT(Stream(h, 1).entries, ElementsAre(Entry(1, 4, 1, "x"), Entry(1, 5, 1, "x")));
}

TEST(NodeLogTest, DroppedStreamIsGoneAndItsIdMayBeUsedAgain) {
  SimDisk disk(1);
  LogHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  DYNLIB_ASSERT_OK(h.Append({Entry(1, 1, 1, "old"), State(1, 0, 0, "old"), Entry(2, 1, 1, "b")}));
  h.log->Release(StreamId{1}, 40);
  h.log->Append({Entry(1, 50, 1, "old too")}, &h.caller, [](absl::Status) {});
  h.log->Drop(StreamId{1});
  h.log->Release(StreamId{1}, 60);
  DYNLIB_ASSERT_OK(h.Append({Entry(1, 7, 1, "new")}));
  for (int i = 0; i < 3; ++i) {
    DYNLIB_ASSERT_OK(h.Reopen());
    EXPECT_THAT(Stream(h, 1).entries, ElementsAre(Entry(1, 7, 1, "new")));
    EXPECT_EQ(Stream(h, 1).state, std::nullopt);
    EXPECT_THAT(Stream(h, 2).entries, ElementsAre(Entry(2, 1, 1, "b")));
    DYNLIB_ASSERT_OK(h.Append({Entry(2, 1, 1, "b")}));
  }
}

TEST(NodeLogTest, CleanCloseIsSeenAndGoesOnInTheSameSegment) {
  SimDisk disk(1);
  LogHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  for (uint64_t i = 1; i <= 20; ++i) {
    DYNLIB_ASSERT_OK(h.Append({Entry(1, i, 1, "x")}));
    DYNLIB_ASSERT_OK(h.Close());
    disk.PowerOff(UnsyncedFate::kAllLost);
    disk.Restart();
    DYNLIB_ASSERT_OK(h.Open());
    EXPECT_TRUE(h.found.clean_close);
    EXPECT_EQ(h.found.segments, 1u);
    EXPECT_EQ(Stream(h, 1).entries.size(), i);
  }
}

TEST(NodeLogTest, RandomAppendsAgainstAModelWithReopening) {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    Random random(seed);
    SimDisk disk(seed);
    LogModel model;
    LogHarness h(&disk);
    DYNLIB_ASSERT_OK(h.Open());
    std::map<uint64_t, uint64_t> next;
    for (int i = 0; i < 400; ++i) {
      const uint64_t id = 1 + random.Below(3);
      std::string payload(random.Below(900), static_cast<char>('a' + random.Below(26)));
      std::vector<LogRecord> records = {Entry(id, ++next[id], 1, payload + std::to_string(i))};
      if (random.Chance(0.3)) records.push_back(State(id, i, 0, std::to_string(i)));
      const size_t append = model.Submit(records);
      h.log->Append(std::move(records), &h.caller,
                    [&, append](absl::Status s) { model.Settle(append, s); });
      if (random.Chance(0.5)) h.Run();
      if (id != 3 && next[id] > 10 && random.Chance(0.2)) {
        h.Run();
        model.Release(id, next[id] - 5);
        h.log->Release(StreamId{id}, next[id] - 5);
      }
      if (!random.Chance(0.02)) continue;
      h.Run();
      if (random.Chance(0.5)) {
        DYNLIB_ASSERT_OK(h.Close());
        DYNLIB_ASSERT_OK(h.Open());
      } else {
        DYNLIB_ASSERT_OK(h.Reopen());
      }
      model.Check(h.found);
      ASSERT_FALSE(HasFailure()) << "seed " << seed << " step " << i;
    }
    EXPECT_LE(h.log->GetStats().segments_in_use, 8u);
  }
}

// --- Batches, order, answers
// -------------------------------------------------------------------------

TEST(NodeLogTest, AppendsThatWaitTogetherShareOneSync) {
  SimDisk disk(1);
  LogHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  DYNLIB_ASSERT_OK(h.Append({Entry(1, 1, 1, "opens the segment")}));
  const uint64_t calls = disk.calls();
  std::vector<int> order;
  for (int i = 0; i < 10; ++i) {
    h.log->Append({Entry(1 + i % 3, i, 1, "x")}, &h.caller, [&order, i](absl::Status s) {
      DYNLIB_EXPECT_OK(s);
      order.push_back(i);
    });
  }
  while (h.log_executor.RunOne()) {
  }
  EXPECT_EQ(disk.calls(), calls + 2) << "one write and one sync";
  EXPECT_TRUE(order.empty()) << "answers are posted, never given inline";
  EXPECT_EQ(h.caller.waiting(), 1u) << "one task for all answers of a batch";
  h.Run();
  EXPECT_THAT(order, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9));
}

TEST(NodeLogTest, NothingIsAcknowledgedBeforeItsSync) {
  SimDisk disk(1);
  LogHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  DYNLIB_ASSERT_OK(h.Append({Entry(1, 1, 1, "a")}));
  DYNLIB_ASSERT_OK(h.Append({Entry(1, 2, 1, "b")}));
  EXPECT_EQ(disk.UnsyncedOperations(), 0u);
}

TEST(NodeLogTest, OldestPendingSinceTellsOfAnOverdueSync) {
  SimDisk disk(1);
  LogHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  EXPECT_EQ(h.log->OldestPendingSince(), std::nullopt);
  h.clock.nanos = 100;
  h.log->Append({Entry(1, 1, 1, "a")}, &h.caller, [](absl::Status) {});
  h.clock.nanos = 200;
  h.log->Append({Entry(1, 2, 1, "a")}, &h.caller, [](absl::Status) {});
  EXPECT_EQ(h.log->OldestPendingSince(), Instant::FromNanos(100));
  h.Run();
  EXPECT_EQ(h.log->OldestPendingSince(), std::nullopt);
}

TEST(NodeLogTest, BadAppendsAreRefused) {
  SimDisk disk(1);
  LogHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  EXPECT_THAT(h.Append({}), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(h.Append({Entry(0, 1, 1, "x")}), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(h.Append({Entry(1, 1, 1, std::string(5000, 'x'))}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("max_batch_bytes is 4096")));
  EXPECT_EQ(h.log->GetStats().queued_bytes, 0u);
}

TEST(NodeLogTest, FullQueueRefusesAndRecovers) {
  SimDisk disk(1);
  NodeLog::Options options = SmallLog();
  options.max_queued_bytes = 8192;
  LogHarness h(&disk, options);
  DYNLIB_ASSERT_OK(h.Open());
  std::map<absl::StatusCode, int> answers;
  for (int i = 1; i <= 5; ++i) {
    h.log->Append({Entry(1, i, 1, std::string(3000, 'x'))}, &h.caller,
                  [&](absl::Status s) { ++answers[s.code()]; });
  }
  h.Run();
  EXPECT_EQ(answers[absl::StatusCode::kOk], 2);
  EXPECT_EQ(answers[absl::StatusCode::kResourceExhausted], 3);
  EXPECT_EQ(h.log->GetStats().refused_queue_full, 3u);
  DYNLIB_EXPECT_OK(h.Append({Entry(1, 3, 1, "fits again")}));
}

TEST(NodeLogTest, DestroyingTheLogAnswersEverything) {
  SimDisk disk(1);
  LogHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  std::vector<absl::StatusCode> answers;
  for (int i = 1; i <= 3; ++i) {
    h.log->Append({Entry(1, i, 1, "x")}, &h.caller,
                  [&](absl::Status s) { answers.push_back(s.code()); });
  }
  h.log->Close(&h.caller, [&](absl::Status s) { answers.push_back(s.code()); });
  h.Kill();
  EXPECT_THAT(answers, testing::Each(absl::StatusCode::kCancelled));
  EXPECT_EQ(answers.size(), 4u);
}

TEST(NodeLogTest, ClosingFinishesWhatIsQueuedAndRefusesTheRest) {
  SimDisk disk(1);
  LogHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  std::vector<absl::StatusCode> answers;
  const auto note = [&](absl::Status s) { answers.push_back(s.code()); };
  h.log->Append({Entry(1, 1, 1, "x")}, &h.caller, note);
  h.log->Close(&h.caller, note);
  h.Run();
  h.log->Append({Entry(1, 2, 1, "x")}, &h.caller, note);
  h.log->Close(&h.caller, note);
  h.Run();
  EXPECT_THAT(answers, ElementsAre(absl::StatusCode::kOk, absl::StatusCode::kOk,
                                   absl::StatusCode::kUnavailable, absl::StatusCode::kUnavailable));
}

// --- Opening
// -----------------------------------------------------------------------------------------

TEST(NodeLogTest, OptionsAreChecked) {
  struct Case {
    std::string field;
    std::function<void(NodeLog::Options&)> spoil;
  };
  const Case cases[] = {
      {"block_bytes", [](auto& o) { o.block_bytes = 256; }},
      {"block_bytes", [](auto& o) { o.block_bytes = 768; }},
      {"segment_bytes", [](auto& o) { o.segment_bytes = 4096; }},
      {"segment_bytes", [](auto& o) { o.segment_bytes = (64 << 10) + 1; }},
      {"max_batch_bytes", [](auto& o) { o.max_batch_bytes = 64 << 10; }},
      {"max_queued_bytes = 100 is not in [4096, ", [](auto& o) { o.max_queued_bytes = 100; }},
      {"max_queued_bytes = 16383 is not in [16384, ",
       [](auto& o) {
         o.max_batch_bytes = 0;  // Stands for a quarter of a segment.
         o.max_queued_bytes = (16 << 10) - 1;
       }},
      {"spare_segments", [](auto& o) { o.spare_segments = 0; }},
      {"spares_at_open", [](auto& o) { o.spares_at_open = o.spare_segments + 1; }},
      {"max_segments", [](auto& o) { o.max_segments = 3; }},
      {"max_segments", [](auto& o) { o.max_segments = 1000; }},
      {"copy_forward_above", [](auto& o) { o.copy_forward_above = 8; }},
  };
  for (const Case& c : cases) {
    SimDisk disk(1);
    NodeLog::Options options = SmallLog();
    c.spoil(options);
    LogHarness h(&disk, options);
    EXPECT_THAT(h.Open(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(c.field)));
    EXPECT_TRUE(disk.Paths().empty());
  }
}

TEST(NodeLogTest, TwoLogsOnOneDirectoryAreRefused) {
  SimDisk disk(1);
  LogHarness first(&disk);
  LogHarness second(&disk);
  DYNLIB_ASSERT_OK(first.Open());
  EXPECT_THAT(second.Open(), StatusIs(absl::StatusCode::kAlreadyExists));
}

TEST(NodeLogTest, ALogOfAnotherIdentityIsRefused) {
  SimDisk disk(1);
  LogHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  DYNLIB_ASSERT_OK(h.Append({Entry(1, 1, 1, "x")}));
  h.Kill();
  h.options.identity = 8;
  EXPECT_THAT(h.Open(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                 HasSubstr("belongs to log 7, not to 8")));
}

TEST(NodeLogTest, OtherSegmentSizesAreTakenOver) {
  SimDisk disk(1);
  LogHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  for (int i = 1; i <= 60; ++i) {
    DYNLIB_ASSERT_OK(h.Append({Entry(1, i, 1, std::string(2000, 'x'))}));
  }
  DYNLIB_ASSERT_OK(h.Close());
  h.options.segment_bytes = 128 << 10;
  h.options.block_bytes = 4096;
  DYNLIB_ASSERT_OK(h.Open());
  EXPECT_EQ(Stream(h, 1).entries.size(), 60u);
  for (int i = 61; i <= 200; ++i) {
    DYNLIB_ASSERT_OK(h.Append({Entry(1, i, 1, std::string(2000, 'x'))}));
    h.log->Release(StreamId{1}, i - 50);
  }
  DYNLIB_ASSERT_OK(h.Reopen());
  EXPECT_GE(Stream(h, 1).entries.size(), 50u);
}

// --- Failing disks
// -----------------------------------------------------------------------------------

TEST(NodeLogTest, AFailedSyncIsUnknownAndClosesTheLogForGood) {
  SimDisk disk(1);
  LogHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  DYNLIB_ASSERT_OK(h.Append({Entry(1, 1, 1, "good")}));
  std::vector<absl::StatusCode> answers;
  const auto note = [&](absl::Status s) { answers.push_back(s.code()); };
  h.log->Append({Entry(1, 2, 1, std::string(3000, 'x'))}, &h.caller, note);
  h.log->Append({Entry(1, 3, 1, std::string(3000, 'x'))}, &h.caller, note);
  disk.FailCall(2, sim::DiskFault::kEio);  // The write, then the sync.
  h.Run();
  EXPECT_THAT(answers, ElementsAre(kUnknownOutcome, absl::StatusCode::kUnavailable));
  EXPECT_THAT(h.log->Health(), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(h.Append({Entry(1, 4, 1, "x")}), StatusIs(absl::StatusCode::kUnavailable));
  DYNLIB_ASSERT_OK(h.Reopen());
  EXPECT_EQ(Stream(h, 1).entries.front(), Entry(1, 1, 1, "good"));
  DYNLIB_EXPECT_OK(h.found.DataLoss());
  DYNLIB_EXPECT_OK(h.Append({Entry(1, 3, 1, "x")}));
}

// A kernel that keeps what it failed to sync, and calls it clean: what recovery reports must not go
// when the power does.
TEST(NodeLogTest, WhatRecoveryReportsIsDurableEvenIfOnlyTheCacheHadIt) {
  sim::FaultOptions faults;
  faults.disk_failed_sync_keeps_cache = true;
  SimDisk disk(1, nullptr, &faults);
  LogHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  DYNLIB_ASSERT_OK(h.Append({Entry(1, 1, 1, "good")}));
  faults.disk_failed_sync = 1;
  EXPECT_THAT(h.Append({Entry(1, 2, 1, std::string(3500, 'x'))}), StatusIs(kUnknownOutcome));
  faults.disk_failed_sync = 0;
  DYNLIB_ASSERT_OK(h.Reopen());
  const NodeLog::Recovery first = h.found;
  ASSERT_EQ(Stream(h, 1).entries.size(), 2u);
  h.Kill();
  disk.PowerOff(UnsyncedFate::kAllLost);
  disk.Restart();
  DYNLIB_ASSERT_OK(h.Open());
  EXPECT_EQ(Stream(h, 1).entries, first.streams.at(StreamId{1}).entries);
}

TEST(NodeLogTest, WritesGoOnWhenSpaceIsBack) {
  SimDisk disk(1);
  LogHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  disk.SetFull(true);
  uint64_t slot = 1;
  absl::Status status;
  while ((status = h.Append({Entry(1, slot, 1, std::string(3000, 'x'))})).ok()) ++slot;
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_GT(slot, 15u);
  EXPECT_THAT(h.Append({Entry(1, slot, 1, std::string(3000, 'x'))}),
              StatusIs(absl::StatusCode::kResourceExhausted));
  DYNLIB_EXPECT_OK(h.log->Health());
  disk.SetFull(false);
  DYNLIB_EXPECT_OK(h.Append({Entry(1, slot, 1, "space is back")}));
  DYNLIB_ASSERT_OK(h.Reopen());
  EXPECT_EQ(Stream(h, 1).entries.size(), slot);
  EXPECT_EQ(Stream(h, 1).entries.back(), Entry(1, slot, 1, "space is back"));
}

TEST(NodeLogTest, AFullDiskOpensAndTakesAppendsInItsSpareSegment) {
  SimDisk disk(1);
  LogHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  DYNLIB_ASSERT_OK(h.Append({Entry(1, 1, 1, "x")}));
  disk.SetFull(true);
  DYNLIB_ASSERT_OK(h.Reopen());
  DYNLIB_EXPECT_OK(h.Append({Entry(1, 2, 1, "x")}));
  DYNLIB_ASSERT_OK(h.Reopen());
  EXPECT_EQ(Stream(h, 1).entries.size(), 2u);
}

// --- Space
// -------------------------------------------------------------------------------------------

TEST(NodeLogTest, SegmentsAreRecycled) {
  SimDisk disk(1);
  LogHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  for (uint64_t i = 1; i <= 600; ++i) {
    DYNLIB_ASSERT_OK(h.Append({Entry(1, i, 1, std::string(1500, 'x'))}));
    if (i > 10) h.log->Release(StreamId{1}, i - 10);
  }
  h.Run();
  EXPECT_LE(h.log->GetStats().segments_in_use, 3u);
  EXPECT_GE(h.log->GetStats().segments_recycled, 10u);
  EXPECT_LE(disk.Paths().size(), 5u);
  DYNLIB_ASSERT_OK(h.Reopen());
  EXPECT_EQ(Stream(h, 1).entries.back().slot, 600u);
  EXPECT_LE(Stream(h, 1).entries.size(), 20u);
}

// Rule L6: a stream that releases nothing keeps its own records, not the segments around them.
TEST(NodeLogTest, ALaggardHoldsNobodyBack) {
  SimDisk disk(1);
  LogHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  std::vector<LogRecord> laggard;
  for (uint64_t i = 1; i <= 900; ++i) {
    std::vector<LogRecord> records = {Entry(1, i, 1, std::string(1500, 'x'))};
    if (i % 20 == 0) {
      laggard.push_back(Entry(2, i, 1, "slow" + std::to_string(i)));
      records.push_back(laggard.back());
    }
    DYNLIB_ASSERT_OK(h.Append(std::move(records)));
    if (i > 10) h.log->Release(StreamId{1}, i - 10);
    ASSERT_LE(h.log->GetStats().segments_in_use, 6u);
  }
  EXPECT_GT(h.log->GetStats().copied_forward_records, 0u);
  DYNLIB_ASSERT_OK(h.Reopen());
  EXPECT_EQ(Stream(h, 2).entries, laggard);
}

TEST(NodeLogTest, EntriesAreReadBackOneAfterTheOther) {
  SimDisk disk(1);
  LogHarness h(&disk);
  h.entries = NodeLog::Entries::kLater;
  DYNLIB_ASSERT_OK(h.Open());
  DYNLIB_ASSERT_OK(h.Append({Entry(1, 1, 5, "one"), State(1, 0, 5, "vote")}));
  DYNLIB_ASSERT_OK(h.Append({Entry(1, 3, 5, "three"), Entry(2, 1, 1, "other")}));
  DYNLIB_ASSERT_OK(h.Append({Entry(1, 2, 5, std::string(3000, 'x'))}));
  DYNLIB_ASSERT_OK(h.Append({Entry(1, 3, 6, "higher")}));
  const auto read = [&h](uint64_t after) {
    std::vector<LogRecord> entries;
    DYNLIB_EXPECT_OK(h.log->ReadEntries(StreamId{1}, after, [&](LogRecord entry) {
      entries.push_back(std::move(entry));
      return absl::OkStatus();
    }));
    return entries;
  };
  const std::vector<LogRecord> all = {Entry(1, 1, 5, "one"), Entry(1, 2, 5, std::string(3000, 'x')),
                                      Entry(1, 3, 6, "higher")};
  EXPECT_EQ(read(0), all);
  DYNLIB_ASSERT_OK(h.Reopen());
  EXPECT_THAT(Stream(h, 1).entries, IsEmpty());
  EXPECT_EQ(Stream(h, 1).state, State(1, 0, 5, "vote"));
  EXPECT_EQ(read(0), all);
  EXPECT_THAT(read(1), ElementsAre(all[1], all[2]));
  EXPECT_THAT(read(3), IsEmpty());
  int calls = 0;
  EXPECT_THAT(h.log->ReadEntries(StreamId{1}, 0,
                                 [&](const LogRecord&) {
                                   ++calls;
                                   return absl::AbortedError("enough");
                                 }),
              StatusIs(absl::StatusCode::kAborted));
  EXPECT_EQ(calls, 1);
  h.log->Release(StreamId{1}, 2);
  EXPECT_THAT(read(0), ElementsAre(all[2]));
  DYNLIB_EXPECT_OK(h.log->ReadEntries(StreamId{9}, 0, [](const LogRecord&) {
    return absl::InternalError("there is no such stream");
  }));
}

// While entries are read those to come are copied forward, and their segments are written anew.
TEST(NodeLogTest, EntriesAreReadBackWhileTheyMove) {
  SimDisk disk(1);
  LogHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  uint64_t slot = 0;
  const auto busy = [&](int appends) {
    for (; appends > 0; --appends) {
      ++slot;
      DYNLIB_ASSERT_OK(h.Append({Entry(1, slot, 1, std::string(1500, 'x'))}));
      if (slot > 10) h.log->Release(StreamId{1}, slot - 10);
    }
  };
  std::vector<LogRecord> slow;
  for (uint64_t i = 1; i <= 40; ++i) {
    slow.push_back(Entry(2, i, 1, "slow" + std::to_string(i)));
    DYNLIB_ASSERT_OK(h.Append({slow.back()}));
    busy(5);
  }
  const uint64_t moved = h.log->GetStats().copied_forward_records;
  std::vector<LogRecord> read;
  DYNLIB_ASSERT_OK(h.log->ReadEntries(StreamId{2}, 0, [&](LogRecord entry) {
    read.push_back(std::move(entry));
    busy(60);
    return absl::OkStatus();
  }));
  EXPECT_EQ(read, slow);
  EXPECT_GT(h.log->GetStats().copied_forward_records, moved + 40);
}

TEST(NodeLogTest, AnEntryThatIsDamagedWhereItLiesIsDataLoss) {
  SimDisk disk(1);
  LogHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  DYNLIB_ASSERT_OK(h.Append({Entry(1, 1, 5, "good")}));
  DYNLIB_ASSERT_OK(h.Append({Entry(1, 2, 5, "to be damaged")}));
  const std::string path = "node/log/00000001.seg";
  DYNLIB_ASSERT_OK_AND_ASSIGN(const std::string bytes, Contents(&disk, path));
  const size_t at = bytes.find("to be damaged");
  ASSERT_NE(at, std::string::npos);
  disk.FlipBit(path, 8 * at);
  std::vector<uint64_t> read;
  EXPECT_THAT(h.log->ReadEntries(StreamId{1}, 0,
                                 [&](const LogRecord& entry) {
                                   read.push_back(entry.slot);
                                   return absl::OkStatus();
                                 }),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("checksum")));
  EXPECT_THAT(read, ElementsAre(1));
}

TEST(NodeLogTest, AtTheBoundOnSegmentsAppendsAreRefusedUntilARelease) {
  SimDisk disk(1);
  LogHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  uint64_t slot = 1;
  absl::Status status;
  while ((status = h.Append({Entry(1, slot, 1, std::string(3000, 'x'))})).ok()) ++slot;
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted,
                               AllOf(HasSubstr("max_segments"), HasSubstr("stream 1 retains"))));
  EXPECT_EQ(h.log->GetStats().segments_in_use, 10u);
  EXPECT_LE(disk.Paths().size(), 11u);  // And LOCK.
  h.log->Release(StreamId{1}, slot / 2);
  for (int i = 0; i < 40; ++i) {
    DYNLIB_ASSERT_OK(h.Append({Entry(1, slot++, 1, std::string(3000, 'x'))}));
  }
  DYNLIB_ASSERT_OK(h.Reopen());
  EXPECT_EQ(Stream(h, 1).entries.back().slot, slot - 1);
}

// What a replica must log when it starts would be refused for ever, and with it all that could make
// room.
TEST(NodeLogTest, ALogAtItsBoundTakesAppendsOnceItIsOpenedAgain) {
  SimDisk disk(1);
  LogHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  uint64_t slot = 1;
  while (h.Append({Entry(1, slot, 1, std::string(3000, 'x'))}).ok()) ++slot;
  for (int i = 0; i < 3; ++i) {
    DYNLIB_ASSERT_OK(h.Reopen());
    DYNLIB_EXPECT_OK(h.Append({State(1, slot, 1, "started")}));
    EXPECT_LE(h.log->GetStats().segments_in_use, 12u);
  }
  while (h.Append({Entry(1, slot, 1, std::string(3000, 'x'))}).ok()) ++slot;
  EXPECT_LE(h.log->GetStats().segments_in_use, 12u);
  h.log->Release(StreamId{1}, slot / 2);
  for (int i = 0; i < 40; ++i) {
    DYNLIB_ASSERT_OK(h.Append({Entry(1, slot++, 1, std::string(3000, 'x'))}));
  }
  EXPECT_LE(h.log->GetStats().segments_in_use, 10u);
}

// A drop's mark moves to later segments as its own is freed, behind what was appended after it:
// that must not lose to what was dropped.
TEST(NodeLogTest, ADropThatMovedSparesWhatCameAfterIt) {
  SimDisk disk(1);
  LogHarness h(&disk);
  h.options.copy_forward_above = 6;
  DYNLIB_ASSERT_OK(h.Open());
  uint64_t filler = 0;
  const auto begin_segment = [&] {
    const uint64_t in_use = h.log->GetStats().segments_in_use;
    while (h.log->GetStats().segments_in_use == in_use) {
      DYNLIB_ASSERT_OK(h.Append({Entry(4, ++filler, 1, std::string(1500, 'x'))}));
    }
  };
  // Stream 2 keeps the first segment, in which stream 1 has what is dropped, of a high ballot.
  DYNLIB_ASSERT_OK(h.Append({Entry(2, 1, 1, "keeps"), Entry(1, 1, 9, "dropped")}));
  begin_segment();
  // Stream 3 keeps the second for a while, in which the drop is.
  h.log->Drop(StreamId{1});
  DYNLIB_ASSERT_OK(h.Append({Entry(3, 1, 1, "keeps")}));
  begin_segment();
  DYNLIB_ASSERT_OK(h.Append({Entry(1, 1, 2, "born again")}));
  h.log->Release(StreamId{3}, 1);
  h.log->Release(StreamId{4}, filler);
  h.Run();
  EXPECT_EQ(h.log->GetStats().segments_recycled, 1u) << "the second";
  DYNLIB_ASSERT_OK(h.Reopen());
  EXPECT_THAT(Stream(h, 1).entries, ElementsAre(Entry(1, 1, 2, "born again")));
}

NodeLog::Options SmallArchive() {
  NodeLog::Options options = SmallLog();
  options.max_unarchived_bytes = 8192;
  return options;
}

TEST(NodeLogTest, AtRestALogThatHoldsNothingIsSmall) {
  SimDisk disk(1);
  LogHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  const auto bytes = [&] {
    uint64_t sum = 0;
    for (const std::string& path : disk.Paths()) {
      if (path.ends_with(".seg")) sum += disk.ReadRaw(path).size();
    }
    return sum;
  };
  const auto append = [&](uint64_t slot) {
    return h.Append({Entry(1, slot, 1, std::string(1000, 'x'))});
  };
  for (uint64_t slot = 1; slot <= 100; ++slot) DYNLIB_ASSERT_OK(append(slot));
  h.log->ReleaseSpace();  // All is needed: only the spare goes.
  h.Run();
  EXPECT_EQ(h.log->GetStats().segments_spare, 0);
  EXPECT_GT(bytes(), 100'000);

  h.log->Release(StreamId{1}, 100);
  h.log->ReleaseSpace();
  h.Run();
  EXPECT_EQ(h.log->GetStats().segments_in_use, 1);
  EXPECT_LE(bytes(), SmallLog().segment_bytes / 4);

  for (uint64_t slot = 101; slot <= 130; ++slot) DYNLIB_ASSERT_OK(append(slot));
  EXPECT_EQ(h.log->GetStats().segments_spare, SmallLog().spare_segments);
  DYNLIB_ASSERT_OK(h.Reopen());
  ASSERT_EQ(h.found.streams[StreamId{1}].entries.size(), 30);
  EXPECT_EQ(h.found.streams[StreamId{1}].entries.front().slot, 101);
}

// Appends to stream 1, behind `slot`, until so much was written since the log's open.
void FillTo(LogHarness& h, uint64_t& slot, uint64_t bytes) {
  while (h.log->GetStats().written_bytes < bytes)
    DYNLIB_ASSERT_OK(h.Append({Entry(1, ++slot, 1, std::string(3000, 'x'))}));
}

// What the disk does for a spare, appends wait for: not all at once, and not before it is needed.
TEST(NodeLogTest, ASpareIsReadyWhenHalfOfTheSegmentIsFull) {
  SimDisk disk(1);
  NodeLog::Options options = SmallLog();
  options.segment_bytes = 4 << 20;
  options.spares_at_open = 0;
  LogHarness h(&disk, options);
  DYNLIB_ASSERT_OK(h.Open());
  uint64_t slot = 0;
  FillTo(h, slot, options.segment_bytes / 4);
  EXPECT_EQ(h.log->GetStats().segments_spare, 0);
  FillTo(h, slot, options.segment_bytes / 2);
  EXPECT_EQ(h.log->GetStats().segments_spare, 1);
}

TEST(NodeLogTest, OfManySparesTwoAreMadeInTheTimeOfASegment) {
  SimDisk disk(1);
  NodeLog::Options options = SmallLog();
  options.segment_bytes = 4 << 20;
  options.spares_at_open = 0;
  options.spare_segments = 4;
  LogHarness h(&disk, options);
  DYNLIB_ASSERT_OK(h.Open());
  uint64_t slot = 0;
  const auto spares_after = [&](double segments) {
    FillTo(h, slot, static_cast<uint64_t>(segments * static_cast<double>(options.segment_bytes)));
    return h.log->GetStats().segments_spare;
  };
  EXPECT_EQ(spares_after(0.25), 0);
  EXPECT_EQ(spares_after(0.6), 1);
  EXPECT_EQ(spares_after(0.95), 1);
  EXPECT_EQ(spares_after(1.25), 1);  // One of two was taken.
  EXPECT_EQ(spares_after(1.6), 2);
}

TEST(NodeLogTest, SparesWantedAtAnOpenAreThereBeforeTheFirstAppend) {
  SimDisk disk(1);
  NodeLog::Options options = SmallLog();
  options.segment_bytes = 4 << 20;
  options.spare_segments = 3;
  options.spares_at_open = 2;
  LogHarness h(&disk, options);
  DYNLIB_ASSERT_OK(h.Open());
  h.Run();
  EXPECT_EQ(h.log->GetStats().segments_spare, 3);  // One of them for the first append.
  DYNLIB_ASSERT_OK(h.Append({Entry(1, 1, 1, "x")}));
  DYNLIB_ASSERT_OK(h.Reopen());
  h.Run();
  EXPECT_GE(h.log->GetStats().segments_spare, 2);
}

TEST(NodeLogTest, BehindTheFirstSegmentTheNextIsMadeAtOnce) {
  SimDisk disk(1);
  NodeLog::Options options = SmallLog();
  options.segment_bytes = 4 << 20;
  LogHarness h(&disk, options);
  DYNLIB_ASSERT_OK(h.Open());
  DYNLIB_ASSERT_OK(h.Append({Entry(1, 1, 1, "x")}));
  h.Run();
  EXPECT_EQ(h.log->GetStats().segments_spare, 1);
}

TEST(NodeLogTest, BehindASmallSegmentASpareIsReadyAsSoon) {
  SimDisk disk(1);
  NodeLog::Options options = SmallLog();
  options.segment_bytes = 16 << 20;
  options.spares_at_open = 0;
  LogHarness h(&disk, options);
  DYNLIB_ASSERT_OK(h.Open());
  DYNLIB_ASSERT_OK(h.Append({Entry(1, 1, 1, "x")}));
  h.log->Release(StreamId{1}, 1);
  h.log->ReleaseSpace();
  h.Run();
  const uint64_t before = h.log->GetStats().written_bytes;
  uint64_t slot = 1;
  FillTo(h, slot, before + (600 << 10));
  EXPECT_EQ(h.log->GetStats().segments_spare, 1);
}

TEST(NodeLogTest, AnArchivedStreamIsRefusedAtItsBoundUntilTheArchiveHasMore) {
  SimDisk disk(1);
  LogHarness h(&disk, SmallArchive());
  DYNLIB_ASSERT_OK(h.Open());
  h.log->SetArchived(StreamId{1}, 0);
  uint64_t slot = 1;
  absl::Status status;
  while ((status = h.Append({Entry(1, slot, 1, std::string(1000, 'x'))})).ok()) ++slot;
  EXPECT_EQ(slot - 1, 8u);  // Of 1,080 bytes each.
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted,
                               AllOf(HasSubstr("stream 1"), HasSubstr("8640 bytes"),
                                     HasSubstr("max_unarchived_bytes is 8192"))));
  EXPECT_EQ(h.log->UnarchivedBytes(StreamId{1}), 8640u);
  EXPECT_EQ(h.log->GetStats().refused_unarchived, 1u);
  EXPECT_EQ(h.log->GetStats().full_streams, 1u);
  // A vote is no entry, and another stream is another's business.
  DYNLIB_EXPECT_OK(h.Append({State(1, 0, 7, "vote")}));
  DYNLIB_EXPECT_OK(h.Append({Entry(2, 1, 1, std::string(3000, 'x'))}));
  h.log->SetArchived(StreamId{1}, 1);
  EXPECT_EQ(h.log->UnarchivedBytes(StreamId{1}), 7560u);
  DYNLIB_EXPECT_OK(h.Append({Entry(1, slot++, 1, std::string(1000, 'x'))}));
  EXPECT_THAT(h.Append({Entry(1, slot, 1, "x")}), StatusIs(absl::StatusCode::kResourceExhausted));
  // What is released is the log's no more, archived or not.
  h.log->Release(StreamId{1}, 5);
  DYNLIB_EXPECT_OK(h.Append({Entry(1, slot, 1, "x")}));
  // Who opens the log says it again.
  DYNLIB_ASSERT_OK(h.Reopen());
  EXPECT_EQ(h.log->UnarchivedBytes(StreamId{1}), 0u);
  h.log->SetArchived(StreamId{1}, 7);
  EXPECT_EQ(h.log->UnarchivedBytes(StreamId{1}), 2 * 1080u + 81);
}

TEST(NodeLogTest, StatsNameWhoHoldsTheLog) {
  SimDisk disk(1);
  LogHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  EXPECT_EQ(h.log->GetStats().largest_stream, StreamId{0});
  for (uint64_t i = 1; i <= 20; ++i) {
    DYNLIB_ASSERT_OK(h.Append({Entry(3, i, 1, std::string(1500, 'c'))}));
  }
  for (uint64_t i = 1; i <= 80; ++i) {
    DYNLIB_ASSERT_OK(h.Append({Entry(4, i, 1, std::string(1500, 'x'))}));
  }
  const NodeLog::Stats stats = h.log->GetStats();
  EXPECT_EQ(stats.largest_stream, StreamId{4});
  EXPECT_EQ(stats.largest_stream_bytes, h.log->RetainedBytes(StreamId{4}));
  h.log->Release(StreamId{4}, 60);
  h.Run();
  EXPECT_EQ(h.log->GetStats().oldest_stream, StreamId{3});
  EXPECT_EQ(h.log->GetStats().oldest_stream_bytes, 20 * 1580u);
}

// A stale frame of a slot must not outlive the frame that superseded it, nor the release that
// outlawed it, through any amount of recycling.
TEST(NodeLogTest, MarksOutliveTheSegmentsThatTheyWereWrittenIn) {
  SimDisk disk(1);
  LogHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  // Stream 2 fills half of the first segment and keeps it; stream 1 has stale frames in it.
  for (uint64_t i = 1; i <= 12; ++i) {
    DYNLIB_ASSERT_OK(h.Append({Entry(2, i, 1, std::string(3000, 'k'))}));
  }
  DYNLIB_ASSERT_OK(h.Append({Entry(1, 1, 1, "stale"), Entry(3, 1, 1, "dropped")}));
  for (uint64_t i = 1; i <= 400; ++i) {
    DYNLIB_ASSERT_OK(h.Append({Entry(4, i, 1, std::string(1500, 'x'))}));
    if (i == 100) {
      DYNLIB_ASSERT_OK(h.Append({Entry(1, 1, 2, "newer")}));
    }
    if (i == 150) h.log->Release(StreamId{1}, 1);
    if (i == 160) h.log->Drop(StreamId{3});
    h.log->Release(StreamId{4}, i);
  }
  DYNLIB_ASSERT_OK(h.Reopen());
  EXPECT_EQ(Stream(h, 2).entries.size(), 12u);
  EXPECT_THAT(Stream(h, 1).entries, IsEmpty());
  EXPECT_THAT(Stream(h, 3).entries, IsEmpty());
}

}  // namespace
}  // namespace dynlib::store
