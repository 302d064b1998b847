// Cursors against a plain map: both ways, within bounds, past damage, while the tree changes.
#include "dynlib/store/cursor.h"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "dynlib/base/random.h"
#include "dynlib/base/strings.h"
#include "dynlib/sim/disk.h"
#include "dynlib/store/node.h"
#include "dynlib/store/page_file.h"
#include "dynlib/store/tree.h"
#include "dynlib/store/write_batch.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/store/tree_model.h"

namespace dynlib::store {
namespace {

using absl::StatusCode;
using testing::HasSubstr;

// Where the same moves lead in the map.
class ModelCursor {
 public:
  ModelCursor(const Model& model, const CursorOptions& options) {
    for (const auto& [key, value] : model) {
      const bool in = key >= options.start && (options.end.empty() || key < options.end) &&
                      key.starts_with(options.prefix);
      if (in) rows_.emplace(key, value);
    }
    at_ = rows_.end();
  }

  void SeekToFirst() { at_ = rows_.begin(); }
  void SeekToLast() { at_ = rows_.empty() ? rows_.end() : std::prev(rows_.end()); }
  void Seek(const std::string& key) { at_ = rows_.lower_bound(key); }
  void SeekBack(const std::string& key) {
    at_ = rows_.upper_bound(key);
    at_ = at_ == rows_.begin() ? rows_.end() : std::prev(at_);
  }
  void Next() {
    if (at_ != rows_.end()) ++at_;
  }
  void Prev() {
    if (at_ != rows_.end()) at_ = at_ == rows_.begin() ? rows_.end() : std::prev(at_);
  }
  bool valid() const { return at_ != rows_.end(); }
  const std::string& key() const { return at_->first; }
  const std::string& value() const { return at_->second; }
  size_t rows() const { return rows_.size(); }

 private:
  Model rows_;
  Model::const_iterator at_;
};

class CursorTest : public testing::Test {
 protected:
  CursorTest() {
    file_ = *PageFile::Open({.growth_bytes_min = 64 << 10, .memory_bytes = 1 << 20}, &disk_, "p");
    tree_ = *file_->CreateTree(TreeId{1});
  }
  void Write(Random& random, uint64_t operations) {
    WriteBatch batch;
    AddRandomOperations(random, kKeys, operations, batch, model_);
    ASSERT_THAT(tree_->Apply(batch, tree_->position() + 1), IsOk());
  }

