// The worked examples of docs/format/btree.md and backup.md: the bytes shown there are those that
// are written. (That of wal.md: log_format_test.)
#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "dynlib/base/checksum.h"
#include "dynlib/store/backup_format.h"
#include "dynlib/store/page.h"
#include "dynlib/store/page_compression.h"
#include "dynlib/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace dynlib::store {
namespace {

// The bytes of each block of a document in which every line is bytes as hexadecimal digits, up to
// three spaces and what they mean; "00 × 24" is 24 of them. With `offsets`, each line begins with
// where it stands.
std::vector<std::string> Examples(const std::string& path, bool offsets) {
  std::ifstream file(path);
  EXPECT_TRUE(file.is_open()) << path;
  std::vector<std::string> blocks;
  bool inside = false;
  std::string line;
  while (std::getline(file, line)) {
    if (line.starts_with("```")) {
      inside = !inside;
      if (inside) blocks.emplace_back();
      continue;
    }
    if (!inside) continue;
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

TEST(FormatDocumentTest, PagesOfBtreeMd) {
  const std::vector<std::string> examples = Examples("docs/format/btree.md", /*offsets=*/true);
  ASSERT_EQ(examples.size(), 2u);
  const std::vector<LeafEntry> entries = {{"user#1", "one"}, {"user#22", "", 70'000, true}};
  EXPECT_EQ(examples[0], BuildLeaf(TreeId{7}, entries).view());

  PageCompressor compressor({});
  const auto expanded = compressor.Expand(examples[1]);
  ASSERT_THAT(expanded.status(), IsOk());
  const PageBytes value = BuildBlob(PageKind::kOverflow, TreeId{3}, 0, std::string(5000, 'a'));
  EXPECT_EQ(expanded->view(), value.view());
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
