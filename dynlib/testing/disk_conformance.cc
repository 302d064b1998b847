#include "dynlib/testing/disk_conformance.h"

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/random.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"

namespace dynlib {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr auto kNotFound = absl::StatusCode::kNotFound;
constexpr auto kAlreadyExists = absl::StatusCode::kAlreadyExists;
constexpr auto kInvalidArgument = absl::StatusCode::kInvalidArgument;

absl::StatusOr<std::string> Read(File& file, uint64_t offset, size_t size) {
  std::string bytes(size, '?');
  DYNLIB_RETURN_IF_ERROR(file.ReadAt(offset, bytes));
  return bytes;
}

absl::StatusOr<std::string> ReadWhole(Disk* disk, std::string_view path) {
  DYNLIB_ASSIGN_OR_RETURN(const std::unique_ptr<File> file, disk->Open(path, OpenMode::kRead));
  DYNLIB_ASSIGN_OR_RETURN(const uint64_t size, file->Size());
  return Read(*file, 0, size);
}

// Creates the file, writes and syncs it, not its name.
absl::Status WriteFile(Disk* disk, std::string_view path, std::string_view data) {
  DYNLIB_ASSIGN_OR_RETURN(const std::unique_ptr<File> file, disk->Open(path, OpenMode::kCreate));
  DYNLIB_RETURN_IF_ERROR(file->WriteAt(0, data));
  return file->Sync();
}

TEST_P(DiskConformance, ReadsBackWhatWasWritten) {
  env_->RunBlocking([&] {
    DYNLIB_ASSERT_OK_AND_ASSIGN(const auto file, env_->disk()->Open("f", OpenMode::kCreate));
    EXPECT_THAT(file->Size(), IsOkAndHolds(0u));
    DYNLIB_ASSERT_OK(file->WriteAt(0, "hello world"));
    DYNLIB_ASSERT_OK(file->WriteAt(6, "there"));
    EXPECT_THAT(Read(*file, 0, 11), IsOkAndHolds("hello there"));
    EXPECT_THAT(Read(*file, 4, 3), IsOkAndHolds("o t"));
    DYNLIB_ASSERT_OK(file->Sync());
    EXPECT_THAT(Read(*file, 0, 11), IsOkAndHolds("hello there"));
    EXPECT_THAT(file->Size(), IsOkAndHolds(11u));
  });
}

TEST_P(DiskConformance, AGapReadsAsZeros) {
  env_->RunBlocking([&] {
    DYNLIB_ASSERT_OK_AND_ASSIGN(const auto file, env_->disk()->Open("f", OpenMode::kCreate));
    DYNLIB_ASSERT_OK(file->WriteAt(5000, "end"));
    EXPECT_THAT(file->Size(), IsOkAndHolds(5003u));
    EXPECT_THAT(Read(*file, 0, 5003), IsOkAndHolds(std::string(5000, '\0') + "end"));
  });
}

TEST_P(DiskConformance, AReadPastTheEndFailsAndNamesFileAndOffset) {
  env_->RunBlocking([&] {
    DYNLIB_ASSERT_OK_AND_ASSIGN(const auto file, env_->disk()->Open("short", OpenMode::kCreate));
    DYNLIB_ASSERT_OK(file->WriteAt(0, "1234"));
    EXPECT_THAT(Read(*file, 2, 3), StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("short")));
    EXPECT_THAT(Read(*file, 7654, 1), StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("7654")));
    EXPECT_THAT(Read(*file, 2, 2), IsOkAndHolds("34"));
  });
}

TEST_P(DiskConformance, OffsetsThatNoFileHasAreRefused) {
  env_->RunBlocking([&] {
    DYNLIB_ASSERT_OK_AND_ASSIGN(const auto file, env_->disk()->Open("f", OpenMode::kCreate));
    EXPECT_FALSE(file->WriteAt(UINT64_MAX - 1, "abc").ok());
    EXPECT_FALSE(Read(*file, UINT64_MAX - 1, 3).ok());
    EXPECT_THAT(file->Size(), IsOkAndHolds(0u));
  });
}

TEST_P(DiskConformance, EmptyReadsAndWrites) {
  env_->RunBlocking([&] {
    DYNLIB_ASSERT_OK_AND_ASSIGN(const auto file, env_->disk()->Open("f", OpenMode::kCreate));
    DYNLIB_EXPECT_OK(file->WriteAt(0, ""));
    DYNLIB_EXPECT_OK(file->ReadAt(0, std::span<char>()));
    EXPECT_THAT(file->Size(), IsOkAndHolds(0u));
  });
}

