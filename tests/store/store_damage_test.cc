// Damage at every byte of what a clean close leaves: each read is right or kDataLoss, whatever is
// damaged, and what is damaged is named.
#include <cstdint>
#include <cstdlib>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/coding.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/runtime/disk.h"
#include "dynlib/sim/disk.h"
#include "dynlib/store/page.h"
#include "dynlib/store/page_compression.h"
#include "dynlib/store/store.h"
#include "dynlib/store/store_batch.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/store/store_harness.h"

namespace dynlib::store {
namespace {

using absl::StatusCode;
using sim::SimDisk;
using testing::AllOf;
using testing::ContainsRegex;
using testing::HasSubstr;

// All trees, by name; and the files of a store, by path.
using Forest = std::map<std::string, Contents>;
using Files = std::map<std::string, std::string>;

Store::Options DamageOptions() {
  Store::Options options = SmallStore();
  options.log.max_batch_bytes = 16 << 10;
  options.pages.compression = Compression::kZstd;
  return options;
}

// A tree of one leaf, one with branches over compressed leaves, values in pages of their own,
// compressed and not; a row and a tree that the log alone has.
Files MakeStore(Forest& forest) {
  SimDisk disk(1);
  StoreHarness h(&disk);
  h.options = DamageOptions();
  EXPECT_THAT(h.Open(), IsOk());
  const NamedTree small = *h.OpenTree("small");
  const NamedTree wide = *h.OpenTree("wide");
  StoreBatch batch;
  for (int i = 0; i < 12; ++i) batch.Put(small, Cat("key", i), Cat("value", i));
  batch.Put("large", std::string(2500, 'l'));
  batch.Put("larger", std::string(9000, 'm'));
  EXPECT_THAT(h.Write(std::move(batch)).status, IsOk());
  for (int i = 0; i < 120; i += 20) {
    StoreBatch rows;
    for (int k = i; k < i + 20; ++k) rows.Put(wide, Cat("row", 1000 + k), std::string(300, 'w'));
    EXPECT_THAT(h.Write(std::move(rows)).status, IsOk());
  }
  EXPECT_THAT(h.Checkpoint(), IsOk());
  EXPECT_THAT(h.Write(Put("logged", "only")), IsOk());
  EXPECT_THAT(h.OpenTree("late"), IsOk());
  forest[""] = h.Scan();
  for (const std::string& name : h.store->ListTrees()) {
    forest[name] = h.Scan(*h.store->FindTree(name));
  }
  EXPECT_THAT(h.Close(), IsOk());
  Files files;
  for (const std::string& path : disk.Paths()) files[path] = disk.ReadRaw(path);
  return files;
}

// The kinds of the pages on disk.
std::set<PageKind> KindsIn(std::string_view file) {
  std::set<PageKind> kinds;
  for (uint64_t at = 2 * kUnitBytes; at + kUnitBytes <= file.size(); at += kUnitBytes) {
    const PageView page(file.data() + at);
    if (PageCompressor::IsCompressed(file.substr(at, kUnitBytes))) {
      kinds.insert(PageKind::kCompressed);
    } else if (LoadFixed<uint32_t>(page.bytes()) == kPageMagic) {
      kinds.insert(page.kind());
    }
  }
  return kinds;
}

// Runs of one byte, of which any is like the others, are sampled, unless DYNLIB_EVERY_BYTE is set:
// all of them take minutes.
bool IsLeftOut(std::string_view bytes, size_t at) {
  static const bool every = std::getenv("DYNLIB_EVERY_BYTE") != nullptr;
  return !every && at > 0 && at + 1 < bytes.size() && bytes[at - 1] == bytes[at] &&
         bytes[at + 1] == bytes[at] && at % 61 != 0;
}

// File, offset, and the checksum that was found and the one that was expected.
auto NamesTheDamageIn(const std::string& path) {
  return StatusIs(StatusCode::kDataLoss,
                  AllOf(HasSubstr(path), ContainsRegex("offset [0-9]+"),
                        ContainsRegex("checksum 0x[0-9a-f]{16}, (expected|its listing says|and) "
                                      "0x[0-9a-f]{16}")));
}

class StoreDamageTest : public testing::TestWithParam<int> {
 protected:
  // Rows one by one, whole trees, and the list of them: each is right, or kDataLoss that names what
  // is damaged. Returns whether all could be read.
  bool IsAllThere(const StoreHarness& h, const Forest& forest, const std::string& path) {
    std::vector<std::string> names;
    for (const auto& [name, rows] : forest) {
      if (!name.empty()) names.push_back(name);
    }
    EXPECT_EQ(h.store->ListTrees(), names);
    bool whole = true;
    for (const auto& [name, rows] : forest) {
      const auto tree =
          name.empty() ? std::optional<NamedTree>(NamedTree()) : h.store->FindTree(name);
      if (!tree.has_value()) {
        ADD_FAILURE() << "no tree " << name;
        continue;
      }
      for (const auto& [key, value] : rows) {
        const auto found = h.store->Get(*tree, key);
        whole = Judge(found.status(), path) && whole;
        if (found.ok()) {
          EXPECT_EQ(*found, value) << key;
        }
      }
      EXPECT_TRUE(h.store->Get(*tree, "no such key").status().ok() || !whole);
      for (const ScanOrder order : {ScanOrder::kForward, ScanOrder::kReverse}) {
        Contents seen;
        const absl::Status scanned = h.store->snapshot(*tree).Scan(
            "", "", order, [&](std::string_view key, std::string_view value) {
              EXPECT_TRUE(seen.emplace(key, value).second) << key << " twice";
              return true;
            });
        whole = Judge(scanned, path) && whole;
        for (const auto& row : seen) {
          const auto at = rows.find(row.first);
          EXPECT_TRUE(at != rows.end() && *at == row) << "a row that nobody wrote: " << row.first;
        }
        if (scanned.ok()) {
          EXPECT_EQ(seen.size(), rows.size());
        }
      }
    }
    return whole;
  }

