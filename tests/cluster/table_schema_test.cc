#include "dynlib/cluster/table_schema.h"

#include <string>

#include "absl/status/status.h"
#include "dynlib/base/random.h"
#include "dynlib/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "tests/cluster/random_item.h"

namespace dynlib::cluster {
namespace {

using ::testing::HasSubstr;

TableSchema TwoKeys() {
  return {.partition_key = {"category", KeyType::kString},
          .sort_key = KeyAttribute{"code", KeyType::kNumber}};
}

TEST(TableSchema, RoundTrips) {
  EXPECT_THAT(DecodeSchema(EncodeSchema(TwoKeys())), IsOkAndHolds(TwoKeys()));
  TableSchema one{.partition_key = {"id", KeyType::kBinary}};
  EXPECT_THAT(DecodeSchema(EncodeSchema(one)), IsOkAndHolds(one));
  EXPECT_EQ(EncodeSchema(one), std::string("\x01\x01\x05\x02id", 6));
}

TEST(TableSchema, FaultsAreNamed) {
  TableSchema schema = TwoKeys();
  schema.partition_key.name = "";
  EXPECT_THAT(ValidateSchema(schema),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("partition_key.name")));
  schema = TwoKeys();
  schema.sort_key->name = std::string(256, 'x');
  EXPECT_THAT(ValidateSchema(schema),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("sort_key.name"), HasSubstr("256"), HasSubstr("255"))));
  schema.sort_key->name = std::string(255, 'x');
  DYNLIB_EXPECT_OK(ValidateSchema(schema));
  schema.sort_key->name = "category";
  EXPECT_THAT(ValidateSchema(schema),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("must differ")));
  schema = TwoKeys();
  schema.sort_key->type = static_cast<KeyType>(2);
  EXPECT_THAT(ValidateSchema(schema),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("sort_key.type 2")));
  schema = TwoKeys();
  schema.partition_key.name = "\xff";
  EXPECT_THAT(ValidateSchema(schema),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("UTF-8")));
}

TEST(TableSchema, BadBytesAreRefused) {
  std::string bytes = EncodeSchema(TwoKeys());
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_THAT(DecodeSchema(bytes.substr(0, size)), StatusIs(absl::StatusCode::kDataLoss));
  }
  EXPECT_THAT(DecodeSchema(bytes + "x"), StatusIs(absl::StatusCode::kDataLoss));
  Random random(6);
  for (int i = 0; i < 20000; ++i) {
    absl::StatusOr<TableSchema> schema = DecodeSchema(Damage(random, bytes));
    if (schema.ok()) {
      DYNLIB_ASSERT_OK(ValidateSchema(*schema));
      ASSERT_EQ(*DecodeSchema(EncodeSchema(*schema)), *schema);
    }
  }
}

}  // namespace
}  // namespace dynlib::cluster
