// The worked examples of docs/format/messages.md are what the encoder writes, and what the decoder
// reads.
#include <cstdint>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <string>

#include "dynlib/replication/message.h"
#include "dynlib/replication/message_codec.h"
#include "dynlib/replication/types.h"
#include "gtest/gtest.h"

namespace dynlib::replication {
namespace {

const Ballot kBallot(7, ReplicaId{2});

NodeMessage Of(decltype(GroupMessage::body) body) {
  NodeMessage message;
  message.groups.push_back({.group = PartitionId{5},
                            .from = ReplicaId{2},
                            .to = ReplicaId{3},
                            .ballot = kBallot,
                            .body = std::move(body)});
  return message;
}

std::map<std::string, NodeMessage> Examples() {
  std::map<std::string, NodeMessage> examples;
  examples["prepare from slot 42"] = Of(Prepare{.from_slot = 42});
  examples["accept slot 42 \"abc\", chosen 41"] = Of(Accept{
      .first_slot = 42, .entries = {std::make_shared<const std::string>("abc")}, .chosen = 41});
  examples["accepted up to 42, support epoch 1.4"] =
      Of(Accepted{.granted = true,
                  .promised = kBallot,
                  .stable = 42,
                  .chosen = 41,
                  .support_epoch = uint64_t{1} << 32 | 4});
  examples["refused: 8.1 is promised"] =
      Of(Accepted{.granted = false, .promised = Ballot(8, ReplicaId{1})});
  examples["confirm query of round 9"] = Of(ConfirmQuery{.round = 9});
  examples["support request of boot 3 at 1000 ns that heard boot 4 250 us ago"].liveness = {
      {SupportRequest{
          .incarnation = 3, .sent_at = 1'000, .heard_incarnation = 4, .heard_age_us = 250}}};
  examples["support grant of boot 4 for 600 ms in epoch 4.1"].liveness = {
      {SupportGrant{.incarnation = 4,
                    .holder_incarnation = 3,
                    .request_sent_at = 1'000,
                    .epoch = uint64_t{4} << 32 | 1,
                    .duration = std::chrono::milliseconds(600),
                    .granted_at = 777'000}}};
  return examples;
}

std::string Hex(const std::string& bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const char c : bytes) {
    if (!text.empty()) text += ' ';
    text += kDigits[static_cast<unsigned char>(c) >> 4];
    text += kDigits[c & 15];
  }
  return text;
}

// By heading, what stands in the block below, without line ends.
std::map<std::string, std::string> FromDocument() {
  std::map<std::string, std::string> found;
  std::ifstream file("docs/format/messages.md");
  std::string line;
  while (std::getline(file, line) && line != "## Worked examples") {
  }
  std::string heading;
  bool in_block = false;
  while (std::getline(file, line)) {
    if (line.starts_with("### ")) {
      heading = line.substr(4);
      found[heading] = "";
    } else if (line == "```") {
      in_block = !in_block;
    } else if (in_block) {
      found[heading] += (found[heading].empty() ? "" : " ") + line;
    }
  }
  return found;
}

std::string Unhex(const std::string& text) {
  std::istringstream in(text);
  std::string bytes;
  for (std::string byte; in >> byte;) bytes += static_cast<char>(std::stoi(byte, nullptr, 16));
  return bytes;
}

TEST(MessageFormatTest, TheDocumentShowsTheseBytes) {
  const std::map<std::string, std::string> shown = FromDocument();
  const std::map<std::string, NodeMessage> examples = Examples();
  EXPECT_EQ(shown.size(), examples.size());
  for (const auto& [heading, message] : examples) {
    ASSERT_TRUE(shown.contains(heading)) << heading;
    EXPECT_EQ(shown.at(heading), Hex(Encode(message))) << heading;
  }
}

TEST(MessageFormatTest, AndTheyAreReadBack) {
  for (const auto& [heading, hex] : FromDocument()) {
    const auto message = DecodeNodeMessage(Unhex(hex));
    ASSERT_TRUE(message.ok()) << heading;
    EXPECT_EQ(Hex(Encode(*message)), hex) << heading;
    EXPECT_EQ(message->groups.size() + message->liveness.size(), 1u) << heading;
  }
}

}  // namespace
}  // namespace dynlib::replication
