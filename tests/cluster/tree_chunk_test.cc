#include "dynlib/cluster/tree_chunk.h"

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/random.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/sim/disk.h"
#include "dynlib/store/page.h"
#include "dynlib/store/page_file.h"
#include "dynlib/store/tree.h"
#include "dynlib/store/write_batch.h"
#include "dynlib/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace dynlib::cluster {
namespace {

using Rows = std::map<std::string, std::string>;
using testing::HasSubstr;

const std::string kOwnKey("\0d", 2);  // a replica's description: not shared

class TreeChunkTest : public testing::Test {
 protected:
  TreeChunkTest() : pages_(*store::PageFile::Open({}, &disk_, "pages")) {}

  store::Tree* MakeTree(uint64_t id, const Rows& rows) {
    store::Tree* tree = *pages_->CreateTree(store::TreeId{id});
    store::WriteBatch batch;
    for (const auto& [key, value] : rows) batch.Put(key, value);
    DYNLIB_EXPECT_OK(tree->Apply(batch, 0));
    return tree;
  }
  static Rows All(const store::Snapshot& snapshot) {
    Rows rows;
    DYNLIB_EXPECT_OK(snapshot.Scan("", "", store::ScanOrder::kForward,
                                   [&](std::string_view key, std::string_view value) {
                                     rows.emplace(key, value);
                                     return true;
                                   }));
    return rows;
  }
  // Returns how many rows were changed.
  static uint64_t CopyAll(const store::Snapshot& from, store::Tree* into, size_t bytes_max) {
    std::string after;
    uint64_t changed = 0;
    for (bool done = false; !done;) {
      wire::CopyTreeReply chunk;
      DYNLIB_EXPECT_OK(ReadTreeChunk(from, after, bytes_max, chunk));
      DYNLIB_EXPECT_OK(CheckTreeChunk(after, chunk));
      done = chunk.done();
      TreeChunkMerge merge(after, std::move(chunk), into);
      for (bool more = true; more;) {
        const absl::StatusOr<bool> step = merge.Step();
        DYNLIB_EXPECT_OK(step);
        more = step.ok() && *step;
      }
      after = merge.last();
      changed += merge.changed();
    }
    return changed;
  }

