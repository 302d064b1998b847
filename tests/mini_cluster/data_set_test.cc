#include "examples/mini_cluster/data_set.h"

#include <cstdint>
#include <fstream>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/cluster/item.h"
#include "dynlib/cluster/table_schema.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dynlib::mini_cluster {
namespace {

using ::testing::HasSubstr;

std::string Write(const std::string& name, const std::string& text) {
  std::string path = ::testing::TempDir() + "/" + name;
  std::ofstream(path, std::ios::trunc) << text;
  return path;
}

DataSetOptions Options(const std::string& path) {
  return {.records = {.path = path}, .partition_key = "k", .sort_key = "s"};
}

std::string MessageOf(const absl::StatusOr<DataSet>& data) {
  EXPECT_THAT(data, StatusIs(absl::StatusCode::kInvalidArgument));
  return std::string(data.status().message());
}

TEST(DataSetTest, HasEveryRecordAsOftenAsAskedFor) {
  DataSetOptions options = Options(Write("three.csv", "k,s,v\na,1,x\na,2,y\nb,1,z\n"));
  options.repeat = 4;
  DYNLIB_ASSERT_OK_AND_ASSIGN(DataSet data, DataSet::Open(options));
  EXPECT_EQ(data.rows(), 12u);
  std::set<std::string> keys;
  uint64_t next = 0;
  DYNLIB_ASSERT_OK(data.ForEach([&](uint64_t row, cluster::Item item) {
    EXPECT_EQ(row, next++);
    EXPECT_EQ(item.size(), 3u);
    keys.insert(item.at("k").string() + "/" + item.at("s").string());
    return true;
  }));
  EXPECT_EQ(keys.size(), 12u);
  EXPECT_TRUE(keys.contains("a/2") && keys.contains("a/2#3") && !keys.contains("a/2#4"));
}

TEST(DataSetTest, TheDigestTellsSetsApart) {
  const std::string path = Write("one.csv", "k,s,v\na,1,x\n");
  DataSetOptions options = Options(path);
  DYNLIB_ASSERT_OK_AND_ASSIGN(DataSet one, DataSet::Open(options));
  DYNLIB_ASSERT_OK_AND_ASSIGN(DataSet same, DataSet::Open(options));
  EXPECT_EQ(one.digest(), same.digest());
  options.repeat = 2;
  DYNLIB_ASSERT_OK_AND_ASSIGN(DataSet twice, DataSet::Open(options));
  EXPECT_NE(one.digest(), twice.digest());
  Write("one.csv", "k,s,v\na,1,y\n");
  options.repeat = 1;
  DYNLIB_ASSERT_OK_AND_ASSIGN(DataSet other, DataSet::Open(options));
  EXPECT_NE(one.digest(), other.digest());
}

TEST(DataSetTest, AGenerationIsInEveryItemAndNotInTheDigest) {
  DataSetOptions options = Options(Write("g.csv", "k,s\na,1\n"));
  DYNLIB_ASSERT_OK_AND_ASSIGN(DataSet none, DataSet::Open(options));
  options.generation = 7;
  DYNLIB_ASSERT_OK_AND_ASSIGN(DataSet seven, DataSet::Open(options));
  EXPECT_EQ(none.digest(), seven.digest());
  DYNLIB_ASSERT_OK(seven.ForEach([](uint64_t, cluster::Item item) {
    EXPECT_EQ(item.at(kGeneration), cluster::Value::Number(7));
    return true;
  }));
}

TEST(DataSetTest, KeysHaveTheirTypes) {
  DYNLIB_ASSERT_OK_AND_ASSIGN(
      DataSet data, DataSet::Open(Options(Write("n.jsonl", "{\"k\": 1, \"s\": \"x\"}\n"))));
  EXPECT_EQ(data.schema().partition_key.type, cluster::KeyType::kNumber);
  EXPECT_EQ(data.schema().sort_key->type, cluster::KeyType::kString);
}

TEST(DataSetTest, WhatIsWrongIsNamedWithItsLine) {
  EXPECT_THAT(MessageOf(DataSet::Open(Options(Write("a.csv", "k,s\na,1\nb,1\na,1\n")))),
              AllOf(HasSubstr("a.csv:4: "), HasSubstr("line 2")));
  EXPECT_THAT(MessageOf(DataSet::Open(Options(Write("b.jsonl",
                                                    "{\"k\":1,\"s\":1}\n"
                                                    "{\"k\":\"x\",\"s\":1}\n")))),
              AllOf(HasSubstr("b.jsonl:2: "), HasSubstr("'k'")));
  EXPECT_THAT(MessageOf(DataSet::Open(Options(Write("c.csv", "k,s\n")))), HasSubstr("no records"));
  EXPECT_THAT(
      MessageOf(DataSet::Open(Options(Write("d.csv", "k,s\n" + std::string(2049, 'x') + ",1\n")))),
      AllOf(HasSubstr("d.csv:2: "), HasSubstr("2048")));
  EXPECT_THAT(
      MessageOf(DataSet::Open(Options(Write("e.csv", "k,s,v\na,1," + std::string(500'000, 'x'))))),
      AllOf(HasSubstr("e.csv:2: "), HasSubstr("409600")));
}

TEST(DataSetTest, RepetitionNeedsKeysThatCanBeTold) {
  DataSetOptions options = Options(Write("f.csv", "k,s\na,1#2\n"));
  options.repeat = 2;
  EXPECT_THAT(MessageOf(DataSet::Open(options)), AllOf(HasSubstr("f.csv:2: "), HasSubstr("#")));
  options.records.path = Write("f.jsonl", "{\"k\":\"a\",\"s\":1}\n");
  EXPECT_THAT(MessageOf(DataSet::Open(options)), HasSubstr("'s' is a number"));
  options.records.path = Write("h.csv", "k,s\na," + std::string(1023, 'x') + "\n");
  EXPECT_THAT(MessageOf(DataSet::Open(options)), HasSubstr("1024"));
  options.repeat = 1001;
  EXPECT_THAT(MessageOf(DataSet::Open(options)), HasSubstr("repeat is 1001"));
}

}  // namespace
}  // namespace dynlib::mini_cluster
