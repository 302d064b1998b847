// A page file on a simulated disk with one tree in it, opened as often as a test likes.
#ifndef TESTS_STORE_ONE_TREE_H_
#define TESTS_STORE_ONE_TREE_H_

#include <cstdint>
#include <memory>
#include <utility>

#include "dynlib/sim/disk.h"
#include "dynlib/store/page_file.h"
#include "dynlib/store/tree.h"
#include "dynlib/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace dynlib::store {

class OneTreeTest : public testing::Test {
 protected:
  explicit OneTreeTest(uint64_t memory_bytes) : disk_(1) { Reopen(memory_bytes); }

  void Reopen(uint64_t memory_bytes) {
    file_.reset();
    auto file =
        PageFile::Open({.growth_bytes_min = 64 << 10, .memory_bytes = memory_bytes}, &disk_, "p");
    ASSERT_THAT(file.status(), IsOk());
    file_ = *std::move(file);
    tree_ = file_->FindTree(TreeId{1});
    if (tree_ == nullptr) tree_ = *file_->CreateTree(TreeId{1});
  }

  sim::SimDisk disk_;
  std::unique_ptr<PageFile> file_;
  Tree* tree_ = nullptr;
};

}  // namespace dynlib::store

#endif  // TESTS_STORE_ONE_TREE_H_