  sim::SimDisk disk_{1};
  std::unique_ptr<store::PageFile> pages_;
};

Rows RandomRows(Random& random, size_t count, uint64_t keys) {
  Rows rows;
  for (size_t i = 0; i < count; ++i) {
    std::string key(1, random.Chance(0.1) ? '\0' : '\1');
    if (key[0] == 0) key += 's';
    key += "key" + std::to_string(random.Below(keys));
    const size_t length = random.Chance(0.02) ? random.Below(20'000) : random.Below(30);
    rows[key] = std::string(length, static_cast<char>('a' + random.Below(3)));
  }
  return rows;
}

TEST_F(TreeChunkTest, TheTargetBecomesTheSourceWhateverItHeldBefore) {
  Random random(7);
  for (uint64_t round = 0; round < 25; ++round) {
    const uint64_t keys = 1 + random.Below(4000);
    const Rows source = RandomRows(random, random.Below(3000), keys);
    const Rows before = RandomRows(random, random.Below(3000), keys);
    Rows from = source;
    from[kOwnKey] = "the source's";
    Rows to = before;
    to[kOwnKey] = "the target's";
    store::Tree* into = MakeTree(1000 + round, to);
    uint64_t different = 0;
    for (const auto& [key, value] : source)
      different += !before.contains(key) || before.at(key) != value;
    for (const auto& [key, value] : before) different += !source.contains(key);

    EXPECT_EQ(CopyAll(MakeTree(round + 1, from)->snapshot(), into, 1 + random.Below(200'000)),
              different);
    Rows want = source;
    want[kOwnKey] = "the target's";
    ASSERT_EQ(All(into->snapshot()), want) << "round " << round;
    EXPECT_EQ(into->position(), 0u);
  }
}

TEST_F(TreeChunkTest, AChunkTakesWhatItMayAndOneRowAtLeast) {
  Rows rows;
  for (int i = 0; i < 5; ++i) rows["\1" + std::to_string(i)] = std::string(1000, 'x');
  rows
      ["\1"
       "2"] = std::string(store::kMaxValueBytes, 'y');
  const store::Snapshot snapshot = MakeTree(1, rows)->snapshot();
  auto read = [&](const std::string& after) {
    wire::CopyTreeReply chunk;
    DYNLIB_EXPECT_OK(ReadTreeChunk(snapshot, after, 2100, chunk));
    return chunk;
  };
  EXPECT_EQ(read("").rows_size(), 2);
  EXPECT_EQ(read("\1"
                 "1")
                .rows_size(),
            1);
  EXPECT_EQ(read("\1"
                 "1")
                .rows(0)
                .value()
                .size(),
            store::kMaxValueBytes);
  EXPECT_FALSE(read("\1"
                    "1")
                   .done());
  EXPECT_EQ(read("\1"
                 "2")
                .rows_size(),
            2);
  EXPECT_TRUE(read("\1"
                   "2")
                  .done());
  EXPECT_TRUE(read("\1"
                   "4")
                  .done());
  EXPECT_EQ(read("\1"
                 "4")
                .rows_size(),
            0);
}

TEST_F(TreeChunkTest, AnEmptySourceClearsTheTargetStepByStep) {
  Rows rows;
  for (int i = 0; i < 2500; ++i) rows["\1" + std::to_string(i)] = "x";
  store::Tree* into = MakeTree(1, rows);
  wire::CopyTreeReply chunk;
  DYNLIB_ASSERT_OK(ReadTreeChunk(store::Snapshot(), "", 1 << 20, chunk));
  TreeChunkMerge merge("", chunk, into);
  EXPECT_THAT(merge.Step(), IsOkAndHolds(true));
  EXPECT_EQ(merge.changed(), 1000u);
  EXPECT_THAT(merge.Step(), IsOkAndHolds(true));
  EXPECT_THAT(merge.Step(), IsOkAndHolds(false));
  EXPECT_TRUE(All(into->snapshot()).empty());
}

TEST_F(TreeChunkTest, WhatIsWrongWithAChunkIsSeen) {
  const store::Snapshot snapshot = MakeTree(1, {{"\1"
                                                 "a",
                                                 "1"},
                                                {"\1"
                                                 "b",
                                                 "2"},
                                                {"\1"
                                                 "c",
                                                 "3"}})
                                       ->snapshot();
  wire::CopyTreeReply good;
  DYNLIB_ASSERT_OK(ReadTreeChunk(snapshot, "", 1 << 20, good));
  DYNLIB_ASSERT_OK(CheckTreeChunk("", good));
  auto expect_bad = [](const std::string& after, wire::CopyTreeReply chunk, bool resum,
                       const std::string& why) {
    if (resum) chunk.set_checksum(TreeChunkChecksum(chunk));
    EXPECT_THAT(CheckTreeChunk(after, chunk),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr(why)));
  };
  wire::CopyTreeReply bad = good;
  bad.mutable_rows(1)->set_value("4");
  expect_bad("", bad, false, "checksum");
  bad = good;
  bad.mutable_rows()->DeleteSubrange(1, 1);
  expect_bad("", bad, false, "checksum");
  bad = good;  // lengths count: "a" "1" "" is not "a1" "" ""
  bad.mutable_rows(0)->set_key(
      "\1"
      "a1");
  bad.mutable_rows(0)->set_value("");
  expect_bad("", bad, false, "checksum");
  bad = good;
  bad.mutable_rows()->SwapElements(0, 1);
  expect_bad("", bad, true, "comes behind");
  expect_bad(
      "\1"
      "a",
      good, true, "comes behind");
  bad = good;
  bad.mutable_rows(0)->set_key(kOwnKey);
  expect_bad("", bad, true, "comes behind");
  bad.clear_rows();
  bad.set_done(false);
  expect_bad("", bad, true, "no row");
}

}  // namespace
}  // namespace dynlib::cluster
