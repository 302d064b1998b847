#include "dynlib/runtime/posix/posix_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/runtime/posix/posix_file.h"
#include "dynlib/runtime/posix/posix_status.h"
#include "dynlib/testing/disk_conformance.h"
#include "dynlib/testing/environment.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/runtime/real_environment.h"

namespace dynlib {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::unique_ptr<PosixDisk> OpenDisk(const std::string& root) {
  return *PosixDisk::Open({.root = root});
}

class PosixDiskEnvironment final : public RealFiles<DiskEnvironment> {
 public:
  Disk* disk() override { return disk_.get(); }

 private:
  ScratchFolder folder_;
  std::unique_ptr<PosixDisk> disk_ = OpenDisk(folder_.path());
};

INSTANTIATE_TEST_SUITE_P(Posix, DiskConformance,
                         ::testing::Values(DiskConformanceParam{
                             "Posix", [] { return std::make_unique<PosixDiskEnvironment>(); }}));

TEST(PosixDisk, OpenMakesTheRootAndTheFoldersAboveIfAsked) {
  ScratchFolder folder;
  const std::string root = folder.path() + "/a/b";
  EXPECT_THAT(PosixDisk::Open({.root = root, .create_root = false}),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr(root)));
  DYNLIB_ASSERT_OK(PosixDisk::Open({.root = root}));
  DYNLIB_ASSERT_OK(PosixDisk::Open({.root = root, .create_root = false}));
}

