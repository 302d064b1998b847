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
  if (!TryPromise(message.ballot, now)) {
    reply.body = Accepted{.granted = false, .promised = promised_};
    Send(std::move(reply));
    return;
  }
  role_ = Role::kFollower;
  established_ = true;
  // Without support for the leader's node yet, look again later.
  election_at_ = liveness_->Supports(SenderNode(message), now)
                     ? Instant::Infinite()
                     : now + 2 * liveness_->options().support;

  const Slot window_end = std::max(chosen_, stable_) + 4 * options_.peer_window_entries_max;
  Slot slot = accept.first_slot;
  for (const Payload& payload : accept.entries) {
    if (slot > chosen_ && slot > log_.released() && slot <= window_end) {
      const SlotLog::Cell* cell = log_.Find(slot);
      if (cell == nullptr || !cell->held() || cell->ballot != message.ballot) {
        log_.Put(slot, message.ballot, payload, /*durable=*/false);
        PersistEntry(slot);
      }
    }
    ++slot;
  }
  if (log_.last() > chosen_ && unchosen_since_ == Instant::Infinite()) unchosen_since_ = now;
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
                        .support_epoch = liveness_->EpochFor(SenderNode(message))};
  SendWhenDurable(std::move(reply));
}

bool GroupCore::LeaderLooksHealthy(Instant now) const {
  if (now - unchosen_since_ > options_.progress_bound && unchosen_since_ != Instant::Infinite())
    return false;
  if (role_ == Role::kLeader) return true;
  return established_ && liveness_->Supports(NodeOf(promised_.proposer()), now);
}

void GroupCore::OnHealthQuery(const GroupMessage& message, Instant now) {
  HealthReply answer;
  if (message.ballot.proposer() == self_) {
    const bool mine = promised_ == message.ballot;
    answer.healthy = mine && role_ == Role::kLeader && LeaderLooksHealthy(now);
    answer.abandoned = !(mine && (role_ == Role::kLeader || role_ == Role::kCandidate));
  } else {
    answer.healthy = promised_ == message.ballot && LeaderLooksHealthy(now);
  }
  if (role_ == Role::kLeader && promised_ == message.ballot) {
    // Whoever asks has lost touch: show it that this ballot is led.
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
