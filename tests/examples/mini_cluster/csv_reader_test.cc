#include "examples/mini_cluster/csv_reader.h"

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/random.h"
#include "dynlib/base/strings.h"
#include "dynlib/testing/status_matchers.h"
#include "examples/mini_cluster/record.h"
#include "examples/mini_cluster/text_input.h"
#include "gtest/gtest.h"

namespace dynlib::mini_cluster {
namespace {

using ::testing::HasSubstr;
using Rows = std::vector<std::vector<std::string>>;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

absl::StatusOr<std::vector<Record>> ReadAll(const std::string& text, CsvOptions options = {},
                                            size_t record_bytes_max = 1 << 20) {
  auto reader = CsvReader::Create(TextInput::OfText("f.csv", text, record_bytes_max), options);
  if (!reader.ok()) return reader.status();
  std::vector<Record> records;
  while (true) {
    auto record = (*reader)->Next();
    if (!record.ok()) {
      // An error is the end.
      EXPECT_FALSE((*(*reader)->Next()).has_value());
      return record.status();
    }
    if (!*record) return records;
    records.push_back(*std::move(*record));
  }
}

Rows RowsOf(const std::string& text, CsvOptions options = {}) {
  auto records = ReadAll(text, std::move(options));
  EXPECT_TRUE(records.ok()) << records.status();
  Rows rows;
  if (!records.ok()) return rows;
  for (const Record& record : *records) {
    rows.emplace_back();
    for (const auto& [name, value] : record.fields) rows.back().push_back(value.string());
  }
  return rows;
}

std::string ErrorOf(const std::string& text, CsvOptions options = {}) {
  auto records = ReadAll(text, std::move(options));
  EXPECT_EQ(records.status().code(), kInvalid) << Escape(text);
  return std::string(ToStd(records.status().message()));
}

TEST(Csv, HeaderNamesTheFields) {
  auto records = ReadAll("id,name\n1,one\n2,two\n");
  ASSERT_TRUE(records.ok()) << records.status();
  ASSERT_EQ(records->size(), 2u);
  EXPECT_EQ(records->at(1).line, 3u);
  EXPECT_EQ(records->at(1).fields[0].first, "id");
  EXPECT_EQ(records->at(1).fields[1].first, "name");
  EXPECT_EQ(records->at(1).fields[1].second.string(), "two");
}

TEST(Csv, EmptyFieldsAreKept) {
  EXPECT_EQ(RowsOf("a,b,c\n,,\n1,,\"\"\n"), (Rows{{"", "", ""}, {"1", "", ""}}));
}

TEST(Csv, LastLineNeedsNoEnd) {
  EXPECT_EQ(RowsOf("a,b\n1,2"), (Rows{{"1", "2"}}));
  EXPECT_EQ(RowsOf("a,b\n1,"), (Rows{{"1", ""}}));
  EXPECT_EQ(RowsOf("a,b\r\n1,2\r\n"), (Rows{{"1", "2"}}));
  EXPECT_EQ(RowsOf("a,b"), Rows{});
}

TEST(Csv, Quotes) {
  EXPECT_EQ(RowsOf("a,b\n\"x,y\",\"he said \"\"no\"\"\"\n"), (Rows{{"x,y", "he said \"no\""}}));
  EXPECT_EQ(RowsOf("a,b\r\n\"two\r\nlines\",2\r\n\"3\",\"4\"\r\n"),
            (Rows{{"two\r\nlines", "2"}, {"3", "4"}}));
  EXPECT_EQ(RowsOf("\"a,b\"\n1\n"), (Rows{{"1"}}));
}

TEST(Csv, LinesAreCountedThroughQuotes) {
  auto records = ReadAll("a\n\"1\n2\n3\"\nx\n");
  ASSERT_TRUE(records.ok()) << records.status();
  EXPECT_EQ(records->at(0).line, 2u);
  EXPECT_EQ(records->at(1).line, 5u);
}

TEST(Csv, BlankLinesAreSkipped) {
  EXPECT_EQ(RowsOf("\na,b\n\n1,2\n\r\n\n3,4\n\n"), (Rows{{"1", "2"}, {"3", "4"}}));
  EXPECT_EQ(RowsOf("a\n\n\"\"\n"), (Rows{{""}}));
}

TEST(Csv, ByteOrderMarkIsSkipped) {
  EXPECT_EQ(RowsOf("\xef\xbb\xbf"
                   "a\n1\n"),
            (Rows{{"1"}}));
  auto records = ReadAll(
      "\xef\xbb\xbf"
      "a\n1\n");
  EXPECT_EQ(records->at(0).fields[0].first, "a");
}

TEST(Csv, OtherDelimiterNamesGivenAndNoQuotes) {
  EXPECT_EQ(RowsOf("1;\"x;y\"\n", {.delimiter = ';', .column_names = {"a", "b"}}),
            (Rows{{"1", "x;y"}}));
  EXPECT_EQ(RowsOf("1;\"x\n", {.delimiter = ';', .quotes = false, .column_names = {"a", "b"}}),
            (Rows{{"1", "\"x"}}));
}

TEST(Csv, ErrorsNameLineAndColumn) {
  EXPECT_EQ(ErrorOf("a,b\n1,2\n3,\"open\n4,5\n"),
            "f.csv:3:3: the quote that begins here is not closed");
  EXPECT_EQ(ErrorOf("a,b\n1\n"), "f.csv:2:1: the row has 1 fields, there are 2 columns");
  EXPECT_EQ(ErrorOf("a,b\n1,2,3\n"), "f.csv:2:5: the row has 3 fields, there are 2 columns");
  EXPECT_EQ(ErrorOf("a,b\n1,x\"y\n"),
            "f.csv:2:4: a quote within a field that does not begin with one");
  EXPECT_EQ(ErrorOf("a,b\n\"1\"x,2\n"), "f.csv:2:4: text after the closing quote");
  EXPECT_EQ(ErrorOf("a,b\n\"1\"\rx,2\n"), "f.csv:2:4: a carriage return without a line feed");
  EXPECT_EQ(ErrorOf("a,b\n1,\xff\xfe\n"), "f.csv:2:3: the field '\\xff\\xfe' is not UTF-8");
  EXPECT_EQ(ErrorOf("a,b,a\n"), "f.csv:1:1: column 3 'a' has the name of an earlier one");
  EXPECT_EQ(ErrorOf("a,,b\n"), "f.csv:1:1: column 2 has an empty name");
  EXPECT_THAT(ErrorOf(""), HasSubstr("the file is empty"));
  EXPECT_THAT(ErrorOf("a\n", {.delimiter = '"'}), HasSubstr("delimiter '\""));
}

TEST(Csv, RecordsAreBounded) {
  EXPECT_TRUE(ReadAll("a\n12345678\n12345678\n", {}, 9).ok());
  EXPECT_THAT(ReadAll("a\n12345678\n123456789\n", {}, 9),
              StatusIs(kInvalid, HasSubstr("f.csv:3:10: the record is longer than 9 bytes")));
  EXPECT_THAT(ReadAll("a\n\"" + std::string(100, 'x'), {}, 50),
              StatusIs(kInvalid, HasSubstr("longer than 50 bytes")));
}

std::string Quoted(const std::string& text) {
  std::string out = "\"";
  for (char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}

TEST(Csv, RandomTablesRoundTrip) {
  Random random(1);
  const std::string alphabet = "ab,;\"\r\n \t";
  for (int i = 0; i < 2000; ++i) {
    size_t columns = 1 + random.Below(4);
    Rows rows(1 + random.Below(4));
    std::string text;
    for (size_t c = 0; c < columns; ++c) text += Cat(c == 0 ? "" : ",", "n", c);
    text += "\n";
    for (auto& row : rows) {
      for (size_t c = 0; c < columns; ++c) {
        std::string field;
        for (uint64_t n = random.Below(6); n > 0; --n) {
          field += alphabet[random.Below(alphabet.size())];
        }
        row.push_back(field);
        text += (c == 0 ? "" : ",") + Quoted(field);
      }
      text += random.Chance(0.5) ? "\n" : "\r\n";
    }
    ASSERT_EQ(RowsOf(text), rows) << Escape(text);
  }
}

TEST(Csv, DamagedTextGivesRowsOrAnErrorWithItsPlace) {
  Random random(2);
  const std::string good = "id,name,v\r\n1,\"one, \"\"1\"\"\",\n2,two,\"x\ny\"\n\n3,,z";
  const std::string alphabet(
      "\",\n\r\0\xff"
      "a",
      7);
  int errors = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string text =
        i < static_cast<int>(good.size()) ? good.substr(0, static_cast<size_t>(i)) : good;
    for (uint64_t n = random.Below(4); n > 0; --n) {
      text.insert(random.Below(text.size() + 1), 1, alphabet[random.Below(alphabet.size())]);
    }
    auto records = ReadAll(text);
    if (records.ok()) {
      for (const Record& record : *records) {
        ASSERT_EQ(record.fields.size(), records->at(0).fields.size());
      }
    } else {
      ++errors;
      ASSERT_EQ(ToStd(records.status().message()).substr(0, 6), "f.csv:");
    }
  }
  EXPECT_GT(errors, 1000);
}

}  // namespace
}  // namespace dynlib::mini_cluster
