#include "benchmarks/harness.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <thread>

#include "benchmarks/cleanup.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dynlib::bench {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(Stats, MedianOfOddAndEvenCounts) {
  EXPECT_EQ(Median({3, 1, 2}), 2);
  EXPECT_EQ(Median({4, 1, 2, 3}), 2.5);
  EXPECT_EQ(Median({7}), 7);
}

// The ranks are those of the usual table of binomial intervals for the median.
TEST(Stats, MedianIntervalIsByRank) {
  const auto one_to = [](int n) {
    std::vector<double> values;
    for (int i = n; i >= 1; --i) values.push_back(i);
    return values;
  };
  const auto ranks = [&](int n) {
    return std::pair(MedianInterval(one_to(n)).low, MedianInterval(one_to(n)).high);
  };
  EXPECT_EQ(ranks(1), std::pair(1.0, 1.0));
  EXPECT_EQ(ranks(5), std::pair(1.0, 5.0));
  EXPECT_EQ(ranks(6), std::pair(1.0, 6.0));
  EXPECT_EQ(ranks(10), std::pair(2.0, 9.0));
  EXPECT_EQ(ranks(20), std::pair(6.0, 15.0));
}

TEST(Stats, QuantileIsTheSmallestValueThatCoversTheShare) {
  std::vector<uint64_t> values;
  for (uint64_t i = 1000; i >= 1; --i) values.push_back(i);
  EXPECT_EQ(Quantile(values, 0.5), 500u);
  EXPECT_EQ(Quantile(values, 0.99), 990u);
  EXPECT_EQ(Quantile(values, 0.999), 999u);
  EXPECT_EQ(Quantile(values, 1), 1000u);
  std::vector<uint64_t> none;
  EXPECT_EQ(Quantile(none, 0.5), 0u);
}

TEST(ParseFlags, TakesBothForms) {
  const auto flags =
      ParseFlags({"--pairs", "4", "--seconds=0.5", "--systems", "dynlib,leveldb", "--json=a.json"});
  ASSERT_TRUE(flags.ok());
  EXPECT_EQ(flags->pairs, 4);
  EXPECT_EQ(flags->seconds, 0.5);
  EXPECT_THAT(flags->systems, ElementsAre("dynlib", "leveldb"));
  EXPECT_EQ(flags->json_path, "a.json");
}

TEST(ParseFlags, TheBenchmarkSaysHowLongARunIsByDefault) {
  const DefaultSeconds seconds{.full = 0.6, .quick = 0.3};
  EXPECT_EQ(ParseFlags({}, seconds)->seconds, 0.6);
  EXPECT_EQ(ParseFlags({"--quick"}, seconds)->seconds, 0.3);
  EXPECT_EQ(ParseFlags({"--quick", "--seconds", "3"}, seconds)->seconds, 3);
}

TEST(ParseFlags, NamesWhatIsWrong) {
  const auto message = [](const std::vector<std::string>& arguments) {
    return ParseFlags(arguments).status().ToString();
  };
  EXPECT_THAT(message({"--fast"}), HasSubstr("unknown option '--fast'"));
  EXPECT_THAT(message({"--fast", "1"}), HasSubstr("unknown option '--fast'"));
  EXPECT_THAT(message({"--json"}), HasSubstr("'--json' needs a value"));
  EXPECT_THAT(message({"--pairs", "0"}), HasSubstr("--pairs must be a number from 1"));
  EXPECT_THAT(message({"--seconds", "2s"}), HasSubstr("not '2s'"));
}

RunResult OneRun(double operations_per_second, uint64_t latency_us) {
  return {1.0, static_cast<uint64_t>(operations_per_second), {latency_us * 1000}};
}

const Row& Find(const std::vector<Row>& rows, const std::string& system, const std::string& unit) {
  for (const Row& row : rows) {
    if (row.system == system && row.unit == unit) return row;
  }
  static const Row none;
  ADD_FAILURE() << "no row " << system << " " << unit;
  return none;
}

