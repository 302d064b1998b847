// Compressed pages: their bytes, damage to them, and files that have both forms.
#include "dynlib/store/page_compression.h"

#include <zstd.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dynlib/base/coding.h"
#include "dynlib/base/random.h"
#include "dynlib/sim/disk.h"
#include "dynlib/store/page.h"
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
using ::testing::HasSubstr;

constexpr PageCompressor::Options kZstd = {.compression = Compression::kZstd};
const PageFile::Options kPlain = {
    .growth_bytes_min = 64 << 10, .growth_bytes_max = 64 << 10, .memory_bytes = 1 << 20};
const PageFile::Options kCompressed = {.growth_bytes_min = 64 << 10,
                                       .growth_bytes_max = 64 << 10,
                                       .memory_bytes = 1 << 20,
                                       .compression = Compression::kZstd};

std::unique_ptr<PageFile> Open(sim::SimDisk& disk, const PageFile::Options& options) {
  auto file = PageFile::Open(options, &disk, "pages");
  EXPECT_THAT(file, IsOk());
  return file.ok() ? *std::move(file) : nullptr;
}

void ExpectSound(PageFile& file) {
  PageFile::VerifyReport report;
  EXPECT_THAT(file.Verify(&report), IsOk());
  EXPECT_EQ(report.leaked_units, 0u);
}

PageBytes LongLeaf() {
  static const std::string value(500, 'v');
  std::vector<std::string> keys;
  for (int i = 10; i < 24; ++i) keys.push_back("user/" + std::to_string(i));
  std::vector<LeafEntry> entries;
  for (const std::string& key : keys) entries.push_back({key, value});
  return BuildLeaf(TreeId{7}, entries);
}

std::string FromHex(std::string_view hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes.push_back(static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16)));
  }
  return bytes;
}

// A compressed page with that frame, which says to be `expanded` bytes long inside.
std::string WithFrame(std::string_view frame, uint32_t expanded) {
  const PageBytes page = BuildBlob(PageKind::kCompressed, TreeId{7}, expanded, frame);
  return std::string(page.view());
}

std::string Frame(std::string_view bytes, int level = 1) {
  std::string frame(ZSTD_compressBound(bytes.size()), '\0');
  frame.resize(ZSTD_compress(frame.data(), frame.size(), bytes.data(), bytes.size(), level));
  return frame;
}

// docs/format/btree.md has these bytes.
TEST(PageCompressionTest, WorkedExample) {
  const PageBytes value =
      BuildBlob(PageKind::kOverflow, TreeId{3}, /*count=*/0, std::string(5000, 'a'));
  const std::string documented = FromHex(
      "444c5067010006000300000000000000"
      "42000000a81300000000000000000000"
      "28b52ffd60a812c5000070444c5067010003000300a813006103100084d38b330624");
  PageCompressor compressor(kZstd);
  ASSERT_TRUE(PageCompressor::IsCompressed(documented));
  absl::StatusOr<PageBytes> expanded = compressor.Expand(documented);
  ASSERT_THAT(expanded, IsOk());
  EXPECT_EQ(expanded->view(), value.view());
  std::string written;
  ASSERT_TRUE(compressor.Compress(value.view(), written));
  // Another zstd may find a shorter frame.
  EXPECT_EQ(written.substr(0, 16), documented.substr(0, 16));
  EXPECT_EQ(written.substr(20, 12), documented.substr(20, 12));
  EXPECT_LT(written.size(), 200u);
}

