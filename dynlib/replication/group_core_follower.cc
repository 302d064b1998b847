// What an acceptor answers, and when a follower stops following.
#include <algorithm>
#include <utility>

#include "dynlib/replication/group_core.h"

namespace dynlib::replication {

void GroupCore::OnPrepare(const GroupMessage& message, const Prepare& prepare, Instant now) {
  if (message.ballot.proposer() != message.from) return;
  Promise promise{.from_slot = prepare.from_slot, .released = log_.released()};
  promise.granted = TryPromise(message.ballot, now);
  promise.promised = promised_;
  if (!promise.granted) {
    const NodeId owner = NodeOf(promised_.proposer());
    promise.lease_remaining = liveness_->SupportRemaining(owner, now);
    GroupMessage refusal = Make(message.from, message.ballot);
    refusal.body = std::move(promise);
    Send(std::move(refusal));
    return;
  }
  FillPromise(prepare.from_slot, promise);
  promise.support_epoch = liveness_->EpochFor(NodeOf(message.from));
  GroupMessage reply = Make(message.from, message.ballot);
  reply.body = std::move(promise);
  SendWhenDurable(std::move(reply));
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
  GroupMessage reply = Make(message.from, message.ballot);
  if (message.ballot < promised_) {
    reply.body = Accepted{.granted = false, .promised = promised_};
    Send(std::move(reply));
    return;
  }
  // A proposal shows that a quorum promised its ballot, and each member of it first ended its
  // support for the leader before: no earlier lease can hold, whatever support is owed here (R5).
  if (message.ballot > promised_) Adopt(message.ballot, now);
  if (!abandoned_) {  // Else it was sent before the leader gave up.
    role_ = Role::kFollower;
    established_ = true;
    // Only a grant that can lapse wakes this group again. Without one, look again later.
    const Instant granted_by = std::max(now, liveness_->boot_wait_end());
    election_at_ =
        SupportsLeader(now) ? Instant::Infinite() : granted_by + 2 * liveness_->options().support;
  }

  const Slot window_end = std::max(chosen_, stable_) + 4 * options_.peer_window_entries_max;
  Slot slot = accept.first_slot;
  for (const Payload& payload : accept.entries) {
    if (payload != nullptr && slot > chosen_ && slot > log_.released() && slot <= window_end) {
      const SlotLog::Cell* cell = log_.Find(slot);
      if (cell == nullptr || !cell->held() || cell->ballot != message.ballot) {
        log_.Put(slot, message.ballot, payload, /*durable=*/false);
        PersistEntry(slot);
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
  held_by_all_ = std::max(held_by_all_, accept.held_by_all);
  MaybeRelease();
  reply.body = Accepted{.granted = true,
                        .promised = promised_,
                        .stable = stable_,
                        .chosen = std::min(chosen_, stable_),
                        .support_epoch = liveness_->EpochFor(SenderNode(message)),
                        .checkpoint = checkpoint_};
  SendWhenDurable(std::move(reply));
}

bool GroupCore::LeaderLooksHealthy(Instant now) const {
  if (unchosen_since_ != Instant::Infinite() && now - unchosen_since_ > options_.progress_bound) {
    return false;
  }
  if (role_ != Role::kLeader) {
    return established_ && liveness_->Supports(NodeOf(promised_.proposer()), now);
  }
  size_t supporters = 1;
  for (const Peer& peer : peers_) supporters += liveness_->SupportedBy(peer.member.node, now);
  return liveness_->log_healthy() && supporters >= configuration_.quorum();
}

bool GroupCore::SupportsLeader(Instant now) const {
  return established_ && liveness_->BootWaitOver(now) &&
         liveness_->Supports(NodeOf(promised_.proposer()), now);
}

void GroupCore::OnHealthQuery(const GroupMessage& message, Instant now) {
  if (message.ballot == promised_ && message.from == promised_.proposer()) {
    // A proposer that asks about its own ballot does not lead at it, and never will again.
    abandoned_ = true;
    established_ = false;
    if (role_ == Role::kFollower) {
      election_at_ = std::min(election_at_, now + 2 * liveness_->options().support);
    }
  }
  // Also a leader that the asker does not know of yet is worth waiting for.
  HealthReply answer{.healthy = promised_ >= message.ballot && LeaderLooksHealthy(now)};
  if (message.ballot.proposer() == self_) {
    const bool mine = promised_ == message.ballot;
    answer.abandoned = !(mine && (role_ == Role::kLeader || role_ == Role::kCandidate));
  }
  if (role_ == Role::kLeader) {
    // Whoever asks has lost touch: show it that this ballot is led, or learn that it cannot follow.
    Peer* peer = FindPeer(message.from);
    peer->known = false;
    peer->resend_at = now;
    SendProbe(*peer, now);
  }
  GroupMessage reply = Make(message.from, message.ballot);
  reply.body = answer;
  Send(std::move(reply));
}

void GroupCore::ScheduleElection(Instant earliest) {
  const int64_t jitter = random_.Between(0, options_.election_jitter.count());
  election_at_ = earliest + Duration(jitter);
}

}  // namespace dynlib::replication