  static constexpr uint64_t kKeys = 2000;
  sim::SimDisk disk_{1};
  std::unique_ptr<PageFile> file_;
  Tree* tree_;
  Model model_;
};

TEST_F(CursorTest, GoesWhereAMapWouldGo) {
  uint64_t valid = 0;
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    Write(random, 300);
    CursorOptions options;
    if (random.Chance(0.4)) options.start = ModelKey(random, kKeys);
    if (random.Chance(0.4)) options.end = ModelKey(random, kKeys);
    if (random.Chance(0.3)) options.prefix = "table/partition/1";
    if (random.Chance(0.3)) options.mode = ReadMode::kNotKept;
    Cursor cursor(tree_->snapshot(), options);
    ModelCursor model(model_, options);
    EXPECT_FALSE(cursor.valid());
    for (int step = 0; step < 1500; ++step) {
      // What happens to the tree meanwhile is nothing to the cursor.
      if (step % 300 == 299) {
        Write(random, 200);
        ASSERT_THAT(file_->Checkpoint(), IsOk());
      }
      const std::string key = ModelKey(random, kKeys);
      bool moved = false;
      switch (random.Below(12)) {
        case 0:
          moved = cursor.SeekToFirst();
          model.SeekToFirst();
          break;
        case 1:
          moved = cursor.SeekToLast();
          model.SeekToLast();
          break;
        case 2:
          moved = cursor.Seek(key);
          model.Seek(key);
          break;
        case 3:
          moved = cursor.SeekBack(key);
          model.SeekBack(key);
          break;
        case 4:
        case 5:
        case 6:
        case 7:
          moved = cursor.Prev();
          model.Prev();
          break;
        default:
          moved = cursor.Next();
          model.Next();
      }
      ASSERT_EQ(cursor.valid(), model.valid());
      ASSERT_EQ(moved, model.valid());
      ASSERT_THAT(cursor.status(), IsOk());
      if (!model.valid()) continue;
      ++valid;
      ASSERT_EQ(cursor.key(), model.key());
      ASSERT_EQ(cursor.value(), model.value());
    }
  }
  EXPECT_GT(valid, 5000u);
}

TEST_F(CursorTest, AllOfATreeBothWays) {
  Random random(3);
  for (int i = 0; i < 10; ++i) Write(random, 500);
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  Cursor cursor(tree_->snapshot());
  auto at = model_.begin();
  for (cursor.SeekToFirst(); cursor.valid(); cursor.Next(), ++at) {
    ASSERT_TRUE(at != model_.end());
    ASSERT_EQ(cursor.key(), at->first);
    ASSERT_EQ(cursor.value(), at->second);
  }
  EXPECT_TRUE(at == model_.end());
  for (cursor.SeekToLast(); cursor.valid(); cursor.Prev()) {
    ASSERT_TRUE(at != model_.begin());
    --at;
    ASSERT_EQ(cursor.key(), at->first);
  }
  EXPECT_TRUE(at == model_.begin());
  EXPECT_THAT(cursor.status(), IsOk());
}

TEST_F(CursorTest, AnEmptyTreeHasNoKeys) {
  for (Snapshot snapshot : {tree_->snapshot(), Snapshot()}) {
    Cursor cursor(std::move(snapshot));
    EXPECT_FALSE(cursor.SeekToFirst());
    EXPECT_FALSE(cursor.SeekToLast());
    EXPECT_FALSE(cursor.Seek("k"));
    EXPECT_FALSE(cursor.SeekBack("k"));
    EXPECT_FALSE(cursor.Next());
    EXPECT_FALSE(cursor.Prev());
    EXPECT_THAT(cursor.status(), IsOk());
  }
}

// Rows that name the next one: what is passed to Seek lies in the row that is left.
TEST_F(CursorTest, SeeksTheKeyThatItsOwnRowNames) {
  WriteBatch batch;
  for (int i = 0; i < 3000; ++i) {
    batch.Put(Cat("k", 10000 + i), Cat("k", 10000 + (i * 7 + 1) % 3000, std::string(300, '.')));
  }
  ASSERT_THAT(tree_->Apply(batch, 1), IsOk());
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  Cursor cursor(tree_->snapshot());
  ASSERT_TRUE(cursor.SeekToFirst());
  for (int i = 0, expected = 1; i < 500; ++i, expected = (expected * 7 + 1) % 3000) {
    const bool found = i % 2 == 0 ? cursor.Seek(cursor.value().substr(0, 6))
                                  : cursor.SeekBack(cursor.value().substr(0, 6));
    ASSERT_TRUE(found);
    ASSERT_EQ(cursor.key(), Cat("k", 10000 + expected));
  }
}

// What it keeps in memory is its way down, not what it has seen.
TEST_F(CursorTest, MemoryIsBoundedWhileItGoesOverMuchMore) {
  for (uint64_t at = 0; at < 40'000;) {
    WriteBatch batch;
    for (int i = 0; i < 500; ++i, ++at) batch.Put(Cat("k", 1'000'000 + at), std::string(200, 'v'));
    ASSERT_THAT(tree_->Apply(batch, tree_->position() + 1), IsOk());
    ASSERT_THAT(file_->Checkpoint(), IsOk());
  }
  Cursor cursor(tree_->snapshot());
  uint64_t rows = 0;
  uint64_t most = 0;
  for (cursor.SeekToFirst(); cursor.valid(); cursor.Next()) {
    if (++rows % 1000 == 0) most = std::max(most, file_->stats().page_memory_bytes);
  }
  EXPECT_EQ(rows, 40'000u);
  EXPECT_LE(most, (1u << 20) + (256 << 10));
}

TEST_F(CursorTest, ADamagedPageIsNamedAndSeekGoesOnBehindIt) {
  WriteBatch batch;
  for (int i = 0; i < 500; ++i) {
    batch.Put(Cat("k", 1000 + i), Cat("value-", 1000 + i, std::string(100, 'v')));
  }
  ASSERT_THAT(tree_->Apply(batch, 1), IsOk());
  ASSERT_THAT(file_->Checkpoint(), IsOk());
  file_.reset();
  disk_.FlipBit("p", 8 * disk_.ReadRaw("p").find("value-1250"));
  file_ = *PageFile::Open({.memory_bytes = 1 << 20}, &disk_, "p");
  Cursor cursor(file_->FindTree(TreeId{1})->snapshot());
  std::string last;
  for (cursor.SeekToFirst(); cursor.valid(); cursor.Next()) last = std::string(cursor.key());
  EXPECT_THAT(cursor.status(), StatusIs(StatusCode::kDataLoss, HasSubstr("checksum")));
  EXPECT_LT(last, "k1250");
  EXPECT_FALSE(cursor.Next());
  EXPECT_THAT(cursor.status(), StatusIs(StatusCode::kDataLoss)) << "until it is moved by a Seek";
  ASSERT_TRUE(cursor.Seek("k1400"));
  EXPECT_THAT(cursor.status(), IsOk());
  EXPECT_EQ(cursor.key(), "k1400");
  while (cursor.Prev()) last = std::string(cursor.key());
  EXPECT_THAT(cursor.status(), StatusIs(StatusCode::kDataLoss));
  EXPECT_GT(last, "k1250");

  Cursor in_memory(file_->FindTree(TreeId{1})->snapshot(), {.mode = ReadMode::kMemoryOnly});
  EXPECT_FALSE(in_memory.Seek("k1250"));
  EXPECT_THAT(in_memory.status(), StatusIs(StatusCode::kUnavailable));
}

}  // namespace
}  // namespace dynlib::store
