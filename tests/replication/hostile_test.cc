// Messages that nobody honest sends: of another group, epoch or version, with lying positions,
// repeated, in any order. No replica stops, no replica forgets what it promised or holds, and
// nothing that was chosen changes.
//
// Peers are trusted to keep what they promised: one that lies about what it accepted can make a
// group choose wrongly, and no protocol of this kind prevents that (only Byzantine ones do). What
// holds here whatever comes: this process goes on, its own state stays sound, its memory bounded.
#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "dynlib/base/random.h"
#include "dynlib/replication/entry.h"
#include "dynlib/replication/message_codec.h"
#include "gtest/gtest.h"
#include "tests/replication/solo_core.h"

namespace dynlib::replication {
namespace {

constexpr int kRuns = 400;
constexpr int kMessages = 150;

// Draws what a message may say, mostly near what is true.
class Liar {
 public:
  explicit Liar(uint64_t seed) : random_(seed) {}

  Random& random() { return random_; }
  uint64_t Position() {
    const uint64_t numbers[] = {
        0,         1,          kSlotMax - 1,   kSlotMax,          kSlotMax + 1,
        INT64_MAX, UINT64_MAX, UINT64_MAX - 1, uint64_t{1} << 32, 16'384};
    return random_.Chance(0.8) ? random_.Below(12) : numbers[random_.Below(10)];
  }
  Ballot AnyBallot() {
    if (random_.Chance(0.05)) return Ballot::FromPacked(random_.Next());
    if (random_.Chance(0.03)) return Ballot(Ballot::kRoundMax - random_.Below(3), ReplicaId{2});
    return At(random_.Below(6), 1 + random_.Below(4));
  }
  Payload AnyPayload() {
    switch (random_.Below(5)) {
      case 0:
        return Value("");
      case 1:
        return Value(EncodeChange(random_.Below(3), AnyMembers()));
      case 2:
        return Value(std::string(1, static_cast<char>(EntryKind::kEnd)) + "end");
      case 3:
        return Value(std::string(random_.Below(8), static_cast<char>(random_.Below(256))));
      default:
        return Value(std::string("\1") + std::string(random_.Below(40), 'x'));
    }
  }
  std::vector<Member> AnyMembers() {
    std::vector<Member> members;
    for (uint64_t i = 1 + random_.Below(4); i > 0; --i) {
      members.push_back({ReplicaId{random_.Below(6)}, NodeOf(random_.Below(6)),
                         random_.Chance(0.8) ? MemberKind::kStorage : MemberKind::kLog});
    }
    return members;
  }
  std::vector<Entry> Entries() {
    std::vector<Entry> entries;
    uint64_t slot = Position();
    for (uint64_t i = random_.Below(5); i > 0; --i) {
      entries.push_back({slot, AnyBallot(), AnyPayload()});
      slot = random_.Chance(0.8) ? slot + 1 : Position();
    }
    return entries;
  }
  decltype(GroupMessage::body) AnyBody() {
    switch (random_.Below(9)) {
      case 0:
        return Prepare{.from_slot = Position()};
      case 1: {
        Promise promise{.granted = random_.Chance(0.7),
                        .promised = AnyBallot(),
                        .lease_remaining = Duration(static_cast<int64_t>(Position())),
                        .support_epoch = random_.Chance(0.7) ? Epoch(1, 1) : random_.Next(),
                        .from_slot = Position(),
                        .through = random_.Chance(0.6) ? UINT64_MAX : Position(),
                        .chosen = Position(),
                        .released = random_.Chance(0.8) ? 0 : Position(),
                        .entries = Entries()};
        if (random_.Chance(0.3)) promise.unknown.push_back({Position(), AnyBallot()});
        return promise;
      }
      case 2: {
        Accept accept{.first_slot = Position(),
                      .chosen = Position(),
                      .held_by_all = random_.Chance(0.8) ? 0 : Position(),
                      .held_by_storage = random_.Chance(0.8) ? 0 : Position()};
        for (uint64_t i = random_.Below(5); i > 0; --i) accept.entries.push_back(AnyPayload());
        return accept;
      }
      case 3:
        return Accepted{.granted = random_.Chance(0.8),
                        .promised = AnyBallot(),
                        .stable = Position(),
                        .chosen = Position(),
                        .support_epoch = random_.Chance(0.7) ? Epoch(1, 1) : random_.Next(),
                        .checkpoint = Position()};
      case 4:
        return HealthQuery{.chosen = Position()};
      case 5:
        return HealthReply{
            .healthy = random_.Chance(0.3), .abandoned = random_.Chance(0.3), .chosen = Position()};
      case 6:
        return Outdated{
            .entries = Entries(), .released = Position(), .removed = random_.Chance(0.2)};
      case 7:
        return ConfirmQuery{.round = Position()};
      default:
        return ConfirmReply{.round = Position()};
    }
  }
  GroupMessage AnyMessage(const GroupCore& core) {
    const uint64_t from = 1 + random_.Below(5);
    return {.from_node = NodeOf(random_.Chance(0.9) ? from : random_.Below(7)),
            .to_node = NodeOf(ToUint(core.self())),
            .group = PartitionId{1},
            .from = ReplicaId{from},
            .to = random_.Chance(0.9) ? core.self() : ReplicaId{random_.Below(6)},
            .epoch = random_.Chance(0.8) ? core.configuration().epoch : Position(),
            .ballot = random_.Chance(0.6) ? core.promised() : AnyBallot(),
            .body = AnyBody()};
  }

 private:
  Random random_;
};

// What a replica may never take back.
struct Past {
  Ballot promised;
  Slot chosen = 0;
  uint64_t epoch = 0;
  std::map<Slot, std::string> values;

