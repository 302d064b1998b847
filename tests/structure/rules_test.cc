// Each rule on a file that keeps it and on one that breaks it.
#include "tests/structure/rules.h"

#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dynlib::structure {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::vector<std::string> Check(const std::string& path, const std::string& contents) {
  static const auto* const kTree = new std::set<std::string, std::less<>>{
      "dynlib/base/ids.h",          "dynlib/runtime/clock.h", "dynlib/sim/world.h",
      "dynlib/store/store.h",       "dynlib/store/tree.h",    "dynlib/replication/group.h",
      "dynlib/store/records.proto", "tests/store/model.h",    "dynlib/cluster/node.h",
  };
  return Offences({path, contents}, [](std::string_view name) { return kTree->count(name) != 0; });
}

std::string Guarded(const std::string& guard, const std::string& body) {
  return "// A header.\n#ifndef " + guard + "\n#define " + guard + "\n" + body + "#endif  // " +
         guard + "\n";
}

TEST(StructureRules, GuardIsThePathInCapitals) {
  EXPECT_THAT(Check("dynlib/store/tree.h", Guarded("DYNLIB_STORE_TREE_H_", "")), IsEmpty());
  EXPECT_THAT(Check("tests/store/model.h", Guarded("TESTS_STORE_MODEL_H_", "")), IsEmpty());
  EXPECT_THAT(Check("tests/store/model.h", Guarded("DYNLIB_TESTS_STORE_MODEL_H_", "")), IsEmpty());
  EXPECT_THAT(Check("dynlib/store/tree.h", Guarded("TREE_H_", "")),
              ElementsAre(HasSubstr(
                  "dynlib/store/tree.h:2: the include guard must be DYNLIB_STORE_TREE_H_")));
  EXPECT_THAT(Check("dynlib/store/tree.h", "#pragma once\n"),
              ElementsAre(HasSubstr("include guard")));
  EXPECT_THAT(Check("dynlib/store/tree.h", "int x;\n"), ElementsAre(HasSubstr("include guard")));
}

TEST(StructureRules, BlocksIncludeBaseAndRuntimeOnly) {
  EXPECT_THAT(Check("dynlib/store/a.cc",
                    "#include \"dynlib/base/ids.h\"\n#include \"dynlib/runtime/clock.h\"\n"
                    "#include \"dynlib/store/tree.h\"\n#include \"absl/status/status.h\"\n"),
              IsEmpty());
  EXPECT_THAT(Check("dynlib/store/a.cc", "\n#include \"dynlib/replication/group.h\"\n"),
              ElementsAre(HasSubstr("a.cc:2: dynlib/store must not depend on dynlib/replication")));
  EXPECT_THAT(Check("dynlib/store/a.cc", "#include \"dynlib/sim/world.h\"\n"),
              ElementsAre(HasSubstr("dynlib/sim")));
  EXPECT_THAT(Check("dynlib/store/a.cc", "#include \"dynlib/cluster/node.h\"\n"),
              ElementsAre(HasSubstr("dynlib/cluster")));
}

TEST(StructureRules, LowerLayersDoNotIncludeHigherOnes) {
  EXPECT_THAT(Check("dynlib/base/a.cc", "#include \"dynlib/runtime/clock.h\"\n"),
              ElementsAre(HasSubstr("must not depend")));
  EXPECT_THAT(Check("dynlib/runtime/a.cc", "#include \"dynlib/store/store.h\"\n"),
              ElementsAre(HasSubstr("must not depend")));
  EXPECT_THAT(Check("dynlib/sim/a.cc", "#include \"dynlib/store/store.h\"\n"),
              ElementsAre(HasSubstr("must not depend")));
  EXPECT_THAT(Check("dynlib/cluster/a.cc", "#include \"dynlib/store/store.h\"\n"), IsEmpty());
  EXPECT_THAT(Check("dynlib/cluster/a.cc", "#include \"dynlib/sim/world.h\"\n"),
              ElementsAre(HasSubstr("must not depend")));
  EXPECT_THAT(Check("dynlib/store/a.cc", "#include \"tests/store/model.h\"\n"),
              ElementsAre(HasSubstr("the library must not depend on tests/store/model.h")));
}

TEST(StructureRules, FoldersUnderDynlibAreKnown) {
  EXPECT_THAT(Check("dynlib/misc/a.cc", ""),
              ElementsAre(HasSubstr("dynlib/misc is no layer of the design")));
}

TEST(StructureRules, IncludePathsAreFullFromTheRoot) {
  EXPECT_THAT(Check("dynlib/store/a.cc", "#include \"../base/ids.h\"\n"),
              ElementsAre(HasSubstr("full from the root")));
  EXPECT_THAT(Check("dynlib/store/a.cc", "#include \"tree.h\"\n"),
              ElementsAre(HasSubstr("dynlib/store/tree.h")));
  EXPECT_THAT(Check("dynlib/store/a.cc", "#include <dynlib/store/tree.h>\n"),
              ElementsAre(HasSubstr("with quotes")));
  EXPECT_THAT(Check("dynlib/store/a.cc", "#include \"dynlib/store/gone.h\"\n"),
              ElementsAre(HasSubstr("there is no")));
  EXPECT_THAT(Check("dynlib/store/a.cc", "#include \"xxhash.h\"\n"), IsEmpty());
}

TEST(StructureRules, MessagesStayOutOfHeaders) {
  const std::string include = "#include \"dynlib/store/records.pb.h\"\n";
  EXPECT_THAT(Check("dynlib/store/a.cc", include), IsEmpty());
  EXPECT_THAT(Check("dynlib/store/tree.h", Guarded("DYNLIB_STORE_TREE_H_", include)),
              ElementsAre(HasSubstr("messages stay out of headers that users include")));
  EXPECT_THAT(Check("dynlib/store/tree.h",
                    Guarded("DYNLIB_STORE_TREE_H_", "#include \"google/protobuf/message.h\"\n")),
              ElementsAre(HasSubstr("messages stay out of headers that users include")));
}

TEST(StructureRules, NoUsingDirectiveInHeaders) {
  EXPECT_THAT(
      Check("dynlib/store/tree.h", Guarded("DYNLIB_STORE_TREE_H_", "using namespace std;\n")),
      ElementsAre(HasSubstr("tree.h:4: no using-directive")));
  EXPECT_THAT(Check("dynlib/store/tree.h",
                    Guarded("DYNLIB_STORE_TREE_H_", "// never: using namespace std;\n")),
              IsEmpty());
}

TEST(StructureRules, WhatRunsInTheSimulatorNamesNoThreadClockOrRandomness) {
  EXPECT_THAT(Check("dynlib/store/a.cc", "#include <thread>\n"),
              ElementsAre(HasSubstr("<thread>")));
  EXPECT_THAT(Check("dynlib/cluster/a.cc", "#include <random>\n"),
              ElementsAre(HasSubstr("<random>")));
  EXPECT_THAT(Check("dynlib/store/a.cc", "auto t = std::chrono::steady_clock::now();\n"),
              ElementsAre(HasSubstr("dynlib::Clock")));
  EXPECT_THAT(Check("dynlib/runtime/posix/a.cc", "#include <thread>\n"), IsEmpty());
}

}  // namespace
}  // namespace dynlib::structure