 private:
  static bool Judge(const absl::Status& status, const std::string& path) {
    if (status.ok()) return true;
    EXPECT_THAT(status, NamesTheDamageIn(path));
    return false;
  }
};

absl::Status WriteDamaged(const Files& files, const std::string& path, size_t at, SimDisk& disk) {
  for (const auto& [name, contents] : files) {
    DYNLIB_RETURN_IF_ERROR(disk.CreateDir(name.substr(0, name.rfind('/'))));
    DYNLIB_ASSIGN_OR_RETURN(const auto file, disk.Open(name, OpenMode::kCreate));
    DYNLIB_RETURN_IF_ERROR(file->WriteAt(0, contents));
  }
  disk.FlipBit(path, 8 * at + at % 8);
  return absl::OkStatus();
}

// Opened for reading: each row is right, of a write that is behind the damage, or unreadable, and
// nothing on disk changes. False: not even that.
bool ReadsWhatIsWhole(SimDisk& disk, const Forest& forest) {
  Files before;
  for (const std::string& path : disk.Paths()) before[path] = disk.ReadRaw(path);
  StoreHarness h(&disk);
  h.options = DamageOptions();
  h.options.read_only_if_damaged = true;
  if (!h.Open().ok()) return false;
  EXPECT_THAT(h.store->Health(), StatusIs(StatusCode::kDataLoss));
  for (const auto& [name, rows] : forest) {
    const auto tree =
        name.empty() ? std::optional<NamedTree>(NamedTree()) : h.store->FindTree(name);
    if (!tree.has_value()) continue;
    for (const auto& [key, value] : rows) {
      const auto found = h.store->Get(*tree, key);
      if (found.ok() && found->has_value()) {
        EXPECT_EQ(*found, value) << key;
      }
      EXPECT_TRUE(found.ok() || absl::IsDataLoss(found.status())) << found.status();
    }
  }
  h.Kill();
  for (const std::string& path : disk.Paths()) EXPECT_TRUE(disk.ReadRaw(path) == before[path]);
  return true;
}

TEST_P(StoreDamageTest, EveryByteOfEveryFile) {
  constexpr int kShards = 4;
  Forest forest;
  const Files files = MakeStore(forest);
  ASSERT_EQ(forest.size(), 4u);
  const std::set<PageKind> kinds = KindsIn(files.at("db/pages"));
  for (const PageKind kind : {PageKind::kLeaf, PageKind::kBranch, PageKind::kOverflow,
                              PageKind::kDirectory, PageKind::kBitmap, PageKind::kCompressed}) {
    ASSERT_TRUE(kinds.contains(kind)) << static_cast<int>(kind);
  }
  std::map<std::string, int> refused;  // By file.
  int readable = 0;                    // Of those.
  int right = 0;
  int partly = 0;
  uint64_t number = 0;
  for (const auto& [path, bytes] : files) {
    for (size_t at = 0; at < bytes.size(); ++at) {
      if (IsLeftOut(bytes, at)) continue;
      if (number++ % kShards != static_cast<uint64_t>(GetParam())) continue;
      SCOPED_TRACE(testing::Message() << path << " at " << at);
      SimDisk damaged(2);
      DYNLIB_ASSERT_OK(WriteDamaged(files, path, at, damaged));
      StoreHarness h(&damaged);
      h.options = DamageOptions();
      const absl::Status opened = h.Open();
      for (const std::string& note : h.found.notes) {
        EXPECT_THAT(note, AllOf(HasSubstr(path), HasSubstr("offset")));
      }
      if (!opened.ok()) {
        // No byte has another valid meaning: versions and identities are read behind checksums.
        ++refused[path];
        EXPECT_THAT(opened, NamesTheDamageIn(path));
        SimDisk again(2);
        DYNLIB_ASSERT_OK(WriteDamaged(files, path, at, again));
        readable += ReadsWhatIsWhole(again, forest);
      } else if (IsAllThere(h, forest, path)) {
        ++right;
      } else {
        ++partly;
        EXPECT_THAT(h.store->Verify(), NamesTheDamageIn(path));
      }
      if (testing::Test::HasFailure()) return;
    }
  }
  EXPECT_GT(refused["db/STORE"], 0);
  EXPECT_GT(refused["db/pages"], 0);
  EXPECT_GT(refused["db/log/00000001.seg"], 0);
  EXPECT_GT(readable, 10);
  EXPECT_GT(right, 500);
  EXPECT_GT(partly, 200);
}

INSTANTIATE_TEST_SUITE_P(Shards, StoreDamageTest, testing::Range(0, 4));

}  // namespace
}  // namespace dynlib::store
