#include "dynlib/replication/message_codec.h"

#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/random.h"
#include "dynlib/replication/replication.pb.h"
#include "dynlib/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/base/mutate.h"
#include "tests/replication/readers_agree.h"

namespace dynlib::replication {
namespace {

using testing::SizeIs;

const Ballot kBallot(9, ReplicaId{2});

Payload Bytes(std::string bytes) { return std::make_shared<const std::string>(std::move(bytes)); }

GroupMessage Make(decltype(GroupMessage::body) body) {
  return {.group = PartitionId{4},
          .from = ReplicaId{2},
          .to = ReplicaId{3},
          .epoch = 17,
          .ballot = kBallot,
          .body = std::move(body)};
}

Promise SomePromise() {
  Promise promise{.granted = true,
                  .promised = Ballot(12, ReplicaId{1}),
                  .lease_remaining = std::chrono::nanoseconds(123'456'789),
                  .support_epoch = 5,
                  .from_slot = 6,
                  .through = UINT64_MAX,
                  .chosen = 7,
                  .released = 3};
  promise.entries.push_back({8, kBallot, Bytes("eight")});
  promise.entries.push_back({9, Ballot(3, ReplicaId{3}), Bytes("")});
  promise.unknown.push_back({10, kBallot});
  return promise;
}

Accept SomeAccept() {
  return {.first_slot = 21,
          .entries = {Bytes(std::string("\0\xff", 2)), Bytes("")},
          .chosen = 20,
          .held_by_all = 11,
          .held_by_storage = 12};
}

// Every kind, with every field unlike its default.
NodeMessage Everything() {
  NodeMessage message;
  message.groups.push_back(Make(Prepare{.from_slot = 5}));
  message.groups.push_back(Make(SomePromise()));
  message.groups.push_back(Make(SomeAccept()));
  message.groups.push_back(Make(Accepted{.granted = true,
                                         .promised = Ballot(30, ReplicaId{1}),
                                         .stable = 22,
                                         .chosen = 20,
                                         .support_epoch = 4,
                                         .checkpoint = 10}));
  message.groups.push_back(Make(HealthQuery{.chosen = 13}));
  message.groups.push_back(Make(HealthReply{.healthy = true, .abandoned = true, .chosen = 14}));
  message.groups.push_back(
      Make(Outdated{.entries = {{15, kBallot, Bytes("fifteen")}}, .released = 9, .removed = true}));
  message.groups.push_back(Make(ConfirmQuery{.round = 31}));
  message.groups.push_back(Make(ConfirmReply{.round = 32}));
  message.liveness.push_back({SupportRequest{
      .incarnation = 3, .sent_at = -5, .heard_incarnation = 2, .heard_age_us = -1}});
  message.liveness.push_back({SupportGrant{.incarnation = 4,
                                           .holder_incarnation = 3,
                                           .request_sent_at = 77,
                                           .epoch = 9,
                                           .duration = std::chrono::milliseconds(300),
                                           .granted_at = 78,
                                           .reads_version = 3}});
  return message;
}

TEST(MessageCodecTest, EveryFieldOfEveryKindSurvives) {
  DYNLIB_ASSERT_OK_AND_ASSIGN(NodeMessage out, DecodeNodeMessage(Encode(Everything())));
  ASSERT_THAT(out.groups, SizeIs(9));
  for (const GroupMessage& message : out.groups) {
    EXPECT_EQ(message.group, PartitionId{4});
    EXPECT_EQ(message.from, ReplicaId{2});
    EXPECT_EQ(message.to, ReplicaId{3});
    EXPECT_EQ(message.epoch, 17u);
    EXPECT_EQ(message.ballot, kBallot);
  }
  EXPECT_EQ(std::get<Prepare>(out.groups[0].body).from_slot, 5u);

  const Promise& promise = std::get<Promise>(out.groups[1].body);
  EXPECT_TRUE(promise.granted);
  EXPECT_EQ(promise.promised, Ballot(12, ReplicaId{1}));
  EXPECT_EQ(promise.lease_remaining, std::chrono::nanoseconds(123'456'789));
  EXPECT_EQ(promise.support_epoch, 5u);
  EXPECT_EQ(promise.from_slot, 6u);
  EXPECT_EQ(promise.through, UINT64_MAX);
  EXPECT_EQ(promise.chosen, 7u);
  EXPECT_EQ(promise.released, 3u);
  ASSERT_THAT(promise.entries, SizeIs(2));
  EXPECT_EQ(promise.entries[0].slot, 8u);
  EXPECT_EQ(promise.entries[0].ballot, kBallot);
  EXPECT_EQ(*promise.entries[0].payload, "eight");
  EXPECT_EQ(promise.entries[1].ballot, Ballot(3, ReplicaId{3}));
  ASSERT_NE(promise.entries[1].payload, nullptr);
  EXPECT_EQ(*promise.entries[1].payload, "");
  ASSERT_THAT(promise.unknown, SizeIs(1));
  EXPECT_EQ(promise.unknown[0].slot, 10u);
  EXPECT_EQ(promise.unknown[0].ballot, kBallot);

  const Accept& accept = std::get<Accept>(out.groups[2].body);
  EXPECT_EQ(accept.first_slot, 21u);
  EXPECT_EQ(accept.chosen, 20u);
  EXPECT_EQ(accept.held_by_all, 11u);
  EXPECT_EQ(accept.held_by_storage, 12u);
  ASSERT_THAT(accept.entries, SizeIs(2));
  EXPECT_EQ(*accept.entries[0], std::string("\0\xff", 2));
  EXPECT_EQ(*accept.entries[1], "");

  const Accepted& accepted = std::get<Accepted>(out.groups[3].body);
  EXPECT_TRUE(accepted.granted);
  EXPECT_EQ(accepted.promised, Ballot(30, ReplicaId{1}));
  EXPECT_EQ(accepted.stable, 22u);
  EXPECT_EQ(accepted.chosen, 20u);
  EXPECT_EQ(accepted.support_epoch, 4u);
  EXPECT_EQ(accepted.checkpoint, 10u);

  EXPECT_EQ(std::get<HealthQuery>(out.groups[4].body).chosen, 13u);
  const HealthReply& reply = std::get<HealthReply>(out.groups[5].body);
  EXPECT_TRUE(reply.healthy);
  EXPECT_TRUE(reply.abandoned);
  EXPECT_EQ(reply.chosen, 14u);

  const Outdated& outdated = std::get<Outdated>(out.groups[6].body);
  ASSERT_THAT(outdated.entries, SizeIs(1));
  EXPECT_EQ(outdated.entries[0].slot, 15u);
  EXPECT_EQ(outdated.entries[0].ballot, kBallot);
  EXPECT_EQ(*outdated.entries[0].payload, "fifteen");
  EXPECT_EQ(outdated.released, 9u);
  EXPECT_TRUE(outdated.removed);

  EXPECT_EQ(std::get<ConfirmQuery>(out.groups[7].body).round, 31u);
  EXPECT_EQ(std::get<ConfirmReply>(out.groups[8].body).round, 32u);

  ASSERT_THAT(out.liveness, SizeIs(2));
  const auto& request = std::get<SupportRequest>(out.liveness[0].body);
  EXPECT_EQ(request.incarnation, 3u);
  EXPECT_EQ(request.sent_at, -5);
  EXPECT_EQ(request.heard_incarnation, 2u);
  EXPECT_EQ(request.heard_age_us, -1);
  const auto& grant = std::get<SupportGrant>(out.liveness[1].body);
  EXPECT_EQ(grant.incarnation, 4u);
  EXPECT_EQ(grant.holder_incarnation, 3u);
  EXPECT_EQ(grant.request_sent_at, 77);
  EXPECT_EQ(grant.epoch, 9u);
  EXPECT_EQ(grant.duration, std::chrono::milliseconds(300));
  EXPECT_EQ(grant.granted_at, 78);
  EXPECT_EQ(grant.reads_version, 3u);
}

TEST(MessageCodecTest, BodiesOfDefaultsKeepTheirKind) {
  NodeMessage message;
  message.groups = {Make(Prepare{}),  Make(Promise{}),      Make(Accept{}),
                    Make(Accepted{}), Make(HealthQuery{}),  Make(HealthReply{}),
                    Make(Outdated{}), Make(ConfirmQuery{}), Make(ConfirmReply{})};
  DYNLIB_ASSERT_OK_AND_ASSIGN(NodeMessage out, DecodeNodeMessage(Encode(message)));
  ASSERT_THAT(out.groups, SizeIs(9));
  for (size_t i = 0; i < 9; ++i) EXPECT_EQ(out.groups[i].body.index(), i);
}

TEST(MessageCodecTest, ABodyOfAnUnknownKindIsLeftOutAlone) {
  wire::NodeMessage message;
  message.add_groups()->set_group(1);  // As one with a newer body looks to this version.
  // Field 15, of a length.
  message.mutable_groups(0)
      ->GetReflection()
      ->MutableUnknownFields(message.mutable_groups(0))
      ->AddLengthDelimited(15, "from the future");
  message.add_groups()->mutable_prepare()->set_from_slot(3);
  message.add_requests()->set_incarnation(8);
  DYNLIB_ASSERT_OK_AND_ASSIGN(NodeMessage out, DecodeNodeMessage(message.SerializeAsString()));
  ASSERT_THAT(out.groups, SizeIs(1));
  EXPECT_EQ(std::get<Prepare>(out.groups[0].body).from_slot, 3u);
  EXPECT_THAT(out.liveness, SizeIs(1));
}

// Proposals are written by hand: to the byte what protobuf writes.
TEST(MessageCodecTest, TheBytesAreThoseOfTheGeneratedClass) {
  NodeMessage message = Everything();
  message.groups.push_back(Make(Accept{}));
  message.groups.push_back(Make(Accept{.entries = {Bytes(""), Bytes(std::string(300, 'x'))}}));
  const std::string bytes = Encode(message);
  wire::NodeMessage parsed;
  ASSERT_TRUE(parsed.ParseFromString(bytes));
  EXPECT_EQ(parsed.SerializeAsString(), bytes);
}

GroupMessage Proposal(uint64_t group, Payloads entries) {
  return {.group = PartitionId{group},
          .from = ReplicaId{1},
          .to = ReplicaId{2},
          .epoch = 3,
          .ballot = Ballot(4, ReplicaId{1}),
          .body = Accept{.first_slot = 5, .entries = std::move(entries), .chosen = 4}};
}

const Payloads& EntriesOf(const GroupMessage& message) {
  return std::get<Accept>(message.body).entries;
}

TEST(MessageCodecTest, EntriesThatAreMostOfAMessageShareItsBytes) {
  DYNLIB_ASSERT_OK_AND_ASSIGN(
      NodeMessage out,
      DecodeNodeMessage(Encode({.groups = {Proposal(1, {Bytes(std::string(900, 'a')), Bytes(""),
                                                        Bytes(std::string(900, 'b'))})},
                                .liveness = {}})));
  ASSERT_EQ(out.groups.size(), 1u);
  const Payloads& entries = EntriesOf(out.groups[0]);
  ASSERT_EQ(entries.size(), 3u);
  EXPECT_EQ(*entries[0], std::string(900, 'a'));
  EXPECT_NE(entries[1], nullptr);
  EXPECT_EQ(*entries[1], "");
  EXPECT_EQ(*entries[2], std::string(900, 'b'));
  EXPECT_EQ(entries[0].owner(), entries[2].owner());
}

// What is read by hand is what the generated classes read.
TEST(MessageCodecTest, ProposalsAndAnswersOfAnyShapeAreRead) {
  const auto read_group = [](const std::string& group_bytes) {
    std::string bytes;
    bytes.push_back(1 << 3 | 2);
    bytes.push_back(static_cast<char>(group_bytes.size()));
    bytes += group_bytes;
    return DecodeNodeMessage(bytes);
  };
  wire::GroupMessage group;
  group.set_group(7);
  group.mutable_accept()->set_first_slot(9);
  group.mutable_accept()->add_entries("entry");
  const std::string once = group.SerializeAsString();
  // A body that comes twice is merged.
  DYNLIB_ASSERT_OK_AND_ASSIGN(NodeMessage merged, read_group(once + once));
  ASSERT_EQ(merged.groups.size(), 1u);
  EXPECT_EQ(EntriesOf(merged.groups[0]).size(), 2u);
  // Of two bodies the last counts.
  wire::GroupMessage other;
  other.mutable_accepted()->set_stable(11);
  DYNLIB_ASSERT_OK_AND_ASSIGN(NodeMessage last, read_group(once + other.SerializeAsString()));
  ASSERT_EQ(last.groups.size(), 1u);
  EXPECT_EQ(std::get<Accepted>(last.groups[0].body).stable, 11u);
  // A field that this version does not know is passed over.
  const std::string unknown = {static_cast<char>(15 << 3 | 0), 1};
  DYNLIB_ASSERT_OK_AND_ASSIGN(NodeMessage newer, read_group(unknown + once));
  ASSERT_EQ(newer.groups.size(), 1u);
  EXPECT_EQ(newer.groups[0].group, PartitionId{7});
  EXPECT_EQ(*EntriesOf(newer.groups[0])[0], "entry");
  // The largest numbers.
  group.set_epoch(UINT64_MAX);
  DYNLIB_ASSERT_OK_AND_ASSIGN(NodeMessage large, read_group(group.SerializeAsString()));
  EXPECT_EQ(large.groups[0].epoch, UINT64_MAX);
}

TEST(MessageCodecTest, NoBytesAreAnEmptyMessage) {
  DYNLIB_ASSERT_OK_AND_ASSIGN(NodeMessage out, DecodeNodeMessage(""));
  EXPECT_TRUE(out.groups.empty());
  EXPECT_TRUE(out.liveness.empty());
}

TEST(MessageCodecTest, DamagedBytesAreRefusedOrReadButNeverCrash) {
  const std::string good = Encode(Everything());
  size_t refused = 0;
  for (size_t length = 0; length < good.size(); ++length) {
    absl::StatusOr<NodeMessage> out = DecodeNodeMessage(good.substr(0, length));
    if (out.ok()) continue;
    EXPECT_THAT(out, StatusIs(absl::StatusCode::kInvalidArgument));
    ++refused;
  }
  EXPECT_GT(refused, good.size() / 2);
  Random random(11);
  for (int i = 0; i < 20'000; ++i) {
    std::string bytes = good;
    if (i % 2 == 0) {
      bytes.resize(random.Below(60));
      for (char& byte : bytes) byte = static_cast<char>(random.Below(256));
    } else {
      for (int flips = 0; flips < 3; ++flips)
        bytes[random.Below(bytes.size())] ^= static_cast<char>(1 << random.Below(8));
    }
    ASSERT_TRUE(ReadersAgree(bytes)) << testing::PrintToString(bytes);
    absl::StatusOr<NodeMessage> out = DecodeNodeMessage(bytes);
    if (!out.ok()) continue;
    for (const GroupMessage& message : out->groups) {
      if (const auto* accept = std::get_if<Accept>(&message.body)) {
        for (const Payload& payload : accept->entries) ASSERT_NE(payload, nullptr);
      }
    }
  }
}

// Of commits alone, so that most is read by hand: a fixed run of what message_fuzzer does for as
// long as one likes.
TEST(MessageCodecTest, ReadByHandOrByTheGeneratedClassesAMessageSaysTheSame) {
  Random random(12);
  const auto number = [&random] { return random.Next() >> random.Below(64); };
  size_t read = 0;
  constexpr size_t kMessages = 100'000;
  for (size_t i = 0; i < kMessages; ++i) {
    NodeMessage message;
    for (uint64_t groups = 1 + random.Below(3); groups > 0; --groups) {
      message.groups.push_back(Make(Accepted{.granted = random.Chance(0.5),
                                             .promised = Ballot::FromPacked(number()),
                                             .stable = number(),
                                             .chosen = number(),
                                             .support_epoch = number(),
                                             .checkpoint = number()}));
      if (random.Chance(0.5)) continue;
      Accept accept{.first_slot = number(),
                    .chosen = number(),
                    .held_by_all = number(),
                    .held_by_storage = number()};
      for (uint64_t entries = random.Below(4); entries > 0; --entries)
        accept.entries.push_back(Bytes(std::string(random.Below(40), 'e')));
      message.groups.back().body = std::move(accept);
      message.groups.back().epoch = number();
    }
    std::string bytes = Encode(message);
    for (uint64_t changes = random.Below(4); changes > 0; --changes) Mutate(random, bytes);
    ASSERT_TRUE(ReadersAgree(bytes)) << testing::PrintToString(bytes);
    if (DecodeNodeMessage(bytes).ok()) ++read;
  }
  EXPECT_GT(read, kMessages / 4);
  EXPECT_LT(read, kMessages - kMessages / 4);
}

}  // namespace
}  // namespace dynlib::replication
