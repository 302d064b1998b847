// The rules on every source file of the tree that the test was built from. The tree is found
// through the one file of it that is this test's data, since a Bazel rule can list only its own
// package's files; so the test runs each time (tag "external").
#include <filesystem>
#include <fstream>
#include <sstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/structure/rules.h"

namespace dynlib::structure {
namespace {

namespace fs = std::filesystem;

fs::path Root() { return fs::canonical("WORKSPACE").parent_path(); }

std::string Read(const fs::path& path) {
  std::ifstream stream(path, std::ios::binary);
  std::ostringstream contents;
  contents << stream.rdbuf();
  return contents.str();
}

// Every source file below the folders that hold our code; examples/consumer is a tree of its own.
std::vector<SourceFile> SourceFiles() {
  const fs::path root = Root();
  std::vector<SourceFile> files;
  for (const std::string top : {"dynlib", "tests", "examples", "benchmarks"}) {
    if (!fs::exists(root / top)) continue;
    for (auto it = fs::recursive_directory_iterator(root / top);
         it != fs::recursive_directory_iterator(); ++it) {
      if (it->path() == root / "examples" / "consumer") it.disable_recursion_pending();
      const std::string extension = it->path().extension().string();
      if (extension != ".h" && extension != ".cc") continue;
      files.push_back({fs::relative(it->path(), root).generic_string(), Read(it->path())});
    }
  }
  return files;
}

TEST(SourceTree, KeepsTheRules) {
  const fs::path root = Root();
  const std::vector<SourceFile> files = SourceFiles();
  ASSERT_GT(files.size(), 20u) << "the tree was not found at " << root;
  for (const SourceFile& file : files) {
    for (const std::string& offence : Offences(
             file, [&](std::string_view path) { return fs::exists(root / std::string(path)); })) {
      ADD_FAILURE() << offence;
    }
  }
}

// A block that no query watches would be free to depend on another.
TEST(SourceTree, EveryBlockIsInTheLayeringTest) {
  const std::string list = Read(Root() / "tests/layering/blocks.bzl");
  for (const std::string& block : Blocks()) {
    if (!fs::exists(Root() / "dynlib" / block / "BUILD")) continue;
    EXPECT_THAT(list, ::testing::HasSubstr("\"" + block + "\""));
  }
}

}  // namespace
}  // namespace dynlib::structure
