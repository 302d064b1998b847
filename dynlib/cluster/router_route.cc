#include "dynlib/cluster/router_route.h"

#include <algorithm>
#include <utility>

#include "dynlib/base/check.h"

namespace dynlib::cluster {

void RouterRoute::SetMembers(std::vector<NodeId> members) {
  DYNLIB_CHECK(!members.empty());
  members_ = std::move(members);
  turn_ = 0;
  if (!IsMember(leader_)) leader_ = NodeId{};
  std::erase_if(silences_, [this](const auto& entry) { return !IsMember(entry.first); });
}

bool RouterRoute::IsMember(NodeId node) const {
  return std::find(members_.begin(), members_.end(), node) != members_.end();
}

NodeId RouterRoute::PickLeader(Instant now) {
  if (leader_ != NodeId{} && !Avoided(leader_, now)) return leader_;
  for (size_t tried = 0; tried < members_.size(); ++tried) {
    const NodeId node = members_[turn_++ % members_.size()];
    if (!Avoided(node, now)) return node;
  }
  return members_[turn_++ % members_.size()];
}

bool RouterRoute::Avoided(NodeId node, Instant now) const {
  const auto it = silences_.find(node);
  return it != silences_.end() && now < it->second.avoid_until;
}

bool RouterRoute::DoesNotLead(NodeId node, NodeId hint, Instant now) {
  if (leader_ == node) leader_ = NodeId{};
  if (hint == node || !IsMember(hint) || Avoided(hint, now)) return false;
  leader_ = hint;
  return true;
}

void RouterRoute::Unable(NodeId node) {
  if (leader_ == node) leader_ = NodeId{};
}

void RouterRoute::Silent(NodeId node, Instant now) {
  Unable(node);
  Silence& silence = silences_[node];
  // Many requests may time out at once: that is one silence.
  if (now < silence.avoid_until) return;
  const Duration avoid = kAvoidMin * (1 << std::min(silence.count, 10));
  silence.count++;
  silence.avoid_until = now + std::min(avoid, kAvoidMax);
}

}  // namespace dynlib::cluster
