#include "dynlib/cluster/node_admission_control.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include "dynlib/base/check.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/key.h"
#include "dynlib/cluster/replica.h"
#include "dynlib/cluster/retry_after.h"
#include "dynlib/cluster/service.h"
#include "dynlib/replication/group_core.h"
#include "dynlib/replication/hosted_group.h"
#include "dynlib/replication/types.h"

namespace dynlib::cluster {
namespace {

using admission::Admission;
using admission::Consistency;
using admission::Operation;
using admission::RequestUnits;

constexpr uint64_t kMilliunitsOfHalf = 500;
// Peers are asked so long after the last write, so that a burst that follows need not wait.
constexpr int kIntervalsAfterWrite = 5;
constexpr Duration kAskedAtLeastApart = std::chrono::milliseconds(50);

std::string_view Capacity(Operation operation) {
  return operation == Operation::kRead ? "read capacity" : "write capacity";
}

}  // namespace

uint64_t AdmittedRequest::Finish(uint64_t bytes) {
  if (load_ == nullptr) return 0;
  RequestUnits real = admission_.units;
  if (admission_.operation == Operation::kRead) real = admission::ReadUnits(bytes, consistency_);
  load_->Settle(admission_, real, hash_, clock_->Now());
  return static_cast<uint64_t>(real.halves) * kMilliunitsOfHalf;
}

void AdmittedRequest::Undo() {
  if (load_ != nullptr) load_->Undo(admission_, clock_->Now());
}

absl::StatusOr<std::shared_ptr<NodeAdmissionControl>> NodeAdmissionControl::Create(
    const NodeAdmissionOptions& options, Parts parts) {
  DYNLIB_RETURN_IF_ERROR(Validate(options));
  DYNLIB_ASSIGN_OR_RETURN(
      std::unique_ptr<admission::NodeAdmission> node,
      admission::NodeAdmission::Create({.read_units_per_second = options.node_read_units,
                                        .write_units_per_second = options.node_write_units,
                                        .peer_age_max = 3 * options.peers_interval},
                                       parts.clock->Now()));
  return std::shared_ptr<NodeAdmissionControl>(
      new NodeAdmissionControl(options, parts, std::move(node)));
}

NodeAdmissionControl::NodeAdmissionControl(const NodeAdmissionOptions& options, Parts parts,
                                           std::shared_ptr<admission::NodeAdmission> node)
    : options_(options), parts_(parts), node_(std::move(node)) {}

void NodeAdmissionControl::Start(Rpc* rpc) {
  rpc_ = rpc;
  rpc->Handle(kNodeLoad,
              [weak = weak_from_this()](NodeId, Instant, std::string bytes, Rpc::Reply reply) {
                if (auto control = weak.lock()) control->NodeLoad(bytes, std::move(reply));
              });
  Tick();
}

void NodeAdmissionControl::Stop() {
  rpc_ = nullptr;
  parts_.executor->Cancel(timer_);
}

// ---- Requests ----

absl::StatusOr<AdmittedRequest> NodeAdmissionControl::AdmitWrite(PartitionId partition,
                                                                 std::string_view key,
                                                                 uint64_t item_bytes) {
  return Admit(partition, Operation::kWrite, admission::WriteUnits(item_bytes),
               Consistency::kStrong, key);
}

absl::StatusOr<AdmittedRequest> NodeAdmissionControl::AdmitRead(PartitionId partition,
                                                                std::string_view key, bool strong) {
  const Consistency consistency = strong ? Consistency::kStrong : Consistency::kEventual;
  return Admit(partition, Operation::kRead, admission::ReadUnits(0, consistency), consistency, key);
}

absl::StatusOr<AdmittedRequest> NodeAdmissionControl::Admit(PartitionId partition,
                                                            Operation operation, RequestUnits units,
                                                            Consistency consistency,
                                                            std::string_view key) {
  AdmittedRequest request;
  const auto found = entries_.find(partition);
  if (found == entries_.end()) return request;
  Entry& entry = found->second;
  if (operation == Operation::kWrite && !entry.leads) return request;
  request.hash_ = HashOfStorageKey(key);
  request.admission_ = entry.load->Admit(operation, units, request.hash_, parts_.clock->Now());
  if (!request.admission_.admitted()) return Refusal(partition, entry, request.admission_);
  request.load_ = entry.load;
  request.clock_ = parts_.clock;
  request.consistency_ = consistency;
  return request;
}

absl::Status NodeAdmissionControl::Refusal(PartitionId partition, const Entry& entry,
                                           const Admission& refused) {
  parts_.metrics->Count("node.throttled", 1);
  const std::string_view capacity = Capacity(refused.operation);
  switch (refused.reason) {
    case admission::Reason::kNode:
      return ThrottledError(
          Cat("node ", parts_.self, " has no ", capacity,
              " to spare beyond what its partitions are promised; partition ", partition),
          refused.retry_after);
    case admission::Reason::kPeers: {
      std::string nodes;
      for (NodeId node : entry.peers) {
        nodes += Cat(nodes.empty() ? "" : ", ", node);
        Ask(node, peers_[node]);
      }
      return ThrottledError(Cat("nodes ", nodes, ", which replicate partition ", partition,
                                ", have no ", capacity, " to spare, or have not said so yet"),
                            refused.retry_after);
    }
    default:
      return ThrottledError(
          Cat("partition ", partition, " has used up its ", capacity, " of ",
              std::llround(refused.operation == Operation::kRead ? options_.partition_read_units
                                                                 : options_.partition_write_units),
              " units a second and what it had saved"),
          refused.retry_after);
  }
}

// ---- Partitions ----

void NodeAdmissionControl::OnChange(PartitionId partition) {
  const std::shared_ptr<Replica> replica = parts_.replicas->Find(partition);
  if (replica == nullptr || replica->copying || replica->ended.has_value() ||
      replica->kind == replication::MemberKind::kLog) {
    entries_.erase(partition);
    return;
  }
  Entry& entry = entries_[partition];
  if (entry.load == nullptr) {
    const bool limited = options_.enabled && partition != kCataloguePartition;
    absl::StatusOr<std::shared_ptr<PartitionLoad>> load =
        PartitionLoad::Create(partition, options_, limited, node_, parts_.clock->Now());
    DYNLIB_CHECK(load.ok());  // The options were validated.
    entry.load = *std::move(load);
  }
  const std::optional<replication::GroupStatus> status = parts_.host->Status(partition);
  entry.leads = status.has_value() && status->role == replication::Role::kLeader;
  entry.peers.clear();
  std::vector<admission::PeerNode*> buckets;
  if (entry.leads) {
    for (const replication::Member& member : status->configuration.members) {
      if (member.node == parts_.self || !parts_.host->Hears(member.node)) continue;
      Peer& peer = peers_[member.node];
      if (peer.bucket == nullptr) peer.bucket = node_->Peer(member.node);
      if (buckets.size() == admission::PartitionAdmission::kPeersMax) break;
      entry.peers.push_back(member.node);
      if (peer.bucket != nullptr) buckets.push_back(peer.bucket);
    }
  }
  entry.load->SetPeers(buckets);
}

void NodeAdmissionControl::Describe(PartitionId partition, wire::ReplicaStatus& to) {
  const auto found = entries_.find(partition);
  if (found != entries_.end())
    found->second.load->Describe(to.first(), to.end(), parts_.clock->Now(), to);
}

void NodeAdmissionControl::Tick() {
  const Instant now = parts_.clock->Now();
  std::vector<PartitionId> partitions;  // here now, or gone since
  for (const auto& [partition, replica] : parts_.replicas->replicas())
    partitions.push_back(partition);
  for (const auto& [partition, entry] : entries_) {
    if (parts_.replicas->Find(partition) == nullptr) partitions.push_back(partition);
  }
  for (PartitionId partition : partitions) OnChange(partition);
  for (auto& [partition, entry] : entries_) {
    entry.load->Tick(now);
    ChargePeers(entry, now);
  }
  for (auto& [node, peer] : peers_) {
    if (peer.last_written != Instant() &&
        now - peer.last_written <= kIntervalsAfterWrite * options_.peers_interval) {
      Ask(node, peer);
    }
  }
  timer_ = parts_.executor->RunAt(now + options_.peers_interval, [weak = weak_from_this()] {
    if (auto control = weak.lock()) control->Tick();
  });
}

// ---- Other nodes ----

// A write costs every member's node what it costs ours.
void NodeAdmissionControl::ChargePeers(Entry& entry, Instant now) {
  const int64_t halves = entry.load->written_halves();
  const int64_t written = halves - std::exchange(entry.written_halves, halves);
  if (written == 0) return;
  for (NodeId node : entry.peers) {
    Peer& peer = peers_[node];
    peer.written_halves += written;
    peer.last_written = now;
  }
}

// Sent once: a lost charge is forgotten.
void NodeAdmissionControl::Ask(NodeId node, Peer& peer) {
  const Instant now = parts_.clock->Now();
  if (rpc_ == nullptr || peer.bucket == nullptr || peer.asking) return;
  if (peer.last_asked != Instant() && now - peer.last_asked < kAskedAtLeastApart) return;
  peer.asking = true;
  peer.last_asked = now;
  wire::NodeLoadRequest request;
  request.set_written_milliunits(static_cast<uint64_t>(std::exchange(peer.written_halves, 0)) *
                                 kMilliunitsOfHalf);
  rpc_->Call(node, kNodeLoad, request.SerializeAsString(), options_.peers_interval,
             [weak = weak_from_this(), node, now](absl::StatusOr<std::string> result) {
               auto control = weak.lock();
               if (control == nullptr) return;
               Peer& peer = control->peers_[node];
               peer.asking = false;
               wire::NodeLoadReply reply;
               if (!result.ok() || !reply.ParseFromString(*result)) return;
               const uint64_t halves = reply.write_milliunits_left() / kMilliunitsOfHalf;
               peer.bucket->Report({static_cast<int64_t>(std::min<uint64_t>(halves, INT32_MAX))},
                                   now);
             });
}

void NodeAdmissionControl::NodeLoad(const std::string& bytes, Rpc::Reply reply) {
  wire::NodeLoadRequest request;
  wire::NodeLoadReply message;
  if (!request.ParseFromString(bytes)) {
    message.mutable_outcome()->set_code(static_cast<int>(absl::StatusCode::kInvalidArgument));
    return reply(message.SerializeAsString());
  }
  const Instant now = parts_.clock->Now();
  const uint64_t halves = request.written_milliunits() / kMilliunitsOfHalf;
  node_->bucket(Operation::kWrite)
      .TakeAnyway(static_cast<int64_t>(std::min<uint64_t>(halves, INT32_MAX)), now);
  message.set_write_milliunits_left(static_cast<uint64_t>(node_->WriteRemaining(now).halves) *
                                    kMilliunitsOfHalf);
  reply(message.SerializeAsString());
}

}  // namespace dynlib::cluster
