// The readers of items and of what stands beside them, fed with good bytes that were changed at
// random: a fixed run of what item_fuzzer does for as long as one likes.
#include "tests/cluster/item_fuzz.h"

#include <cstdint>
#include <functional>
#include <ostream>
#include <string>
#include <string_view>
#include <utility>

#include "dynlib/base/checksum.h"
#include "dynlib/base/random.h"
#include "dynlib/cluster/condition.h"
#include "dynlib/cluster/item.h"
#include "dynlib/cluster/key.h"
#include "dynlib/cluster/table_schema.h"
#include "gtest/gtest.h"
#include "tests/base/mutate.h"
#include "tests/cluster/random_item.h"

namespace dynlib::cluster {
namespace {

std::string GoodItem(Random& random) { return EncodeItem(RandomItem(random)); }

std::string GoodCondition(Random& random) {
  Condition condition;
  for (uint64_t n = random.Below(4); n > 0; --n) {
    Clause clause{.attribute = RandomAscii(random, 8) + "n",
                  .op = static_cast<Clause::Op>(1 + random.Below(10))};
    if (clause.op > Clause::Op::kNotExists) clause.operand = RandomValue(random);
    condition.clauses.push_back(std::move(clause));
  }
  return EncodeCondition(condition);
}

std::string GoodSchema(Random& random) {
  constexpr KeyType kTypes[] = {KeyType::kNumber, KeyType::kString, KeyType::kBinary};
  TableSchema schema{.partition_key = {RandomAscii(random, 9) + "p", kTypes[random.Below(3)]}};
  if (random.Chance(0.5)) {
    schema.sort_key = KeyAttribute{RandomAscii(random, 9) + "s", kTypes[random.Below(3)]};
  }
  return EncodeSchema(schema);
}

std::string GoodKey(Random& random) {
  return *EncodeKey(FuzzKeySchema(), Value::String(RandomAscii(random, 20) + "k"),
                    Value::Number(RandomNumber(random)));
}

// A key's hash made that of its partition key again, so that what follows it is looked at.
bool FuzzRehashedKey(std::string_view bytes) {
  std::string key(bytes);
  const size_t end = key.find(std::string_view("\0\x01", 2), 8);
  if (end != std::string::npos) {
    std::string hash = HashBoundary(Checksum(std::string_view(key).substr(8, end + 2 - 8)));
    key.replace(0, 8, hash);
  }
  return FuzzKey(key);
}

struct Format {
  std::string name;
  std::function<std::string(Random&)> good;
  std::function<bool(std::string_view)> read;
};

void PrintTo(const Format& format, std::ostream* out) { *out << format.name; }

class ItemFuzzTest : public testing::TestWithParam<Format> {};

TEST_P(ItemFuzzTest, ChangedBytesAreRefusedOrTheEncodingOfWhatTheyMean) {
  const Format& format = GetParam();
  int taken = 0;
  int refused = 0;
  for (uint64_t seed = 1; seed <= 20000; ++seed) {
    Random random(seed);
    std::string bytes = format.good(random);
    ASSERT_TRUE(format.read(bytes)) << seed;
    for (uint64_t n = 1 + random.Below(3); n > 0; --n) Mutate(random, bytes);
    ++(format.read(bytes) ? taken : refused);
  }
  EXPECT_GT(refused, 4000);
  EXPECT_GT(taken, 400) << "a letter changed is another good value";
}

INSTANTIATE_TEST_SUITE_P(Formats, ItemFuzzTest,
                         testing::Values(Format{"Item", GoodItem, FuzzItem},
                                         Format{"Condition", GoodCondition, FuzzCondition},
                                         Format{"Schema", GoodSchema, FuzzSchema},
                                         Format{"Key", GoodKey, FuzzRehashedKey}),
                         [](const auto& info) { return info.param.name; });

// Bytes of no writer at all.
TEST(ItemFuzzTest, AnyBytesAreRefusedOrTheEncodingOfWhatTheyMean) {
  Random random(1);
  int taken = 0;
  for (int i = 0; i < 50000; ++i) {
    std::string bytes = "\x01" + RandomBytes(random, 24);
    taken += FuzzItem(bytes);
    FuzzCondition(bytes);
    FuzzSchema(bytes);
    FuzzRehashedKey(RandomBytes(random, 8) + bytes);
  }
  EXPECT_GT(taken, 100);
}

// A count or length that takes a byte more than it needs would be a second encoding of the item:
// replicas that hold the same rows would differ by digest.
TEST(ItemFuzzTest, AnEncodingThatIsLongerThanNeedBeIsRefused) {
  EXPECT_TRUE(FuzzItem(std::string("\x01\x01\x01n\x04\x01s", 7)));
  EXPECT_FALSE(FuzzItem(std::string("\x01\x81\x00\x01n\x04\x01s", 8)));
  EXPECT_FALSE(FuzzItem(std::string("\x01\x01\x81\x00n\x04\x01s", 8)));
  EXPECT_FALSE(FuzzItem(std::string("\x01\x01\x01n\x04\x81\x00s", 8)));
}

}  // namespace
}  // namespace dynlib::cluster