TEST_P(DiskConformance, RandomWritesAgainstAString) {
  env_->RunBlocking([&] {
    DYNLIB_ASSERT_OK_AND_ASSIGN(const auto file, env_->disk()->Open("f", OpenMode::kCreate));
    Random random(17);
    std::string model;
    for (int step = 0; step < 300; ++step) {
      const uint64_t offset = random.Below(9000);
      const std::string data(random.Below(1500), static_cast<char>('a' + step % 26));
      const uint64_t kind = random.Below(10);
      if (kind == 0) {
        DYNLIB_ASSERT_OK(file->Truncate(offset));
        model.resize(offset, '\0');
      } else if (kind == 1) {
        DYNLIB_ASSERT_OK(file->Sync());
      } else if (kind == 2) {
        DYNLIB_ASSERT_OK(file->Allocate(offset, data.size() + 1));
        model.resize(std::max(model.size(), offset + data.size() + 1), '\0');
      } else if (!data.empty()) {
        DYNLIB_ASSERT_OK(file->WriteAt(offset, data));
        model.resize(std::max(model.size(), offset + data.size()), '\0');
        model.replace(offset, data.size(), data);
      }
      ASSERT_THAT(file->Size(), IsOkAndHolds(model.size())) << "step " << step;
      DYNLIB_ASSERT_OK_AND_ASSIGN(const std::string got, Read(*file, 0, model.size()));
      ASSERT_TRUE(got == model) << "step " << step;
      const size_t from = random.Below(model.size() + 1);
      const size_t size = random.Below(model.size() - from + 1);
      ASSERT_THAT(Read(*file, from, size), IsOkAndHolds(model.substr(from, size)));
    }
  });
}

TEST_P(DiskConformance, TruncateCutsAndExtendsWithZeros) {
  env_->RunBlocking([&] {
    DYNLIB_ASSERT_OK_AND_ASSIGN(const auto file, env_->disk()->Open("f", OpenMode::kCreate));
    DYNLIB_ASSERT_OK(file->WriteAt(0, "abcdef"));
    DYNLIB_ASSERT_OK(file->Truncate(2));
    DYNLIB_ASSERT_OK(file->Truncate(4));
    EXPECT_THAT(Read(*file, 0, 4), IsOkAndHolds(std::string("ab\0\0", 4)));
    EXPECT_THAT(file->Size(), IsOkAndHolds(4u));
  });
}

TEST_P(DiskConformance, AllocateExtendsAndKeepsWhatIsThere) {
  env_->RunBlocking([&] {
    DYNLIB_ASSERT_OK_AND_ASSIGN(const auto file, env_->disk()->Open("f", OpenMode::kCreate));
    DYNLIB_ASSERT_OK(file->WriteAt(0, "kept"));
    DYNLIB_ASSERT_OK(file->Allocate(0, 8192));
    EXPECT_THAT(file->Size(), IsOkAndHolds(8192u));
    EXPECT_THAT(Read(*file, 0, 8192), IsOkAndHolds("kept" + std::string(8188, '\0')));
    DYNLIB_ASSERT_OK(file->Allocate(0, 100));
    EXPECT_THAT(file->Size(), IsOkAndHolds(8192u));
  });
}

TEST_P(DiskConformance, DiscardKeepsSizeAndNeighboursAndWhatIsWrittenLater) {
  env_->RunBlocking([&] {
    DYNLIB_ASSERT_OK_AND_ASSIGN(const auto file, env_->disk()->Open("f", OpenMode::kCreate));
    const std::string block(4096, 'x');
    for (uint64_t i = 0; i < 4; ++i) DYNLIB_ASSERT_OK(file->WriteAt(i * 4096, block));
    DYNLIB_ASSERT_OK(file->Sync());
    DYNLIB_ASSERT_OK(file->Discard(4096, 8192));
    EXPECT_THAT(file->Size(), IsOkAndHolds(4 * 4096u));
    EXPECT_THAT(Read(*file, 0, 4096), IsOkAndHolds(block));
    EXPECT_THAT(Read(*file, 3 * 4096, 4096), IsOkAndHolds(block));
    DYNLIB_ASSERT_OK(Read(*file, 4096, 8192));
    DYNLIB_ASSERT_OK(file->WriteAt(4096, "new"));
    DYNLIB_ASSERT_OK(file->Sync());
    EXPECT_THAT(Read(*file, 4096, 3), IsOkAndHolds("new"));
    DYNLIB_ASSERT_OK(file->Discard(0, 0));
    DYNLIB_ASSERT_OK_AND_ASSIGN(const auto reader, env_->disk()->Open("f", OpenMode::kRead));
    EXPECT_FALSE(reader->Discard(0, 4096).ok());
  });
}

