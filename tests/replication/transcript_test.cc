// Every transcript in testdata has the output that its commands give.
//
// After a change of the protocol run the binary with DYNLIB_REWRITE=tests/replication/testdata, and
// read the difference.
#include "tests/replication/transcript.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace dynlib::replication {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> Transcripts() {
  const char* elsewhere = std::getenv("DYNLIB_REWRITE");
  const fs::path folder = elsewhere != nullptr ? elsewhere : "tests/replication/testdata";
  std::vector<fs::path> paths;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".txt") paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

std::string ReadFile(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

TEST(TranscriptTest, EachSaysWhatHappens) {
  const std::vector<fs::path> paths = Transcripts();
  EXPECT_GE(paths.size(), 9u);
  for (const fs::path& path : paths) {
    const std::string text = ReadFile(path);
    const std::string now = RunTranscript(text);
    EXPECT_EQ(now.find("VIOLATION"), std::string::npos) << path;
    EXPECT_EQ(now.find("there is no command"), std::string::npos) << path;
    if (std::getenv("DYNLIB_REWRITE") != nullptr) {
      std::ofstream(path) << now;
    } else {
      EXPECT_EQ(text, now) << path << " is not what happens. If what happens is right, run "
                           << "the test's binary with DYNLIB_REWRITE=<path of testdata>.";
    }
  }
}

TEST(TranscriptTest, APlayedTranscriptIsPlayedAlike) {
  const std::string once =
      RunTranscript("# a\ngroup nodes=3\nuntil lease\n\nshow\n----\nwhat was\n");
  EXPECT_EQ(RunTranscript(once), once);
  EXPECT_EQ(once.find("what was"), std::string::npos);
  EXPECT_NE(once.find("node 1 holds the lease"), std::string::npos) << once;
}

}  // namespace
}  // namespace dynlib::replication
