#include "examples/mini_cluster/json_lines_reader.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/cluster/item.h"
#include "dynlib/testing/status_matchers.h"
#include "examples/mini_cluster/record.h"
#include "examples/mini_cluster/text_input.h"
#include "gtest/gtest.h"

namespace dynlib::mini_cluster {
namespace {

using cluster::Value;
using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

absl::StatusOr<std::vector<Record>> ReadAll(const std::string& text,
                                            size_t record_bytes_max = 1 << 20) {
  JsonLinesReader reader(TextInput::OfText("f.jsonl", text, record_bytes_max));
  std::vector<Record> records;
  while (true) {
    auto record = reader.Next();
    if (!record.ok()) {
      EXPECT_FALSE((*reader.Next()).has_value());
      return record.status();
    }
    if (!*record) return records;
    records.push_back(*std::move(*record));
  }
}

TEST(JsonLines, OneObjectALine) {
  auto records = ReadAll("{\"id\": 1}\r\n\n  \n{\"id\": 2, \"x\": [1]}");
  ASSERT_TRUE(records.ok()) << records.status();
  ASSERT_EQ(records->size(), 2u);
  EXPECT_EQ(records->at(0).line, 1u);
  EXPECT_EQ(records->at(1).line, 4u);
  EXPECT_EQ(*records->at(1).Find("id"), Value::Number(2));
  EXPECT_THAT(ReadAll(""), IsOk());
}

TEST(JsonLines, ErrorsNameLineAndColumn) {
  EXPECT_THAT(ReadAll("{\"id\": 1}\n{\"id\": oops}\n"),
              StatusIs(kInvalid, HasSubstr("f.jsonl:2:8: not a JSON value")));
  EXPECT_THAT(ReadAll("{\"id\":\n1}\n"),
              StatusIs(kInvalid, HasSubstr("f.jsonl:1:7: a value is wanted here")));
  EXPECT_THAT(ReadAll("{} {}\n"), StatusIs(kInvalid, HasSubstr("f.jsonl:1:4: more follows")));
}

TEST(JsonLines, LinesAreBounded) {
  EXPECT_TRUE(ReadAll("{\"a\": 1}\n{\"a\": 2}\n", 9).ok());
  EXPECT_THAT(ReadAll("{\"a\": 1}\n{\"a\": 22}\n", 9),
              StatusIs(kInvalid, HasSubstr("f.jsonl:2:10: the record is longer than 9 bytes")));
}

}  // namespace
}  // namespace dynlib::mini_cluster
