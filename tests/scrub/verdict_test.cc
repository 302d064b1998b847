#include "dynlib/scrub/verdict.h"

#include <vector>

#include "dynlib/base/ids.h"
#include "dynlib/scrub/types.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dynlib::scrub {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// '-' absent, '?' unreadable, a letter: a value. Replica 1 comes first.
Finding JudgeOf(const char* copies, uint64_t reference = 0) {
  Finding finding;
  uint64_t id = 0;
  for (const char* c = copies; *c != '\0'; ++c) {
    Copy copy{ReplicaId{++id}, CopyState::kPresent};
    if (*c == '-') copy.state = CopyState::kAbsent;
    if (*c == '?') copy.state = CopyState::kUnreadable;
    if (copy.state == CopyState::kPresent) copy.digest.low = static_cast<uint64_t>(*c);
    finding.copies.push_back(copy);
  }
  Judge(ReplicaId{reference}, &finding);
  return finding;
}

constexpr ReplicaId k1{1}, k2{2}, k3{3};

TEST(Verdict, TwoAgreeAgainstOne) {
  EXPECT_EQ(JudgeOf("aba").verdict, Verdict::kDecided);
  EXPECT_THAT(JudgeOf("aba").bad, ElementsAre(k2));
  EXPECT_THAT(JudgeOf("aba").good, ElementsAre(k1, k3));
  EXPECT_THAT(JudgeOf("-a-").bad, ElementsAre(k2)) << "an item that should not be there";
  EXPECT_THAT(JudgeOf("aa-").bad, ElementsAre(k3)) << "one that is missing";
}

TEST(Verdict, WhatCannotBeReadIsBad) {
  EXPECT_THAT(JudgeOf("?aa").bad, ElementsAre(k1));
  EXPECT_EQ(JudgeOf("?aa").verdict, Verdict::kDecided);
  EXPECT_EQ(JudgeOf("?ab").verdict, Verdict::kUndecided);
  EXPECT_THAT(JudgeOf("?ab").bad, ElementsAre(k1));
  EXPECT_THAT(JudgeOf("?ab").good, IsEmpty());
  EXPECT_EQ(JudgeOf("?a?").verdict, Verdict::kSoleCopy);
  EXPECT_THAT(JudgeOf("?a?").good, ElementsAre(k2));
  EXPECT_EQ(JudgeOf("???").verdict, Verdict::kUndecided);
  EXPECT_THAT(JudgeOf("???").bad, ElementsAre(k1, k2, k3));
}

TEST(Verdict, WithoutAMajorityNobodyIsBlamed) {
  for (const char* copies : {"ab", "abc", "ab-", "aabb", "a-"}) {
    EXPECT_EQ(JudgeOf(copies).verdict, Verdict::kUndecided) << copies;
    EXPECT_THAT(JudgeOf(copies).bad, IsEmpty()) << copies;
    EXPECT_THAT(JudgeOf(copies).good, IsEmpty()) << copies;
  }
  EXPECT_THAT(JudgeOf("bcaac").good, IsEmpty());
  EXPECT_THAT(JudgeOf("bcaaca").bad, ElementsAre(k1, k2, ReplicaId{5}));
}

TEST(Verdict, TheReferenceOutvotesAllUnlessItCannotBeRead) {
  EXPECT_THAT(JudgeOf("aab", 3).bad, ElementsAre(k1, k2));
  EXPECT_THAT(JudgeOf("aab", 3).good, ElementsAre(k3));
  EXPECT_THAT(JudgeOf("abc", 2).bad, ElementsAre(k1, k3));
  EXPECT_THAT(JudgeOf("aa?", 3).bad, ElementsAre(k3));
  EXPECT_EQ(JudgeOf("ab?", 3).verdict, Verdict::kUndecided);
}

}  // namespace
}  // namespace dynlib::scrub
