#include "examples/mini_cluster/journal.h"

#include <cstdint>
#include <fstream>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dynlib::mini_cluster {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

TEST(JournalTest, TellsTheHighestOfEachAlsoAcrossRuns) {
  const std::string path = ::testing::TempDir() + "/journal";
  for (uint64_t generation : {3, 2}) {
    DYNLIB_ASSERT_OK_AND_ASSIGN(std::unique_ptr<Journal> journal, Journal::Open(path));
    journal->Row(1, generation);
    journal->Row(10 * generation, generation);
    journal->Counter("c", generation);
  }
  DYNLIB_ASSERT_OK_AND_ASSIGN(JournalContents contents, ReadJournal(path));
  EXPECT_THAT(contents.rows, ElementsAre(Pair(1, 3), Pair(20, 2), Pair(30, 3)));
  EXPECT_THAT(contents.counters, ElementsAre(Pair("c", 3)));
}

TEST(JournalTest, ALineThatWasCutIsLeftOut) {
  const std::string path = ::testing::TempDir() + "/cut";
  std::ofstream(path) << "row 1 1\nrow 12";
  DYNLIB_ASSERT_OK_AND_ASSIGN(JournalContents contents, ReadJournal(path));
  EXPECT_THAT(contents.rows, ElementsAre(Pair(1, 1)));
}

TEST(JournalTest, WhatIsNoEntryIsRefused) {
  const std::string path = ::testing::TempDir() + "/bad";
  std::ofstream(path) << "row 1 1\nhello\n";
  const absl::Status status = ReadJournal(path).status();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(std::string(status.message()), HasSubstr("bad:2:"));
  EXPECT_THAT(ReadJournal(path + ".none"), StatusIs(absl::StatusCode::kNotFound));
}

}  // namespace
}  // namespace dynlib::mini_cluster
