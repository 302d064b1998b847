#include "dynlib/replication/group_core.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "dynlib/base/check.h"
#include "dynlib/base/strings.h"

namespace dynlib::replication {
namespace {

constexpr size_t kWindowEntriesMax = 1'000'000;
constexpr size_t kEffectsKept = 128;

// From where it is whole up to what the tree holds: what lies before is of no use, and may be far
// away.
SlotLog LogOf(const GroupCore::Recovered& recovered) {
  std::map<Slot, Ballot> unknown;
  for (const UnknownSlot& slot : recovered.unknown)
    unknown[slot.slot] = std::max(unknown[slot.slot], slot.ballot);
  auto readable = [&unknown](const Entry& entry) {
    const auto at = unknown.find(entry.slot);
    return at == unknown.end() || at->second <= entry.ballot;
  };
  Slot released = recovered.applied;
  for (auto entry = recovered.entries.rbegin(); entry != recovered.entries.rend(); ++entry) {
    if (entry->slot > released) continue;
    if (entry->slot < released || released == 0 || !readable(*entry)) break;
    --released;
  }
  SlotLog log;
  log.Reset(released);
  for (const Entry& entry : recovered.entries) {
    if (entry.slot > released) log.Put(entry.slot, entry.ballot, entry.payload, /*durable=*/true);
  }
  for (const auto& [slot, ballot] : unknown) log.MarkUnknown(slot, ballot);
  return log;
}

}  // namespace

absl::Status Validate(const GroupOptions& options) {
  auto bad = [](std::string_view name, auto value, std::string_view allowed) {
    return absl::InvalidArgumentError(Cat("group.", name, " is ", value, "; allowed: ", allowed));
  };
  if (options.proposal_bytes_max < 1 || options.proposal_bytes_max > (16 << 20)) {
    return bad("proposal_bytes_max", options.proposal_bytes_max, "1 to 16 MiB");
  }
  if (options.unchosen_bytes_max < options.proposal_bytes_max) {
    return bad("unchosen_bytes_max", options.unchosen_bytes_max, "at least proposal_bytes_max");
  }
  if (options.peer_window_bytes_max < 1) return bad("peer_window_bytes_max", 0, "at least 1");
  if (options.peer_window_entries_max < 1 || options.peer_window_entries_max > kWindowEntriesMax) {
    return bad("peer_window_entries_max", options.peer_window_entries_max, "1 to 1,000,000");
  }
  if (options.message_bytes_max < 1 || options.message_bytes_max > (16 << 20)) {
    return bad("message_bytes_max", options.message_bytes_max, "1 to 16 MiB");
  }
  const std::pair<std::string_view, Duration> durations[] = {
      {"resend", options.resend},
      {"commit_notice", options.commit_notice},
      {"election_jitter", options.election_jitter},
      {"health_timeout", options.health_timeout},
      {"prepare_timeout", options.prepare_timeout},
      {"progress_bound", options.progress_bound}};
  for (const auto& [name, value] : durations) {
    if (value <= Duration(0) || value > std::chrono::minutes(1)) {
      return bad(name, ToMicros(value), "1 us to 60 s, in us");
    }
  }
  return absl::OkStatus();
}

std::string_view RoleName(Role role) {
  switch (role) {
    case Role::kFollower:
      return "follower";
    case Role::kAskingHealth:
      return "asking health";
    case Role::kCandidate:
      return "candidate";
    case Role::kLeader:
      return "leader";
  }
  return "?";
}

std::string_view CauseName(ElectionCause cause) {
  constexpr std::string_view kNames[] = {
      "fresh",    "restarted", "leader_silent",  "leader_restarted",
      "released", "contested", "members_changed"};
  static_assert(std::size(kNames) == kElectionCauses);
  return kNames[static_cast<size_t>(cause)];
}

bool GroupCore::InReach(const Recovered& recovered) {
  std::set<Slot> unknown;
  for (const UnknownSlot& slot : recovered.unknown) unknown.insert(slot.slot);
  Slot whole = recovered.applied;
  auto pass_unknown = [&] {
    while (unknown.contains(whole + 1)) ++whole;
  };
  pass_unknown();
  for (const Entry& entry : recovered.entries) {
    if (entry.slot != whole + 1) continue;
    ++whole;
    pass_unknown();
  }
  Slot last = recovered.entries.empty() ? 0 : recovered.entries.back().slot;
  if (!unknown.empty()) last = std::max(last, *unknown.rbegin());
  // As WindowEnd, whatever the window was when it was written.
  return whole <= kSlotMax && last <= whole + 4 * kWindowEntriesMax;
}

GroupCore::GroupCore(const GroupOptions& options, PartitionId group, const Member& self,
                     bool learner, Configuration configuration, Recovered recovered, uint64_t seed,
                     Liveness* liveness, Instant now)
    : options_(options),
      group_(group),
      self_(self),
      configuration_(std::move(configuration)),
      liveness_(liveness),
      random_(seed) {
  DYNLIB_CHECK(Validate(options_).ok());
  DYNLIB_CHECK(Validate(configuration_).ok());
  if (!options_.faults.amnesiac_vote) promised_ = recovered.promised;
  if (options_.faults.damage_read_as_empty) recovered.unknown.clear();

  DYNLIB_CHECK(InReach(recovered));
  for (const Entry& entry : recovered.entries) {
    if (!options_.faults.amnesiac_vote) promised_ = std::max(promised_, entry.ballot);
  }
  for (const UnknownSlot& unknown : recovered.unknown)
    promised_ = std::max(promised_, unknown.ballot);
  log_ = LogOf(recovered);

  // L4: replay reaches no further than what is known to be chosen, and stops at the first slot that
  // is not readable.
  const Slot replay_limit = options_.faults.replay_past_chosen ? log_.last() : recovered.chosen;
  recovered_chosen_ = recovered.chosen;
  chosen_ = recovered.applied;
  // What was adopted before counts again when everything up to it was read again: a proposer must
  // know the configuration of exactly the slot after its chosen ones (R2).
  if (recovered.configuration.has_value() &&
      recovered.configuration->epoch > configuration_.epoch) {
    if (recovered.configuration->epoch <= chosen_) {
      configuration_ = *recovered.configuration;
    } else {
      ahead_ = *std::move(recovered.configuration);
    }
  }
  configurations_[configuration_.epoch] = configuration_;
  if (recovered.ended <= chosen_) ended_ = recovered.ended;
  // A learner that became a member and left again is not a learner again, but must see to it that
  // the others know.
  named_in_ = recovered.named_in;
  if (member()) named_in_ = std::max(named_in_, configuration_.epoch + 1);
  while (chosen_ < replay_limit && Readable(chosen_ + 1)) NoteChosen(++chosen_);
  if (adopting_.has_value()) configuration_ = *std::exchange(adopting_, std::nullopt);
  if (ahead_.has_value() && ahead_->epoch <= chosen_) ahead_.reset();
  removed_ = !member() && (!learner || (named_in_ != 0 && named_in_ <= configuration_.epoch));
  SetPeers(/*leading=*/false, now);
  promised_node_ = NodeOf(promised_.proposer());
  stable_ = chosen_;
  // What the older of the tree's two checkpoints holds is not known yet; what was released is
  // surely in it.
  checkpoint_ = log_.released();
  AdvanceStable();
  round_seen_ = promised_.round();

  ScheduleFirstElection(now);
}

bool GroupCore::Readable(Slot slot) const {
  const SlotLog::Cell* cell = log_.Find(slot);
  return cell != nullptr && cell->held() && cell->unknown == Ballot();
}

GroupCore::Peer* GroupCore::FindPeer(ReplicaId replica) {
  for (Peer& peer : peers_) {
    if (peer.member.replica == replica) return &peer;
  }
  return nullptr;
}

NodeId GroupCore::NodeOf(ReplicaId replica) const {
  for (const Member& member : Contacts()) {
    if (member.replica == replica) return member.node;
  }
  return IsSelf(replica) ? self_.node : NodeId{};
}

std::optional<Member> GroupCore::leader() const {
  if (role_ != Role::kLeader && !established_) return std::nullopt;
  if (promised_node_ == NodeId{}) return std::nullopt;
  return Member{.replica = promised_.proposer(), .node = promised_node_};
}

void GroupCore::Step(const GroupMessage& message, Instant now) {
  DYNLIB_CHECK(message.group == group_);
  // For an earlier replica of this node, or from one that is not where its id belongs.
  if (!IsSelf(message.to) || IsSelf(message.from)) return;
  const Member* sender = configuration_.Find(message.from);
  if (sender != nullptr && sender->node != message.from_node) return;
  if (message.ballot.round() >= Ballot::kRoundMax) return;
  if (TellIfOutdated(message, now)) return;
  round_seen_ = std::max(round_seen_, message.ballot.round());
  std::visit(
      [&](const auto& body) {
        using Body = std::decay_t<decltype(body)>;
        if constexpr (std::is_same_v<Body, Prepare>) OnPrepare(message, body, now);
        if constexpr (std::is_same_v<Body, Promise>) OnPromise(message, body, now);
        if constexpr (std::is_same_v<Body, Accept>) OnAccept(message, body, now);
        if constexpr (std::is_same_v<Body, Accepted>) OnAccepted(message, body, now);
        if constexpr (std::is_same_v<Body, HealthQuery>) OnHealthQuery(message, body, now);
        if constexpr (std::is_same_v<Body, HealthReply>) OnHealthReply(message, body, now);
        if constexpr (std::is_same_v<Body, Outdated>) OnOutdated(message, body, now);
        if constexpr (std::is_same_v<Body, ConfirmQuery>) OnConfirmQuery(message, body);
        if constexpr (std::is_same_v<Body, ConfirmReply>) OnConfirmReply(message, body, now);
      },
      message.body);
  ApplyConfiguration(now);
}

void GroupCore::Persisted(uint64_t last_record, Instant now) {
  DYNLIB_CHECK(last_record <= record_index_);
  persisted_index_ = std::max(persisted_index_, last_record);
  while (!pending_entries_.empty() && pending_entries_.front().record <= persisted_index_) {
    const PendingEntry& pending = pending_entries_.front();
    SlotLog::Cell* cell = log_.Find(pending.slot);
    if (cell != nullptr && cell->held() && cell->ballot == pending.ballot) cell->durable = true;
    pending_entries_.pop_front();
  }
  AdvanceStable();
  if (role_ == Role::kLeader) AdvanceChosen(now);
  if (role_ == Role::kCandidate) MaybeWin(now);
  ApplyConfiguration(now);
  auto held = held_messages_.begin();
  for (; held != held_messages_.end() && held->record <= persisted_index_; ++held) {
    GroupMessage& message = held->message;
    if (auto* accepted = std::get_if<Accepted>(&message.body)) {
      if (message.ballot != promised_)
        continue;  // A higher ballot was promised since; the proposer hears of it.
      accepted->stable = stable_;
      accepted->chosen = std::min(chosen_, stable_);
      accepted->checkpoint = checkpoint_;
      accepted->support_epoch = liveness_->EpochFor(message.to_node);
    }
    Send(std::move(message));
  }
  held_messages_.erase(held_messages_.begin(), held);
  MaybeRelease();
}

void GroupCore::Tick(Instant now) {
  if (role_ == Role::kLeader) TickLeader(now);
  if (role_ == Role::kAskingHealth && now >= health_until_) OnHealthTimeout(now);
  if (role_ == Role::kCandidate && now >= candidacy_.retry_at) SendPrepares(now);
  if (role_ == Role::kFollower && now >= election_at_) OnElectionDue(now);
  ApplyConfiguration(now);
}

Instant GroupCore::next_deadline() const {
  switch (role_) {
    case Role::kFollower:
      return election_at_;
    case Role::kAskingHealth:
      return health_until_;
    case Role::kCandidate:
      return candidacy_.retry_at;
    case Role::kLeader:
      break;
  }
  Instant deadline = notice_at_;
  if (read_rounds_ != nullptr) deadline = std::min(deadline, read_rounds_->next_deadline());
  for (const Peer& peer : peers_) {
    deadline = std::min({deadline, peer.resend_at, peer.forget_at});
  }
  return deadline;
}

void GroupCore::Effects::Clear() {
  const auto clear = [](auto& effects) {
    if (effects.capacity() > kEffectsKept) effects = {};
    effects.clear();
  };
  clear(records);
  clear(messages);
  clear(events);
  deposed = false;
}

void GroupCore::TakeEffects(Instant now, Effects& effects) {
  if (role_ == Role::kLeader) Flush(now);
  effects_.last_record = record_index_;
  effects.Clear();
  std::swap(effects, effects_);
}

bool GroupCore::HasEffects() const {
  if (!effects_.records.empty() || !effects_.messages.empty() || !effects_.events.empty()) {
    return true;
  }
  if (effects_.deposed) return true;
  return role_ == Role::kLeader && std::any_of(peers_.begin(), peers_.end(), [&](const Peer& peer) {
           return peer.known && peer.next <= proposed_;
         });
}

GroupCore::Effects GroupCore::TakeEffects(Instant now) {
  Effects effects;
  TakeEffects(now, effects);
  return effects;
}

GroupMessage GroupCore::Make(const Member& to, Ballot ballot) const {
  return {.from_node = self_.node,
          .to_node = to.node,
          .group = group_,
          .from = self_.replica,
          .to = to.replica,
          .epoch = configuration_.epoch,
          .ballot = ballot,
          .body = {}};
}

GroupMessage GroupCore::Answer(const GroupMessage& message) const {
  return Make({.replica = message.from, .node = message.from_node}, message.ballot);
}

void GroupCore::Send(GroupMessage message) { effects_.messages.push_back(std::move(message)); }

void GroupCore::SendWhenDurable(GroupMessage message) {
  if (persisted_index_ == record_index_ || options_.faults.acknowledge_before_sync) {
    Send(std::move(message));
    return;
  }
  // One answer to a batch of proposals is enough.
  if (!held_messages_.empty() && std::holds_alternative<Accepted>(message.body)) {
    const HeldMessage& last = held_messages_.back();
    if (last.record == record_index_ && last.message.to == message.to &&
        last.message.ballot == message.ballot &&
        std::holds_alternative<Accepted>(last.message.body)) {
      return;
    }
  }
  held_messages_.push_back({record_index_, std::move(message)});
}

void GroupCore::PersistState() {
  ++record_index_;
  effects_.records.push_back({.is_state = true,
                              .slot = chosen_,
                              .ballot = promised_,
                              .payload = nullptr,
                              .chosen = chosen_,
                              .configuration = configuration_,
                              .ended = ended_,
                              .named_in = named_in_});
}

void GroupCore::PersistEntry(Slot slot) {
  ++record_index_;
  SlotLog::Cell* cell = log_.Find(slot);
  effects_.records.push_back({.is_state = false,
                              .slot = slot,
                              .ballot = cell->ballot,
                              .payload = cell->payload,
                              .chosen = chosen_,
                              .configuration = {}});
  pending_entries_.push_back({record_index_, slot, cell->ballot});
  if (options_.faults.acknowledge_before_sync) cell->durable = true;
}

void GroupCore::PutEntry(Slot slot, Ballot ballot, Payload payload) {
  const SlotLog::Cell* before = log_.Find(slot);
  const bool unknown = before != nullptr && before->unknown != Ballot();
  const SlotLog::Cell& cell = log_.Put(slot, ballot, std::move(payload), /*durable=*/false);
  if (unknown && cell.unknown == Ballot()) {
    effects_.events.push_back({Event::Kind::kRepaired, ballot, slot});
  }
  PersistEntry(slot);
}

bool GroupCore::TryPromise(Ballot ballot, NodeId proposer_node, Instant now) {
  if (ballot == promised_) promised_node_ = proposer_node;
  if (ballot <= promised_) return ballot == promised_;
  if (!MayPromise(ballot, now)) return false;
  Adopt(ballot, proposer_node, now);
  return true;
}

bool GroupCore::MayPromise(Ballot ballot, Instant now) {
  if (!liveness_->BootWaitOver(now)) return false;
  const ReplicaId owner = promised_.proposer();
  if (IsSelf(owner)) {
    return !HoldsLease(now);
  }
  if (owner == ballot.proposer() || abandoned_ || promised_ == Ballot()) return true;
  // An owner of whom nothing was heard in this boot was named no epoch in it.
  if (promised_node_ == NodeId{} || OwnerLeft()) return true;
  return liveness_->EndSupport(promised_node_, now);
}

// The owner was a member and is none any more. It holds no lease: if it led when a configuration
// without it was first known to be chosen, it either was the one to know, and resigned, or a higher
// ballot had been promised by a quorum, or it had inherited the change and had no lease (R2).
bool GroupCore::OwnerLeft() const {
  return promised_epoch_ <= configuration_.epoch &&
         configuration_.Find(promised_.proposer()) == nullptr;
}

void GroupCore::Adopt(Ballot ballot, NodeId proposer_node, Instant now) {
  if (role_ == Role::kLeader) StepDown(now);
  // Members that promised the ballot given up need not wait for this node's support to end.
  if (role_ == Role::kCandidate) AnnounceAbandoned();
  role_ = Role::kFollower;
  renewing_ = false;
  ForgetLearners();
  promised_ = ballot;
  promised_node_ = proposer_node;
  promised_epoch_ = UINT64_MAX;
  ++nodes_version_;
  established_ = false;
  abandoned_ = false;
  stable_ = std::min(stable_, chosen_);
  unchosen_since_ = Instant::Infinite();
  PersistState();
  ScheduleElection(now + options_.prepare_timeout, ElectionCause::kContested);
}

// Only when the ballot's promise is durable: one that could be forgotten could be led after all,
// after a restart. What was proposed at it need not be: a leader whose disk hangs says it at once.
void GroupCore::AnnounceAbandoned() {
  const bool durable = persisted_index_ >= candidacy_.own_record;
  for (const Peer& peer : peers_) {
    GroupMessage release = Make(peer.member, promised_);
    release.body = HealthReply{.healthy = false, .abandoned = true, .chosen = chosen_};
    durable ? Send(std::move(release)) : SendWhenDurable(std::move(release));
  }
}

void GroupCore::StepDown(Instant now) {
  effects_.events.push_back({Event::Kind::kDeposed, promised_, chosen_});
  effects_.deposed = true;
  role_ = Role::kFollower;
  established_ = false;
  notice_at_ = Instant::Infinite();
  unchosen_bytes_ = 0;
  barrier_ = 0;
  inherited_ = false;
  ForgetLearners();
  ScheduleElection(now + options_.prepare_timeout, ElectionCause::kContested);
}

void GroupCore::AdvanceStable() {
  stable_ = std::max(stable_, log_.released());
  while (true) {
    const SlotLog::Cell* cell = log_.Find(stable_ + 1);
    if (cell == nullptr || !cell->held() || !cell->durable || cell->unknown != Ballot()) return;
    if (stable_ + 1 > chosen_ && cell->ballot != promised_) return;
    ++stable_;
  }
}

// An entry of an earlier ballot may lie here for ever, unchosen: only what this ballot proposed is
// waited for.
bool GroupCore::AwaitsChoice() const {
  const SlotLog::Cell* cell = log_.Find(chosen_ + 1);
  return cell != nullptr && cell->held() && cell->ballot == promised_;
}

void GroupCore::SetChosen(Slot chosen, Instant now) {
  if (chosen <= chosen_) return;
  if (role_ == Role::kLeader) {
    for (Slot slot = chosen_ + 1; slot <= chosen; ++slot)
      unchosen_bytes_ -= log_.Find(slot)->payload->size();
  }
  while (chosen_ < chosen) NoteChosen(++chosen_);
  if (barrier_ != 0 && barrier_ <= chosen_) barrier_ = 0;
  unchosen_since_ = AwaitsChoice() ? now : Instant::Infinite();
  AdvanceStable();
}

const Payload& GroupCore::ChosenEntry(Slot slot) const {
  const SlotLog::Cell* cell = log_.Find(slot);
  DYNLIB_CHECK(slot <= chosen_ && cell != nullptr && cell->held());
  return cell->payload;
}

void GroupCore::SetCheckpoint(Slot slot, Instant now) {
  DYNLIB_CHECK(slot <= chosen_);
  checkpoint_ = std::max(checkpoint_, slot);
  // What was in force before the checkpoint is asked for no more.
  auto in_force = configurations_.upper_bound(checkpoint_);
  if (in_force != configurations_.begin()) {
    configurations_.erase(configurations_.begin(), std::prev(in_force));
  }
  MaybeRelease();
  if (role_ == Role::kLeader) {
    AnnounceHeld(now);
  } else if (role_ == Role::kFollower && established_ && AllInTree() && log_.released() < chosen_) {
    // Nothing else may be said for long, and the log be kept by all until then.
    GroupMessage word = Make({.replica = promised_.proposer(), .node = promised_node_}, promised_);
    word.body = StableAnswer(promised_node_);
    SendWhenDurable(std::move(word));
  }
}

void GroupCore::MaybeRelease() {
  const Slot held_by_all = role_ == Role::kLeader ? HeldByAll() : held_by_all_;
  const bool over = log_.bytes() > options_.retained_bytes_max;
  log_.Release(over ? checkpoint_ : std::min(checkpoint_, held_by_all));
}

void GroupCore::SetMayLead(bool may_lead, Instant now) {
  may_lead_ = may_lead;
  if (may_lead) return;
  if (role_ == Role::kLeader) {
    effects_.events.push_back({Event::Kind::kReleased, promised_, chosen_});
    StepDown(now);
    AnnounceAbandoned();
  } else if (role_ == Role::kCandidate) {
    GiveUp(Duration(0), now);
  } else if (role_ == Role::kAskingHealth) {
    role_ = Role::kFollower;
    ScheduleElection(now + liveness_->options().support);
  }
}

void GroupCore::OnPeerEvent(const Liveness::Event& event, Instant now) {
  if (role_ == Role::kLeader) {
    for (Peer& peer : peers_) {
      if (peer.member.node != event.peer || event.kind == Liveness::Event::Kind::kPeerLost)
        continue;
      // It may have restarted with less than it said before. And a lease that it supports under a
      // new epoch comes back only when it names that epoch (R5), also of a group that is idle.
      peer.known = false;
      peer.resend_at = now;
    }
    return;
  }
  if (promised_ == Ballot() || promised_node_ != event.peer) return;
  ElectionCause cause = ElectionCause::kLeaderSilent;
  switch (event.kind) {
    case Liveness::Event::Kind::kPeerHeard:
      if (established_ && role_ == Role::kFollower) election_at_ = Instant::Infinite();
      return;
    case Liveness::Event::Kind::kPeerSupports:
      return;
    case Liveness::Event::Kind::kPeerRestarted:
      established_ = false;
      cause = ElectionCause::kLeaderRestarted;
      break;
    case Liveness::Event::Kind::kPeerLost:
      break;
  }
  if (role_ == Role::kFollower) ScheduleElection(now, cause);
}

void GroupCore::CheckInvariants() const {
  DYNLIB_CHECK(log_.released() <= checkpoint_);
  DYNLIB_CHECK(checkpoint_ <= chosen_);
  DYNLIB_CHECK(chosen_ <= std::max(log_.last(), checkpoint_));
  DYNLIB_CHECK(stable_ <= std::max(log_.last(), checkpoint_));
  DYNLIB_CHECK(persisted_index_ <= record_index_);
  for (Slot slot = log_.released() + 1; slot <= log_.last(); ++slot) {
    const SlotLog::Cell* cell = log_.Find(slot);
    if (cell->held()) DYNLIB_CHECK(cell->ballot <= promised_ || options_.faults.amnesiac_vote);
    if (slot > checkpoint_ && slot <= chosen_) DYNLIB_CHECK(cell->held());
    if (slot > chosen_ && slot <= stable_) DYNLIB_CHECK(cell->ballot == promised_ && cell->durable);
  }
  if (role_ == Role::kLeader) {
    DYNLIB_CHECK(IsSelf(promised_.proposer()));
    DYNLIB_CHECK(self_.kind == MemberKind::kStorage && member());
    DYNLIB_CHECK(chosen_ <= proposed_ && proposed_ <= std::max(log_.last(), chosen_));
    DYNLIB_CHECK(barrier_ == 0 || (barrier_ == proposed_ && chosen_ < barrier_));
    for (const Peer& peer : peers_) DYNLIB_CHECK(peer.next > peer.match);
  }
  // R2: a proposer knows exactly the configuration that the slot after its chosen ones has.
  DYNLIB_CHECK(configuration_.epoch <= chosen_ && !adopting_.has_value());
  DYNLIB_CHECK(configurations_.rbegin()->second == configuration_);
}

}  // namespace dynlib::replication