  void Compare(GroupCore& core) {
    EXPECT_GE(core.promised(), promised);
    EXPECT_GE(core.chosen(), chosen);
    EXPECT_GE(core.configuration().epoch, epoch);
    promised = core.promised();
    epoch = core.configuration().epoch;
    for (chosen = std::max(chosen, core.released()); chosen < core.chosen();) {
      ++chosen;
      values[chosen] = *core.ChosenEntry(chosen);
    }
    for (const auto& [slot, value] : values) {
      if (slot <= core.released()) continue;
      EXPECT_EQ(*core.ChosenEntry(slot), value) << slot;
    }
    EXPECT_LE(core.last_slot(), core.chosen() + 4 * GroupOptions().peer_window_entries_max + 8);
  }
};

void Play(uint64_t seed, bool leads) {
  Liar liar(seed);
  SoloCore solo({.self = leads ? uint64_t{1} : 1 + liar.random().Below(3)});
  if (leads) solo.Lead();
  Past past;
  for (int i = 0; i < kMessages && !testing::Test::HasFailure(); ++i) {
    solo.Deliver(liar.AnyMessage(solo.core()));  // And looks at the invariants.
    if (liar.random().Chance(0.5)) solo.Persist();
    if (liar.random().Chance(0.2)) {
      solo->Propose(Value("mine"), solo.now).IgnoreError();
      solo->AskForConfirmation(solo.now);
      solo.Pass(Ms(liar.random().Between(0, 300)));
    }
    if (liar.random().Chance(0.1)) solo.SupportPeer(1 + liar.random().Below(3));
    if (liar.random().Chance(0.05) && solo->chosen() > 0) {
      solo->SetCheckpoint(1 + liar.random().Below(solo->chosen()), solo.now);
    }
    past.Compare(solo.core());
    solo.sent.clear();
    solo.records.clear();
  }
  EXPECT_FALSE(testing::Test::HasFailure()) << "seed " << seed;
}

TEST(HostileTest, AFollowerKeepsWhatItHoldsWhateverItIsTold) {
  for (uint64_t seed = 1; seed <= kRuns && !HasFailure(); ++seed) Play(seed, /*leads=*/false);
}

TEST(HostileTest, ALeaderKeepsWhatItHoldsWhateverItIsTold) {
  for (uint64_t seed = 1; seed <= kRuns && !HasFailure(); ++seed) Play(seed, /*leads=*/true);
}

TEST(HostileTest, LivenessBelievesNoNumberTooMuch) {
  for (uint64_t seed = 1; seed <= kRuns; ++seed) {
    Liar liar(seed);
    const Instant start = Instant::FromNanos(1'000'000'000);
    Liveness liveness({}, 3, Ms(0), start);
    liveness.AddPeer(NodeOf(2), start);
    Instant now = start;
    for (int i = 0; i < 200; ++i) {
      now = now + Ms(liar.random().Between(0, 50));
      LivenessMessage message;
      if (liar.random().Chance(0.5)) {
        message.body = SupportRequest{.incarnation = liar.Position(),
                                      .sent_at = static_cast<int64_t>(liar.Position()),
                                      .heard_incarnation = liar.random().Below(5),
                                      .heard_age_us = static_cast<int64_t>(liar.Position())};
      } else {
        message.body = SupportGrant{.incarnation = liar.Position(),
                                    .holder_incarnation = liar.random().Below(5),
                                    .request_sent_at = liar.random().Chance(0.5)
                                                           ? now.nanos()
                                                           : static_cast<int64_t>(liar.Position()),
                                    .epoch = liar.Position(),
                                    .duration = Duration(static_cast<int64_t>(liar.Position())),
                                    .granted_at = static_cast<int64_t>(liar.Position())};
      }
      liveness.Step(liar.random().Chance(0.9) ? NodeOf(2) : NodeOf(9), message, now);
      liveness.Tick(now);
      liveness.TakeEffects();
      // Nobody is owed, nor owes, more than a grant is worth.
      EXPECT_LE(liveness.SupportRemaining(NodeOf(2), now), Ms(606));
      EXPECT_LE(liveness.Peers(now)[0].supports_us_for, std::chrono::minutes(1));
    }
  }
}

// As they come over the wire: any body survives coding, and what is read back does no harm.
TEST(HostileTest, MutatedBytesAreRefusedOrHarmless) {
  for (uint64_t seed = 1; seed <= 2 * kRuns && !HasFailure(); ++seed) {
    Liar liar(seed);
    SoloCore solo({.self = 2});
    Past past;
    for (int i = 0; i < 20; ++i) {
      NodeMessage message;
      for (uint64_t n = liar.random().Below(4); n > 0; --n) {
        message.groups.push_back(liar.AnyMessage(solo.core()));
      }
      std::string bytes = Encode(message);
      for (uint64_t n = liar.random().Below(4); n > 0 && !bytes.empty(); --n) {
        bytes[liar.random().Below(bytes.size())] = static_cast<char>(liar.random().Next());
      }
      auto decoded = DecodeNodeMessage(bytes);
      if (!decoded.ok()) continue;
      for (GroupMessage& group : decoded->groups) {
        if (group.group != PartitionId{1}) continue;  // The host looks for the group.
        group.from_node = NodeOf(1 + liar.random().Below(4));
        group.to_node = NodeOf(2);
        solo.Deliver(group);
      }
      solo.Persist();
      past.Compare(solo.core());
    }
  }
}

}  // namespace
}  // namespace dynlib::replication
