// What a router knows of a partition's members: who seems to lead, and who has been silent.
//
// A hint or an answer names the leader; without one the members are tried in turn. A member that
// did not answer in time is avoided for a while, 50 ms at first and up to 1 s as it goes on, so
// that one lost message costs little and a dead node, to which the others may point for as long as
// its lease lasts, is not asked by every request.
//
// Pure. Threads: one executor's.
#ifndef DYNLIB_CLUSTER_ROUTER_ROUTE_H_
#define DYNLIB_CLUSTER_ROUTER_ROUTE_H_

#include <cstddef>
#include <map>
#include <vector>

#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"

namespace dynlib::cluster {

class RouterRoute {
 public:
  static constexpr Duration kAvoidMin = std::chrono::milliseconds(50);
  static constexpr Duration kAvoidMax = std::chrono::seconds(1);

  // The members' nodes: at least one, all different. What is known of others is forgotten.
  void SetMembers(std::vector<NodeId> members);
  const std::vector<NodeId>& members() const { return members_; }

  // Whom to ask as the leader: the known one, else the next in turn.
  NodeId PickLeader(Instant now);
  bool Avoided(NodeId node, Instant now) const;
  NodeId leader() const { return leader_; }  // 0: not known

  // Any reply came from the node.
  void Heard(NodeId node) { silences_.erase(node); }
  // Somebody says that it leads.
  void Suggest(NodeId node) {
    if (IsMember(node)) leader_ = node;
  }
  // It answered as the leader does.
  void Leads(NodeId node) { leader_ = node; }
  // It does not lead; `hint`, unless 0, may. True if the hint is worth following at once.
  bool DoesNotLead(NodeId node, NodeId hint, Instant now);
  // It could not say, or was unable to.
  void Unable(NodeId node);
  // It did not answer in time.
  void Silent(NodeId node, Instant now);

 private:
  struct Silence {
    int count = 0;
    Instant avoid_until;
  };
  bool IsMember(NodeId node) const;

  std::vector<NodeId> members_;
  size_t turn_ = 0;
  NodeId leader_{};
  std::map<NodeId, Silence> silences_;
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_ROUTER_ROUTE_H_
