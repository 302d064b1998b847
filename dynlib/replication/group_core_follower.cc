// What an acceptor answers, and when a follower stops following.
#include <algorithm>
#include <utility>

#include "dynlib/replication/group_core.h"

namespace dynlib::replication {

void GroupCore::OnPrepare(const GroupMessage& message, const Prepare& prepare, Instant now) {
  if (message.ballot.proposer() != message.from) return;
  // One that is not a member asks as one only if it knows of a newer configuration (R2).
  if (message.epoch == configuration_.epoch && configuration_.Find(message.from) == nullptr) return;
  Promise promise{.from_slot = prepare.from_slot, .released = log_.released()};
  promise.granted = TryPromise(message.ballot, message.from_node, now);
  if (promise.granted) promised_epoch_ = message.epoch;
  promise.promised = promised_;
  if (!promise.granted) {
    promise.lease_remaining = liveness_->SupportRemaining(promised_node_, now);
    GroupMessage refusal = Answer(message);
    const bool owed = message.ballot > promised_;
    refusal.body = std::move(promise);
    Send(std::move(refusal));
    if (owed) AskOwner();
    return;
  }
  FillPromise(prepare.from_slot, promise);
  promise.support_epoch = liveness_->EpochFor(message.from_node);
  GroupMessage reply = Answer(message);
  reply.body = std::move(promise);
  SendWhenDurable(std::move(reply));
}

// Its node is supported for the sake of other groups too, perhaps for ever; whether it still leads
// this one only it can say.
void GroupCore::AskOwner() {
  if (IsSelf(promised_.proposer()) || promised_node_ == NodeId{}) return;
  GroupMessage query = Make({.replica = promised_.proposer(), .node = promised_node_}, promised_);
  query.body = HealthQuery{.chosen = chosen_};
  Send(std::move(query));
}

void GroupCore::FillPromise(Slot from_slot, Promise& promise) const {
  promise.chosen = std::min(chosen_, stable_);
  promise.from_slot = from_slot;
  promise.through = UINT64_MAX;
  size_t bytes = 0;
  for (Slot slot = std::max(from_slot, log_.released() + 1); slot <= log_.last(); ++slot) {
    const SlotLog::Cell* cell = log_.Find(slot);
    if (cell->unknown != Ballot()) promise.unknown.push_back({slot, cell->unknown});
    if (!cell->held()) continue;
    promise.entries.push_back({slot, cell->ballot, cell->payload});
    bytes += cell->payload->size();
    if (bytes >= options_.message_bytes_max && slot < log_.last()) {
      promise.through = slot;
      return;
    }
  }
}

void GroupCore::OnAccept(const GroupMessage& message, const Accept& accept, Instant now) {
  if (message.ballot.proposer() != message.from) return;
  GroupMessage reply = Answer(message);
  if (message.ballot < promised_) {
    reply.body = Accepted{.granted = false, .promised = promised_};
    Send(std::move(reply));
    return;
  }
  // A proposal shows that a quorum promised its ballot, and each member of it first ended its
  // support for the leader before: no earlier lease can hold, whatever support is owed here (R5).
  if (message.ballot > promised_) Adopt(message.ballot, message.from_node, now);
  if (promised_node_ != message.from_node) {
    promised_node_ = message.from_node;
    ++nodes_version_;
  }
  promised_epoch_ = message.epoch;
  if (!abandoned_ && !OwnerLeft()) {  // Else it was sent before the leader gave up.
    established_ = true;
    // Word of a leader whose node asks for no support, since its disk hangs, does not end the
    // question whether it is healthy (R8): it could go on speaking for ever.
    if (role_ != Role::kAskingHealth || SupportsLeader(now)) role_ = Role::kFollower;
  }

  const Slot window_end = WindowEnd(std::max(chosen_, stable_));
  Slot slot = accept.first_slot;
  for (const Payload& payload : accept.entries) {
    if (payload != nullptr && slot > chosen_ && slot > log_.released() && slot <= window_end) {
      const SlotLog::Cell* cell = log_.Find(slot);
      if (cell == nullptr || !cell->held() || cell->ballot != message.ballot) {
        PutEntry(slot, message.ballot, payload);
        NoteAccepted(slot, now);
      }
    }
    ++slot;
  }
  if (AwaitsChoice() && unchosen_since_ == Instant::Infinite()) unchosen_since_ = now;
  // What the leader calls chosen is what it proposed at this ballot; an older entry here may be
  // another's.
  Slot chosen = chosen_;
  while (chosen < accept.chosen) {
    const SlotLog::Cell* cell = log_.Find(chosen + 1);
    if (cell == nullptr || !cell->held() || cell->ballot != message.ballot) break;
    ++chosen;
  }
  SetChosen(chosen, now);
  AdvanceStable();
  ApplyConfiguration(now);  // Durable before the answer (R1): it shows that this member knows it.
  if (!abandoned_ && !OwnerLeft()) {
    // Only a grant that can lapse wakes this group again. Without one, look again later.
    const Instant granted_by = std::max(now, liveness_->boot_wait_end());
    SetElection(SupportsLeader(now) ? Instant::Infinite()
                                    : granted_by + 2 * liveness_->options().support);
  }
  held_by_all_ = std::max(held_by_all_, accept.held_by_all);
  held_by_storage_ = std::max(held_by_storage_, accept.held_by_storage);
  MaybeRelease();
  reply.body = StableAnswer(message.from_node);
  SendWhenDurable(std::move(reply));
}

// No record need be durable: it is of the past that this speaks. That nothing higher was promised
// when it was sent is true whatever a crash makes of it later.
void GroupCore::OnConfirmQuery(const GroupMessage& message, const ConfirmQuery& query) {
  if (message.ballot.proposer() != message.from || message.epoch < configuration_.epoch) return;
  if (message.ballot > promised_) return;  // It will be heard of by a proposal.
  GroupMessage reply = Answer(message);
  if (message.ballot == promised_) {
    reply.body = ConfirmReply{.round = query.round};
  } else {
    reply.body = Accepted{.granted = false, .promised = promised_};
  }
  Send(std::move(reply));
}

Accepted GroupCore::StableAnswer(NodeId leader_node) const {
  return {.granted = true,
          .promised = promised_,
          .stable = stable_,
          .chosen = std::min(chosen_, stable_),
          .support_epoch = liveness_->EpochFor(leader_node),
          .checkpoint = checkpoint_};
}

bool GroupCore::LeaderLooksHealthy(Instant now) const {
  if (unchosen_since_ != Instant::Infinite() && now - unchosen_since_ > options_.progress_bound) {
    return false;
  }
  if (role_ != Role::kLeader && !renewing_) {
    return established_ && liveness_->Supports(promised_node_, now);
  }
  size_t supporters = 1;
  for (const Peer& peer : peers_) {
    supporters += peer.votes && liveness_->SupportedBy(peer.member.node, now);
  }
  return liveness_->log_healthy() && supporters >= configuration_.quorum();
}

bool GroupCore::SupportsLeader(Instant now) const {
  return established_ && liveness_->BootWaitOver(now) && liveness_->Supports(promised_node_, now);
}

void GroupCore::OnHealthQuery(const GroupMessage& message, const HealthQuery& query, Instant now) {
  if (message.epoch == configuration_.epoch && configuration_.Find(message.from) == nullptr) {
    // One that left, and does not know whether it may go; or a learner that asks about a ballot.
    SendOutdated(message, query.chosen + 1);
  }
  if (message.ballot == promised_ && message.from == promised_.proposer()) {
    // A proposer that asks about its own ballot does not lead at it, and never will again.
    abandoned_ = true;
    established_ = false;
    election_cause_ = ElectionCause::kLeaderRestarted;
    if (role_ == Role::kFollower) {
      SetElection(std::min(election_at_, now + 2 * liveness_->options().support));
    }
  }
  // Also a leader that the asker does not know of yet is worth waiting for.
  HealthReply answer{.healthy = promised_ >= message.ballot && LeaderLooksHealthy(now),
                     .chosen = chosen_};
  if (IsSelf(message.ballot.proposer())) {
    const bool mine = promised_ == message.ballot;
    answer.abandoned = !(mine && (role_ == Role::kLeader || role_ == Role::kCandidate));
  }
  if (Peer* peer = FindPeer(message.from); peer != nullptr && role_ == Role::kLeader) {
    // Whoever asks has lost touch: show it that this ballot is led, or learn that it cannot follow.
    peer->known = false;
    peer->resend_at = now;
    SendProbe(*peer, now);
  }
  GroupMessage reply = Answer(message);
  reply.body = answer;
  Send(std::move(reply));
}

void GroupCore::ScheduleElection(Instant earliest) {
  const int64_t jitter = random_.Between(0, options_.election_jitter.count());
  SetElection(earliest + Duration(jitter));
}

void GroupCore::ScheduleElection(Instant earliest, ElectionCause cause) {
  election_cause_ = cause;
  ScheduleElection(earliest);
}

// Who has no vote does not call for votes; who left asks until it knows that it may go.
void GroupCore::SetElection(Instant at) {
  const bool asks = removed_ ? !removal_known_ : member();
  election_at_ = asks ? at : Instant::Infinite();
}

}  // namespace dynlib::replication