TEST_P(DiskConformance, OpenModes) {
  env_->RunBlocking([&] {
    Disk* const disk = env_->disk();
    EXPECT_THAT(disk->Open("f", OpenMode::kRead), StatusIs(kNotFound, HasSubstr("f")));
    EXPECT_THAT(disk->Open("f", OpenMode::kReadWrite), StatusIs(kNotFound));
    DYNLIB_ASSERT_OK(WriteFile(disk, "f", "data"));
    EXPECT_THAT(disk->Open("f", OpenMode::kCreate), StatusIs(kAlreadyExists));
    DYNLIB_ASSERT_OK_AND_ASSIGN(const auto reader, disk->Open("f", OpenMode::kRead));
    EXPECT_THAT(Read(*reader, 0, 4), IsOkAndHolds("data"));
    EXPECT_FALSE(reader->WriteAt(0, "x").ok());
    EXPECT_FALSE(reader->Truncate(0).ok());
    EXPECT_FALSE(reader->Allocate(0, 10).ok());
    DYNLIB_ASSERT_OK_AND_ASSIGN(const auto writer, disk->Open("f", OpenMode::kReadWrite));
    DYNLIB_ASSERT_OK(writer->WriteAt(0, "D"));
    EXPECT_THAT(Read(*reader, 0, 4), IsOkAndHolds("Data"));
  });
}

TEST_P(DiskConformance, AnUnsyncedWriteOutlivesItsFileObject) {
  env_->RunBlocking([&] {
    {
      DYNLIB_ASSERT_OK_AND_ASSIGN(const auto file, env_->disk()->Open("f", OpenMode::kCreate));
      DYNLIB_ASSERT_OK(file->WriteAt(0, "not synced"));
    }
    EXPECT_THAT(ReadWhole(env_->disk(), "f"), IsOkAndHolds("not synced"));
  });
}

TEST_P(DiskConformance, PathsThatLeaveTheRootOrNameNothingAreRefused) {
  env_->RunBlocking([&] {
    Disk* const disk = env_->disk();
    for (const char* path : {"/f", "../f", "a/../f", "a//f", "./f", "a/", "..", "."}) {
      SCOPED_TRACE(path);
      EXPECT_THAT(disk->Open(path, OpenMode::kCreate), StatusIs(kInvalidArgument));
      EXPECT_THAT(disk->Remove(path), StatusIs(kInvalidArgument));
      EXPECT_THAT(disk->CreateDir(path), StatusIs(kInvalidArgument));
      EXPECT_THAT(disk->List(path), StatusIs(kInvalidArgument));
      EXPECT_THAT(disk->SyncDir(path), StatusIs(kInvalidArgument));
      EXPECT_THAT(disk->Lock(path), StatusIs(kInvalidArgument));
      EXPECT_THAT(disk->Rename(path, "x"), StatusIs(kInvalidArgument));
      EXPECT_THAT(disk->Rename("x", path), StatusIs(kInvalidArgument));
    }
  });
}

TEST_P(DiskConformance, FoldersAndListing) {
  env_->RunBlocking([&] {
    Disk* const disk = env_->disk();
    EXPECT_THAT(disk->List(""), IsOkAndHolds(IsEmpty()));
    EXPECT_THAT(disk->List("a"), StatusIs(kNotFound));
    EXPECT_THAT(disk->Open("a/f", OpenMode::kCreate), StatusIs(kNotFound));
    DYNLIB_ASSERT_OK(disk->CreateDir("a/b/c"));
    DYNLIB_ASSERT_OK(disk->CreateDir("a/b/c"));
    for (const char* name : {"a/z", "a/b/y", "a/x", "w"}) {
      DYNLIB_ASSERT_OK(WriteFile(disk, name, name));
    }
    EXPECT_THAT(disk->List(""), IsOkAndHolds(ElementsAre("a", "w")));
    EXPECT_THAT(disk->List("a"), IsOkAndHolds(ElementsAre("b", "x", "z")));
    EXPECT_THAT(disk->List("a/b"), IsOkAndHolds(ElementsAre("c", "y")));
    EXPECT_THAT(ReadWhole(disk, "a/b/y"), IsOkAndHolds("a/b/y"));
    DYNLIB_EXPECT_OK(disk->SyncDir(""));
    DYNLIB_EXPECT_OK(disk->SyncDir("a/b"));
    EXPECT_THAT(disk->SyncDir("nowhere"), StatusIs(kNotFound));
    EXPECT_FALSE(disk->Open("a", OpenMode::kRead).ok());
  });
}

