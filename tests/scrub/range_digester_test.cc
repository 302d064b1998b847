#include "dynlib/scrub/range_digester.h"

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/scrub/types.h"
#include "dynlib/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "tests/scrub/model.h"

namespace dynlib::scrub {
namespace {

ModelReplica Letters() {
  ModelReplica replica;
  for (char c = 'a'; c <= 'j'; ++c) replica.items[std::string(1, c)] = std::string(9, c);
  return replica;
}

Request Split() {
  return {.kind = RequestKind::kSplit,
          .part_items = 3,
          .part_bytes = 1'000,
          .parts_max = 100,
          .bytes_max = 1'000};
}
Request Exact(std::string first, std::string end, std::vector<std::string> boundaries = {}) {
  return {.kind = RequestKind::kExact,
          .first = std::move(first),
          .end = std::move(end),
          .boundaries = std::move(boundaries),
          .bytes_max = 1'000};
}

absl::StatusOr<Answer> Ask(const ModelReplica& replica, const Request& request) {
  return RangeDigester({}).Digest(request,
                                  [&](std::string_view first, std::string_view end, Visitor visit) {
                                    return replica.Scan(first, end, visit);
                                  });
}

TEST(RangeDigester, SplitsByItems) {
  DYNLIB_ASSERT_OK_AND_ASSIGN(const Answer answer, Ask(Letters(), Split()));
  ASSERT_EQ(answer.parts.size(), 4u);
  EXPECT_EQ(answer.parts[0].end, After("c"));
  EXPECT_EQ(answer.parts[0].items, 3u);
  EXPECT_EQ(answer.parts[0].bytes, 30u);
  EXPECT_EQ(answer.parts[3].items, 1u);
  EXPECT_EQ(answer.parts[3].end, "");
  EXPECT_EQ(answer.bytes_read, 100u);
}

TEST(RangeDigester, StopsAtItsBytesAndSaysHowFarItCame) {
  Request request = Split();
  request.bytes_max = 45;
  DYNLIB_ASSERT_OK_AND_ASSIGN(Answer answer, Ask(Letters(), request));
  EXPECT_EQ(answer.end, After("e"));
  request = Exact("a", "z", {"d", "h"});
  request.bytes_max = 45;
  DYNLIB_ASSERT_OK_AND_ASSIGN(answer, Ask(Letters(), request));
  ASSERT_EQ(answer.parts.size(), 2u);
  EXPECT_EQ(answer.parts[0].end, "d");
  EXPECT_EQ(answer.parts[1].end, After("e"));
  EXPECT_EQ(answer.end, After("e"));
}

TEST(RangeDigester, AnExactPartHasTheDigestOfTheChosenOne) {
  DYNLIB_ASSERT_OK_AND_ASSIGN(const Answer chosen, Ask(Letters(), Split()));
  Request request = Exact("", "");
  for (size_t i = 0; i < 3; ++i) request.boundaries.push_back(chosen.parts[i].end);
  DYNLIB_ASSERT_OK_AND_ASSIGN(const Answer exact, Ask(Letters(), request));
  ASSERT_EQ(exact.parts.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(exact.parts[i].digest, chosen.parts[i].digest);
    EXPECT_EQ(exact.parts[i].items, chosen.parts[i].items);
  }
}

TEST(RangeDigester, DigestsTellKeysValuesAndTheirBordersApart) {
  auto digest = [](const std::map<std::string, std::string>& items) {
    ModelReplica replica;
    replica.items = items;
    return Ask(replica, Exact("", ""))->parts[0].digest;
  };
  const auto base = digest({{"ab", "c"}, {"d", "e"}});
  EXPECT_EQ(base, digest({{"ab", "c"}, {"d", "e"}}));
  EXPECT_NE(base, digest({{"a", "bc"}, {"d", "e"}}));
  EXPECT_NE(base, digest({{"ab", "cd"}, {"d", "e"}}));
  EXPECT_NE(base, digest({{"ab", "e"}, {"d", "c"}}));
  EXPECT_NE(base, digest({{"ab", "c"}}));
  EXPECT_NE(digest({}), digest({{"", ""}}));
  EXPECT_NE(DigestItem("a", "b"), DigestItem("b", "a"));
}

TEST(RangeDigester, UnreadableRangesArePartsOfTheirOwn) {
  ModelReplica replica = Letters();
  replica.unreadable = {{"d", "g"}};
  DYNLIB_ASSERT_OK_AND_ASSIGN(Answer answer, Ask(replica, Split()));
  ASSERT_EQ(answer.parts.size(), 5u);
  EXPECT_EQ(answer.parts[1].end, "d");  // nothing between "c" and what cannot be read
  EXPECT_EQ(answer.parts[1].items, 0u);
  EXPECT_TRUE(answer.parts[2].unreadable);
  EXPECT_EQ(answer.parts[2].end, "g");
  EXPECT_EQ(answer.parts[3].items, 3u);
  DYNLIB_ASSERT_OK_AND_ASSIGN(answer, Ask(replica, Exact("a", "z", {"c", "e", "g"})));
  ASSERT_EQ(answer.parts.size(), 4u);
  EXPECT_FALSE(answer.parts[0].unreadable);
  EXPECT_TRUE(answer.parts[1].unreadable);
  EXPECT_TRUE(answer.parts[2].unreadable);
  EXPECT_FALSE(answer.parts[3].unreadable);
  Request items{.kind = RequestKind::kItems, .bytes_max = 1'000, .items_max = 100};
  DYNLIB_ASSERT_OK_AND_ASSIGN(answer, Ask(replica, items));
  EXPECT_EQ(answer.items.size(), 7u);
  ASSERT_EQ(answer.unreadable.size(), 1u);
  EXPECT_TRUE(answer.unreadable[0].exact);
  EXPECT_EQ(answer.unreadable[0].first, "d");
  EXPECT_EQ(answer.unreadable[0].end, "g");
  replica.knows_range = false;
  DYNLIB_ASSERT_OK_AND_ASSIGN(answer, Ask(replica, items));
  EXPECT_EQ(answer.items.size(), 3u);
  EXPECT_FALSE(answer.unreadable[0].exact);
  EXPECT_EQ(answer.unreadable[0].first, After("c"));
  EXPECT_EQ(answer.unreadable[0].end, "");
  EXPECT_EQ(answer.end, "");
}

TEST(RangeDigester, ARangeThatEndsRightBehindAnItemHasNoEmptyPart) {
  Request request = Split();
  request.first = "a";
  request.end = After("c");
  DYNLIB_ASSERT_OK_AND_ASSIGN(const Answer answer, Ask(Letters(), request));
  ASSERT_EQ(answer.parts.size(), 1u);
  EXPECT_EQ(answer.end, After("c"));
}

TEST(RangeDigester, ListsItems) {
  Request request{
      .kind = RequestKind::kItems, .first = "b", .end = "f", .bytes_max = 1'000, .items_max = 3};
  DYNLIB_ASSERT_OK_AND_ASSIGN(Answer answer, Ask(Letters(), request));
  ASSERT_EQ(answer.items.size(), 3u);
  EXPECT_EQ(answer.items[0].key, "b");
  EXPECT_EQ(answer.items[0].digest, DigestItem("b", std::string(9, 'b')));
  EXPECT_EQ(answer.end, After("d"));
  request.items_max = 4;
  DYNLIB_ASSERT_OK_AND_ASSIGN(answer, Ask(Letters(), request));
  EXPECT_EQ(answer.items.size(), 4u);
}

TEST(RangeDigester, RefusesRequestsThatAreNotWellFormed) {
  Request no_kind = Exact("a", "z");
  no_kind.kind = static_cast<RequestKind>(9);
  Request no_bytes = Exact("a", "z");
  no_bytes.bytes_max = 0;
  Request no_parts = Split();
  no_parts.parts_max = 0;
  for (const Request& request :
       {no_kind, no_bytes, no_parts, Exact("b", "a"), Exact("a", "z", {"c", "b"}),
        Exact("a", "z", {"a"}), Exact("a", "z", {"z"}), Exact("a", "z", {"c", "c"})}) {
    EXPECT_THAT(Ask(Letters(), request), StatusIs(absl::StatusCode::kInvalidArgument));
  }
}

TEST(RangeDigester, OtherErrorsOfTheScanArePassedOn) {
  for (const RequestKind kind : {RequestKind::kSplit, RequestKind::kExact, RequestKind::kItems}) {
    Request request = Split();
    request.kind = kind;
    request.items_max = 5;
    EXPECT_THAT(
        RangeDigester({}).Digest(request,
                                 [](std::string_view, std::string_view, Visitor) {
                                   return ScanEnd{absl::AbortedError("closed"), std::nullopt};
                                 }),
        StatusIs(absl::StatusCode::kAborted));
  }
}

}  // namespace
}  // namespace dynlib::scrub
