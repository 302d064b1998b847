#include "dynlib/replication/event_trace.h"

#include <optional>
#include <string>

#include "dynlib/base/strings.h"
#include "dynlib/sim/world.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/runtime/counting_sink.h"

namespace dynlib::replication {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

// A reader of just what RFC 8259 allows in an object of strings and integers: the fields, or
// nothing.
std::optional<std::map<std::string, std::string>> ParseLine(std::string_view line) {
  size_t at = 0;
  auto eat = [&](char c) { return at < line.size() && line[at] == c ? (++at, true) : false; };
  auto string = [&]() -> std::optional<std::string> {
    std::string text;
    if (!eat('"')) return std::nullopt;
    while (at < line.size() && line[at] != '"') {
      const unsigned char c = line[at++];
      if (c < 0x20 || c >= 0x80) return std::nullopt;
      if (c != '\\') {
        text += static_cast<char>(c);
        continue;
      }
      if (at >= line.size()) return std::nullopt;
      const char escaped = line[at++];
      if (escaped == 'u') {
        if (at + 4 > line.size()) return std::nullopt;
        text += static_cast<char>(std::stoi(std::string(line.substr(at, 4)), nullptr, 16));
        at += 4;
      } else if (escaped == '"' || escaped == '\\') {
        text += escaped;
      } else {
        return std::nullopt;
      }
    }
    return eat('"') ? std::optional(text) : std::nullopt;
  };
  std::map<std::string, std::string> fields;
  if (!eat('{')) return std::nullopt;
  do {
    std::optional<std::string> name = string();
    if (!name.has_value() || !eat(':')) return std::nullopt;
    if (at < line.size() && line[at] == '"') {
      std::optional<std::string> value = string();
      if (!value.has_value()) return std::nullopt;
      fields[*name] = *value;
    } else {
      const size_t start = at;
      while (at < line.size() && line[at] >= '0' && line[at] <= '9') ++at;
      if (at == start || (line[start] == '0' && at > start + 1)) return std::nullopt;
      fields[*name] = line.substr(start, at - start);
    }
  } while (eat(','));
  if (!eat('}') || !eat('\n') || at != line.size()) return std::nullopt;
  return fields;
}

TEST(EventLineTest, NumbersAndStrings) {
  const EventField fields[] = {{"partition", "5"}, {"why", "no \"room\" at C:\\"}, {"code", "007"}};
  EXPECT_EQ(
      EventLine(WallTime::FromNanos(1'700'000'000'123'456'789), "replication.elected", fields),
      "{\"time_us\":1700000000123456,\"event\":\"replication.elected\",\"partition\":5,"
      "\"why\":\"no \\\"room\\\" at C:\\\\\",\"code\":\"007\"}\n");
}

TEST(EventLineTest, EveryByteComesBackAndEveryLineParses) {
  for (int byte = 0; byte < 256; ++byte) {
    const std::string text = std::string("a") + static_cast<char>(byte) + "1";
    const EventField fields[] = {{"text", text}, {text, "x"}};
    const std::string line = EventLine(WallTime(), "e", fields);
    const auto parsed = ParseLine(line);
    ASSERT_TRUE(parsed.has_value()) << line;
    EXPECT_EQ(parsed->at("text"), text);
    EXPECT_EQ(parsed->at(text), "x");
    EXPECT_EQ(line.find('\n'), line.size() - 1);
  }
  for (const char* value : {"", "-1", "1.5", "1e9", "00", "1234567890123456", "0", "12"}) {
    const EventField fields[] = {{"v", value}};
    const auto parsed = ParseLine(EventLine(WallTime(), "e", fields));
    ASSERT_TRUE(parsed.has_value()) << value;
    EXPECT_EQ(parsed->at("v"), value);
  }
}

class EventTraceTest : public testing::Test {
 protected:
  ~EventTraceTest() override { world_.CrashAll(); }
  sim::World world_{1};
  sim::Node* node_ = world_.AddNode(NodeId{1});
  CountingSink next_;
};

TEST_F(EventTraceTest, LinesAreTakenOnceAndEverythingIsPassedOn) {
  EventTrace trace({}, node_->clock(), &next_);
  trace.Event("a", {});
  trace.Event("b", {});
  trace.Count("c", 3);
  EXPECT_THAT(trace.Take(),
              ElementsAre(HasSubstr("\"event\":\"a\""), HasSubstr("\"event\":\"b\"")));
  EXPECT_TRUE(trace.Take().empty());
  EXPECT_EQ(next_["a"], 1);
  EXPECT_EQ(next_["c"], 3);
}

TEST_F(EventTraceTest, ItIsBoundedAndSaysWhatItDropped) {
  EventTrace trace({.bytes_max = 1 << 10}, node_->clock());
  for (int i = 0; i < 1000; ++i) {
    const EventField fields[] = {{"i", Cat(i)}};
    trace.Event("tick", fields);
  }
  std::vector<std::string> lines = trace.Take();
  size_t bytes = 0;
  for (const std::string& line : lines) {
    EXPECT_TRUE(ParseLine(line).has_value()) << line;
    bytes += line.size();
  }
  const size_t kept = lines.size() - 1;
  EXPECT_LE(bytes - lines[0].size(), size_t{1} << 10);
  EXPECT_GT(kept, 10u);
  EXPECT_EQ(ParseLine(lines[0])->at("event"), "trace.dropped");
  EXPECT_EQ(ParseLine(lines[0])->at("lines"), Cat(1000 - kept));
  EXPECT_EQ(ParseLine(lines.back())->at("i"), "999");
}

TEST_F(EventTraceTest, OptionsAreChecked) {
  DYNLIB_EXPECT_OK(Validate(EventTraceOptions{}));
  EXPECT_THAT(Validate(EventTraceOptions{.bytes_max = 1}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("bytes_max")));
}

}  // namespace
}  // namespace dynlib::replication
