// One core and its liveness, with hand-made messages around them: replica i of three (or more) is
// on node 100 + i.
#ifndef DYNLIB_TESTS_REPLICATION_SOLO_CORE_H_
#define DYNLIB_TESTS_REPLICATION_SOLO_CORE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/replication/group_core.h"
#include "dynlib/replication/liveness.h"
#include "dynlib/replication/message.h"
#include "dynlib/replication/types.h"

namespace dynlib::replication {

inline Duration Ms(int64_t n) { return std::chrono::milliseconds(n); }
inline NodeId NodeOf(uint64_t replica) { return NodeId{100 + replica}; }
inline Ballot At(uint64_t round, uint64_t replica) { return Ballot(round, ReplicaId{replica}); }
inline Payload Value(std::string text) {
  return std::make_shared<const std::string>(std::move(text));
}
inline uint64_t Epoch(uint64_t boot, uint64_t counter) { return boot << 32 | counter; }

class SoloCore {
 public:
  struct Setup {
    uint64_t self = 1;
    uint64_t members = 3;
    GroupCore::Recovered recovered;
    GroupOptions options;
    uint64_t boot = 1;
    Duration boot_wait{0};
    MemberKind kind = MemberKind::kStorage;
    bool learner = false;
    Configuration configuration;  // Instead of replicas 1 to `members`.
  };
  explicit SoloCore(Setup setup)
      : owned_liveness_(std::make_unique<Liveness>(LivenessOptions{}, setup.boot, setup.boot_wait,
                                                   Instant::FromNanos(1'000'000'000))),
        boot_(setup.boot),
        liveness(*owned_liveness_) {
    Configuration configuration;
    for (uint64_t i = 1; i <= setup.members; ++i) {
      configuration.members.push_back({ReplicaId{i}, NodeOf(i)});
      if (i != setup.self) liveness.AddPeer(NodeOf(i), now);
    }
    self_ = ReplicaId{setup.self};
    if (!setup.configuration.members.empty()) configuration = setup.configuration;
    core_ = std::make_unique<GroupCore>(
        setup.options, PartitionId{1}, Member{self_, NodeOf(setup.self), setup.kind}, setup.learner,
        configuration, std::move(setup.recovered), 7, &liveness, now);
    Take();
  }
  SoloCore() : SoloCore(Setup{}) {}

  GroupCore& core() { return *core_; }
  GroupCore* operator->() { return core_.get(); }

  template <typename Body>
  void Receive(uint64_t from, Ballot ballot, Body body, uint64_t epoch = 0) {
    GroupMessage message{.from_node = NodeOf(from),
                         .to_node = NodeOf(ToUint(self_)),
                         .group = PartitionId{1},
                         .from = ReplicaId{from},
                         .to = self_,
                         .epoch = epoch,
                         .ballot = ballot,
                         .body = std::move(body)};
    core_->Step(message, now);
    Take();
  }
  void Deliver(const GroupMessage& message) {
    core_->Step(message, now);
    Take();
  }
  void Persist() { PersistTo(last_record); }
  void PersistTo(uint64_t record) {
    core_->Persisted(record, now);
    Take();
  }
  // Lets time pass, and Tick be called when it is due.
  void Pass(Duration duration) {
    const Instant end = now + duration;
    while (true) {
      const Instant next = std::min(liveness.next_deadline(), core_->next_deadline());
      if (next > end) break;
      now = std::max(now, next);
      liveness.Tick(now);
      core_->Tick(now);
      Take();
      if (core_->next_deadline() <= now) now = now + Duration(1000);
    }
    now = std::max(now, end);
    liveness.Tick(now);
    Take();
  }
  // The peer asks for support and shows that it hears this node: it is supported from now.
  void SupportPeer(uint64_t peer, uint64_t peer_boot = 1) {
    liveness.Step(
        NodeOf(peer),
        {SupportRequest{
            .incarnation = peer_boot, .sent_at = 1, .heard_incarnation = boot_, .heard_age_us = 0}},
        now);
    Take();
  }
  // The peer supports this node in the epoch, from now.
  void GrantedBy(uint64_t peer, uint64_t epoch) {
    liveness.Step(NodeOf(peer),
                  {SupportGrant{.incarnation = Liveness::EpochIncarnation(epoch),
                                .holder_incarnation = boot_,
                                .request_sent_at = now.nanos(),
                                .epoch = epoch,
                                .duration = liveness.options().support}},
                  now);
    Take();
  }
  // Replica 1 of a fresh group becomes leader at ballot 1.1 by the promise of replica 2.
  void Lead() {
    Pass(Ms(1));
    Persist();
    Receive(2, At(1, 1),
            Promise{.granted = true,
                    .promised = At(1, 1),
                    .support_epoch = Epoch(1, 1),
                    .from_slot = 1,
                    .through = UINT64_MAX});
  }
  void AcceptedBy(uint64_t peer, Slot stable, uint64_t epoch = Epoch(1, 1)) {
    Receive(peer, core_->promised(),
            Accepted{.granted = true,
                     .promised = core_->promised(),
                     .stable = stable,
                     .chosen = 0,
                     .support_epoch = epoch});
  }

  // All that was sent since the last call, of one kind: (to, body).
  template <typename Body>
  std::vector<std::pair<uint64_t, Body>> Sent() {
    std::vector<std::pair<uint64_t, Body>> found;
    std::erase_if(sent, [&](const GroupMessage& message) {
      const Body* body = std::get_if<Body>(&message.body);
      if (body != nullptr) found.emplace_back(ToUint(message.to), *body);
      return body != nullptr;
    });
    return found;
  }
  bool Saw(GroupCore::Event::Kind kind) const {
    for (const GroupCore::Event& event : events) {
      if (event.kind == kind) return true;
    }
    return false;
  }

  Instant now = Instant::FromNanos(1'000'000'000);

 private:
  std::unique_ptr<Liveness> owned_liveness_;  // Stays where it is when this moves.
  uint64_t boot_;

 public:
  Liveness& liveness;
  std::vector<GroupMessage> sent;
  std::vector<GroupCore::Record> records;
  std::vector<GroupCore::Event> events;
  uint64_t last_record = 0;
  bool deposed = false;

 private:
  void Take() {
    for (const Liveness::Event& event : liveness.TakeEffects().events) {
      if (core_ != nullptr) core_->OnPeerEvent(event, now);
    }
    if (core_ == nullptr) return;
    GroupCore::Effects effects = core_->TakeEffects(now);
    if (!effects.records.empty()) last_record = effects.last_record;
    records.insert(records.end(), effects.records.begin(), effects.records.end());
    sent.insert(sent.end(), effects.messages.begin(), effects.messages.end());
    events.insert(events.end(), effects.events.begin(), effects.events.end());
    deposed |= effects.deposed;
    core_->CheckInvariants();
  }

  ReplicaId self_{};
  std::unique_ptr<GroupCore> core_;
};

}  // namespace dynlib::replication

#endif  // DYNLIB_TESTS_REPLICATION_SOLO_CORE_H_