TEST(PosixDisk, BadRootsAreNamed) {
  ScratchFolder folder;
  EXPECT_THAT(PosixDisk::Open({.root = ""}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("root")));
  const auto disk = OpenDisk(folder.path());
  DYNLIB_ASSERT_OK(disk->Open("file", OpenMode::kCreate));
  EXPECT_THAT(PosixDisk::Open({.root = folder.path() + "/file"}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("file")));
  EXPECT_THAT(PosixDisk::Open({.root = folder.path(), .wait = {.poll_max = Duration(-1)}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("poll_max")));
}

TEST(PosixDisk, FilesAreWhatOtherProgramsSee) {
  ScratchFolder folder;
  const auto disk = OpenDisk(folder.path());
  DYNLIB_ASSERT_OK_AND_ASSIGN(const auto file, disk->Open("f", OpenMode::kCreate));
  DYNLIB_ASSERT_OK(file->WriteAt(0, "12345"));
  EXPECT_EQ(std::filesystem::file_size(folder.path() + "/f"), 5u);
}

TEST(PosixDisk, ALinkIsNotFollowed) {
  ScratchFolder folder;
  ScratchFolder outside;
  const auto disk = OpenDisk(folder.path());
  std::filesystem::create_symlink(outside.path() + "/secret", folder.path() + "/link");
  EXPECT_FALSE(disk->Open("link", OpenMode::kRead).ok());
  EXPECT_FALSE(disk->Lock("link").ok());
}

TEST(PosixDisk, AZeroByteInAPathIsRefused) {
  ScratchFolder folder;
  EXPECT_THAT(OpenDisk(folder.path())->Open(std::string("a\0b", 3), OpenMode::kCreate),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(PosixDisk, ANameThatIsTooLongIsRefused) {
  ScratchFolder folder;
  EXPECT_THAT(OpenDisk(folder.path())->Open(std::string(300, 'n'), OpenMode::kCreate),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

// The child holds the lock and says so; it ends by a signal, as a crash would.
TEST(PosixDisk, ALockOfAnotherProcessIsSeenAndGoesWithIt) {
  ScratchFolder folder;
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const auto disk = OpenDisk(folder.path());
    const auto lock = disk->Lock("LOCK");
    const char answer = lock.ok() ? 'y' : 'n';
    if (write(ready[1], &answer, 1) != 1) _exit(1);
    while (true) pause();
  }
  char answer = 0;
  ASSERT_EQ(read(ready[0], &answer, 1), 1);
  ASSERT_EQ(answer, 'y');
  const auto disk = OpenDisk(folder.path());
  EXPECT_THAT(disk->Lock("LOCK"),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr(folder.path() + "/LOCK")));
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  DYNLIB_EXPECT_OK(disk->Lock("LOCK"));
  close(ready[0]);
  close(ready[1]);
}

// A limit on the size of files stands for a full disk: the kernel refuses in the same places.
TEST(PosixDisk, OutOfSpaceIsResourceExhaustedAndNamesTheFile) {
  ScratchFolder folder;
  const auto disk = OpenDisk(folder.path());
  DYNLIB_ASSERT_OK_AND_ASSIGN(const auto file, disk->Open("full", OpenMode::kCreate));
  DYNLIB_ASSERT_OK(file->WriteAt(0, "kept"));
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  signal(SIGXFSZ, SIG_IGN);
  const rlimit small{.rlim_cur = 8192, .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const absl::Status allocated = file->Allocate(0, 100'000);
  const absl::Status written = file->WriteAt(8192, "x");
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  signal(SIGXFSZ, SIG_DFL);
  EXPECT_THAT(allocated, StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("full")));
  EXPECT_THAT(written, StatusIs(absl::StatusCode::kResourceExhausted,
                                AllOf(HasSubstr("full"), HasSubstr("8192"), HasSubstr("write"))));
  EXPECT_THAT(file->Size(), IsOkAndHolds(4u));
  DYNLIB_EXPECT_OK(file->Allocate(0, 100'000));
}

// Past the cache where it can, through it where it must: readers see the same, in any mixture, also
// after the file was renamed.
using PutBytes = absl::Status (*)(File& file, uint64_t offset, std::string_view data);

template <DiskWait kWait>
absl::Status InTwoHalves(File& file, uint64_t offset, std::string_view data) {
  DYNLIB_RETURN_IF_ERROR(file.StartWriteDurably(offset, data, kWait));
  return file.FinishWriteDurably();
}

class PosixDiskWrites : public testing::TestWithParam<PutBytes> {};

INSTANTIATE_TEST_SUITE_P(, PosixDiskWrites,
                         testing::Values(
                             +[](File& file, uint64_t offset, std::string_view data) {
                               return file.WriteDurably(offset, data);
                             },
                             &InTwoHalves<DiskWait::kSleep>, &InTwoHalves<DiskWait::kPoll>,
                             +[](File& file, uint64_t offset, std::string_view data) {
                               return file.WriteDirect(offset, data);
                             }));

TEST_P(PosixDiskWrites, PastTheCacheAndOthersAreOneFile) {
  const PutBytes put = GetParam();
  constexpr size_t kUnit = File::kDirectAlignment;
  ScratchFolder folder;
  const auto disk = OpenDisk(folder.path());
  DYNLIB_ASSERT_OK_AND_ASSIGN(const auto file, disk->Open("f", OpenMode::kCreate));
  std::string expected(16 * kUnit, '\0');
  DYNLIB_ASSERT_OK(file->WriteAt(0, expected));
  DYNLIB_ASSERT_OK(disk->Rename("f", "g"));
  std::string memory(8 * kUnit, '\0');
  const size_t misaligned = reinterpret_cast<uintptr_t>(memory.data()) % kUnit;
  char* const aligned = memory.data() + (misaligned == 0 ? 0 : kUnit - misaligned);
  struct Write {
    size_t memory_offset, offset, length;
  };
  const Write writes[] = {{0, 0, 4 * kUnit},          {0, 2 * kUnit, kUnit},
                          {1, 3 * kUnit, kUnit},      {0, 100, kUnit},
                          {0, 5 * kUnit, 700},        {0, 5 * kUnit, 2 * kUnit},
                          {0, 15 * kUnit, 2 * kUnit}, {0, 20 * kUnit, kUnit}};
  char fill = 'a';
  for (const Write& write : writes) {
    const std::string_view data(aligned + write.memory_offset, write.length);
    std::fill(aligned, aligned + 5 * kUnit, fill++);
    DYNLIB_ASSERT_OK(put(*file, write.offset, data));
    expected.resize(std::max(expected.size(), write.offset + write.length));
    expected.replace(write.offset, write.length, data);
    DYNLIB_ASSERT_OK(file->WriteAt(write.offset, data.substr(0, 10)));
    std::string found(expected.size(), '\0');
    DYNLIB_ASSERT_OK(file->ReadAt(0, found));
    EXPECT_TRUE(found == expected) << "after " << fill;
  }
  DYNLIB_EXPECT_OK(put(*file, 0, ""));
  DYNLIB_ASSERT_OK_AND_ASSIGN(const auto reader, disk->Open("g", OpenMode::kRead));
  EXPECT_THAT(put(*reader, 0, std::string_view(aligned, kUnit)),
              StatusIs(absl::StatusCode::kPermissionDenied));
}

TEST(PosixFile, ADeviceThatIsFull) {
  PosixFile file("/dev/full", open("/dev/full", O_RDWR), true);
  EXPECT_THAT(file.WriteAt(0, "x"),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("/dev/full")));
}

// A pipe cannot be synced, so a sync of it fails.
TEST(PosixFile, AFailedSyncIsForGood) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  close(ends[0]);
  PosixFile file("pipe", ends[1], true);
  EXPECT_THAT(file.Sync(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("sync pipe")));
  EXPECT_THAT(file.Sync(), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("earlier sync")));
  EXPECT_THAT(file.WriteAt(0, "x"), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(file.Allocate(0, 1), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(file.WriteDurably(0, "x"), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(file.StartWriteDurably(0, "x", DiskWait::kSleep),
              StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(file.WriteDirect(0, "x"), StatusIs(absl::StatusCode::kDataLoss));
}

// Two writes under way at once, of two files of one disk, finished in the other order.
TEST(PosixDisk, HalvesOfTwoFilesOverlap) {
  constexpr size_t kUnit = File::kDirectAlignment;
  ScratchFolder folder;
  const auto disk = OpenDisk(folder.path());
  DYNLIB_ASSERT_OK_AND_ASSIGN(const auto one, disk->Open("one", OpenMode::kCreate));
  DYNLIB_ASSERT_OK_AND_ASSIGN(const auto two, disk->Open("two", OpenMode::kCreate));
  std::string memory(4 * kUnit, '\0');
  const size_t misaligned = reinterpret_cast<uintptr_t>(memory.data()) % kUnit;
  char* const aligned = memory.data() + (misaligned == 0 ? 0 : kUnit - misaligned);
  std::fill_n(aligned, kUnit, '1');
  std::fill_n(aligned + kUnit, kUnit, '2');
  for (int round = 0; round < 3; ++round) {
    DYNLIB_ASSERT_OK(one->StartWriteDurably(0, std::string_view(aligned, kUnit), DiskWait::kSleep));
    DYNLIB_ASSERT_OK(
        two->StartWriteDurably(kUnit, std::string_view(aligned + kUnit, kUnit), DiskWait::kSleep));
    DYNLIB_ASSERT_OK(two->FinishWriteDurably());
    DYNLIB_ASSERT_OK(one->FinishWriteDurably());
  }
  std::string found(kUnit, '\0');
  DYNLIB_ASSERT_OK(one->ReadAt(0, found));
  EXPECT_EQ(found, std::string(kUnit, '1'));
  DYNLIB_ASSERT_OK(two->ReadAt(kUnit, found));
  EXPECT_EQ(found, std::string(kUnit, '2'));
}

// Only a part of it fits below the limit of what the process may write.
TEST(PosixDisk, AWriteThatIsPolledForAndShortIsAnError) {
  constexpr size_t kUnit = File::kDirectAlignment;
  ScratchFolder folder;
  const auto disk = OpenDisk(folder.path());
  DYNLIB_ASSERT_OK_AND_ASSIGN(const auto file, disk->Open("f", OpenMode::kCreate));
  std::string memory(3 * kUnit, 'x');
  const size_t misaligned = reinterpret_cast<uintptr_t>(memory.data()) % kUnit;
  const char* const aligned = memory.data() + (misaligned == 0 ? 0 : kUnit - misaligned);
  signal(SIGXFSZ, SIG_IGN);
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit limit = before;
  limit.rlim_cur = 2 * kUnit;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  const absl::Status written =
      InTwoHalves<DiskWait::kPoll>(*file, kUnit, std::string_view(aligned, 2 * kUnit));
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  signal(SIGXFSZ, SIG_DFL);
  EXPECT_THAT(written, StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("f at 8192")));
}

TEST(PosixStatus, ErrnoMapsToTheCodesThatDiskPromises) {
  EXPECT_EQ(CodeFromErrno(EIO), absl::StatusCode::kDataLoss);
  EXPECT_EQ(CodeFromErrno(ENOSPC), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(CodeFromErrno(EDQUOT), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(CodeFromErrno(ENOENT), absl::StatusCode::kNotFound);
  EXPECT_EQ(CodeFromErrno(EACCES), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(CodeFromErrno(EROFS), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(CodeFromErrno(EMFILE), absl::StatusCode::kUnavailable);
  EXPECT_EQ(CodeFromErrno(12345), absl::StatusCode::kInternal);
  errno = EIO;
  EXPECT_THAT(StatusFromErrno("read", "f at 7"),
              StatusIs(absl::StatusCode::kDataLoss, "read f at 7: Input/output error"));
}

}  // namespace
}  // namespace dynlib
