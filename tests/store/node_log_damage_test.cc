// Damage of every kind: the right value, or unknown, or lost, or kDataLoss; never a wrong value and
// never silence (rules R4 and L2).
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/sim/disk.h"
#include "dynlib/sim/file_image.h"
#include "dynlib/store/node_log.h"
#include "dynlib/store/node_log_record.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/store/log_harness.h"
#include "tests/store/log_workload.h"

namespace dynlib::store {
namespace {

using sim::SimDisk;
using testing::AllOf;
using testing::ContainsRegex;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

using Unknown = NodeLog::RecoveredStream::Unknown;
using Files = std::map<std::string, std::string>;

constexpr uint64_t kBlock = 512;
const char kFirst[] = "node/log/00000001.seg";

Files Copy(const SimDisk& disk) {
  Files files;
  for (const std::string& path : disk.Paths()) files[path] = disk.ReadRaw(path);
  return files;
}

std::unique_ptr<SimDisk> DiskWith(const Files& files) {
  auto disk = std::make_unique<SimDisk>(1);
  EXPECT_THAT(disk->CreateDir("node/log"), IsOk());
  for (const auto& [path, bytes] : files) {
    auto file = disk->Open(path, OpenMode::kCreate);
    EXPECT_THAT(file, IsOk());
    EXPECT_THAT((*file)->WriteAt(0, bytes), IsOk());
    EXPECT_THAT((*file)->Sync(), IsOk());
  }
  EXPECT_THAT(disk->SyncDir("node/log"), IsOk());
  return disk;
}

// Six batches of a block each: two streams, states, a release.
struct Example {
  LogModel model;
  Files files;
  uint64_t used_bytes = 0;

