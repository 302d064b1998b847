// What a leader does: proposes, counts, resends, and keeps its lease.
#include <algorithm>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "dynlib/base/check.h"
#include "dynlib/base/strings.h"
#include "dynlib/replication/group_core.h"

namespace dynlib::replication {

absl::StatusOr<Slot> GroupCore::Propose(Payload payload, Instant now) {
  if (payload->size() > options_.proposal_bytes_max) {
    return absl::InvalidArgumentError(Cat("proposal is ", payload->size(),
                                          " bytes; allowed: up to ", options_.proposal_bytes_max));
  }
  if (Busy()) return absl::UnavailableError("the group's members are being changed");
  if (role_ == Role::kLeader) GiveWayIfLogHangs(now);
  if (role_ != Role::kLeader) return absl::FailedPreconditionError("not the leader");
  if (ended_ != 0) {
    return absl::FailedPreconditionError(Cat("the group's log has ended, at slot ", ended_));
  }
  if (unchosen_bytes_ + payload->size() > options_.unchosen_bytes_max) {
    return absl::ResourceExhaustedError(
        Cat(unchosen_bytes_,
            " bytes are proposed and not yet chosen; allowed: ", options_.unchosen_bytes_max));
  }
  AppendAt(++proposed_, std::move(payload), now);
  return proposed_;
}

// R8: the others may well be a quorum without this node's disk, and would follow for as long as it
// proposes. That support for this node ran out, since it asks for none while its log is overdue,
// gives a short stall its time.
void GroupCore::GiveWayIfLogHangs(Instant now) {
  if (liveness_->log_healthy() || peers_.empty()) return;
  size_t supporters = 1;
  for (const Peer& peer : peers_) {
    supporters += peer.votes && liveness_->SupportedBy(peer.member.node, now);
  }
  if (supporters < configuration_.quorum()) TransferLeadership(now);
}

absl::StatusOr<Slot> GroupCore::ProposeEnd(Payload payload, Instant now) {
  absl::StatusOr<Slot> slot = Propose(std::move(payload), now);
  if (slot.ok()) barrier_ = *slot;
  return slot;
}

void GroupCore::AppendAt(Slot slot, Payload payload, Instant now) {
  unchosen_bytes_ += payload->size();
  PutEntry(slot, promised_, std::move(payload));
  NoteAccepted(slot, now);
  if (unchosen_since_ == Instant::Infinite()) unchosen_since_ = now;
}

void GroupCore::OnAccepted(const GroupMessage& message, const Accepted& accepted, Instant now) {
  if (role_ != Role::kLeader || message.ballot != promised_) return;
  if (!accepted.granted) {
    if (accepted.promised > promised_) {
      round_seen_ = std::max(round_seen_, accepted.promised.round());
      StepDown(now);
      abandoned_ = true;
    }
    return;
  }
  Peer* const known_peer = FindPeer(message.from);
  if (known_peer == nullptr) return;
  Peer& peer = *known_peer;
  const bool unasked = peer.known && peer.resend_at == Instant::Infinite();
  // What a peer said before its last restart does not bind it: it may hold less by now (R4).
  const uint64_t boot = Liveness::EpochIncarnation(accepted.support_epoch);
  const uint64_t known_boot = Liveness::EpochIncarnation(peer.epoch);
  if (boot < std::max(known_boot, liveness_->IncarnationOf(peer.member.node))) return;
  if (boot > known_boot) peer.known = false;
  peer.epoch = std::max(peer.epoch, accepted.support_epoch);
  // A peer cannot hold more than was proposed; what a liar claims beyond it counts for nothing.
  const Slot stable = std::min(accepted.stable, proposed_);
  if (!peer.known) {
    peer.known = true;
    peer.match = stable;
    peer.next = stable + 1;
    peer.in_flight = 0;
    peer.heard_chosen = 0;
  } else if (stable > peer.match) {
    AdvanceMatch(peer, stable);
    peer.resend_at = now + options_.resend;
  }
  peer.checkpoint = std::max(peer.checkpoint, std::min(accepted.checkpoint, chosen_));
  peer.heard_chosen = std::max(peer.heard_chosen, std::min(accepted.chosen, chosen_));
  AdvanceChosen(now);
  // It knows that more was chosen without it.
  if (peer.leaving && peer.heard_chosen > configuration_.epoch) peer.forget_at = now;
  if (!NeedsWord(peer)) {
    peer.resend_at = Instant::Infinite();
  } else if (peer.resend_at == Instant::Infinite()) {
    peer.resend_at = now + options_.resend;
  }
  MaybeRelease();
  AnnounceHeld(now);
  // Word of its checkpoint, from one that was told that nobody needs the log, and missed it.
  if (unasked && log_.released() == chosen_ && peer.resend_at == Instant::Infinite() &&
      accepted.checkpoint == chosen_ && announced_to_all_ == chosen_) {
    AnnounceHeldTo(peer, now);
  }
}

// The followers of a group that is idle learn that the log is in all trees, so that they may
// release it and rest; and log replicas, that it is in those of the storage replicas (R9).
void GroupCore::AnnounceHeld(Instant now) {
  if (proposed_ != chosen_ || !AllInTree()) return;
  const bool storage_news = announced_to_storage_ < chosen_ && HeldByStorage() == chosen_;
  const bool all_news = announced_to_all_ < chosen_ && HeldByAll() == chosen_;
  if (!storage_news && !all_news) return;
  announced_to_storage_ = chosen_;
  if (all_news) announced_to_all_ = chosen_;
  for (Peer& peer : peers_) {
    const bool concerned = all_news || peer.member.kind == MemberKind::kLog;
    if (concerned && peer.known) AnnounceHeldTo(peer, now);
  }
}

// Not repeated: whoever misses it says so, when it is asked to rest. The time of the answer tells
// it from such a word.
void GroupCore::AnnounceHeldTo(Peer& peer, Instant now) {
  SendProbe(peer, now);
  if (peer.resend_at == Instant::Infinite()) peer.resend_at = now + options_.resend;
}

void GroupCore::AdvanceChosen(Instant now) {
  AdvanceStable();
  absl::InlinedVector<Slot, 8> held = {stable_};
  for (const Peer& peer : peers_) {
    if (peer.votes || options_.faults.learner_counted) held.push_back(peer.match);
  }
  std::sort(held.begin(), held.end(), std::greater<>());
  const Slot chosen = std::min(held[configuration_.quorum() - 1], proposed_);
  if (chosen <= chosen_) return;
  SetChosen(chosen, now);
  notice_at_ = std::min(notice_at_, now + options_.commit_notice);
  for (Peer& peer : peers_) {
    if (peer.resend_at == Instant::Infinite()) peer.resend_at = now + options_.resend;
  }
}

Slot GroupCore::HeldByAll() const {
  Slot held = checkpoint_;
  for (const Peer& peer : peers_) {
    if (!peer.leaving) held = std::min(held, std::max(peer.checkpoint, peer.start));
  }
  return held;
}

Slot GroupCore::HeldByStorage() const {
  Slot held = checkpoint_;
  for (const Peer& peer : peers_) {
    if (peer.leaving || peer.member.kind == MemberKind::kLog) continue;
    held = std::min(held, std::max(peer.checkpoint, peer.start));
  }
  return held;
}

std::vector<PeerStatus> GroupCore::Peers() const {
  std::vector<PeerStatus> all;
  if (role_ != Role::kLeader) return all;
  for (const Peer& peer : peers_) {
    all.push_back({.member = peer.member,
                   .votes = peer.votes,
                   .known = peer.known,
                   .match = peer.match,
                   .lag = proposed_ - std::min(proposed_, peer.match),
                   .in_flight_entries = peer.next - peer.match - 1,
                   .in_flight_bytes = peer.in_flight,
                   .too_far_behind = peer.too_far_behind});
  }
  return all;
}

Accept GroupCore::MakeAccept(Slot first_slot) const {
  return {.first_slot = first_slot,
          .entries = {},
          .chosen = chosen_,
          .held_by_all = HeldByAll(),
          .held_by_storage = HeldByStorage()};
}

bool GroupCore::NeedsWord(const Peer& peer) const {
  return !peer.known || peer.match < proposed_ || peer.heard_chosen < chosen_;
}

void GroupCore::Flush(Instant now) {
  for (Peer& peer : peers_) {
    if (peer.known) SendEntries(peer, now);
  }
}

void GroupCore::SendEntries(Peer& peer, Instant now) {
  if (peer.next <= log_.released()) {
    if (!peer.too_far_behind) {
      effects_.events.push_back({Event::Kind::kTooFarBehind, promised_, peer.next});
    }
    peer.too_far_behind = true;
    return;
  }
  peer.too_far_behind = false;
  while (peer.next <= proposed_ && peer.in_flight < options_.peer_window_bytes_max &&
         peer.next - peer.match <= options_.peer_window_entries_max) {
    GroupMessage& message = effects_.messages.emplace_back(Make(peer.member, promised_));
    Accept& accept = message.body.emplace<Accept>(MakeAccept(peer.next));
    accept.entries.reserve(
        std::min<size_t>(proposed_ - peer.next + 1, options_.peer_window_entries_max));
    size_t bytes = 0;
    while (peer.next <= proposed_ && bytes < options_.message_bytes_max &&
           peer.next - peer.match <= options_.peer_window_entries_max) {
      const Payload& payload = log_.Find(peer.next)->payload;
      if (!accept.entries.empty() && bytes + payload->size() > options_.message_bytes_max) break;
      bytes += payload->size();
      accept.entries.push_back(payload);
      ++peer.next;
    }
    peer.in_flight += bytes;
    peer.told_chosen = chosen_;
    if (peer.resend_at == Instant::Infinite()) peer.resend_at = now + options_.resend;
  }
}

// Entries that were released since, for want of room, count until the window has emptied.
void GroupCore::AdvanceMatch(Peer& peer, Slot match) {
  const Slot answered = std::min(match, peer.next - 1);
  for (Slot slot = peer.match + 1; slot <= answered; ++slot) {
    const SlotLog::Cell* cell = log_.Find(slot);
    peer.in_flight -= cell == nullptr ? 0 : std::min(peer.in_flight, cell->payload->size());
  }
  peer.match = match;
  peer.next = std::max(peer.next, match + 1);
  if (peer.next == match + 1) peer.in_flight = 0;
}

void GroupCore::SendProbe(Peer& peer, Instant now) {
  peer.told_chosen = chosen_;
  GroupMessage message = Make(peer.member, promised_);
  message.body = MakeAccept(proposed_ + 1);
  Send(std::move(message));
}

void GroupCore::TickLeader(Instant now) {
  GiveWayIfLogHangs(now);
  if (role_ != Role::kLeader) return;
  if (read_rounds_ != nullptr) SendConfirmQueries(now);
  if (std::erase_if(peers_, [&](const Peer& peer) { return now >= peer.forget_at; }) > 0) {
    ++nodes_version_;
  }
  if (now >= notice_at_) {
    notice_at_ = Instant::Infinite();
    for (Peer& peer : peers_) {
      if (peer.known && peer.told_chosen < chosen_) SendProbe(peer, now);
    }
  }
  for (Peer& peer : peers_) {
    if (now < peer.resend_at) continue;
    if (!NeedsWord(peer)) {
      peer.resend_at = Instant::Infinite();
      continue;
    }
    // No progress: ask where the peer stands, and go on from there. One that is silent altogether
    // is asked again when liveness hears it, and one that needs a tree copy seldom.
    const NodeId node = peer.member.node;
    if (!liveness_->Hears(node, now) && !liveness_->Supports(node, now)) {
      peer.resend_at = Instant::Infinite();
    } else if (peer.too_far_behind) {
      peer.resend_at = now + 4 * liveness_->options().support;
    } else {
      peer.resend_at = now + options_.resend;
    }
    peer.known = false;
    SendProbe(peer, now);
  }
}

bool GroupCore::HoldsLease(Instant now) const {
  if (role_ != Role::kLeader || now < lease_not_before_) return false;
  // An earlier leader may know already that the change was made, and lead the new members (R2).
  if (barrier_ != 0 && inherited_) return false;
  size_t support = 1;
  for (const Peer& peer : peers_) {
    support += peer.votes && liveness_->SupportedUntil(peer.member.node, peer.epoch) > now;
  }
  return support >= configuration_.quorum();
}

bool GroupCore::HasSupport(Instant now) const {
  if (role_ != Role::kLeader) return false;
  size_t support = 1;
  for (const Peer& peer : peers_) {
    support +=
        peer.votes && liveness_->SupportedByAnyClockUntil(peer.member.node, peer.epoch) > now;
  }
  return support >= configuration_.quorum();
}

void GroupCore::RenewLease(Instant now) {
  if (role_ != Role::kLeader || now < renew_not_before_) return;
  renew_not_before_ = now + options_.resend;
  for (Peer& peer : peers_) SendProbe(peer, now);
}

// A change of members that an earlier leader proposed may have been made without this one's
// knowledge: the members that it would ask may decide nothing any more (R2).
bool GroupCore::MayConfirm() const {
  return role_ == Role::kLeader && (barrier_ == 0 || !inherited_);
}

uint64_t GroupCore::AskForConfirmation(Instant now) {
  if (!MayConfirm()) return 0;
  if (read_rounds_ == nullptr) {
    // After a rest the rounds of before are forgotten, at the same ballot. They were fewer than the
    // nanoseconds since.
    read_rounds_ = std::make_unique<ReadRounds>(options_.resend,
                                                /*after=*/static_cast<uint64_t>(now.nanos()));
  }
  const uint64_t round = read_rounds_->Join();
  SendConfirmQueries(now);
  return round;
}

bool GroupCore::Confirmed(uint64_t round) const {
  if (!MayConfirm() || read_rounds_ == nullptr || round == 0) return false;
  return read_rounds_->Confirmed(round) || options_.faults.read_unconfirmed;
}

void GroupCore::SendConfirmQueries(Instant now) {
  const uint64_t round = read_rounds_->Due(now);
  if (round == 0) return;
  for (const Peer& peer : peers_) {
    if (!peer.votes || read_rounds_->Answered(peer.member.replica)) continue;
    GroupMessage query = Make(peer.member, promised_);
    query.body = ConfirmQuery{.round = round};
    Send(std::move(query));
  }
  read_rounds_->Count({}, configuration_.quorum());  // Of a group of one.
}

void GroupCore::OnConfirmReply(const GroupMessage& message, const ConfirmReply& reply,
                               Instant now) {
  if (role_ != Role::kLeader || message.ballot != promised_ || read_rounds_ == nullptr) return;
  const Peer* const from = FindPeer(message.from);
  if (from == nullptr || !from->votes) return;
  std::vector<ReplicaId> voters;
  for (const Peer& peer : peers_) {
    if (peer.votes) voters.push_back(peer.member.replica);
  }
  read_rounds_->Answer(message.from, reply.round);
  read_rounds_->Count(voters, configuration_.quorum());
  SendConfirmQueries(now);
}

Slot GroupCore::read_point() const { return std::max(first_of_ballot_, chosen_); }

}  // namespace dynlib::replication
