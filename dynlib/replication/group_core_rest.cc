// How a core is put to rest, and woken (resting.h).
#include <algorithm>
#include <optional>
#include <utility>

#include "dynlib/base/check.h"
#include "dynlib/replication/group_core.h"

namespace dynlib::replication {

GroupCore::GroupCore(const GroupOptions& options, PartitionId group, const Member& self,
                     const RestingMember& rested, uint64_t seed, Liveness* liveness, Instant now)
    : options_(options),
      group_(group),
      self_(self),
      configuration_(rested.configuration),
      liveness_(liveness),
      random_(seed) {
  DYNLIB_CHECK(member());
  configurations_[configuration_.epoch] = configuration_;
  named_in_ = configuration_.epoch + 1;
  promised_ = rested.promised;
  round_seen_ = promised_.round();
  log_.Reset(rested.chosen);
  chosen_ = stable_ = checkpoint_ = held_by_all_ = held_by_storage_ = rested.chosen;
  if (rested.ended) ended_ = chosen_;
  SetPeers(/*leading=*/false, now);
  promised_node_ = NodeOf(promised_.proposer());
  if (rested.leads) {
    WakeLeader(rested, now);
  } else {
    WakeFollower(rested, now);
  }
}

void GroupCore::WakeLeader(const RestingMember& rested, Instant now) {
  role_ = Role::kLeader;
  established_ = true;
  proposed_ = first_of_ballot_ = announced_to_all_ = announced_to_storage_ = chosen_;
  size_t i = 0;
  for (Peer& peer : peers_) {
    peer.known = true;
    peer.match = peer.told_chosen = peer.heard_chosen = peer.checkpoint = chosen_;
    peer.next = chosen_ + 1;
    if (i < rested.peer_epochs.size()) peer.epoch = rested.peer_epochs[i++];
    // What OnPeerEvent would have said meanwhile: the peer may have restarted with less than it
    // said before, or supports this node under a new epoch, which it must name to count (R5).
    const NodeId node = peer.member.node;
    const bool restarted = liveness_->IncarnationOf(node) > Liveness::EpochIncarnation(peer.epoch);
    const bool supports_anew =
        liveness_->SupportedBy(node, now) && liveness_->SupportedUntil(node, peer.epoch) <= now;
    if (!restarted && !supports_anew) continue;
    peer.known = false;
    peer.resend_at = now;
  }
}

void GroupCore::WakeFollower(const RestingMember& rested, Instant now) {
  if (rested.follows) {
    promised_epoch_ = configuration_.epoch;
    // A ballot of an earlier boot is never led again.
    established_ = liveness_->IncarnationOf(promised_node_) == rested.leader_incarnation;
    election_cause_ = established_ ? ElectionCause::kLeaderSilent : ElectionCause::kLeaderRestarted;
  }
  if (!SupportsLeader(now)) ScheduleFirstElection(now);
}

// A fresh group is led by its first member, so that who makes groups can spread their leaders.
void GroupCore::ScheduleFirstElection(Instant now) {
  const auto leads_first =
      std::find_if(configuration_.members.begin(), configuration_.members.end(),
                   [](const Member& member) { return member.kind == MemberKind::kStorage; });
  const Instant earliest = std::max(now, liveness_->boot_wait_end());
  if (promised_ == Ballot()) election_cause_ = ElectionCause::kFresh;
  if (promised_ != Ballot()) {
    ScheduleElection(earliest);
  } else if (IsSelf(leads_first->replica)) {
    SetElection(earliest);
  } else {
    ScheduleElection(earliest + options_.prepare_timeout);
  }
}

std::optional<RestingMember> GroupCore::Rest(Instant now) const {
  if (!Quiet() || (role_ != Role::kLeader && !FollowsAtRest(now)) ||
      (role_ == Role::kLeader && !LeadsAtRest(now))) {
    return std::nullopt;
  }
  RestingMember rested{.configuration = configuration_,
                       .promised = promised_,
                       .chosen = chosen_,
                       .leads = role_ == Role::kLeader,
                       .follows = role_ == Role::kFollower,
                       .ended = ended_ != 0};
  if (rested.follows) rested.leader_incarnation = liveness_->IncarnationOf(promised_node_);
  for (size_t i = 0; rested.leads && i < std::min(peers_.size(), rested.peer_epochs.size()); ++i) {
    rested.peer_epochs[i] = peers_[i].epoch;
  }
  return rested;
}

// Nothing is under way, nothing is remembered but what RestingMember has.
bool GroupCore::Quiet() const {
  const bool log_is_a_position = log_.released() == chosen_ && log_.last() == chosen_ &&
                                 checkpoint_ == chosen_ && stable_ == chosen_ &&
                                 recovered_chosen_ <= chosen_;
  const bool told = persisted_index_ == record_index_ && held_messages_.empty() &&
                    effects_.records.empty() && effects_.messages.empty() &&
                    effects_.events.empty() && !effects_.deposed;
  const bool plain_member = member() && may_lead_ && !removed_ && !ahead_.has_value() &&
                            configurations_.size() == 1 && named_in_ == configuration_.epoch + 1 &&
                            (ended_ == 0 || ended_ == chosen_);
  return log_is_a_position && told && plain_member && next_deadline() == Instant::Infinite();
}

// Only a grant that can lapse wakes a follower again.
bool GroupCore::FollowsAtRest(Instant now) const {
  const Member* owner = configuration_.Find(promised_.proposer());
  return role_ == Role::kFollower && now >= lead_not_before_ && owner != nullptr &&
         owner->node == promised_node_ && promised_epoch_ == configuration_.epoch &&
         SupportsLeader(now);
}

bool GroupCore::LeadsAtRest(Instant now) const {
  if (barrier_ != 0 || proposed_ != chosen_ || now < lease_not_before_) return false;
  return std::all_of(peers_.begin(), peers_.end(), [this](const Peer& peer) {
    return peer.votes && !peer.leaving && !NeedsWord(peer) && peer.told_chosen == chosen_;
  });
}

}  // namespace dynlib::replication