  explicit Example(bool clean_close) {
    SimDisk disk(1);
    LogHarness h(&disk);
    EXPECT_THAT(h.Open(), IsOk());
    for (uint64_t i = 1; i <= 6; ++i) {
      std::vector<LogRecord> records = {Entry(1 + i % 2, i, i, "payload " + std::to_string(i))};
      if (i % 3 == 0) records.push_back(State(1, i, 0, "state " + std::to_string(i)));
      const size_t append = model.Submit(records);
      model.Settle(append, h.Append(std::move(records)));
      if (i == 4) {
        model.Release(1, 2);
        h.log->Release(StreamId{1}, 2);
      }
    }
    used_bytes = kBlock + h.log->GetStats().written_bytes;
    if (clean_close) {
      EXPECT_THAT(h.Close(), IsOk());
    }
    h.Kill();
    files = Copy(disk);
  }
};

TEST(NodeLogDamageTest, EveryByteFlippedNeverGivesAWrongValue) {
  for (bool clean_close : {false, true}) {
    Example example(clean_close);
    for (uint64_t at = 0; at < example.used_bytes; ++at) {
      Files files = example.files;
      files[kFirst][at] = static_cast<char>(files[kFirst][at] ^ (1 << at % 8));
      std::unique_ptr<SimDisk> disk = DiskWith(files);
      LogHarness h(disk.get());
      ASSERT_THAT(h.Open(), IsOk()) << at;
      example.model.Check(h.found, /*damage_allowed=*/true);
      EXPECT_EQ(h.found.lost_batches, 0u) << "one damaged byte leaves header or trailer";
      bool unknown = false;
      for (const auto& [id, stream] : h.found.streams) unknown |= !stream.unknown.empty();
      if (unknown && clean_close) {
        EXPECT_THAT(h.found.DataLoss(), StatusIs(absl::StatusCode::kDataLoss)) << at;
      }
      ASSERT_FALSE(HasFailure()) << "byte " << at << (clean_close ? " after a clean close" : "");
    }
  }
}

// Spares, and what no batch has reached yet.
TEST(NodeLogDamageTest, AByteFlippedWhereNothingIsChangesNothing) {
  Example example(/*clean_close=*/true);
  uint64_t flips = 0;
  for (const auto& [path, bytes] : example.files) {
    for (uint64_t at = path == kFirst ? example.used_bytes + kBlock : 0; at < bytes.size();
         at += 89) {
      Files files = example.files;
      files[path][at] = static_cast<char>(files[path][at] ^ (1 << at % 8));
      std::unique_ptr<SimDisk> disk = DiskWith(files);
      LogHarness h(disk.get());
      ASSERT_THAT(h.Open(), IsOk()) << path << " " << at;
      example.model.Check(h.found);
      ASSERT_FALSE(HasFailure()) << path << " byte " << at;
      ++flips;
    }
  }
  EXPECT_GT(flips, 1000u);
}

// Several segments in use, of which some had earlier lives, with copies and marks.
TEST(NodeLogDamageTest, BytesFlippedInALogThatWasRecycledNeverGiveAWrongValue) {
  SimDisk first(11);
  LogModel model;
  {
    LogHarness h(&first, BusyLog());
    DYNLIB_ASSERT_OK(h.Open());
    LogWorkload(&h, &model, 11).Run(160, first);
    for (uint64_t slot = 1; slot <= 60; ++slot) {
      const size_t append = model.Submit({Entry(8, slot, 1, std::string(2000, 'x'))});
      model.Settle(append, h.Append({Entry(8, slot, 1, std::string(2000, 'x'))}));
    }
    EXPECT_GT(h.log->GetStats().copied_forward_records, 0u);
    EXPECT_GT(h.log->GetStats().segments_recycled, 1u);
    EXPECT_GT(h.log->GetStats().segments_in_use, 1u);
    DYNLIB_ASSERT_OK(h.Close());
  }
  const Files good = Copy(first);
  for (uint64_t start = 0; start < 6; ++start) {
    for (const auto& [path, bytes] : good) {
      for (uint64_t at = start * 71; at < bytes.size(); at += 467) {
        Files files = good;
        files[path][at] = static_cast<char>(files[path][at] ^ (1 << at % 8));
        std::unique_ptr<SimDisk> disk = DiskWith(files);
        LogHarness h(disk.get(), BusyLog());
        ASSERT_THAT(h.Open(), IsOk()) << path << " " << at;
        model.Check(h.found, /*damage_allowed=*/true);
        ASSERT_FALSE(HasFailure()) << path << " byte " << at;
      }
    }
  }
}

// Whole blocks gone, header and trailer alike; also with the segment's header.
TEST(NodeLogDamageTest, EveryBatchWipedIsNoticed) {
  Example example(/*clean_close=*/true);
  for (uint64_t at = 0; at < example.used_bytes; at += kBlock) {
    for (bool wipe_segment_header : {false, true}) {
      Files files = example.files;
      files[kFirst].replace(at, kBlock, kBlock, '\0');
      if (wipe_segment_header) files[kFirst].replace(0, kBlock, kBlock, '\0');
      std::unique_ptr<SimDisk> disk = DiskWith(files);
      LogHarness h(disk.get());
      ASSERT_THAT(h.Open(), IsOk()) << at;
      example.model.Check(h.found, /*damage_allowed=*/true);
      EXPECT_EQ(h.found.lost_batches, at == 0 ? 0u : 1u) << at;
      ASSERT_FALSE(HasFailure()) << "block at " << at;
    }
  }
}

TEST(NodeLogDamageTest, ADeletedSegmentIsNoticed) {
  SimDisk disk(1);
  LogHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  for (uint64_t i = 1; i <= 60; ++i) {
    DYNLIB_ASSERT_OK(h.Append({Entry(1, i, 1, std::string(2000, 'x'))}));
  }
  DYNLIB_ASSERT_OK(h.Close());
  DYNLIB_ASSERT_OK(disk.Remove("node/log/00000002.seg"));
  DYNLIB_ASSERT_OK(h.Open());
  EXPECT_GT(h.found.lost_batches, 0u);
  EXPECT_TRUE(h.found.streams.at(StreamId{1}).lost_batch);
}

TEST(NodeLogDamageTest, ATruncatedSegmentIsNoticed) {
  Example example(/*clean_close=*/false);
  Files files = example.files;
  files[kFirst].resize(example.used_bytes - kBlock);
  std::unique_ptr<SimDisk> disk = DiskWith(files);
  LogHarness h(disk.get());
  DYNLIB_ASSERT_OK(h.Open());
  EXPECT_TRUE(h.found.streams.at(StreamId{1}).lost_batch);
  EXPECT_TRUE(h.found.streams.at(StreamId{2}).lost_batch);
}

// Three appends, of which the second has both payloads damaged.
class UnknownTest : public testing::Test {
 protected:
  UnknownTest() : disk_(1), h_(&disk_) {
    EXPECT_THAT(h_.Open(), IsOk());
    EXPECT_THAT(h_.Append({Entry(1, 1, 3, "one")}), IsOk());
    EXPECT_THAT(h_.Append({Entry(1, 2, 3, "two"), State(2, 8, 9, "vote")}), IsOk());
    EXPECT_THAT(h_.Append({Entry(1, 3, 3, "three")}), IsOk());
    h_.Kill();
    const size_t at = disk_.ReadRaw(kFirst).find("twovote");
    disk_.FlipBit(kFirst, 8 * at);
    disk_.FlipBit(kFirst, 8 * (at + 3));
    EXPECT_THAT(h_.Open(), IsOk());
  }
  const NodeLog::RecoveredStream& Found(uint64_t stream) {
    return h_.found.streams[StreamId{stream}];
  }
  void ExpectUnknown() {
    EXPECT_THAT(Found(1).unknown, ElementsAre(Unknown{2, 3, RecordKind::kEntry}));
    EXPECT_THAT(Found(1).entries, ElementsAre(Entry(1, 1, 3, "one"), Entry(1, 3, 3, "three")));
    EXPECT_THAT(Found(2).unknown, ElementsAre(Unknown{8, 9, RecordKind::kState}));
    EXPECT_EQ(Found(2).state, std::nullopt);
  }

