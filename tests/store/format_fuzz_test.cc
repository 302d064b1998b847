// The readers of the store's formats, fed with good bytes that were changed at random: a fixed run
// of what format_fuzzer does for as long as one likes.
#include "tests/store/format_fuzz.h"

#include <cstdint>
#include <functional>
#include <map>
#include <ostream>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "dynlib/base/checksum.h"
#include "dynlib/base/coding.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/random.h"
#include "dynlib/base/strings.h"
#include "dynlib/store/backup_format.h"
#include "dynlib/store/extent_allocator.h"
#include "dynlib/store/page.h"
#include "dynlib/store/page_compression.h"
#include "dynlib/store/store_catalogue.h"
#include "dynlib/store/store_folder.h"
#include "dynlib/store/store_record.h"
#include "dynlib/store/superblock.h"
#include "dynlib/store/write_batch.h"
#include "gtest/gtest.h"
#include "tests/base/mutate.h"

namespace dynlib::store {
namespace {

std::string AnyBytes(Random& random, uint64_t longest) {
  std::string bytes(random.Below(longest + 1), '\0');
  for (char& c : bytes) c = static_cast<char>('a' + random.Below(4));
  return bytes;
}

std::string GoodGroup(Random& random) {
  GroupEncoder encoder;
  for (uint64_t writes = 1 + random.Below(3); writes > 0; --writes) {
    if (random.Chance(0.2)) encoder.CreateTree(TreeId{5}, "name");
    WriteBatch batch;
    for (uint64_t n = random.Below(5); n > 0; --n) {
      const std::string key = AnyBytes(random, 12);
      if (random.Chance(0.2)) {
        batch.DeleteRange(key, key + "z");
      } else if (random.Chance(0.3)) {
        batch.Delete(key);
      } else {
        batch.Put(key, AnyBytes(random, 30));
      }
    }
    encoder.Add(TreeId{1 + random.Below(3)}, batch);
    if (random.Chance(0.1)) encoder.DropTree(TreeId{5});
    encoder.EndWrite();
  }
  return encoder.Take();
}

PageBytes GoodLeaf(Random& random, uint64_t rows) {
  std::map<std::string, std::string> model;
  for (; rows > 0; --rows) {
    model["prefix/" + AnyBytes(random, 12)] = AnyBytes(random, 40) + std::string(60, '.');
  }
  std::vector<LeafEntry> entries;
  for (const auto& [key, value] : model) {
    const bool overflow = random.Chance(0.1);
    entries.push_back({key, overflow ? std::string_view() : std::string_view(value),
                       overflow ? 5000u : 0u, overflow});
  }
  return BuildLeaf(TreeId{3}, entries);
}

std::string GoodPage(Random& random) {
  if (random.Chance(0.6)) return std::string(GoodLeaf(random, 1 + random.Below(20)).view());
  std::set<std::string> separators;
  for (uint64_t n = 1 + random.Below(20); n > 0; --n) separators.insert(AnyBytes(random, 12) + "s");
  const std::vector<std::string_view> views(separators.begin(), separators.end());
  return std::string(BuildBranch(TreeId{3}, 1, views).view());
}

std::string GoodCompressedPage(Random& random) {
  PageCompressor compressor({.compression = Compression::kZstd});
  std::string out;
  while (!compressor.Compress(GoodLeaf(random, 200).view(), out)) {
  }
  return out;
}

PageRef AnyRef(Random& random) {
  return {.unit = random.Below(100), .length = 100, .checksum = random.Next()};
}

std::string GoodSuperblock(Random& random) {
  return EncodeSuperblock({.file_id = {random.Next(), 2},
                           .generation = random.Below(100),
                           .file_units = 100,
                           .directory = AnyRef(random),
                           .bitmap = AnyRef(random)});
}

std::string GoodBlob(Random& random) {
  if (random.Chance(0.5)) {
    UnitSet units;
    for (int i = 0; i < 10; ++i) units.Add({2 + random.Below(900), 1 + random.Below(5)});
    return std::string(EncodeBitmap(units).view());
  }
  std::vector<TreeRecord> trees;
  for (uint64_t id = 0; id < random.Below(10); ++id) {
    trees.push_back({TreeId{id * 3}, random.Next(), AnyRef(random)});
  }
  return std::string(EncodeDirectory(trees).view());
}

std::string GoodManifest(Random& random) {
  BackupManifest manifest{.position = random.Next()};
  for (uint64_t trees = random.Below(4); trees > 0; --trees) {
    BackupManifest::Tree& tree = manifest.trees.emplace_back();
    tree.name = AnyBytes(random, 9);
    for (uint64_t chunks = random.Below(4); chunks > 0; --chunks) {
      BackupChunk& chunk = tree.chunks.emplace_back();
      chunk = {{random.Next(), random.Next()}, random.Below(1 << 20), random.Below(1000)};
      chunk.end = AnyBytes(random, 9);
      if (random.Chance(0.5)) chunk.pages = Digest128{random.Next(), 1};
    }
  }
  return EncodeManifest(manifest);
}

std::string GoodChunk(Random& random) {
  ChunkBuilder chunk;
  for (uint64_t n = random.Below(10); n > 0; --n) {
    chunk.Add(AnyBytes(random, 12), AnyBytes(random, 200));
  }
  return chunk.bytes();
}

std::string GoodCatalogue(Random& random) {
  WriteBatch rows;
  uint64_t id = kFirstNamedTree;
  for (uint64_t n = random.Below(6); n > 0; --n, ++id) {
    AddTreeRow(Cat(AnyBytes(random, 12), "/", id), TreeId{id}, rows);
  }
  std::string bytes;
  for (const auto& row : rows.operations()) {
    PutLengthPrefixed(bytes, row.key);
    PutLengthPrefixed(bytes, *row.value);
  }
  return bytes;
}

struct Format {
  std::string name;
  std::function<std::string(Random&)> good;
  std::function<bool(std::string_view)> read;
  // Behind a right checksum, where there is one.
  std::function<bool(std::string_view)> read_sealed = nullptr;
};

void PrintTo(const Format& format, std::ostream* out) { *out << format.name; }

class FormatFuzzTest : public testing::TestWithParam<Format> {};

TEST_P(FormatFuzzTest, ChangedBytesAreReadWithoutHarm) {
  const Format& format = GetParam();
  int taken = 0;
  int refused = 0;
  for (uint64_t seed = 1; seed <= 4000; ++seed) {
    Random random(seed);
    std::string bytes = format.good(random);
    ASSERT_TRUE(format.read(bytes)) << seed;
    for (uint64_t n = 1 + random.Below(4); n > 0; --n) Mutate(random, bytes);
    const bool plain = format.read(bytes);
    const bool good = format.read_sealed == nullptr ? plain : format.read_sealed(bytes);
    ++(good ? taken : refused);
  }
  // Some changes are to what is not looked at: a value, a reserved byte behind its checksum.
  EXPECT_GT(refused, 50);
  EXPECT_GT(taken, 30);
}

INSTANTIATE_TEST_SUITE_P(
    Formats, FormatFuzzTest,
    testing::Values(Format{"Group", GoodGroup, FuzzGroup}, Format{"Page", GoodPage, FuzzPage},
                    Format{"CompressedPage", GoodCompressedPage, FuzzCompressedPage},
                    Format{"Superblock", GoodSuperblock,
                           [](std::string_view bytes) { return FuzzSuperblock(bytes, false); },
                           [](std::string_view bytes) { return FuzzSuperblock(bytes, true); }},
                    Format{"Blob", GoodBlob, FuzzBlobs},
                    Format{"Manifest", GoodManifest,
                           [](std::string_view bytes) { return FuzzManifest(bytes, false); },
                           [](std::string_view bytes) { return FuzzManifest(bytes, true); }},
                    Format{"Chunk", GoodChunk, FuzzChunk},
                    Format{"Catalogue", GoodCatalogue, FuzzCatalogue},
                    Format{"StoreMark",
                           [](Random&) { return EncodeStoreMark({.has_pages = true}); },
                           FuzzStoreMark}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace dynlib::store