TEST(PageCompressionTest, WhatSavesNoUnitStaysAsItIs) {
  PageCompressor compressor(kZstd);
  std::string out;
  const PageBytes leaf = LongLeaf();
  ASSERT_GT(leaf.length, kUnitBytes);
  EXPECT_TRUE(compressor.Compress(leaf.view(), out));
  EXPECT_EQ(compressor.UnitsOf(leaf.view()), 1u);

  const PageBytes within_a_unit =
      BuildBlob(PageKind::kOverflow, TreeId{1}, 0, std::string(4000, 'a'));
  EXPECT_FALSE(compressor.Compress(within_a_unit.view(), out));
  Random random(1);
  std::string noise(9000, '\0');
  for (char& c : noise) c = static_cast<char>(random.Below(256));
  const PageBytes of_noise = BuildBlob(PageKind::kOverflow, TreeId{1}, 0, noise);
  EXPECT_FALSE(compressor.Compress(of_noise.view(), out));
  EXPECT_EQ(compressor.UnitsOf(of_noise.view()), 3u);

  const std::string a(3000, 'a');
  const std::string b(3000, 'b');
  const std::vector<std::string_view> separators = {a, b};
  EXPECT_FALSE(compressor.Compress(BuildBranch(TreeId{1}, 1, separators).view(), out));
  PageCompressor off({});
  EXPECT_FALSE(off.Compress(leaf.view(), out));
}

TEST(PageCompressionTest, EveryLengthAtTheEndOfAUnitComesBack) {
  Random random(3);
  PageCompressor compressor(kZstd);
  for (size_t noise = 3900; noise < 4200; ++noise) {
    std::string payload(8000, 'x');
    for (size_t i = 0; i < noise; ++i) payload[i] = static_cast<char>(random.Below(256));
    const PageBytes page = BuildBlob(PageKind::kOverflow, TreeId{1}, 0, payload);
    std::string out;
    if (!compressor.Compress(page.view(), out)) continue;
    EXPECT_LE(out.size(), kUnitBytes);
    absl::StatusOr<PageBytes> expanded = compressor.Expand(out);
    ASSERT_THAT(expanded, IsOk());
    EXPECT_EQ(expanded->view(), page.view());
  }
}

// Behind a checksum that is right, as a broken writer might leave it.
TEST(PageCompressionTest, AnyByteChangedIsRefusedOrHarmless) {
  PageCompressor compressor(kZstd);
  std::string good;
  ASSERT_TRUE(compressor.Compress(LongLeaf().view(), good));
  int refused = 0;
  for (size_t at = 0; at < good.size(); ++at) {
    for (int value = 0; value < 256; ++value) {
      std::vector<char> bytes(good.begin(), good.end());  // so that asan sees the end
      if (bytes[at] == static_cast<char>(value)) continue;
      bytes[at] = static_cast<char>(value);
      const std::string_view page(bytes.data(), bytes.size());
      if (!PageCompressor::IsCompressed(page)) continue;
      absl::StatusOr<PageBytes> expanded = compressor.Expand(page);
      refused += !expanded.ok() || !CheckPage(expanded->view()).ok();
      if (!expanded.ok()) {
        ASSERT_THAT(expanded, StatusIs(StatusCode::kDataLoss));
      }
    }
  }
  EXPECT_GT(refused, 5000);
  for (size_t length = kPageHeaderBytes; length < good.size(); ++length) {
    const std::vector<char> cut(good.begin(), good.begin() + static_cast<ptrdiff_t>(length));
    EXPECT_FALSE(compressor.Expand({cut.data(), cut.size()}).ok()) << length;
  }
}