TEST_P(DiskConformance, RemoveTakesFilesAndEmptyFolders) {
  env_->RunBlocking([&] {
    Disk* const disk = env_->disk();
    DYNLIB_ASSERT_OK(disk->CreateDir("d"));
    DYNLIB_ASSERT_OK(WriteFile(disk, "d/f", "x"));
    EXPECT_THAT(disk->Remove("gone"), StatusIs(kNotFound, HasSubstr("gone")));
    EXPECT_FALSE(disk->Remove("d").ok());
    DYNLIB_ASSERT_OK(disk->Remove("d/f"));
    EXPECT_THAT(disk->List("d"), IsOkAndHolds(IsEmpty()));
    DYNLIB_ASSERT_OK(disk->Remove("d"));
    EXPECT_THAT(disk->List(""), IsOkAndHolds(IsEmpty()));
  });
}

TEST_P(DiskConformance, ARemovedFileStaysUsableForThoseWhoHaveItOpen) {
  env_->RunBlocking([&] {
    Disk* const disk = env_->disk();
    DYNLIB_ASSERT_OK_AND_ASSIGN(const auto old_file, disk->Open("f", OpenMode::kCreate));
    DYNLIB_ASSERT_OK(old_file->WriteAt(0, "old"));
    DYNLIB_ASSERT_OK(disk->Remove("f"));
    EXPECT_THAT(Read(*old_file, 0, 3), IsOkAndHolds("old"));
    DYNLIB_ASSERT_OK_AND_ASSIGN(const auto new_file, disk->Open("f", OpenMode::kCreate));
    EXPECT_THAT(new_file->Size(), IsOkAndHolds(0u));
    DYNLIB_ASSERT_OK(new_file->WriteAt(0, "new"));
    DYNLIB_ASSERT_OK(old_file->WriteAt(0, "OLD"));
    EXPECT_THAT(Read(*new_file, 0, 3), IsOkAndHolds("new"));
    EXPECT_THAT(Read(*old_file, 0, 3), IsOkAndHolds("OLD"));
  });
}

TEST_P(DiskConformance, RenameReplacesItsTarget) {
  env_->RunBlocking([&] {
    Disk* const disk = env_->disk();
    DYNLIB_ASSERT_OK(disk->CreateDir("d"));
    DYNLIB_ASSERT_OK(WriteFile(disk, "from", "new"));
    DYNLIB_ASSERT_OK(WriteFile(disk, "d/to", "old contents"));
    DYNLIB_ASSERT_OK(disk->Rename("from", "d/to"));
    EXPECT_THAT(ReadWhole(disk, "d/to"), IsOkAndHolds("new"));
    EXPECT_THAT(disk->List(""), IsOkAndHolds(ElementsAre("d")));
    EXPECT_THAT(disk->Rename("from", "x"), StatusIs(kNotFound, HasSubstr("from")));
  });
}

TEST_P(DiskConformance, ARenamedFileKeepsWhatIsWrittenToItBeforeAndAfter) {
  env_->RunBlocking([&] {
    Disk* const disk = env_->disk();
    DYNLIB_ASSERT_OK_AND_ASSIGN(const auto file, disk->Open("a", OpenMode::kCreate));
    DYNLIB_ASSERT_OK(file->WriteAt(0, "before"));
    DYNLIB_ASSERT_OK(disk->Rename("a", "b"));
    DYNLIB_ASSERT_OK(file->WriteAt(6, " after"));
    EXPECT_THAT(ReadWhole(disk, "b"), IsOkAndHolds("before after"));
  });
}

