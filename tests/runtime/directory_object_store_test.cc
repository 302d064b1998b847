#include "dynlib/runtime/directory_object_store.h"

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "dynlib/base/checksum.h"
#include "dynlib/base/strings.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/runtime/posix/posix_disk.h"
#include "dynlib/testing/environment.h"
#include "dynlib/testing/object_store_conformance.h"
#include "dynlib/testing/power_loss_disk.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/runtime/real_environment.h"

namespace dynlib {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

absl::Status FlipBit(Disk& disk, const std::string& path, uint64_t offset) {
  const auto file = disk.Open(path, OpenMode::kReadWrite);
  if (!file.ok()) return file.status();
  char byte = 0;
  const absl::Status read = (*file)->ReadAt(offset, std::span<char>(&byte, 1));
  if (!read.ok()) return read;
  byte ^= 4;
  return (*file)->WriteAt(offset, std::string_view(&byte, 1));
}

class DirectoryEnvironment final : public RealFiles<ObjectStoreEnvironment> {
 public:
  ObjectStore* store() override { return store_.get(); }
  bool Damage(const std::string& name) override {
    return FlipBit(*disk_, store_->PathOf(name), 40).ok();
  }

 private:
  ScratchFolder folder_;
  std::unique_ptr<PosixDisk> disk_ = *PosixDisk::Open({.root = folder_.path()});
  std::unique_ptr<DirectoryObjectStore> store_ =
      *DirectoryObjectStore::Open(disk_.get(), "objects");
};

INSTANTIATE_TEST_SUITE_P(Directory, ObjectStoreConformance,
                         ::testing::Values(ObjectStoreConformanceParam{
                             "Directory",
                             [] { return std::make_unique<DirectoryEnvironment>(); }}));

class DirectoryObjectStoreTest : public ::testing::Test {
 protected:
  absl::Status Put(DirectoryObjectStore& store, const std::string& name, const std::string& data) {
    return store.Put(name, data, Checksum(data));
  }

  ScratchFolder folder_;
  std::unique_ptr<PosixDisk> disk_ = *PosixDisk::Open({.root = folder_.path()});
};

TEST_F(DirectoryObjectStoreTest, DamageAtEveryByteIsFound) {
  const auto store = *DirectoryObjectStore::Open(disk_.get(), "");
  DYNLIB_ASSERT_OK(Put(*store, "name", "the data"));
  for (uint64_t offset = 0; offset < 32 + 8; ++offset) {
    DYNLIB_ASSERT_OK(FlipBit(*disk_, store->PathOf("name"), offset));
    EXPECT_THAT(store->Get("name"), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("name")))
        << "offset " << offset;
    DYNLIB_ASSERT_OK(FlipBit(*disk_, store->PathOf("name"), offset));
  }
  EXPECT_THAT(store->Get("name"), IsOkAndHolds("the data"));
}

TEST_F(DirectoryObjectStoreTest, EveryTruncationAndAnExtraByteAreFound) {
  const auto store = *DirectoryObjectStore::Open(disk_.get(), "");
  for (int64_t size = 41; size >= 0; --size) {
    if (size == 40) continue;  // whole
    DYNLIB_ASSERT_OK(Put(*store, "name", "the data"));
    DYNLIB_ASSERT_OK_AND_ASSIGN(const auto file,
                                disk_->Open(store->PathOf("name"), OpenMode::kReadWrite));
    DYNLIB_ASSERT_OK(file->Truncate(static_cast<uint64_t>(size)));
    EXPECT_THAT(store->Get("name"), StatusIs(absl::StatusCode::kDataLoss)) << size;
  }
}

TEST_F(DirectoryObjectStoreTest, AnObjectUnderAnotherNameIsFound) {
  const auto store = *DirectoryObjectStore::Open(disk_.get(), "");
  DYNLIB_ASSERT_OK(Put(*store, "one", "data"));
  DYNLIB_ASSERT_OK(disk_->Rename(store->PathOf("one"), store->PathOf("two")));
  EXPECT_THAT(store->Get("two"), StatusIs(absl::StatusCode::kDataLoss));
}

TEST_F(DirectoryObjectStoreTest, OneStoreAtATime) {
  auto store = *DirectoryObjectStore::Open(disk_.get(), "s");
  EXPECT_THAT(DirectoryObjectStore::Open(disk_.get(), "s"),
              StatusIs(absl::StatusCode::kAlreadyExists));
  store.reset();
  DYNLIB_EXPECT_OK(DirectoryObjectStore::Open(disk_.get(), "s"));
}

TEST_F(DirectoryObjectStoreTest, WhatAPutLeftUnfinishedGoesAtOpen) {
  { DYNLIB_ASSERT_OK(DirectoryObjectStore::Open(disk_.get(), "s")); }
  { DYNLIB_ASSERT_OK(disk_->Open("s/aside/0", OpenMode::kCreate)); }
  const auto store = *DirectoryObjectStore::Open(disk_.get(), "s");
  EXPECT_THAT(disk_->List("s/aside"), IsOkAndHolds(IsEmpty()));
  DYNLIB_EXPECT_OK(Put(*store, "a", "x"));
  EXPECT_THAT(disk_->List("s/aside"), IsOkAndHolds(IsEmpty()));
}

TEST_F(DirectoryObjectStoreTest, APutThatIsOkSurvivesPowerLoss) {
  PowerLossDisk before(disk_.get());
  {
    const auto store = *DirectoryObjectStore::Open(&before, "s");
    DYNLIB_ASSERT_OK(Put(*store, "a/b", "durable"));
    before.PowerOff();
    EXPECT_THAT(store->Get("a/b"), StatusIs(absl::StatusCode::kUnavailable));
  }
  PowerLossDisk after(disk_.get());
  const auto store = *DirectoryObjectStore::Open(&after, "s");
  EXPECT_THAT(store->Get("a/b"), IsOkAndHolds("durable"));
}

// Readers see the one or the other value whole, while several threads put.
TEST_F(DirectoryObjectStoreTest, PutsAreAtomicForReaders) {
  const auto store = *DirectoryObjectStore::Open(disk_.get(), "s");
  const std::string values[] = {std::string(10'000, 'a'), std::string(20'000, 'b')};
  DYNLIB_ASSERT_OK(Put(*store, "x", values[0]));
  std::vector<std::thread> writers;
  for (const std::string& value : values) {
    writers.emplace_back([&] {
      for (int i = 0; i < 20; ++i) DYNLIB_EXPECT_OK(Put(*store, "x", value));
    });
  }
  for (int i = 0; i < 200; ++i) {
    const auto got = store->Get("x");
    DYNLIB_EXPECT_OK(got);
    EXPECT_TRUE(got.value_or("") == values[0] || got.value_or("") == values[1]);
  }
  for (std::thread& writer : writers) writer.join();
}

}  // namespace
}  // namespace dynlib
