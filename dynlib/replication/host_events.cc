#include "dynlib/replication/host_events.h"

#include <string>
#include <string_view>
#include <vector>

#include "dynlib/base/strings.h"

namespace dynlib::replication {
namespace {

using Kind = GroupCore::Event::Kind;

std::string_view NameOf(Kind kind) {
  switch (kind) {
    case Kind::kElectionStarted:
      return "replication.election_started";
    case Kind::kElected:
      return "replication.elected";
    case Kind::kDeposed:
      return "replication.deposed";
    case Kind::kLeaderHealthy:
      return "replication.leader_healthy";
    case Kind::kUnknownDecidedEmpty:
      return "replication.unknown_decided_empty";
    case Kind::kTooFarBehind:
      return "replication.too_far_behind";
    case Kind::kSlotsIgnored:
      return "replication.slots_ignored";
    case Kind::kConfigured:
      return "replication.configured";
    case Kind::kRemoved:
      return "replication.removed";
    case Kind::kEnded:
      return "replication.ended";
    case Kind::kReleased:
      return "replication.released";
    case Kind::kRepaired:
      return "replication.slot_repaired";
  }
  return "replication.event";
}

std::string_view NameOf(Liveness::Event::Kind kind) {
  switch (kind) {
    case Liveness::Event::Kind::kPeerLost:
      return "replication.peer_lost";
    case Liveness::Event::Kind::kPeerRestarted:
      return "replication.peer_restarted";
    case Liveness::Event::Kind::kPeerHeard:
      return "replication.peer_heard";
    case Liveness::Event::Kind::kPeerSupports:
      return "replication.peer_supports";
  }
  return "replication.peer";
}

}  // namespace

void HostEvents::Of(PartitionId group, const GroupCore::Event& event) {
  std::vector<EventField> fields = {{"partition", Cat(group)},
                                    {"node", Cat(self_)},
                                    {"round", Cat(event.ballot.round())},
                                    {"slot", Cat(event.slot)}};
  if (event.kind == Kind::kElectionStarted) {
    ++elections_[static_cast<size_t>(event.cause)];
    fields.push_back({"cause", std::string(CauseName(event.cause))});
  }
  metrics_->Count(NameOf(event.kind), 1);
  metrics_->Event(NameOf(event.kind), fields);
}

void HostEvents::OfPeer(const Liveness::Event& event) {
  const EventField fields[] = {{"node", Cat(self_)}, {"peer", Cat(event.peer)}};
  metrics_->Event(NameOf(event.kind), fields);
}

void HostEvents::ReplicaFailed(PartitionId group, const absl::Status& why) {
  const EventField fields[] = {
      {"partition", Cat(group)}, {"node", Cat(self_)}, {"why", std::string(ToStd(why.message()))}};
  metrics_->Event("replication.replica_failed", fields);
}

void HostEvents::ReplicaLost(PartitionId group) {
  const EventField fields[] = {{"partition", Cat(group)}, {"node", Cat(self_)}};
  metrics_->Event("replication.replica_lost", fields);
}

void HostEvents::LogClosed(const absl::Status& why) {
  const EventField fields[] = {{"node", Cat(self_)}, {"why", std::string(ToStd(why.message()))}};
  metrics_->Event("replication.log_closed", fields);
}

void HostEvents::LogHealthIs(bool healthy) {
  if (healthy == log_healthy_) return;
  log_healthy_ = healthy;
  const EventField fields[] = {{"node", Cat(self_)}};
  metrics_->Event(healthy ? "replication.log_recovered" : "replication.log_overdue", fields);
}

void HostEvents::ClockIsFast(NodeId peer) {
  const EventField fields[] = {{"node", Cat(self_)}, {"peer", Cat(peer)}};
  metrics_->Event("replication.clock_beyond_bound", fields);
}

}  // namespace dynlib::replication
