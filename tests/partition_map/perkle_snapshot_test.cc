#include "dynlib/partition_map/perkle_snapshot.h"

#include <string>
#include <vector>

#include "dynlib/base/random.h"
#include "dynlib/base/strings.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dynlib::partition_map {
namespace {

using ::testing::HasSubstr;

Perkle MakeTree(size_t entries, size_t value_bytes = 20) {
  Random random(entries);
  Perkle tree;
  for (size_t i = 0; i < entries; ++i) {
    const std::string key = Cat("table", random.Below(entries / 3 + 1), "/", random.Next());
    EXPECT_THAT(tree.Put(key, std::string(random.Below(value_bytes), 'v')), IsOk());
  }
  return tree;
}

TEST(PerkleSnapshot, GivesTheSameTree) {
  for (const size_t entries : {0, 1, 2, 300, 5'000}) {
    const Perkle tree = MakeTree(entries);
    const absl::StatusOr<Perkle> again = DecodeSnapshot(EncodeSnapshot(tree));
    ASSERT_THAT(again, IsOk()) << entries;
    EXPECT_EQ(again->digest(), tree.digest());
    EXPECT_EQ(again->MemoryBytes(), tree.MemoryBytes());
    EXPECT_TRUE(again->Verify());
  }
}

TEST(PerkleSnapshot, LargeOnesComeInPieces) {
  const Perkle tree = MakeTree(200, 60'000);
  std::string bytes;
  size_t pieces = 0, longest = 0;
  EXPECT_THAT(WriteSnapshot(tree,
                            [&](std::string_view piece) {
                              ++pieces;
                              longest = std::max(longest, piece.size());
                              bytes += piece;
                              return absl::OkStatus();
                            }),
              IsOk());
  EXPECT_GE(pieces, 5u);
  EXPECT_LT(longest, size_t{2} << 20);
  const absl::StatusOr<Perkle> again = DecodeSnapshot(bytes);
  ASSERT_THAT(again, IsOk());
  EXPECT_EQ(again->digest(), tree.digest());
}

TEST(PerkleSnapshot, AnErrorOfTheWriterEndsIt) {
  for (int fails_at = 0; fails_at < 3; ++fails_at) {
    int pieces = 0;
    EXPECT_THAT(WriteSnapshot(MakeTree(200, 60'000),
                              [&](std::string_view) {
                                return pieces++ == fails_at ? absl::UnavailableError("no")
                                                            : absl::OkStatus();
                              }),
                StatusIs(absl::StatusCode::kUnavailable));
    EXPECT_EQ(pieces, fails_at + 1);
  }
}

// Every byte counts: changed, cut off there, or with bytes after the end.
TEST(PerkleSnapshot, DamageAtEachByteIsDetected) {
  const std::string bytes = EncodeSnapshot(MakeTree(40));
  for (size_t at = 0; at < bytes.size(); ++at) {
    for (const int flip : {1, 0x80, 0xff}) {
      std::string damaged = bytes;
      damaged[at] = static_cast<char>(damaged[at] ^ flip);
      ASSERT_THAT(DecodeSnapshot(damaged), StatusIs(absl::StatusCode::kDataLoss)) << at;
    }
    ASSERT_THAT(DecodeSnapshot(std::string_view(bytes).substr(0, at)),
                StatusIs(absl::StatusCode::kDataLoss))
        << at;
  }
  EXPECT_THAT(DecodeSnapshot(bytes + '\0'),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("cut off")));
}

// Sound pieces of two snapshots are no snapshot.
TEST(PerkleSnapshot, PiecesOfTwoAreNotTakenForOne) {
  std::vector<std::string> one, other;
  const auto into = [](std::vector<std::string>& pieces) {
    return [&pieces](std::string_view piece) {
      pieces.emplace_back(piece);
      return absl::OkStatus();
    };
  };
  Perkle tree = MakeTree(200, 60'000);
  EXPECT_THAT(WriteSnapshot(tree, into(one)), IsOk());
  EXPECT_THAT(tree.Put(tree.Last()->key, "changed"), IsOk());
  EXPECT_THAT(WriteSnapshot(tree, into(other)), IsOk());
  ASSERT_EQ(one.size(), other.size());
  std::string mixed, swapped;
  for (size_t i = 0; i < one.size(); ++i) mixed += i + 1 < one.size() ? one[i] : other[i];
  for (size_t i = 0; i < one.size(); ++i) swapped += one[i == 1 ? 2 : i == 2 ? 1 : i];
  EXPECT_THAT(DecodeSnapshot(mixed), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("digest")));
  EXPECT_THAT(DecodeSnapshot(swapped),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("frame 0 is damaged")));
}

}  // namespace
}  // namespace dynlib::partition_map
