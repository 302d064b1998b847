// How the members of a group change (rule R2): what makes a configuration count, what a leader does
// with it, how those learn of it that were away, and the learners that are made members by it.
#include <algorithm>
#include <utility>

#include "dynlib/base/check.h"
#include "dynlib/base/strings.h"
#include "dynlib/replication/entry.h"
#include "dynlib/replication/group_core.h"

namespace dynlib::replication {

const Configuration& GroupCore::ConfigurationAt(Slot slot) const {
  if (configuration_.epoch <= slot) return configuration_;
  auto after = configurations_.upper_bound(slot);
  if (after == configurations_.begin()) return after->second;
  return std::prev(after)->second;
}

// A slot is known to be chosen, and so are all before it.
void GroupCore::NoteChosen(Slot slot) {
  const SlotLog::Cell* cell = log_.Find(slot);
  if (options_.on_chosen != nullptr) options_.on_chosen(group_, slot, *cell->payload);
  const EntryKind kind = KindOf(*cell->payload);
  if (kind == EntryKind::kEnd && ended_ == 0) {
    ended_ = slot;
    PersistState();
    effects_.events.push_back({Event::Kind::kEnded, cell->ballot, slot});
  }
  if (kind != EntryKind::kConfiguration) return;
  const Configuration& present = adopting_.has_value() ? *adopting_ : configuration_;
  std::optional<Configuration> next = Successor(*cell->payload, slot, present);
  if (!next.has_value()) return;
  if (next->Find(self_.replica) != nullptr) named_in_ = slot + 1;
  configurations_[slot] = *next;
  adopting_ = *std::move(next);
}

// An entry that is not chosen may name members that know more, so their nodes matter already.
void GroupCore::NoteAccepted(Slot slot, Instant) {
  const Payload& payload = log_.Find(slot)->payload;
  if (KindOf(*payload) != EntryKind::kConfiguration) return;
  ++nodes_version_;
  if (!options_.faults.configuration_before_chosen) return;
  if (std::optional<Configuration> next = Successor(*payload, slot, configuration_)) {
    configurations_[slot] = *next;
    adopting_ = *std::move(next);
  }
}

// Takes on what was learned to be chosen.
void GroupCore::ApplyConfiguration(Instant now) {
  while (adopting_.has_value()) {
    const bool was_member = member();
    configuration_ = *std::exchange(adopting_, std::nullopt);
    if (ahead_.has_value() && ahead_->epoch <= configuration_.epoch) ahead_.reset();
    PersistState();
    effects_.events.push_back({Event::Kind::kConfigured, promised_, configuration_.epoch});
    if (was_member && !member()) removed_ = true;
    health_denied_.clear();
    if (role_ == Role::kLeader) {
      LeadInNewConfiguration(now);
      continue;
    }
    if (role_ == Role::kCandidate) GiveUp(Duration(0), now);
    role_ = Role::kFollower;
    SetPeers(/*leading=*/false, now);
    if (OwnerLeft()) {
      abandoned_ = true;
      established_ = false;
    }
    if (!SupportsLeader(now)) {
      ScheduleElection(now + options_.prepare_timeout, ElectionCause::kMembersChanged);
    }
  }
  if (removed_ && chosen_ > configuration_.epoch) SetRemovalKnown();
}

// The members, and whom else a leader is to tell.
void GroupCore::SetPeers(bool leading, Instant now) {
  std::vector<Peer> old = std::exchange(peers_, {});
  for (const Member& member : configuration_.members) {
    if (IsSelf(member.replica)) continue;
    auto known = std::find_if(old.begin(), old.end(), [&](const Peer& peer) {
      return peer.member.replica == member.replica;
    });
    if (known == old.end()) {
      peers_.push_back({.member = member});
      continue;
    }
    known->votes = true;
    known->leaving = false;
    known->forget_at = Instant::Infinite();
    peers_.push_back(std::move(*known));
    old.erase(known);
  }
  for (Peer& peer : old) {
    if (!leading) continue;
    if (peer.votes) {
      peer.votes = false;
      peer.leaving = true;
      peer.forget_at = now + kLearnerKept;
    }
    peers_.push_back(std::move(peer));
  }
  ++nodes_version_;
}

void GroupCore::ForgetLearners() {
  if (std::erase_if(peers_, [](const Peer& peer) { return !peer.votes; }) > 0) ++nodes_version_;
}

void GroupCore::LeadInNewConfiguration(Instant now) {
  barrier_ = 0;
  inherited_ = false;
  SetPeers(/*leading=*/true, now);
  if (!member()) {
    ResignAndTell(now);
  } else if (options_.faults.no_second_phase_one) {
    AppendAt(++proposed_, std::make_shared<const std::string>(), now);
    first_of_ballot_ = proposed_;
    for (Peer& peer : peers_) {
      peer.resend_at = now + options_.resend;
      SendProbe(peer, now);
    }
  } else {
    StartRenewal(now);
  }
}

// Phase 1 once more, among the new members, for the slots after the change. The ballot may stay: at
// it nothing was proposed there, so that no other value than what this phase allows ever has it.
// Without it, what the new members chose under a leader of theirs would be overwritten: one who
// learned of the change before this one did.
void GroupCore::StartRenewal(Instant now) {
  role_ = Role::kCandidate;
  renewing_ = true;
  notice_at_ = Instant::Infinite();
  unchosen_bytes_ = 0;
  candidacy_ = {.from_slot = chosen_ + 1, .whole = chosen_};
  for (Peer& peer : peers_) {
    peer.known = false;
    peer.in_flight = 0;
    peer.next = peer.match + 1;
    peer.granted = false;
    peer.through = 0;
    peer.promise_chosen = 0;
  }
  AskForPromises(now);
}

// A leader that the new configuration does not name, or that gives up for another reason of its
// own: nothing of its is unchosen, so nobody need be told but the members.
void GroupCore::ResignAndTell(Instant now) {
  effects_.events.push_back({Event::Kind::kReleased, promised_, chosen_});
  for (Peer& peer : peers_) SendProbe(peer, now);
  role_ = Role::kFollower;
  established_ = false;
  notice_at_ = Instant::Infinite();
  unchosen_bytes_ = 0;
  AnnounceAbandoned();
  abandoned_ = true;
  ForgetLearners();
  ScheduleElection(now + 2 * liveness_->options().support);
}

void GroupCore::TransferLeadership(Instant now) {
  if (Busy() || role_ == Role::kLeader) {
    effects_.events.push_back({Event::Kind::kReleased, promised_, chosen_});
  }
  if (renewing_) {
    GiveUp(2 * liveness_->options().support, now);
  } else if (role_ == Role::kLeader) {
    StepDown(now);
    AnnounceAbandoned();
    ScheduleElection(now + 2 * liveness_->options().support);
  } else {
    return;
  }
  abandoned_ = true;
  election_cause_ = ElectionCause::kReleased;
}

bool GroupCore::CanLead() const {
  return may_lead_ && !removed_ && self_.kind == MemberKind::kStorage && member();
}

// Besides the members those that an accepted change names: it may be chosen, and they know.
std::vector<Member> GroupCore::Contacts() const {
  std::vector<Member> contacts;
  auto add = [&](const Configuration& configuration) {
    for (const Member& member : configuration.members) {
      const bool known = std::any_of(contacts.begin(), contacts.end(), [&](const Member& other) {
        return other.replica == member.replica;
      });
      if (!known && !IsSelf(member.replica)) contacts.push_back(member);
    }
  };
  add(configuration_);
  for (Slot slot = chosen_ + 1; slot <= log_.last(); ++slot) {
    const SlotLog::Cell* cell = log_.Find(slot);
    if (cell == nullptr || !cell->held()) continue;
    if (std::optional<Configuration> next = Successor(*cell->payload, slot, configuration_)) {
      add(*next);
    }
  }
  if (ahead_.has_value()) add(*ahead_);
  return contacts;
}

std::vector<NodeId> GroupCore::Nodes() const {
  std::vector<NodeId> nodes;
  for (const Member& member : Contacts()) nodes.push_back(member.node);
  for (const Peer& peer : peers_) nodes.push_back(peer.member.node);
  if (promised_node_ != NodeId{}) nodes.push_back(promised_node_);
  std::sort(nodes.begin(), nodes.end());
  nodes.erase(std::unique(nodes.begin(), nodes.end()), nodes.end());
  std::erase(nodes, self_.node);
  return nodes;
}

// ---- Those that were away ----

// True if that is all there is to be said: a candidate of an older configuration gets no promise,
// but what it lacks.
bool GroupCore::TellIfOutdated(const GroupMessage& message, Instant) {
  if (message.epoch >= configuration_.epoch) return false;
  if (const auto* prepare = std::get_if<Prepare>(&message.body)) {
    SendOutdated(message, prepare->from_slot);
    return true;
  }
  if (const auto* query = std::get_if<HealthQuery>(&message.body)) {
    SendOutdated(message, query->chosen + 1);
  } else if (const auto* reply = std::get_if<HealthReply>(&message.body)) {
    SendOutdated(message, reply->chosen + 1);
  }
  return false;
}

void GroupCore::SendOutdated(const GroupMessage& message, Slot from_slot) {
  Outdated outdated{.entries = {}, .released = log_.released()};
  outdated.removed = configuration_.Find(message.from) == nullptr && chosen_ > configuration_.epoch;
  size_t bytes = 0;
  for (Slot slot = from_slot; slot > log_.released() && slot <= chosen_; ++slot) {
    const SlotLog::Cell* cell = log_.Find(slot);
    if (cell == nullptr || !cell->held() || bytes >= options_.message_bytes_max) break;
    bytes += cell->payload->size();
    outdated.entries.push_back({slot, cell->ballot, cell->payload});
  }
  GroupMessage news = Make({.replica = message.from, .node = message.from_node}, promised_);
  news.body = std::move(outdated);
  Send(std::move(news));
}

void GroupCore::OnOutdated(const GroupMessage& message, const Outdated& outdated, Instant now) {
  // A leader hears of it by refusals; until then it can do no harm, and must not forget what it
  // proposed.
  if (role_ == Role::kLeader || message.epoch < configuration_.epoch) return;
  if (outdated.removed && (removed_ || (member() && message.epoch > configuration_.epoch))) {
    if (role_ == Role::kCandidate) GiveUp(Duration(0), now);
    role_ = Role::kFollower;
    removed_ = true;
    SetRemovalKnown();
  }
  if (message.epoch == configuration_.epoch) return;
  if (role_ == Role::kCandidate) GiveUp(Duration(0), now);
  const Slot before = chosen_;
  if (LearnChosen(outdated.entries, now) > before) {
    ApplyConfiguration(now);
    role_ = Role::kFollower;
    if (!SupportsLeader(now)) ScheduleElection(now);
    if (message.epoch > configuration_.epoch) {
      GroupMessage more = Answer(message);  // It did not all fit.
      more.ballot = promised_;
      more.body = HealthQuery{.chosen = chosen_};
      SendWhenDurable(std::move(more));
    }
  } else if (outdated.released > chosen_) {
    effects_.events.push_back({Event::Kind::kTooFarBehind, promised_, outdated.released});
    lead_not_before_ = now + 2 * liveness_->options().support;
  }
}

// Values that were chosen, from one that knows. The ballots at which it holds them were led, and
// each slot was chosen at its ballot or before; so to know them is to have followed that leader: no
// lower ballot may count on this replica from now on, or it would vouch, by "chosen up to here",
// for what such a ballot's owner proposes. As with a proposal, no lease can be in the way.
Slot GroupCore::LearnChosen(const std::vector<Entry>& entries, Instant now) {
  Slot through = chosen_;
  Ballot highest;
  std::vector<const Entry*> news;
  for (const Entry& entry : entries) {
    if (entry.slot <= through) continue;
    const bool sound = entry.slot == through + 1 && entry.payload != nullptr &&
                       entry.ballot != Ballot() && entry.ballot.round() < Ballot::kRoundMax;
    if (!sound) break;
    highest = std::max(highest, entry.ballot);
    news.push_back(&entry);
    through = entry.slot;
  }
  if (news.empty()) return chosen_;
  round_seen_ = std::max(round_seen_, highest.round());
  // To its owner no epoch was named, so nothing is owed to it.
  if (highest > promised_) Adopt(highest, NodeId{}, now);
  role_ = Role::kFollower;
  for (const Entry* entry : news) {
    if (entry->slot <= log_.released()) continue;
    const SlotLog::Cell* cell = log_.Find(entry->slot);
    if (Readable(entry->slot) && cell->ballot >= entry->ballot) continue;  // The same value.
    // Whatever is unreadable here at a higher ballot is the same value too.
    const Ballot ballot = cell == nullptr ? entry->ballot : std::max(entry->ballot, cell->unknown);
    PutEntry(entry->slot, ballot, entry->payload);
  }
  SetChosen(through, now);
  return chosen_;
}

void GroupCore::SetRemovalKnown() {
  if (removal_known_) return;
  removal_known_ = true;
  effects_.events.push_back({Event::Kind::kRemoved, promised_, chosen_});
  election_at_ = Instant::Infinite();
}

// ---- What a leader is asked to do ----

bool GroupCore::Settled() const {
  return role_ == Role::kLeader && barrier_ == 0 && chosen_ >= first_of_ballot_;
}

absl::Status GroupCore::CheckChange(const Configuration& next, Instant now) const {
  if (absl::Status status = Validate(next); !status.ok()) return status;
  size_t ready = next.Find(self_.replica) != nullptr;
  for (const Member& member : next.members) {
    if (const Member* present = configuration_.Find(member.replica);
        present != nullptr && *present != member) {
      return absl::InvalidArgumentError(
          Cat("replica ", member.replica, " cannot change its node or its kind"));
    }
    if (IsSelf(member.replica)) continue;
    auto peer = std::find_if(peers_.begin(), peers_.end(), [&](const Peer& p) {
      return p.member.replica == member.replica && !p.leaving;
    });
    if (peer == peers_.end()) {
      return absl::FailedPreconditionError(
          Cat("replica ", member.replica, " is not fed as a learner"));
    }
    if (peer->member != member) {
      return absl::InvalidArgumentError(
          Cat("replica ", member.replica, " is fed under another node or kind"));
    }
    const bool caught_up = CaughtUp(*peer, chosen_);
    if (!peer->votes && !caught_up) {
      return absl::FailedPreconditionError(
          Cat("replica ", member.replica, " holds the log up to ", peer->match, " of ", chosen_));
    }
    ready += caught_up && liveness_->Hears(member.node, now);
  }
  if (ready < next.quorum()) {
    return absl::FailedPreconditionError(Cat("only ", ready, " of the ", next.members.size(),
                                             " new members are alive and caught up"));
  }
  return absl::OkStatus();
}

absl::StatusOr<Slot> GroupCore::ProposeMembers(uint64_t expected_epoch,
                                               const std::vector<Member>& members, Instant now) {
  if (Busy()) return absl::FailedPreconditionError("another change is under way");
  if (role_ != Role::kLeader) return absl::FailedPreconditionError("not the leader");
  if (expected_epoch != configuration_.epoch) {
    return absl::FailedPreconditionError(Cat("the group's configuration is that of epoch ",
                                             configuration_.epoch, ", not ", expected_epoch));
  }
  if (ended_ == 0 && !Settled()) {
    return absl::FailedPreconditionError("leadership has only begun");
  }
  const Configuration next{.epoch = configuration_.epoch, .members = members};
  if (absl::Status status = CheckChange(next, now); !status.ok()) return status;
  absl::StatusOr<Slot> slot = Propose(
      std::make_shared<const std::string>(EncodeChange(configuration_.epoch, members)), now);
  if (!slot.ok()) return slot;
  barrier_ = *slot;
  ApplyConfiguration(now);  // For a known-bad variant alone.
  return slot;
}

absl::StatusOr<LearnerStatus> GroupCore::AddLearner(const Member& learner, Slot from, Instant now) {
  if (role_ != Role::kLeader) return absl::FailedPreconditionError("not the leader");
  if (absl::Status status =
          Validate({.epoch = 0, .members = {{.replica = learner.replica, .node = learner.node}}});
      !status.ok()) {
    return status;
  }
  Peer* peer = FindPeer(learner.replica);
  if (peer == nullptr) {
    const bool taken = IsSelf(learner.replica) || learner.node == self_.node ||
                       std::any_of(peers_.begin(), peers_.end(), [&](const Peer& p) {
                         // A member there whose replica is lost is what it is to replace.
                         return p.member.node == learner.node && !p.leaving && !p.votes;
                       });
    if (taken) {
      return absl::AlreadyExistsError(Cat("replica ", learner.replica, " or node ", learner.node,
                                          " is a member or has a learner"));
    }
    const auto learners =
        std::count_if(peers_.begin(), peers_.end(), [](const Peer& p) { return !p.votes; });
    if (static_cast<size_t>(learners) >= kLearnersMax) {
      return absl::ResourceExhaustedError(
          Cat(learners, " learners are fed; allowed: ", kLearnersMax));
    }
    if (from < log_.released()) {
      return absl::OutOfRangeError(Cat("replica ", learner.replica, " holds everything up to ",
                                       from, ", but the log starts after ", log_.released()));
    }
    peers_.push_back({.member = learner,
                      .votes = false,
                      .start = std::min(from, chosen_),
                      .next = 1,
                      .resend_at = now + options_.resend});
    peer = &peers_.back();
    ++nodes_version_;
    SendProbe(*peer, now);
  } else if (peer->votes || peer->leaving || peer->member != learner) {
    return absl::AlreadyExistsError(
        Cat("replica ", learner.replica, " is or was a member, or is fed under another node"));
  }
  peer->forget_at = now + kLearnerKept;
  return LearnerStatus{peer->member, peer->match, chosen_, CaughtUp(*peer, chosen_)};
}

std::vector<LearnerStatus> GroupCore::Learners() const {
  std::vector<LearnerStatus> learners;
  for (const Peer& peer : peers_) {
    if (peer.votes || peer.leaving) continue;
    learners.push_back({peer.member, peer.match, chosen_, CaughtUp(peer, chosen_)});
  }
  return learners;
}

}  // namespace dynlib::replication