TEST(PageCompressionTest, SizesThatLieAreRefusedWithoutTheMemory) {
  PageCompressor compressor(kZstd);
  const auto expand = [&](std::string_view frame, uint32_t expanded) {
    return compressor.Expand(WithFrame(frame, expanded)).status();
  };
  const PageBytes leaf = LongLeaf();
  const std::string frame = Frame(leaf.view());
  ASSERT_THAT(expand(frame, leaf.length), IsOk());
  for (uint32_t wrong : {leaf.length - 1, leaf.length + 1, leaf.length * 2, 0u, 1u, 32u}) {
    EXPECT_THAT(expand(frame, wrong), StatusIs(StatusCode::kDataLoss)) << wrong;
  }
  // Four gigabytes are not even asked for.
  EXPECT_THAT(expand(frame, UINT32_MAX),
              StatusIs(StatusCode::kDataLoss, HasSubstr("length of the page inside 4294967295")));
  EXPECT_THAT(expand(frame, kMaxValueBytes + kPageHeaderBytes + 1),
              StatusIs(StatusCode::kDataLoss, HasSubstr("length of the page inside")));
  // A few kilobytes that would come to 64 MiB, whatever they claim.
  const std::string bomb = Frame(std::string(64 << 20, '\0'));
  ASSERT_LT(bomb.size(), 10'000u);
  for (uint32_t claimed : {uint32_t{20'000}, uint32_t{kMaxValueBytes}}) {
    EXPECT_THAT(expand(bomb, claimed), StatusIs(StatusCode::kDataLoss)) << claimed;
  }
  EXPECT_THAT(expand("", 5000), StatusIs(StatusCode::kDataLoss));
  EXPECT_THAT(expand(std::string(40, '\0'), 5000), StatusIs(StatusCode::kDataLoss));
  // A compressed page inside a compressed page is none that CheckPage would pass.
  const std::string nested = WithFrame(Frame(WithFrame(frame, leaf.length)), 5000);
  EXPECT_FALSE(compressor.Expand(nested).ok());
  EXPECT_FALSE(CheckPage(WithFrame(frame, leaf.length)).ok());
}

TEST(PageFileCompressionTest, TheLevelIsChecked) {
  sim::SimDisk disk(1);
  for (int level : {0, -1, 20}) {
    PageFile::Options options = kCompressed;
    options.compression_level = level;
    EXPECT_THAT(PageFile::Open(options, &disk, "pages"),
                StatusIs(StatusCode::kInvalidArgument, HasSubstr("compression_level is")));
  }
  EXPECT_TRUE(disk.Paths().empty());
}

// On at one opening and off at the next: a file with pages of both forms, read and written as any.
TEST(PageFileCompressionTest, TheModelWithTheOptionSwitchedBetweenOpenings) {
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    sim::SimDisk disk(seed);
    Model model;
    uint64_t compressed = 0;
    uint64_t plain = 0;
    for (int opening = 0; opening < 8; ++opening) {
      PageFile::Options options = opening % 2 == 0 ? kCompressed : kPlain;
      options.compression_level = 1 + opening;
      std::unique_ptr<PageFile> file = Open(disk, options);
      Tree* tree = file->FindTree(TreeId{1});
      if (tree == nullptr) tree = *file->CreateTree(TreeId{1});
      ASSERT_EQ(Contents(tree->snapshot()), model);
      ExpectSound(*file);
      for (int step = 0; step < 6; ++step) {
        const Model before = model;
        const Snapshot held = tree->snapshot();
        WriteBatch batch;
        AddRandomOperations(random, 3000, 150, batch, model);
        ASSERT_THAT(tree->Apply(batch, tree->position() + 1), IsOk());
        if (random.Chance(0.3)) {
          ASSERT_THAT(tree->Compact("", 1 << 20), IsOk());
        }
        ASSERT_THAT(file->Checkpoint(), IsOk());
        ASSERT_EQ(Contents(tree->snapshot(), ScanOrder::kReverse), model);
        ASSERT_EQ(Contents(held), before);
      }
      ExpectSound(*file);
      const PageFile::Stats stats = file->stats();
      EXPECT_EQ(stats.pages_compressed > 0, opening % 2 == 0);
      EXPECT_GE(stats.compression_saved_bytes, stats.pages_compressed * kUnitBytes);
      compressed += stats.pages_compressed;
      plain += stats.pages_written - stats.pages_compressed;
    }
    EXPECT_GT(compressed, 100u);
    EXPECT_GT(plain, 100u);
  }
}

// Values in which half of the bytes can be guessed.
std::string HalfNoise(Random& random, size_t bytes) {
  std::string value(bytes, 'v');
  for (size_t i = 0; i < bytes; i += 2) value[i] = "0123456789abcdef"[random.Below(16)];
  return value;
}

uint64_t Fill(Tree& tree, uint64_t rows, size_t value_bytes) {
  Random random(value_bytes);
  uint64_t bytes = 0;
  for (uint64_t left = rows; left > 0;) {
    WriteBatch batch;
    for (int i = 0; i < 100 && left > 0; ++i, --left) {
      batch.Put("user" + std::to_string(random.Below(1u << 30)), HalfNoise(random, value_bytes));
    }
    bytes += batch.bytes();
    EXPECT_THAT(tree.Apply(batch, tree.position() + 1), IsOk());
  }
  return bytes;
}

uint64_t CompactAll(Tree& tree) {
  uint64_t rewritten = 0;
  std::string from;
  do {
    absl::StatusOr<Tree::CompactStep> step = tree.Compact(from, 1 << 20);
    EXPECT_THAT(step, IsOk());
    if (!step.ok()) break;
    rewritten += step->rewritten_bytes;
    from = step->next;
  } while (!from.empty());
  return rewritten;
}

TEST(PageFileCompressionTest, TakesLessSpaceAndWhatIsPackedIsLeftAlone) {
  for (size_t value_bytes : {100, 900, 3000, 20'000}) {
    SCOPED_TRACE(value_bytes);
    sim::SimDisk disk(1);
    PageFile::Options options = kCompressed;
    options.memory_bytes = 64 << 20;
    std::unique_ptr<PageFile> file = Open(disk, options);
    Tree* tree = *file->CreateTree(TreeId{1});
    const uint64_t bytes = Fill(*tree, 2'000'000 / value_bytes, value_bytes);
    ASSERT_THAT(file->CheckpointTwice(), IsOk());
    const auto user_bytes = static_cast<double>(bytes);
    const double before = static_cast<double>(file->stats().used_bytes) / user_bytes;
    CompactAll(*tree);
    ASSERT_THAT(file->CheckpointTwice(), IsOk());
    const double after = static_cast<double>(file->stats().used_bytes) / user_bytes;
    EXPECT_LE(after, before);
    // A value of 3,000 bytes has a unit of its own either way.
    EXPECT_LT(after, value_bytes == 3000 ? 1.45 : 0.75);
    EXPECT_EQ(CompactAll(*tree), 0u) << "a store at rest would write for ever";
    ExpectSound(*file);
  }
}

// Of a file that was closed: the right answer or kDataLoss, never a wrong value.
TEST(PageFileCompressionTest, EveryByteFlipped) {
  sim::SimDisk disk(1);
  Model model;
  Random random(5);
  {
    std::unique_ptr<PageFile> file = Open(disk, kCompressed);
    Tree* tree = *file->CreateTree(TreeId{1});
    WriteBatch batch;
    for (int i = 0; i < 60; ++i) {
      const std::string key = "key/" + std::to_string(i);
      model[key] = HalfNoise(random, i == 20 ? 6000 : 200);
      batch.Put(key, model[key]);
    }
    ASSERT_THAT(tree->Apply(batch, 1), IsOk());
    ASSERT_THAT(file->CheckpointTwice(), IsOk());
    ASSERT_GT(file->stats().pages_compressed, 1u);
  }
  const std::string bytes = disk.ReadRaw("pages");
  int damaged = 0;
  for (uint64_t at = 0; at < bytes.size(); ++at) {
    const bool padding =
        bytes[at] == 0 && bytes.substr(at, 32).find_first_not_of('\0') == std::string::npos;
    if (padding && at % 509 != 0) continue;
    const uint64_t bit = at * 8 + random.Below(8);
    disk.FlipBit("pages", bit);
    absl::StatusOr<std::unique_ptr<PageFile>> file = PageFile::Open(kPlain, &disk, "pages");
    if (!file.ok()) {
      ASSERT_THAT(file, StatusIs(StatusCode::kDataLoss)) << at;
      ++damaged;
    } else if (Tree* tree = (*file)->FindTree(TreeId{1}); tree != nullptr) {
      for (const auto& [key, value] : model) {
        const auto found = tree->Get(key);
        if (found.ok()) {
          ASSERT_EQ(*found, value) << at;
          continue;
        }
        ++damaged;
        ASSERT_THAT(found, StatusIs(StatusCode::kDataLoss, HasSubstr("checksum"))) << at;
        break;
      }
    }
    disk.FlipBit("pages", bit);
  }
  EXPECT_GT(damaged, 4000);
}

}  // namespace
}  // namespace dynlib::store