// Rounds in which the machine is at half speed spread the figures but not the ratio.
TEST(Summarize, RatiosAreTakenWithinARound) {
  const std::vector<Row> rows = Summarize("put", {"dynlib", "peer"},
                                          {{OneRun(200, 5), OneRun(400, 6), OneRun(220, 7)},
                                           {OneRun(100, 9), OneRun(200, 9), OneRun(100, 9)}});
  EXPECT_EQ(Find(rows, "dynlib", "ops/s").value, 220);
  EXPECT_EQ(Find(rows, "dynlib", "p99_us").value, 6);
  EXPECT_FALSE(Find(rows, "dynlib", "p99_us").higher_is_better);
  EXPECT_EQ(Find(rows, "dynlib/peer", "ratio").value, 2.0);
  EXPECT_EQ(Find(rows, "dynlib/peer", "ratio").interval.high, 2.2);
}

TEST(SummarizeFigures, ARatioAboveOneIsInOurFavour) {
  const std::vector<std::string> systems = {"dynlib", "dynlib_other", "peer"};
  std::vector<Row> rows =
      SummarizeFigures("take", {"ns", false}, systems, {{2, 4}, {1, 1}, {6, 8}});
  EXPECT_EQ(Find(rows, "dynlib", "ns").value, 3);
  EXPECT_FALSE(Find(rows, "dynlib", "ns").higher_is_better);
  EXPECT_EQ(Find(rows, "dynlib/peer", "ratio").value, 2.5);
  rows = SummarizeFigures("take", {"calls/s", true}, systems, {{6, 8}, {1, 1}, {2, 4}});
  EXPECT_TRUE(Find(rows, "dynlib", "calls/s").higher_is_better);
  EXPECT_EQ(Find(rows, "dynlib/peer", "ratio").value, 2.5);
  EXPECT_EQ(rows.size(), 4u);  // Our other figure has no ratio.
}

// What was measured outside the rounds is reported and kept as what was measured in them.
TEST(Harness, ReportsFiguresAndNamesWhatFailed) {
  const std::string json = ::testing::TempDir() + "figures.json";
  std::string arguments[] = {"bench", "--json=" + json, "--only=space"};
  char* argv[] = {arguments[0].data(), arguments[1].data(), arguments[2].data()};
  Harness harness("store", 3, argv);
  EXPECT_TRUE(harness.Wants("space/100", false));
  EXPECT_FALSE(harness.Wants("read/100/1", true));
  harness.Report("space/100", {"times", false}, {{"dynlib", {1.5}}, {"peer", {3}}, {"none", {}}});
  EXPECT_EQ(harness.Finish(), 0);
  std::stringstream text;
  text << std::ifstream(json).rdbuf();
  EXPECT_THAT(text.str(),
              HasSubstr("\"system\": \"dynlib\", \"unit\": \"times\", \"value\": 1.5,"));
  EXPECT_THAT(text.str(),
              HasSubstr("\"system\": \"dynlib/peer\", \"unit\": \"ratio\", \"value\": 2,"));
  EXPECT_THAT(text.str(), Not(HasSubstr("none")));
  harness.Failed("space/100", "peer", absl::DataLossError("broken"));
  EXPECT_EQ(harness.Finish(), 1);
}

TEST(ToJson, OneRowALine) {
  EXPECT_EQ(ToJson("store", {{"put/1", "dynlib", "ops/s", 1234.5, {1200, 1300}, true}}),
            "[\n  {\"bench\": \"store\", \"workload\": \"put/1\", \"system\": \"dynlib\", "
            "\"unit\": \"ops/s\", \"value\": "
            "1234.5, \"low\": 1200, \"high\": 1300, \"higher_is_better\": true}\n]\n");
  EXPECT_EQ(ToJson("store", {}), "[\n]\n");
}

TEST(RunClosedLoop, CountsOperationsOfAllClients) {
  const auto run = RunClosedLoop(2, 0.1, [](int) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return absl::OkStatus();
  });
  ASSERT_TRUE(run.ok());
  EXPECT_GT(run->operations, 0u);
  EXPECT_EQ(run->operations, run->latencies_ns.size());
  EXPECT_GE(Quantile(const_cast<std::vector<uint64_t>&>(run->latencies_ns), 0), 1'000'000u);
}

