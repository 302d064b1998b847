// What a Store refuses to open, and leaves as it is.
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "dynlib/base/checksum.h"
#include "dynlib/base/coding.h"
#include "dynlib/sim/disk.h"
#include "dynlib/store/log_format.h"
#include "dynlib/store/page.h"
#include "dynlib/store/store.h"
#include "dynlib/store/store_folder.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/store/store_harness.h"

namespace dynlib::store {
namespace {

using absl::StatusCode;
using sim::SimDisk;
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
  disk.WriteRaw("db/STORE", 0, EncodeStoreMark(kStoreVersion + 1));
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
    refuses(StatusCode::kFailedPrecondition, "version");
    disk.WriteRaw(path, 0, segment);
    ++segments;
  }
  EXPECT_GT(segments, 0);
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

}  // namespace
}  // namespace dynlib::store
