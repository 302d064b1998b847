// How a follower becomes a candidate, and a candidate the leader.
#include <algorithm>
#include <utility>

#include "dynlib/base/check.h"
#include "dynlib/replication/entry.h"
#include "dynlib/replication/group_core.h"

namespace dynlib::replication {
namespace {

// No grant is longer than a minute, nor owed for longer than that and the drift.
constexpr Duration kLeaseRemainingMax = std::chrono::minutes(2);

Duration Believable(const Promise& promise) {
  return std::clamp(promise.lease_remaining, Duration(0), kLeaseRemainingMax);
}

}  // namespace

void GroupCore::OnElectionDue(Instant now) {
  if (removed_) {
    // Nobody may miss it, but it may be the only one to know that it is not missed.
    SendHealthQueries(now);
    ScheduleElection(now + 2 * liveness_->options().support);
    return;
  }
  if (!liveness_->BootWaitOver(now)) {
    ScheduleElection(liveness_->boot_wait_end());
    return;
  }
  if (SupportsLeader(now)) {
    election_at_ = Instant::Infinite();
    return;
  }
  if (now < lead_not_before_) {
    ScheduleElection(lead_not_before_);
    return;
  }
  if (!CanLead()) {
    if (IsSelf(promised_.proposer())) AnnounceAbandoned();
    health_denied_.clear();
    SendHealthQueries(now);  // Others may lack what is known here.
    ScheduleElection(now + liveness_->options().support);
    return;
  }
  if (promised_ == Ballot()) {
    StartElection(now);
  } else {
    AskHealth(now);
  }
}

// An election raises ballots, and one that cannot be won deposes a leader that works. So a quorum
// must have said first that it sees none; a member that is cut off raises nothing.
void GroupCore::AskHealth(Instant now) {
  health_denied_.clear();
  if (MayStart()) {
    StartElection(now);
    return;
  }
  role_ = Role::kAskingHealth;
  health_until_ = now + options_.health_timeout;
  SendHealthQueries(now);
}

void GroupCore::SendHealthQueries(Instant now) {
  for (const Member& member : Contacts()) {
    if (health_denied_.contains(member.replica)) continue;
    GroupMessage query = Make(member, promised_);
    query.body = HealthQuery{.chosen = chosen_};
    // Asked about one's own ballot, this says that it is not led: as binding as giving it up.
    SendWhenDurable(std::move(query));
  }
}

bool GroupCore::MayStart() const { return health_denied_.size() + 1 >= configuration_.quorum(); }

void GroupCore::OnHealthTimeout(Instant now) {
  if (SupportsLeader(now)) {
    role_ = Role::kFollower;
    election_at_ = Instant::Infinite();
  } else if (MayStart()) {
    StartElection(now);
  } else {
    // Late answers count too, so that links slower than the timeout are not shut out.
    size_t heard = 1;
    for (const Peer& peer : peers_) heard += liveness_->Hears(peer.member.node, now);
    const bool hopeless = heard < configuration_.quorum();
    health_until_ = now + (hopeless ? liveness_->options().support : options_.prepare_timeout);
    SendHealthQueries(now);
  }
}

void GroupCore::OnHealthReply(const GroupMessage& message, const HealthReply& reply, Instant now) {
  if (message.ballot != promised_) return;
  if (reply.abandoned && message.from == promised_.proposer()) {
    abandoned_ = true;
    established_ = false;
    election_cause_ = ElectionCause::kReleased;
    if (role_ == Role::kFollower)
      SetElection(std::min(election_at_,
                           now + Duration(random_.Between(0, options_.election_jitter.count()))));
  }
  if (role_ != Role::kAskingHealth || FindPeer(message.from) == nullptr) return;
  if (reply.healthy) {
    effects_.events.push_back({Event::Kind::kLeaderHealthy, promised_, chosen_});
    role_ = Role::kFollower;
    ScheduleElection(now + liveness_->options().support);
    return;
  }
  health_denied_.insert(message.from);
  // The leader's own silence is the reason for asking; only the others' answers are waited for.
  for (const Peer& peer : peers_) {
    const ReplicaId replica = peer.member.replica;
    if (replica != promised_.proposer() && !health_denied_.contains(replica)) return;
  }
  if (MayStart()) StartElection(now);
}

void GroupCore::StartElection(Instant now) {
  role_ = Role::kFollower;
  const uint64_t round = std::max(round_seen_, promised_.round()) + 1;
  const NodeId owner = promised_node_;
  const ElectionCause cause = election_cause_;
  const Ballot ballot(round, self_.replica);
  if (!CanLead() || !TryPromise(ballot, self_.node, now)) {
    // Support is still owed to the last leader (R5): nothing can be done before it runs out, or the
    // leader says that it leads no more.
    AskOwner();
    ScheduleElection(now +
                     std::max(liveness_->SupportRemaining(owner, now), options_.election_jitter));
    return;
  }
  round_seen_ = round;
  role_ = Role::kCandidate;
  renewing_ = false;
  election_cause_ = cause;  // The own ballot is no contest.
  candidacy_ = {.from_slot = chosen_ + 1, .whole = chosen_};
  candidacy_.own_record = record_index_;
  SetPeers(/*leading=*/false, now);
  for (Peer& peer : peers_) peer = {.member = peer.member};
  AskForPromises(now);
}

// Phase 1, from this replica's own log on.
void GroupCore::AskForPromises(Instant now) {
  Promise own;
  // The own promise is read straight from the log, without a bound.
  for (Slot slot = candidacy_.from_slot; slot <= log_.last(); ++slot) {
    const SlotLog::Cell* cell = log_.Find(slot);
    if (cell->unknown != Ballot()) own.unknown.push_back({slot, cell->unknown});
    if (cell->held()) own.entries.push_back({slot, cell->ballot, cell->payload});
  }
  Collect(self_.replica, own);
  if (!renewing_) {
    effects_.events.push_back({Event::Kind::kElectionStarted, promised_, chosen_, election_cause_});
  }
  SendPrepares(now);
  MaybeWin(now);
}

void GroupCore::SendPrepares(Instant now) {
  if (++candidacy_.retries > 3) {
    GiveUp(candidacy_.lease_remaining, now);
    return;
  }
  candidacy_.retry_at = now + options_.prepare_timeout;
  for (const Peer& peer : peers_) {
    if (!peer.votes || (peer.granted && peer.through == UINT64_MAX)) continue;
    GroupMessage prepare = Make(peer.member, promised_);
    prepare.body = Prepare{.from_slot = std::max(candidacy_.from_slot, peer.through + 1)};
    SendWhenDurable(std::move(prepare));
  }
}

void GroupCore::GiveUp(Duration wait, Instant now) {
  role_ = Role::kFollower;
  renewing_ = false;
  established_ = false;
  AnnounceAbandoned();
  ForgetLearners();
  ScheduleElection(now + wait + Duration(random_.Between(0, options_.prepare_timeout.count())),
                   ElectionCause::kContested);
}

void GroupCore::OnPromise(const GroupMessage& message, const Promise& promise, Instant now) {
  if (role_ != Role::kCandidate || message.ballot != promised_) return;
  Peer* peer = FindPeer(message.from);
  if (peer == nullptr || !peer->votes) return;
  if (!promise.granted) {
    if (promise.promised > promised_) {
      round_seen_ = std::max(round_seen_, promise.promised.round());
      GiveUp(options_.prepare_timeout, now);
    } else {
      candidacy_.lease_remaining = std::max(candidacy_.lease_remaining, Believable(promise));
    }
    return;
  }
  // An answer to the part of the log that was asked for; anything else is a repeat.
  const Slot expected = std::max(candidacy_.from_slot, peer->through + 1);
  if (peer->granted && (peer->through == UINT64_MAX || promise.from_slot != expected)) return;
  if (!peer->granted && promise.from_slot != candidacy_.from_slot) return;
  if (promise.released >= candidacy_.from_slot) {
    // What this replica misses is gone from that log: it cannot lead before it has caught up.
    effects_.events.push_back({Event::Kind::kTooFarBehind, promised_, promise.released});
    lead_not_before_ = now + 2 * liveness_->options().support;
    GiveUp(Duration(0), now);
    return;
  }
  peer->granted = true;
  peer->through = promise.through;
  peer->promise_chosen = promise.chosen;
  peer->epoch = promise.support_epoch;
  candidacy_.lease_remaining = std::max(candidacy_.lease_remaining, Believable(promise));
  Collect(message.from, promise);
  if (peer->through != UINT64_MAX) {
    GroupMessage prepare = Make(peer->member, promised_);
    prepare.body = Prepare{.from_slot = peer->through + 1};
    SendWhenDurable(std::move(prepare));
    return;
  }
  MaybeWin(now);
}

void GroupCore::Collect(ReplicaId from, const Promise& promise) {
  for (const Entry& entry : promise.entries) {
    if (entry.slot < candidacy_.from_slot || entry.payload == nullptr) continue;
    auto [it, added] = candidacy_.best.try_emplace(entry.slot, entry);
    if (!added && it->second.ballot < entry.ballot) it->second = entry;
  }
  for (const UnknownSlot& unknown : promise.unknown) {
    if (unknown.slot >= candidacy_.from_slot)
      candidacy_.unknown[unknown.slot][from] = unknown.ballot;
  }
  ForgetBeyondWindow();
}

// Each slot up to the last one reported costs an entry. A log has holes only in the window behind
// its longest whole prefix, and reports that prefix first, so what lies beyond is in nobody's log.
// Whatever the others' windows are, nothing is lost by it: of a slot that was known to be chosen, a
// member of each quorum reports all slots up to it.
void GroupCore::ForgetBeyondWindow() {
  Slot& whole = candidacy_.whole;
  while (candidacy_.best.contains(whole + 1) || candidacy_.unknown.contains(whole + 1)) ++whole;
  const Slot end = WindowEnd(whole);
  const auto best = candidacy_.best.upper_bound(end);
  const auto unknown = candidacy_.unknown.upper_bound(end);
  if (best == candidacy_.best.end() && unknown == candidacy_.unknown.end()) return;
  Slot first = UINT64_MAX;
  if (best != candidacy_.best.end()) first = best->first;
  if (unknown != candidacy_.unknown.end()) first = std::min(first, unknown->first);
  effects_.events.push_back({Event::Kind::kSlotsIgnored, promised_, first});
  candidacy_.best.erase(best, candidacy_.best.end());
  candidacy_.unknown.erase(unknown, candidacy_.unknown.end());
}

std::optional<Payload> GroupCore::Decide(Slot slot) const {
  auto best = candidacy_.best.find(slot);
  const Ballot best_ballot = best == candidacy_.best.end() ? Ballot() : best->second.ballot;
  static const Payload no_op = std::make_shared<const std::string>();
  const Payload& value = best == candidacy_.best.end() ? no_op : best->second.payload;
  // An unknown entry matters only if its ballot is above every readable one (R4).
  size_t answers = 0;
  size_t known = 0;
  auto unknown = candidacy_.unknown.find(slot);
  auto count = [&](ReplicaId replica) {
    ++answers;
    if (unknown == candidacy_.unknown.end()) return void(++known);
    auto at = unknown->second.find(replica);
    if (at == unknown->second.end() || at->second <= best_ballot) ++known;
  };
  count(self_.replica);
  for (const Peer& peer : peers_) {
    if (!peer.votes || !peer.granted || peer.through != UINT64_MAX) continue;
    count(peer.member.replica);
    // Chosen already, and readable at the highest ballot or a lower one: the value is the same.
    if (peer.promise_chosen >= slot && best != candidacy_.best.end()) return value;
  }
  if (known >= configuration_.quorum()) return value;
  // What was known to be chosen is never decided anew, whatever is unreadable.
  if (best == candidacy_.best.end() && slot <= recovered_chosen_) return std::nullopt;
  // Everybody answered. Had the unreadable value been chosen, a quorum would have made it durable,
  // and more of its copies be damaged than a group survives: these are torn tails, never
  // acknowledged.
  if (answers == configuration_.members.size()) return value;
  return std::nullopt;
}

void GroupCore::MaybeWin(Instant now) {
  if (persisted_index_ < candidacy_.own_record && !options_.faults.acknowledge_before_sync) return;
  size_t granted = 1;
  for (const Peer& peer : peers_) {
    granted += peer.votes && peer.granted && peer.through == UINT64_MAX;
  }
  if (granted < configuration_.quorum()) return;
  bool decided = false;
  std::vector<Payload> proposals = DecideAll(&decided);
  if (decided) BecomeLeader(std::move(proposals), now);
}

// What to propose again. R2: of a change of members nothing that comes after it, since other
// members decide that; nor of what ends the log.
std::vector<Payload> GroupCore::DecideAll(bool* decided) {
  *decided = false;
  candidacy_.barrier = 0;
  inherited_ = false;
  std::vector<Payload> proposals;
  if (ended_ != 0) {
    *decided = true;
    return proposals;
  }
  Slot last = chosen_;
  if (!candidacy_.best.empty()) last = std::max(last, candidacy_.best.rbegin()->first);
  if (!candidacy_.unknown.empty()) last = std::max(last, candidacy_.unknown.rbegin()->first);
  for (Slot slot = candidacy_.from_slot; slot <= last && candidacy_.barrier == 0; ++slot) {
    std::optional<Payload> value = Decide(slot);
    if (!value.has_value()) return {};
    if (candidacy_.unknown.contains(slot) && !candidacy_.best.contains(slot)) {
      effects_.events.push_back({Event::Kind::kUnknownDecidedEmpty, promised_, slot});
    }
    const bool changes = Successor(**value, slot, configuration_).has_value();
    if (changes || KindOf(**value) == EntryKind::kEnd) candidacy_.barrier = slot;
    inherited_ = changes;
    proposals.push_back(*std::move(value));
  }
  *decided = true;
  return proposals;
}

void GroupCore::BecomeLeader(std::vector<Payload> proposals, Instant now) {
  role_ = Role::kLeader;
  if (!renewing_) read_rounds_ = nullptr;  // Of an earlier ballot.
  renewing_ = false;
  established_ = true;
  election_at_ = Instant::Infinite();
  unchosen_bytes_ = 0;
  held_by_all_ = std::min(held_by_all_, chosen_);
  held_by_storage_ = std::min(held_by_storage_, chosen_);
  announced_to_all_ = announced_to_storage_ = 0;
  lease_not_before_ = now;
  if (!options_.faults.no_wait_for_lease) {
    const Duration wait = candidacy_.lease_remaining;
    lease_not_before_ = now + wait + wait * liveness_->options().drift_ppm / 1'000'000;
  }
  for (Peer& peer : peers_) {
    peer.known = peer.votes && peer.granted;
    peer.match = peer.known ? std::min(peer.promise_chosen, chosen_) : 0;
    peer.next = peer.match + 1;
    peer.in_flight = 0;
    peer.resend_at = now + options_.resend;
  }
  effects_.events.push_back({Event::Kind::kElected, promised_, chosen_});
  DYNLIB_CHECK(candidacy_.from_slot == chosen_ + 1);
  proposed_ = chosen_;
  barrier_ = candidacy_.barrier;
  for (Payload& payload : proposals) AppendAt(++proposed_, std::move(payload), now);
  if (barrier_ == 0 && ended_ == 0) {
    AppendAt(++proposed_, std::make_shared<const std::string>(), now);
  }
  first_of_ballot_ = proposed_;
  candidacy_ = {};
  for (Peer& peer : peers_) {
    if (!peer.known) SendProbe(peer, now);
  }
  AdvanceChosen(now);
}

}  // namespace dynlib::replication