TEST(RunClosedLoop, ReturnsTheFirstErrorAtOnce) {
  const uint64_t begin = NowNs();
  const auto run = RunClosedLoop(4, 600, [](int client) {
    return client == 3 ? absl::DataLossError("broken") : absl::OkStatus();
  });
  EXPECT_EQ(run.status(), absl::DataLossError("broken"));
  EXPECT_LT(NowNs() - begin, 60'000'000'000u);
}

TEST(RunTightLoop, CountsTheOperationsOfEachCall) {
  const auto run = RunTightLoop(2, 0.1, 10, [](int) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return absl::OkStatus();
  });
  ASSERT_TRUE(run.ok());
  EXPECT_GT(run->operations, 0u);
  EXPECT_EQ(run->operations % 10, 0u);
  EXPECT_TRUE(run->latencies_ns.empty());
  EXPECT_EQ(RunTightLoop(2, 600, 1, [](int) { return absl::DataLossError("broken"); }).status(),
            absl::DataLossError("broken"));
}

TEST(RandomBytes, AreTheSameForASeed) {
  const std::string_view bytes = RandomBytes(1, 900);
  EXPECT_EQ(bytes, RandomBytes(1, 900));
  EXPECT_NE(bytes, RandomBytes(2, 900));
  EXPECT_EQ(bytes.size(), 900u);
}

TEST(PutStream, KeysAre20BytesAndClientsDiffer) {
  PutStream a(0, 900);
  PutStream b(1, 900);
  const std::string key(a.NextKey());
  EXPECT_EQ(key.size(), 20u);
  EXPECT_NE(key, a.NextKey());
  EXPECT_NE(key, b.NextKey());
  EXPECT_EQ(a.NextValue().size(), 900u);
}

TEST(TemporaryFolder, IsRemovedWithAllItHolds) {
  std::filesystem::path path;
  {
    auto folder = TemporaryFolder::Create(::testing::TempDir());
    ASSERT_TRUE(folder.ok());
    path = folder->path();
    std::ofstream(path / "file") << "x";
    const TemporaryFolder moved = *std::move(folder);
    EXPECT_TRUE(std::filesystem::exists(path / "file"));
  }
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_FALSE(TemporaryFolder::Create("/no/such/folder").ok());
}

TEST(ChildProcess, RunsUntilItIsDestroyed) {
  const std::filesystem::path output = std::filesystem::path(::testing::TempDir()) / "child";
  auto gone = ChildProcess::Start({"/no/such/program"}, output);
  ASSERT_TRUE(gone.ok());
  while (gone->Running()) std::this_thread::yield();
  auto child = ChildProcess::Start({"sleep", "600"}, output);
  ASSERT_TRUE(child.ok());
  EXPECT_TRUE(child->Running());
}

// The process of the test forks one that makes a folder and a child and is then interrupted.
TEST(CleanUpOnSignals, LeavesNeitherFolderNorChild) {
  int report[2];
  ASSERT_EQ(pipe(report), 0);
  const pid_t pid = fork();
  if (pid == 0) {
    close(report[0]);
    CleanUpOnSignals();
    const auto folder = TemporaryFolder::Create(::testing::TempDir());
    const auto child = ChildProcess::Start({"sleep", "600"}, folder->path() / "output");
    const std::string path = folder->path().string() + "\n";
    if (write(report[1], path.data(), path.size()) < 0) _exit(9);
    while (true) pause();
  }
  close(report[1]);
  std::string path;
  for (char c = 0; read(report[0], &c, 1) == 1 && c != '\n';) path += c;
  ASSERT_TRUE(std::filesystem::exists(path));
  kill(pid, SIGTERM);
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 128 + SIGTERM);
  EXPECT_FALSE(std::filesystem::exists(path));
  // The pipe's last writer would be the child that sleeps: the end of the file says that it is
  // gone.
  char c = 0;
  EXPECT_EQ(read(report[0], &c, 1), 0);
  close(report[0]);
}

}  // namespace
}  // namespace dynlib::bench
