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
  struct Copied {
    uint64_t changed = 0;  // rows
    uint64_t bytes = 0;    // sent
    uint64_t bytes_same = 0;
  };
  // `held_bytes`: how much at a time the target says it has; 0: nothing.
  static Copied CopyAll(const store::Snapshot& from, store::Tree* into, size_t bytes_max,
                        size_t held_bytes) {
    Copied copied;
    std::string after;
    for (bool done = false; !done;) {
      wire::CopyTreeRequest request = RequestAfter(after);
      request.set_digest_seed(copied.changed);
      if (held_bytes > 0) {
        DYNLIB_EXPECT_OK(ReadHeldParts(into->snapshot(), held_bytes, request));
      }
      DYNLIB_EXPECT_OK(CheckHeldParts(request));
      wire::CopyTreeReply chunk;
      DYNLIB_EXPECT_OK(ReadTreeChunk(from, request, bytes_max, chunk));
      DYNLIB_EXPECT_OK(CheckTreeChunk(request, chunk));
      done = chunk.done();
      copied.bytes_same += BytesSame(request, chunk);
      TreeChunkMerge merge(request, std::move(chunk), into);
      for (bool more = true; more;) {
        const absl::StatusOr<bool> step = merge.Step();
        DYNLIB_EXPECT_OK(step);
        more = step.ok() && *step;
      }
      EXPECT_TRUE(done || merge.last() > after);
      after = merge.last();
      copied.changed += merge.changed();
      copied.bytes += merge.bytes();
    }
    return copied;
  }
  static wire::CopyTreeRequest RequestAfter(const std::string& after) {
    wire::CopyTreeRequest request;
    request.set_after(after);
    return request;
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
  for (uint64_t round = 0; round < 50; ++round) {
    const uint64_t keys = 1 + random.Below(4000);
    const Rows source = RandomRows(random, random.Below(3000), keys);
    Rows before = RandomRows(random, random.Below(3000), keys);
    const size_t held_bytes = round % 2 == 0 ? 0 : 1 + random.Below(50'000);
    // A version of the source, now and then.
    if (random.Chance(0.5)) {
      before = source;
      for (auto& [key, value] : before) {
        if (random.Chance(0.005)) value += "changed";
      }
      std::erase_if(before, [&](const auto&) { return random.Chance(0.005); });
      for (const auto& [key, value] : RandomRows(random, 10, keys)) before[key] = value;
    }
    Rows from = source;
    from[kOwnKey] = "the source's";
    Rows to = before;
    to[kOwnKey] = "the target's";
    store::Tree* into = MakeTree(1000 + round, to);
    uint64_t different = 0;
    for (const auto& [key, value] : source)
      different += !before.contains(key) || before.at(key) != value;
    for (const auto& [key, value] : before) different += !source.contains(key);

    const size_t bytes_max = 1 + random.Below(200'000);
    const Copied copied =
        CopyAll(MakeTree(round + 1, from)->snapshot(), into, bytes_max, held_bytes);
    EXPECT_EQ(copied.changed, different);
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
    DYNLIB_EXPECT_OK(ReadTreeChunk(snapshot, RequestAfter(after), 2100, chunk));
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
  DYNLIB_ASSERT_OK(ReadTreeChunk(store::Snapshot(), {}, 1 << 20, chunk));
  TreeChunkMerge merge({}, chunk, into);
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
  DYNLIB_ASSERT_OK(ReadTreeChunk(snapshot, {}, 1 << 20, good));
  DYNLIB_ASSERT_OK(CheckTreeChunk({}, good));
  auto expect_bad = [](const std::string& after, wire::CopyTreeReply chunk, bool resum,
                       const std::string& why) {
    if (resum) chunk.set_checksum(TreeChunkChecksum(chunk));
    EXPECT_THAT(CheckTreeChunk(RequestAfter(after), chunk),
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

Rows EqualRows(int count) {
  Rows rows;
  for (int i = 0; i < count; ++i)
    rows["\1" + std::to_string(100'000 + i)] = std::string(90, static_cast<char>('a' + i % 26));
  return rows;
}

TEST_F(TreeChunkTest, RowsThatTheTargetHasAreNotSent) {
  const Rows source = EqualRows(10'000);
  store::Tree* from = MakeTree(1, source);
  store::Tree* into = MakeTree(2, source);
  const Copied same = CopyAll(from->snapshot(), into, 1 << 20, 1 << 20);
  EXPECT_EQ(same.bytes, 0u);
  EXPECT_GT(same.bytes_same, 9'000 * 90u);

  // One row of a hundred parts: changed, gone, new.
  store::WriteBatch batch;
  for (int i = 0; i < 100; ++i) {
    const std::string key = "\1" + std::to_string(100'000 + i * 100);
    if (i % 3 == 0) batch.Put(key, "changed");
    if (i % 3 == 1) batch.Delete(key);
    if (i % 3 == 2) batch.Put(key + "new", "new");
  }
  DYNLIB_ASSERT_OK(into->Apply(batch, 0));
  const Copied changed = CopyAll(from->snapshot(), into, 1 << 20, 1 << 20);
  EXPECT_EQ(changed.changed, 100u);
  EXPECT_GT(changed.bytes, 100 * 1000u);
  EXPECT_LT(changed.bytes, 100 * (kHeldPartBytes + 200));
  EXPECT_EQ(All(into->snapshot()), source);

  // The first half, then what is not there yet.
  batch = {};
  int at = 0;
  for (const auto& [key, value] : source) {
    if (++at > 5'000) batch.Delete(key);
  }
  DYNLIB_ASSERT_OK(into->Apply(batch, 0));
  const Copied rest = CopyAll(from->snapshot(), into, 100'000, 70'000);
  EXPECT_EQ(rest.changed, 5'000u);
  EXPECT_LT(rest.bytes, 5'000 * 97 + 2 * kHeldPartBytes);
  EXPECT_EQ(All(into->snapshot()), source);
}

TEST_F(TreeChunkTest, WhatIsWrongWithPartsThatAreTheSameIsSeen) {
  Rows rows = EqualRows(1000);
  const store::Snapshot into = MakeTree(1, rows)->snapshot();
  rows["\1" + std::to_string(100'500)] = "changed";
  const store::Snapshot from = MakeTree(2, rows)->snapshot();
  wire::CopyTreeRequest request;
  DYNLIB_ASSERT_OK(ReadHeldParts(into, 60'000, request));
  ASSERT_GT(request.held_size(), 10);
  EXPECT_TRUE(request.held_more());
  wire::CopyTreeReply good;
  DYNLIB_ASSERT_OK(ReadTreeChunk(from, request, 1 << 20, good));
  DYNLIB_ASSERT_OK(CheckTreeChunk(request, good));
  EXPECT_EQ(good.same_size(), request.held_size() - 1);
  EXPECT_EQ(good.through(), request.held(request.held_size() - 1).last());
  EXPECT_FALSE(good.done());
  auto expect_bad = [&](wire::CopyTreeReply chunk, bool resum, const std::string& why) {
    if (resum) chunk.set_checksum(TreeChunkChecksum(chunk));
    EXPECT_THAT(CheckTreeChunk(request, chunk),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr(why)));
  };
  wire::CopyTreeReply bad = good;
  bad.mutable_same()->RemoveLast();
  expect_bad(bad, false, "checksum");
  bad = good;
  bad.set_through(bad.through() + "x");
  expect_bad(bad, false, "checksum");
  bad = good;
  bad.add_same(bad.same(0));
  expect_bad(bad, true, "was not asked about, or twice");
  bad.set_same(bad.same_size() - 1, 1000);
  expect_bad(bad, true, "was not asked about, or twice");
  bad = good;
  bad.set_through(request.held(3).last());
  expect_bad(bad, true, "ends behind its end");
  bad.mutable_same()->Truncate(0);
  expect_bad(bad, true, "comes behind its end");
  bad = good;
  int missing = 0;
  while (bad.same(missing) == static_cast<uint32_t>(missing)) ++missing;
  bad.mutable_same()->Add(0);
  std::copy_backward(bad.mutable_same()->begin() + missing, bad.mutable_same()->end() - 1,
                     bad.mutable_same()->end());
  bad.set_same(missing, static_cast<uint32_t>(missing));
  expect_bad(bad, true, "is in a part that is the same");

  // And what no target asks.
  DYNLIB_EXPECT_OK(CheckHeldParts(request));
  wire::CopyTreeRequest odd = request;
  odd.mutable_held()->SwapElements(0, 1);
  EXPECT_THAT(CheckHeldParts(odd), StatusIs(absl::StatusCode::kInvalidArgument));
  odd = request;
  odd.set_after(odd.held(0).last());
  EXPECT_THAT(CheckHeldParts(odd), StatusIs(absl::StatusCode::kInvalidArgument));
  odd = request;
  odd.mutable_held(1)->set_bytes(4 << 20);
  EXPECT_THAT(CheckHeldParts(odd), StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace dynlib::cluster
