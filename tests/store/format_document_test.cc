// The worked examples of docs/format/btree.md, wal.md and backup.md: the bytes shown there are
// those that are written. (The batch of wal.md: log_format_test.)
#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "dynlib/base/checksum.h"
#include "dynlib/store/backup_format.h"
#include "dynlib/store/extent_allocator.h"
#include "dynlib/store/log_format.h"
#include "dynlib/store/page.h"
#include "dynlib/store/page_compression.h"
#include "dynlib/store/store_record.h"
#include "dynlib/store/superblock.h"
#include "dynlib/store/write_batch.h"
#include "dynlib/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace dynlib::store {
namespace {

// The bytes of each block of a document in which every line is bytes as hexadecimal digits, up to
// three spaces and what they mean; "00 × 24" is 24 of them. With `offsets`, each line begins with
// where it stands, and other blocks than those behind an "**Example**" are left out.
std::vector<std::string> Examples(const std::string& path, bool offsets) {
  std::ifstream file(path);
  EXPECT_TRUE(file.is_open()) << path;
  std::vector<std::string> blocks;
  bool example = !offsets;
  bool inside = false;
  std::string line;
  while (std::getline(file, line)) {
    example = example || line.find("**Example**") != line.npos;
    if (line.starts_with("```")) {
      inside = !inside;
      if (inside && example) blocks.emplace_back();
      if (!inside) example = !offsets;
      continue;
    }
    if (!inside || !example) continue;
    std::string& bytes = blocks.back();
    std::istringstream words(line.substr(0, line.find("   ")));
    std::string word;
    if (offsets && words >> word) {
      EXPECT_EQ(std::stoul(word, nullptr, 16), bytes.size()) << line;
    }
    while (words >> word) {
      if (word == "×") {
        size_t times = 0;
        words >> times;
        bytes.append(times - 1, bytes.back());
      } else if (word.size() == 2 && word.find_first_not_of("0123456789abcdef") == word.npos) {
        bytes.push_back(static_cast<char>(std::stoi(word, nullptr, 16)));
      } else {
        break;
      }
    }
  }
  return blocks;
}

// The file of which btree.md shows all but the leaves: tree 7 at units 2 to 5, the directory and
// the bitmap behind it.
constexpr uint64_t kGeneration = 4;

PageRef RefTo(const PageBytes& page, uint64_t unit, bool childless = false) {
  return {.unit = unit,
          .length = page.length,
          .checksum = PageChecksum(page.view(), unit),
          .generation = kGeneration,
          .childless = childless};
}

PageBytes ExampleBranch() {
  const std::vector<std::vector<LeafEntry>> leaves = {
      {{"user#1", "one"}, {"user#22", "two"}}, {{"user#3", "three"}}, {{"user#51", "five"}}};
  const std::vector<std::string_view> separators = {"user#3", "user#5"};
  PageBytes branch = BuildBranch(TreeId{7}, 1, separators);
  for (uint64_t i = 0; i < leaves.size(); ++i) {
    const PageBytes leaf = BuildLeaf(TreeId{7}, leaves[i]);
    PutPageRef(branch.data.get() + kPageHeaderBytes + i * kPageRefBytes,
               RefTo(leaf, 3 + i, /*childless=*/true));
  }
  return branch;
}

TEST(FormatDocumentTest, PagesOfBtreeMd) {
  const std::vector<std::string> examples = Examples("docs/format/btree.md", /*offsets=*/true);
  ASSERT_EQ(examples.size(), 6u);
  const PageBytes branch = ExampleBranch();
  const PageBytes directory =
      EncodeDirectory({{.id = TreeId{7}, .position = 5, .root = RefTo(branch, 2)}});
  UnitSet units;
  units.Add({2, 4});
  const PageBytes bitmap = EncodeBitmap(units);
  EXPECT_EQ(examples[0], EncodeSuperblock({.file_id = {0x1122334455667788, 0x99aabbccddeeff00},
                                           .generation = kGeneration,
                                           .file_units = 8,
                                           .directory = RefTo(directory, 6),
                                           .bitmap = RefTo(bitmap, 7)}));

  const std::vector<LeafEntry> entries = {{"user#1", "one"}, {"user#22", "", 70'000, true}};
  EXPECT_EQ(examples[1], BuildLeaf(TreeId{7}, entries).view());
  EXPECT_EQ(examples[2], branch.view());
  EXPECT_THAT(CheckPage(branch.view()), IsOk());
  EXPECT_EQ(examples[3], directory.view());
  EXPECT_EQ(examples[4], bitmap.view());

  PageCompressor compressor({});
  const auto expanded = compressor.Expand(examples[5]);
  ASSERT_THAT(expanded.status(), IsOk());
  const PageBytes value = BuildBlob(PageKind::kOverflow, TreeId{3}, 0, std::string(5000, 'a'));
  EXPECT_EQ(expanded->view(), value.view());
}

TEST(FormatDocumentTest, SegmentAndRecordOfWalMd) {
  const std::vector<std::string> examples = Examples("docs/format/wal.md", /*offsets=*/true);
  ASSERT_EQ(examples.size(), 2u);
  const SegmentHeader header = {
      .life = {.identity = 0x1122334455667788, .segment = 3, .generation = 9},
      .segment_bytes = 65536,
      .block_bytes = 512,
      .first_sequence = 41};
  EXPECT_EQ(examples[0], EncodeSegmentHeader(header).substr(0, kSegmentHeaderBytes));

  GroupEncoder encoder;
  WriteBatch put;
  put.Put("user", "7");
  encoder.Add(TreeId{1}, put);
  encoder.EndWrite();
  WriteBatch remove;
  remove.Delete("a");
  encoder.Add(TreeId{16}, remove);
  encoder.EndWrite();
  EXPECT_EQ(examples[1], encoder.Take());
}

TEST(FormatDocumentTest, ObjectsOfBackupMd) {
  std::vector<std::string> examples = Examples("docs/format/backup.md", /*offsets=*/false);
  ASSERT_EQ(examples.size(), 3u);  // The first one shows names.
  ChunkBuilder chunk;
  chunk.Add("lima", "Peru");
  chunk.Add("oslo", "Norway");
  EXPECT_EQ(examples[1], chunk.bytes());

  BackupManifest manifest{.position = 7};
  manifest.trees.push_back({"", {}});
  manifest.trees.push_back({"cities", {{{0x1122, 0x3344}, 34, 2, "p", Digest128{0x55, 0x66}}}});
  const std::string bytes = EncodeManifest(manifest);
  EXPECT_EQ(examples[2], bytes.substr(0, bytes.size() - 8));
}

}  // namespace
}  // namespace dynlib::store
