#include "examples/mini_cluster/record_source.h"

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/cluster/item.h"
#include "dynlib/testing/status_matchers.h"
#include "examples/mini_cluster/record.h"
#include "gtest/gtest.h"

namespace dynlib::mini_cluster {
namespace {

using cluster::Value;
using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

std::string Write(const std::string& name, const std::string& text) {
  std::string path = ::testing::TempDir() + "/" + name;
  std::ofstream(path, std::ios::binary) << text;
  return path;
}

absl::StatusOr<std::vector<Record>> ReadAll(const RecordOptions& options) {
  auto source = OpenRecords(options);
  if (!source.ok()) return source.status();
  std::vector<Record> records;
  while (true) {
    auto record = (*source)->Next();
    if (!record.ok()) return record.status();
    if (!*record) return records;
    records.push_back(*std::move(*record));
  }
}

TEST(OpenRecords, FormatFollowsTheName) {
  auto csv = ReadAll({.path = Write("a.csv", "k,v\n1,2\n")});
  ASSERT_TRUE(csv.ok()) << csv.status();
  EXPECT_EQ(*csv->at(0).Find("v"), Value::String("2"));
  auto tsv = ReadAll({.path = Write("a.tsv", "k\tv\n1,x\t2\n")});
  ASSERT_TRUE(tsv.ok()) << tsv.status();
  EXPECT_EQ(*tsv->at(0).Find("k"), Value::String("1,x"));
  auto json = ReadAll({.path = Write("a.jsonl", "{\"k\": 1}\n")});
  ASSERT_TRUE(json.ok()) << json.status();
  EXPECT_EQ(*json->at(0).Find("k"), Value::Number(1));
  EXPECT_EQ(json->at(0).Find("other"), nullptr);
}

TEST(OpenRecords, FormatGivenWinsOverTheName) {
  auto records = ReadAll({.path = Write("data.txt", "x;y\n"),
                          .format = RecordFormat::kCsv,
                          .delimiter = ';',
                          .column_names = {"a", "b"}});
  ASSERT_TRUE(records.ok()) << records.status();
  EXPECT_EQ(ToItem(records->at(0)),
            (cluster::Item{{"a", Value::String("x")}, {"b", Value::String("y")}}));
}

TEST(OpenRecords, UnreadableFilesAreNamed) {
  EXPECT_THAT(OpenRecords({.path = "/no/such/file.csv"}).status(),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/no/such/file.csv: cannot open")));
  EXPECT_THAT(OpenRecords({.path = ::testing::TempDir()}).status(),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("cannot read")));
}

TEST(OpenRecords, MissingKeyColumnIsNamedOnOpening) {
  EXPECT_THAT(
      OpenRecords({.path = Write("b.csv", "a,b\n1,2\n"), .key_columns = {"a", "id"}}).status(),
      StatusIs(kInvalid, AllOf(HasSubstr("key column 'id'"), HasSubstr("a, b"))));
}

TEST(OpenRecords, MissingOrEmptyKeyIsNamedWithItsLine) {
  EXPECT_THAT(ReadAll({.path = Write("c.csv", "id,v\n1,2\n,3\n"), .key_columns = {"id"}}).status(),
              StatusIs(kInvalid, HasSubstr("c.csv:3:1: the key column 'id' is empty")));
  EXPECT_THAT(ReadAll({.path = Write("c.jsonl", "{\"id\":1}\n{\"x\":1}\n"), .key_columns = {"id"}})
                  .status(),
              StatusIs(kInvalid, HasSubstr("c.jsonl:2:1: the key column 'id' is missing")));
}

TEST(OpenRecords, BoundIsValidated) {
  EXPECT_THAT(OpenRecords({.path = "x", .record_bytes_max = 0}).status(),
              StatusIs(kInvalid, HasSubstr("record_bytes_max 0")));
}

TEST(UnicodeData, LayoutAndPadding) {
  std::string path = Write("UnicodeData.txt",
                           "0041;LATIN CAPITAL LETTER A;Lu;0;L;;;;;N;;;;0061;\n"
                           "1F600;GRINNING FACE;So;0;ON;;;;;N;;;;;\n"
                           "10FFFD;<Plane 16 Private Use, Last>;Co;0;L;;;;;N;;;;;\n");
  auto records = ReadAll({.path = path, .key_columns = {"category", "code"}});
  ASSERT_TRUE(records.ok()) << records.status();
  ASSERT_EQ(records->size(), 3u);
  const Record& a = records->at(0);
  ASSERT_EQ(a.fields.size(), 15u);
  EXPECT_EQ(*a.Find("code"), Value::String("000041"));
  EXPECT_EQ(*a.Find("name"), Value::String("LATIN CAPITAL LETTER A"));
  EXPECT_EQ(*a.Find("category"), Value::String("Lu"));
  EXPECT_EQ(*a.Find("lower"), Value::String("0061"));
  EXPECT_EQ(*a.Find("title"), Value::String(""));
  EXPECT_EQ(*records->at(1).Find("code"), Value::String("01F600"));
  EXPECT_EQ(*records->at(2).Find("code"), Value::String("10FFFD"));
}

TEST(UnicodeData, AnotherNumberOfColumnsIsAnError) {
  EXPECT_THAT(ReadAll({.path = Write("UnicodeData.txt", "0041;A;Lu\n")}).status(),
              StatusIs(kInvalid, AllOf(HasSubstr(":1:8:"), HasSubstr("3 fields"))));
}

TEST(UnicodeData, DebiansTableIsReadWhole) {
  auto source = OpenRecords(
      {.path = kUnicodeDataPath, .key_columns = {kUnicodePartitionKey, kUnicodeSortKey}});
  auto records = ReadAll({.path = kUnicodeDataPath});
  ASSERT_TRUE(records.ok()) << records.status();
  EXPECT_GT(records->size(), 30'000u);
  std::set<std::pair<std::string, std::string>> keys;
  for (const Record& record : *records) {
    ASSERT_EQ(record.fields.size(), 15u) << record.line;
    keys.emplace(record.Find("category")->string(), record.Find("code")->string());
  }
  EXPECT_EQ(keys.size(), records->size());
}

}  // namespace
}  // namespace dynlib::mini_cluster
