#include "dynlib/store/page.h"

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "dynlib/base/random.h"
#include "dynlib/store/page_change.h"
#include "dynlib/store/superblock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dynlib::store {
namespace {

using ::testing::HasSubstr;

std::string HexOf(std::string_view bytes) {
  std::string hex;
  for (unsigned char byte : bytes) {
    hex += "0123456789abcdef"[byte >> 4];
    hex += "0123456789abcdef"[byte & 15];
  }
  return hex;
}

TEST(PageTest, LeafHasTheDocumentedBytes) {
  PageBytes page = BuildLeaf(TreeId{7}, std::vector<LeafEntry>{
                                            {"user#1", "one"},
                                            {"user#22", "", 70000, true},
                                        });
  EXPECT_EQ(HexOf(page.view()),
            "444c5067"                                          // magic
            "0100"                                              // version
            "01"                                                // kind: leaf
            "00"                                                // level
            "0700000000000000"                                  // tree
            "63000000"                                          // length
            "02000000"                                          // count
            "01000000"                                          // children
            "0500"                                              // prefix length
            "0000"                                              // reserved
            "000000000000000000000000000000000000000000000000"  // child 0: not written yet
            "00000031"
            "4d000000"  // slot 0: head "1", cell at 77
            "00003232"
            "59000000"    // slot 1: head "22", cell at 89
            "7573657223"  // prefix "user#"
            "0100"
            "ffff"
            "03000000"
            "31"
            "6f6e65"
            "0200"
            "0000"
            "70110100"
            "3232");
}

TEST(PageTest, BranchHasTheDocumentedBytes) {
  PageBytes page = BuildBranch(TreeId{1}, 2,
                               std::vector<std::string_view>{"abc", std::string_view("ab\xff", 3)});
  char table[kPageRefBytes];
  PutPageRef(table, {5, 8000, 0x1122334455667788});
  EXPECT_EQ(HexOf({table, sizeof(table)}),
            "0500000000000000401f00000000000088776655443322"
            "11");
  EXPECT_EQ(HexOf(page.view().substr(0, kPageHeaderBytes)),
            "444c506701000202"
            "0100000000000000"
            "80000000"
            "02000000"
            "03000000"
            "0200"
            "0000");
  EXPECT_EQ(HexOf(page.view().substr(kPageHeaderBytes + 3 * kPageRefBytes)),
            "00000063"
            "7a000000"
            "000000ff"
            "7d000000"
            "6162"
            "0100"
            "63"
            "0100"
            "ff");
}

TEST(PageTest, OverflowHasTheDocumentedBytes) {
  PageBytes page = BuildBlob(PageKind::kOverflow, TreeId{3}, 0, "value");
  EXPECT_EQ(HexOf(page.view()),
            "444c506701000300"
            "0300000000000000"
            "25000000"
            "00000000"
            "00000000"
            "0000"
            "0000"
            "76616c7565");
}

TEST(PageTest, SuperblockHasTheDocumentedBytes) {
  std::string block = EncodeSuperblock({.file_id = {.low = 1, .high = 2},
                                        .generation = 3,
                                        .file_units = 256,
                                        .directory = {9, 72, 0xd1},
                                        .bitmap = {10, 34, 0xb1}});
  ASSERT_EQ(block.size(), kSuperblockBytes);
  EXPECT_EQ(HexOf(std::string_view(block).substr(0, 96)),
            "444c504147455300"
            "02000000"
            "00100000"
            "0100000000000000"
            "0200000000000000"
            "0300000000000000"
            "0001000000000000"
            "09000000000000004800000000000000d100000000000000"
            "0a000000000000002200000000000000b100000000000000");
  EXPECT_EQ(block.substr(96, 4088 - 96), std::string(4088 - 96, '\0'));
  EXPECT_EQ(HexOf(block.substr(4088)), "dcd4733d1a6091ea");
  // Bound to its place: the other block's bytes do not pass for this one's.
  EXPECT_TRUE(DecodeSuperblock(block, 1).ok());
  EXPECT_TRUE(absl::IsDataLoss(DecodeSuperblock(block, 0).status()));
}

TEST(PageTest, ChecksumIsBoundToThePlace) {
  EXPECT_NE(PageChecksum("page", 2), PageChecksum("page", 3));
}

std::string RandomKey(Random& random) {
  std::string key = random.Chance(0.5) ? "common/prefix/" : "";
  for (uint64_t n = random.Below(12); n > 0; --n) {
    key.push_back(random.Chance(0.5) ? '\0' : static_cast<char>(random.Below(256)));
  }
  return key;
}

TEST(PageTest, SearchAgreesWithAMap) {
  Random random(1);
  for (int round = 0; round < 300; ++round) {
    std::map<std::string, std::string> model;
    bool prefixed = random.Chance(0.5);
    for (uint64_t n = random.Below(40); n > 0; --n) {
      model[(prefixed ? "p/" : "") + RandomKey(random)] = RandomKey(random);
    }
    std::vector<LeafEntry> entries;
    std::vector<std::string_view> separators;
    PageSizer sizer = PageSizer::Leaf();
    for (const auto& [key, value] : model) {
      entries.push_back({key, value});
      separators.push_back(key);
      sizer.Add(key, value.size(), 0);
    }
    PageBytes leaf = BuildLeaf(TreeId{1}, entries);
    PageBytes branch = BuildBranch(TreeId{1}, 1, separators);
    EXPECT_EQ(leaf.length, sizer.length());
    ASSERT_TRUE(CheckPage(leaf.view()).ok()) << CheckPage(leaf.view());
    ASSERT_TRUE(CheckPage(branch.view()).ok()) << CheckPage(branch.view());
    for (int probe = 0; probe < 100; ++probe) {
      std::string key = (random.Chance(0.5) ? "p/" : "") + RandomKey(random);
      auto bound = model.lower_bound(key);
      PageView::Position at = PageView(leaf.data.get()).Find(key);
      ASSERT_EQ(at.index, std::distance(model.begin(), bound));
      ASSERT_EQ(at.found, bound != model.end() && bound->first == key);
      if (at.found) {
        ASSERT_EQ(PageView(leaf.data.get()).value(at.index).inlined, bound->second);
      }
      ASSERT_EQ(PageView(branch.data.get()).ChildFor(key),
                std::distance(model.begin(), model.upper_bound(key)));
    }
  }
}

// A page that passes the check can be read and searched without going astray (run under asan).
void ReadWhole(std::string_view bytes) {
  PageView page(bytes.data());
  if (page.kind() != PageKind::kLeaf && page.kind() != PageKind::kBranch) {
    EXPECT_LE(page.payload().size(), bytes.size());
    return;
  }
  for (uint32_t i = 0; i < page.count(); ++i) {
    std::string key = std::string(page.prefix()) + std::string(page.suffix(i));
    EXPECT_EQ(page.Find(key).index, i);
    if (page.kind() == PageKind::kLeaf && !page.value(i).overflow) {
      EXPECT_LE(std::string(page.value(i).inlined).size(), bytes.size());
    }
  }
  for (uint32_t i = 0; i < page.child_count(); ++i) page.child(i);
}

TEST(PageTest, DamagedPagesAreRefusedOrHarmless) {
  std::vector<LeafEntry> entries = {{"ab", "1"}, {"abc", "", 9000, true}, {"abd", "333"}};
  std::vector<std::string_view> separators = {"k1", "k22", "k3"};
  for (const PageBytes& page :
       {BuildLeaf(TreeId{1}, entries), BuildBranch(TreeId{1}, 1, separators),
        BuildBlob(PageKind::kOverflow, TreeId{1}, 0, "xyz")}) {
    for (size_t at = 0; at < page.length; ++at) {
      for (int value : {0, 1, 0x7f, 0x80, 0xff}) {
        std::string damaged(page.view());
        damaged[at] = static_cast<char>(value);
        std::vector<char> exact(damaged.begin(), damaged.end());  // so that asan sees the end
        if (CheckPage({exact.data(), exact.size()}).ok()) ReadWhole({exact.data(), exact.size()});
      }
    }
    for (size_t length = 0; length < page.length; ++length) {
      EXPECT_FALSE(CheckPage(page.view().substr(0, length)).ok());
    }
  }
}

TEST(PageTest, CheckSaysWhatIsWrong) {
  PageBytes page = BuildLeaf(TreeId{1}, std::vector<LeafEntry>{{"a", "1"}, {"b", "2"}});
  page.data[4] = 9;
  EXPECT_THAT(std::string(CheckPage(page.view()).message()), HasSubstr("version 9"));
}

// Random changes, against a leaf that is built from the entries that should be there.
TEST(PageTest, ABranchWithMoreSeparatorsIsWhatOneBuiltAnewIs) {
  Random random(11);
  for (int round = 0; round < 300; ++round) {
    std::map<std::string, bool> separators;  // and whether it is new
    for (uint64_t n = 2 + random.Below(40); n > 0; --n) {
      separators["common" + std::to_string(random.Below(100'000))] = random.Chance(0.3);
    }
    separators["common0"] = separators["common~"] = false;  // so that the prefix stays
    std::vector<std::string_view> old_ones;
    std::vector<std::string_view> all;
    for (const auto& [separator, is_new] : separators) {
      all.push_back(separator);
      if (!is_new) old_ones.push_back(separator);
    }
    const PageBytes old = BuildBranch(TreeId{1}, 3, old_ones);
    std::vector<NewSeparator> added;
    for (const auto& [separator, is_new] : separators) {
      if (is_new) added.push_back({PageView(old.data.get()).Find(separator).index, separator});
    }
    const PageBytes wanted = BuildBranch(TreeId{2}, 3, all);
    const PageView branch(old.data.get());
    ASSERT_EQ(ChangedBranchLength(branch, added), wanted.length);
    PageBytes page = PageBytes::Allocate(wanted.length);
    const size_t table = kPageRefBytes * (all.size() + 1);
    std::fill_n(page.data.get() + kPageHeaderBytes, table, '\0');
    ChangeBranchAt(page.data.get(), TreeId{2}, branch, added);
    EXPECT_EQ(page.view(), wanted.view());
  }
}

TEST(PageTest, AChangedLeafHasWhatOneBuiltAnewHas) {
  Random random(17);
  for (int round = 0; round < 500; ++round) {
    std::map<std::string, std::string> model;
    auto key = [&] { return "prefix/" + std::to_string(random.Below(200)); };
    for (uint64_t n = 1 + random.Below(60); n > 0; --n) {
      model[key()] = std::string(random.Below(120), 'a');
    }
    std::vector<LeafEntry> entries;
    for (const auto& [k, v] : model) entries.push_back({k, v});
    const PageBytes old = BuildLeaf(TreeId{1}, entries);
    const PageView leaf(old.data.get());

    std::map<std::string, std::optional<std::string>> wanted;
    for (uint64_t n = 1 + random.Below(8); n > 0; --n) {
      const std::string k = key();
      if (random.Chance(0.3)) {
        if (model.contains(k)) wanted[k] = std::nullopt;
      } else {
        wanted[k] = std::string(random.Below(200), 'b');
      }
    }
    std::vector<LeafChange> changes;
    bool all_share = true;
    for (const auto& [k, v] : wanted) {
      all_share &= k.starts_with(leaf.prefix());
      if (!all_share) break;
      std::optional<std::string_view> value;
      if (v.has_value()) value = *v;
      changes.push_back({leaf.Find(k), k, value});
      if (v.has_value()) {
        model[k] = *v;
      } else {
        model.erase(k);
      }
    }
    if (!all_share) continue;
    PageBytes page = PageBytes::Allocate(ChangedLeafLength(leaf, changes));
    ChangeLeafAt(page.data.get(), TreeId{2}, leaf, changes);
    ASSERT_TRUE(CheckPage(page.view()).ok()) << CheckPage(page.view());
    const PageView changed(page.data.get());
    EXPECT_EQ(changed.tree(), TreeId{2});
    ASSERT_EQ(changed.count(), model.size());
    uint32_t i = 0;
    for (const auto& [k, v] : model) {
      ASSERT_EQ(std::string(changed.prefix()) + std::string(changed.suffix(i)), k);
      ASSERT_EQ(changed.value(i).inlined, v);
      ++i;
    }
  }
}

}  // namespace
}  // namespace dynlib::store