  SimDisk disk_;
  LogHarness h_;
};

TEST_F(UnknownTest, SurvivesFurtherCrashesAndCloses) {
  ExpectUnknown();
  EXPECT_THAT(h_.found.DataLoss(), StatusIs(absl::StatusCode::kDataLoss));
  DYNLIB_ASSERT_OK(h_.Reopen());
  ExpectUnknown();
  DYNLIB_ASSERT_OK(h_.Append({Entry(3, 1, 1, "other")}));
  DYNLIB_ASSERT_OK(h_.Reopen());
  ExpectUnknown();
  DYNLIB_ASSERT_OK(h_.Close());
  DYNLIB_ASSERT_OK(h_.Open());
  ExpectUnknown();
}

TEST_F(UnknownTest, SurvivesCopyingForward) {
  for (uint64_t i = 1; i <= 400; ++i) {
    DYNLIB_ASSERT_OK(h_.Append({Entry(4, i, 1, std::string(1500, 'x'))}));
    h_.log->Release(StreamId{4}, i);
    if (i % 30 == 0) {
      DYNLIB_ASSERT_OK(h_.Append({Entry(5, i, 1, "laggard")}));
    }
  }
  EXPECT_GT(h_.log->GetStats().copied_forward_records, 0u);
  DYNLIB_ASSERT_OK(h_.Reopen());
  ExpectUnknown();
  DYNLIB_EXPECT_OK(h_.found.DataLoss());  // The damaged segment is gone.
}

TEST_F(UnknownTest, IsSettledByAnAppendAtAnyBallot) {
  DYNLIB_ASSERT_OK(h_.Append({Entry(1, 2, 1, "fetched"), State(2, 1, 1, "new vote")}));
  DYNLIB_ASSERT_OK(h_.Reopen());
  EXPECT_THAT(Found(1).unknown, IsEmpty());
  EXPECT_EQ(Found(1).entries[1], Entry(1, 2, 1, "fetched"));
  EXPECT_THAT(Found(2).unknown, IsEmpty());
  EXPECT_EQ(Found(2).state, State(2, 1, 1, "new vote"));
}

TEST_F(UnknownTest, IsSettledByReleaseAndDrop) {
  h_.log->Release(StreamId{1}, 2);
  h_.log->Drop(StreamId{2});
  DYNLIB_ASSERT_OK(h_.Append({Entry(3, 1, 1, "other")}));
  DYNLIB_ASSERT_OK(h_.Reopen());
  EXPECT_THAT(Found(1).unknown, IsEmpty());
  EXPECT_THAT(Found(2).unknown, IsEmpty());
}

// What is copied forward is no news: it does not settle what a later batch left unknown.
TEST(NodeLogDamageTest, CopyingAnOlderRecordDoesNotSettleTheUnknown) {
  SimDisk disk(1);
  LogHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  DYNLIB_ASSERT_OK(h.Append({Entry(1, 2, 1, "older"), State(1, 0, 1, "old vote")}));
  uint64_t filler = 0;
  while (h.log->GetStats().segments_in_use < 2) {
    DYNLIB_ASSERT_OK(h.Append({Entry(4, ++filler, 1, std::string(1500, 'x'))}));
  }
  DYNLIB_ASSERT_OK(h.Append({Entry(1, 2, 3, "newer"), State(1, 0, 3, "new vote")}));
  for (uint64_t i = 1; i <= 30; ++i) {  // Keeps the second segment from being copied.
    DYNLIB_ASSERT_OK(h.Append({Entry(6, i, 1, std::string(1500, 'k'))}));
  }
  h.Kill();
  const char second[] = "node/log/00000002.seg";
  const size_t at = disk.ReadRaw(second).find("newernew vote");
  disk.FlipBit(second, 8 * at);
  disk.FlipBit(second, 8 * (at + 5));
  DYNLIB_ASSERT_OK(h.Open());
  h.log->Release(StreamId{4}, filler);
  for (uint64_t i = 1; i <= 300; ++i) {
    DYNLIB_ASSERT_OK(h.Append({Entry(5, i, 1, std::string(1500, 'x'))}));
    h.log->Release(StreamId{5}, i);
    if (i % 30 == 0) {
      DYNLIB_ASSERT_OK(h.Append({Entry(7, i, 1, "laggard")}));
    }
  }
  EXPECT_GT(h.log->GetStats().copied_forward_records, 0u);
  DYNLIB_ASSERT_OK(h.Reopen());
  const NodeLog::RecoveredStream& stream = h.found.streams.at(StreamId{1});
  EXPECT_THAT(stream.entries, ElementsAre(Entry(1, 2, 1, "older")));
  EXPECT_EQ(stream.state, State(1, 0, 1, "old vote"));
  EXPECT_THAT(stream.unknown,
              ElementsAre(Unknown{2, 3, RecordKind::kEntry}, Unknown{0, 3, RecordKind::kState}));
}

TEST(NodeLogDamageTest, ALossIsRememberedForTheStreamsThatWereThere) {
  Example example(/*clean_close=*/false);
  Files files = example.files;
  files[kFirst].replace(3 * kBlock, kBlock, kBlock, '\0');
  std::unique_ptr<SimDisk> disk = DiskWith(files);
  LogHarness h(disk.get());
  DYNLIB_ASSERT_OK(h.Open());
  EXPECT_TRUE(h.found.streams.at(StreamId{1}).lost_batch);
  EXPECT_TRUE(h.found.streams.at(StreamId{2}).lost_batch);
  DYNLIB_ASSERT_OK(h.Append({Entry(3, 1, 1, "born later")}));
  h.log->Drop(StreamId{2});
  h.Run();
  for (int i = 0; i < 2; ++i) {
    DYNLIB_ASSERT_OK(h.Reopen());
    EXPECT_EQ(h.found.lost_batches, 0u) << "known already";
    EXPECT_TRUE(h.found.streams.at(StreamId{1}).lost_batch);
    EXPECT_FALSE(h.found.streams.contains(StreamId{2}));
    EXPECT_FALSE(h.found.streams.at(StreamId{3}).lost_batch);
    DYNLIB_ASSERT_OK(h.Append({Entry(3, 2 + i, 1, "x")}));
  }
  // Also when the damaged segment is long gone.
  for (uint64_t i = 1; i <= 400; ++i) {
    DYNLIB_ASSERT_OK(h.Append({Entry(4, i, 1, std::string(1500, 'x'))}));
    h.log->Release(StreamId{4}, i);
    if (i % 30 == 0) {
      DYNLIB_ASSERT_OK(h.Append({Entry(5, i, 1, "laggard")}));
    }
  }
  DYNLIB_ASSERT_OK(h.Reopen());
  EXPECT_TRUE(h.found.streams.at(StreamId{1}).lost_batch);
  EXPECT_FALSE(h.found.streams.at(StreamId{3}).lost_batch);
}

// A torn batch is not held against the log a second time, once other batches follow it.
TEST(NodeLogDamageTest, AKnownTearIsNotCorruption) {
  SimDisk disk(1);
  LogHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  DYNLIB_ASSERT_OK(h.Append({Entry(1, 1, 1, "one")}));
  DYNLIB_ASSERT_OK(h.Append({Entry(1, 2, 1, "torn")}));
  h.Kill();
  disk.FlipBit(kFirst, 8 * disk.ReadRaw(kFirst).find("torn"));
  for (int i = 0; i < 3; ++i) {
    DYNLIB_ASSERT_OK(h.Reopen());
    DYNLIB_EXPECT_OK(h.found.DataLoss());
    EXPECT_EQ(h.found.torn_batches, i == 0 ? 1u : 0u);
    EXPECT_THAT(h.found.streams.at(StreamId{1}).unknown,
                ElementsAre(Unknown{2, 1, RecordKind::kEntry}));
    DYNLIB_ASSERT_OK(h.Append({Entry(2, 1 + i, 1, "x")}));
  }
}

// Notes of what is no loss, or older, may come before it, and be more than are kept.
TEST(NodeLogDamageTest, DataLossNamesWhatIsDamagedAndNothingElse) {
  SimDisk disk(1);
  LogHarness h(&disk);
  DYNLIB_ASSERT_OK(h.Open());
  DYNLIB_ASSERT_OK(h.Append({Entry(1, 1, 1, "torn")}));
  h.Kill();
  disk.FlipBit(kFirst, 8 * disk.ReadRaw(kFirst).find("torn"));
  DYNLIB_ASSERT_OK(h.Reopen());
  DYNLIB_ASSERT_OK(h.Append({Entry(1, 2, 1, "damaged")}));
  DYNLIB_ASSERT_OK(h.Append({Entry(1, 3, 1, "whole")}));
  h.Kill();
  std::string damaged;
  for (const std::string& path : disk.Paths()) {
    const size_t at = disk.ReadRaw(path).find("damaged");
    if (at == std::string::npos) continue;
    damaged = path;
    disk.FlipBit(path, 8 * at);
  }
  DYNLIB_ASSERT_OK(h.Reopen());
  ASSERT_THAT(h.found.notes.front(), HasSubstr("torn by an earlier recovery"));
  EXPECT_THAT(h.found.DataLoss(),
              StatusIs(absl::StatusCode::kDataLoss,
                       AllOf(HasSubstr(damaged), HasSubstr("stream 1 slot 2"),
                             ContainsRegex("offset [0-9]+ has checksum 0x[0-9a-f]{16}, its listing "
                                           "says 0x[0-9a-f]{16}"))));
}

}  // namespace
}  // namespace dynlib::store
