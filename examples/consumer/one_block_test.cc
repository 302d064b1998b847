// The store alone, on a real folder: written, checkpointed, opened again.
#include <memory>
#include <string>

#include "dynlib/runtime/posix/posix_disk.h"
#include "dynlib/store/page_file.h"
#include "dynlib/store/tree.h"
#include "dynlib/store/write_batch.h"
#include "gtest/gtest.h"

namespace {

TEST(OneBlock, TheStoreKeepsWhatWasCheckpointed) {
  auto disk = dynlib::PosixDisk::Open({.root = ::testing::TempDir() + "/one_block"});
  ASSERT_TRUE(disk.ok()) << disk.status();
  const dynlib::store::TreeId kTree{1};
  {
    auto file = dynlib::store::PageFile::Open({}, disk->get(), "pages");
    ASSERT_TRUE(file.ok()) << file.status();
    auto tree = (*file)->CreateTree(kTree);
    ASSERT_TRUE(tree.ok()) << tree.status();
    dynlib::store::WriteBatch batch;
    batch.Put("key", "value");
    ASSERT_TRUE((*tree)->Apply(batch, /*position=*/1).ok());
    ASSERT_TRUE((*file)->Checkpoint().ok());
  }
  auto file = dynlib::store::PageFile::Open({}, disk->get(), "pages");
  ASSERT_TRUE(file.ok()) << file.status();
  auto value = (*file)->FindTree(kTree)->snapshot().Get("key");
  ASSERT_TRUE(value.ok()) << value.status();
  EXPECT_EQ(*value, "value");
}

}  // namespace