TEST_P(DiskConformance, AFolderIsRenamedWithWhatIsInIt) {
  env_->RunBlocking([&] {
    Disk* const disk = env_->disk();
    DYNLIB_ASSERT_OK(disk->CreateDir("a/b"));
    DYNLIB_ASSERT_OK(WriteFile(disk, "a/b/f", "x"));
    DYNLIB_ASSERT_OK(disk->Rename("a", "z"));
    EXPECT_THAT(ReadWhole(disk, "z/b/f"), IsOkAndHolds("x"));
    EXPECT_THAT(disk->List("a"), StatusIs(kNotFound));
  });
}

TEST_P(DiskConformance, ALockIsHeldOnceUntilItIsReleased) {
  env_->RunBlocking([&] {
    Disk* const disk = env_->disk();
    DYNLIB_ASSERT_OK_AND_ASSIGN(auto lock, disk->Lock("LOCK"));
    EXPECT_THAT(disk->Lock("LOCK"), StatusIs(kAlreadyExists, HasSubstr("LOCK")));
    DYNLIB_EXPECT_OK(disk->Lock("OTHER"));
    lock.reset();
    DYNLIB_EXPECT_OK(disk->Lock("LOCK"));
  });
}

TEST_P(DiskConformance, SyncedBytesUnderASyncedNameSurvivePowerLoss) {
  env_->RunBlocking([&] {
    Disk* const disk = env_->disk();
    DYNLIB_ASSERT_OK(disk->CreateDir("d"));
    DYNLIB_ASSERT_OK(disk->SyncDir(""));
    DYNLIB_ASSERT_OK(WriteFile(disk, "d/f", "durable"));
    DYNLIB_ASSERT_OK(WriteFile(disk, "d/old name", "moved"));
    DYNLIB_ASSERT_OK(disk->Rename("d/old name", "d/new name"));
    DYNLIB_ASSERT_OK(disk->SyncDir("d"));
  });
  if (!env_->PowerLoss()) GTEST_SKIP() << "no power loss here";
  env_->RunBlocking([&] {
    EXPECT_THAT(ReadWhole(env_->disk(), "d/f"), IsOkAndHolds("durable"));
    EXPECT_THAT(ReadWhole(env_->disk(), "d/new name"), IsOkAndHolds("moved"));
    EXPECT_THAT(env_->disk()->List("d"), IsOkAndHolds(ElementsAre("f", "new name")));
  });
}

TEST_P(DiskConformance, PowerLossReleasesLocks) {
  std::unique_ptr<DiskLock> lock;
  env_->RunBlocking([&] {
    absl::StatusOr<std::unique_ptr<DiskLock>> locked = env_->disk()->Lock("LOCK");
    DYNLIB_ASSERT_OK(locked);
    lock = *std::move(locked);
  });
  if (!env_->PowerLoss()) GTEST_SKIP() << "no power loss here";
  std::unique_ptr<DiskLock> again;
  env_->RunBlocking([&] {
    absl::StatusOr<std::unique_ptr<DiskLock>> locked = env_->disk()->Lock("LOCK");
    DYNLIB_ASSERT_OK(locked);
    again = *std::move(locked);
    lock.reset();  // The old one's release does not touch the new one.
    EXPECT_THAT(env_->disk()->Lock("LOCK"), StatusIs(kAlreadyExists));
  });
}

// What was synced stays as it was at the sync or is, where it was written since, old or new.
TEST_P(DiskConformance, AnOverwriteThatWasNotSyncedLeavesOldOrNewBytes) {
  env_->RunBlocking([&] {
    DYNLIB_ASSERT_OK(WriteFile(env_->disk(), "f", std::string(4096, 'o')));
    DYNLIB_ASSERT_OK(env_->disk()->SyncDir(""));
    DYNLIB_ASSERT_OK_AND_ASSIGN(const auto file, env_->disk()->Open("f", OpenMode::kReadWrite));
    DYNLIB_ASSERT_OK(file->WriteAt(512, std::string(2048, 'n')));
  });
  if (!env_->PowerLoss()) GTEST_SKIP() << "no power loss here";
  env_->RunBlocking([&] {
    DYNLIB_ASSERT_OK_AND_ASSIGN(const std::string got, ReadWhole(env_->disk(), "f"));
    ASSERT_EQ(got.size(), 4096u);
    EXPECT_EQ(got.substr(0, 512), std::string(512, 'o'));
    EXPECT_EQ(got.substr(2560), std::string(1536, 'o'));
    EXPECT_EQ(got.substr(512, 2048).find_first_not_of("on"), std::string::npos);
  });
}

}  // namespace
}  // namespace dynlib
