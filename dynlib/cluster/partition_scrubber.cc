#include "dynlib/cluster/partition_scrubber.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "dynlib/base/strings.h"
#include "dynlib/cluster/scrub_codec.h"
#include "dynlib/cluster/service.h"
#include "dynlib/scrub/options.h"

namespace dynlib::cluster {
namespace {

constexpr size_t kDifferencesReportedMax = 100;
constexpr int kRepairPartsMax = 1000;  // of one request
// Its replica reads, fetches and makes a checkpoint.
constexpr int kRepairTimeouts = 6;

absl::Status ToStatus(const wire::Outcome& outcome) {
  return absl::Status(static_cast<absl::StatusCode>(outcome.code()), outcome.message());
}

template <typename Reply>
absl::StatusOr<Reply> Parse(const absl::StatusOr<std::string>& result) {
  if (!result.ok()) return result.status();
  Reply reply;
  if (!reply.ParseFromString(*result)) return absl::InternalError("the reply does not parse");
  if (reply.outcome().code() != 0) return ToStatus(reply.outcome());
  return reply;
}

scrub::ScrubOptions SessionOptions(const ScrubberOptions& options, uint64_t expected_bytes) {
  scrub::ScrubOptions session;
  session.bytes_per_second = options.bytes_per_second;
  // A request is paid for before it is sent: it should not be worth more than a moment.
  session.step_bytes = std::clamp<uint64_t>(options.bytes_per_second / 8, 4 << 10, 1 << 20);
  session.request_timeout = options.call_timeout;
  session.retry_delay = options.retry_delay;
  session.expected_bytes = expected_bytes;
  return session;
}

// What is wrong with a copy.
std::string_view Why(const scrub::Finding& finding, const scrub::Copy& copy) {
  switch (copy.state) {
    case scrub::CopyState::kUnreadable:
      return "unreadable";
    case scrub::CopyState::kAbsent:
      return "missing";
    case scrub::CopyState::kPresent:
      break;
  }
  for (const scrub::Copy& other : finding.copies) {
    const bool good =
        std::find(finding.good.begin(), finding.good.end(), other.replica) != finding.good.end();
    if (good && other.state == scrub::CopyState::kAbsent) return "should not be there";
  }
  return "differs";
}

}  // namespace

PartitionScrubber::PartitionScrubber(Parts parts, PartitionId partition,
                                     absl::AnyInvocable<void(PartitionScrub)> done)
    : parts_(std::move(parts)), done_(std::move(done)) {
  result_.partition = partition;
}

template <typename Callback>
auto PartitionScrubber::Guard(Callback callback) {
  return [weak = weak_from_this(), callback = std::move(callback)](auto result) mutable {
    auto self = weak.lock();
    if (self != nullptr && !self->closed_) callback(*self, std::move(result));
  };
}

void PartitionScrubber::RunIn(Duration delay, void (PartitionScrubber::*what)()) {
  parts_.executor->Cancel(timer_);
  timer_ = parts_.executor->RunAt(parts_.clock->Now() + delay, [weak = weak_from_this(), what] {
    auto self = weak.lock();
    if (self != nullptr && !self->closed_) (self.get()->*what)();
  });
}

void PartitionScrubber::Close() {
  closed_ = true;
  parts_.executor->Cancel(timer_);
}

void PartitionScrubber::Start() { Begin(); }

// Who is there, and who leads, may have changed since the last marker.
void PartitionScrubber::Begin() {
  if (++markers_ > parts_.options.markers_max)
    return Finish(absl::UnavailableError(Cat("given up after ", markers_ - 1, " markers")));
  AskNodeStatuses(parts_.nodes, parts_.rpc, parts_.options.call_timeout,
                  Guard([](PartitionScrubber& self, NodeStatuses statuses) {
                    const absl::Status chosen = self.Choose(statuses);
                    if (absl::IsUnavailable(chosen)) return self.Again(chosen);
                    if (!chosen.ok()) return self.Finish(chosen);
                    self.Mark();
                  }));
}

absl::Status PartitionScrubber::Choose(const NodeStatuses& statuses) {
  const wire::ReplicaStatus* leader = nullptr;
  bool seen = false;
  for (const auto& [node, status] : statuses) {
    for (const wire::ReplicaStatus& replica : status.replicas()) {
      if (PartitionId{replica.partition()} != result_.partition) continue;
      seen = seen || replica.ended() == 0;
      if (!replica.leads() || replica.ended() != 0) continue;
      leader = &replica;
      leader_ = node;
    }
  }
  if (!seen)
    return absl::NotFoundError(Cat("there is no partition ", result_.partition, " (any more)"));
  if (leader == nullptr)
    return absl::UnavailableError(Cat("partition ", result_.partition, " has no leader now"));
  first_ = leader->first();
  end_ = leader->end();
  expected_bytes_ = leader->bytes();
  members_.clear();
  for (const wire::Member& member : leader->members()) {
    const auto node = statuses.find(NodeId{member.node()});
    if (member.kind() != wire::STORAGE || node == statuses.end()) continue;
    for (const wire::ReplicaStatus& replica : node->second.replicas()) {
      if (replica.partition() == leader->partition() && replica.replica() == member.replica() &&
          !replica.failed() && !replica.copying()) {
        members_.push_back({ReplicaId{member.replica()}, NodeId{member.node()}});
      }
    }
  }
  if (members_.size() >= 2) return absl::OkStatus();
  return absl::FailedPreconditionError(
      Cat("partition ", result_.partition, " has ", members_.size(),
          " whole storage replicas; at least 2 are needed to compare"));
}

void PartitionScrubber::Mark() {
  scrub_ = parts_.next_scrub();
  wire::ScrubMarkRequest request;
  request.set_partition(ToUint(result_.partition));
  request.set_scrub(scrub_);
  parts_.rpc->Call(leader_, kScrubMark, request.SerializeAsString(), parts_.options.call_timeout,
                   Guard([](PartitionScrubber& self, absl::StatusOr<std::string> result) {
                     self.OnMarked(std::move(result));
                   }));
}

void PartitionScrubber::OnMarked(absl::StatusOr<std::string> result) {
  const absl::StatusOr<wire::ScrubMarkReply> reply = Parse<wire::ScrubMarkReply>(result);
  if (!reply.ok()) return Again(reply.status());
  Compare(reply->slot());
}

void PartitionScrubber::Compare(Slot marker) {
  result_.marker = marker;
  std::string names;
  scrub::ScrubSubject subject{
      .members = {}, .reference = {}, .marker = marker, .first = first_, .end = end_};
  for (const Member& member : members_) {
    subject.members.push_back(member.replica);
    names += Cat(names.empty() ? "" : " ", member.replica, "@", member.node);
  }
  Event("scrub.started", {{"members", names}, {"marker", Cat(marker)}});
  ++turn_;
  session_ = std::make_unique<scrub::ScrubSession>(SessionOptions(parts_.options, expected_bytes_),
                                                   subject, cursor_, parts_.clock->Now());
  Pump();
}

void PartitionScrubber::Pump() {
  scrub::ScrubSession::Effects effects = session_->TakeEffects();
  for (const scrub::Request& request : effects.requests) Send(request);
  for (const scrub::Finding& finding : effects.findings) OnFinding(finding);
  cursor_ = session_->cursor();
  if (session_->finished()) return EndSession(session_->result());
  parts_.executor->Cancel(timer_);
  timer_ = Executor::kNoTimer;
  const Instant next = session_->next_timer();
  if (next == Instant::Infinite()) return;
  timer_ = parts_.executor->RunAt(next, [weak = weak_from_this(), turn = turn_] {
    auto self = weak.lock();
    if (self == nullptr || self->closed_ || self->turn_ != turn) return;
    self->session_->OnTimer(self->parts_.clock->Now());
    self->Pump();
  });
}

void PartitionScrubber::Send(const scrub::Request& request) {
  wire::ScrubDigestRequest message;
  message.set_partition(ToUint(result_.partition));
  message.set_scrub(scrub_);
  message.set_marker(request.marker);
  ToWire(request, *message.mutable_query());
  const NodeId node = NodeOf(request.replica);
  parts_.rpc->Call(node, kScrubDigest, message.SerializeAsString(), parts_.options.call_timeout,
                   Guard([id = request.id, node, turn = turn_](PartitionScrubber& self,
                                                               absl::StatusOr<std::string> result) {
                     if (self.turn_ == turn) self.OnAnswer(id, node, std::move(result));
                   }));
}

void PartitionScrubber::OnAnswer(uint64_t request, NodeId node,
                                 absl::StatusOr<std::string> result) {
  absl::StatusOr<wire::ScrubDigestReply> reply = Parse<wire::ScrubDigestReply>(result);
  // It has lost its version. What was compared stays compared; the rest is, with another marker.
  if (absl::IsNotFound(reply.status())) return EndSession(reply.status());
  if (reply.ok() && !reply->damage().empty() && damage_reported_.size() < kDifferencesReportedMax &&
      damage_reported_.insert(Cat(node, ":", reply->damage())).second) {
    Event("scrub.damage", {{"node", Cat(node)}, {"what", reply->damage()}});
  }
  absl::StatusOr<scrub::Answer> answer =
      reply.ok() ? FromWire(reply->answer()) : absl::StatusOr<scrub::Answer>(reply.status());
  session_->OnAnswer(request, std::move(answer), parts_.clock->Now());
  Pump();
}

NodeId PartitionScrubber::NodeOf(ReplicaId replica) const {
  for (const Member& member : members_) {
    if (member.replica == replica) return member.node;
  }
  return NodeId{};
}

void PartitionScrubber::OnFinding(const scrub::Finding& finding) {
  ++result_.differences;
  parts_.metrics->Count("scrub.differences", 1);
  if (differences_reported_ < kDifferencesReportedMax) {
    ++differences_reported_;
    ReportFinding(finding);
  }
  PlanRepair(finding);
}

void PartitionScrubber::ReportFinding(const scrub::Finding& finding) {
  std::string key = Escape(finding.key);
  if (finding.is_range) key += Cat(" to ", finding.end.empty() ? "the end" : Escape(finding.end));
  bool named = false;
  for (const scrub::Copy& copy : finding.copies) {
    if (std::find(finding.bad.begin(), finding.bad.end(), copy.replica) == finding.bad.end())
      continue;
    named = true;
    Event("scrub.difference", {{"key", key},
                               {"bad", Cat(copy.replica)},
                               {"node", Cat(NodeOf(copy.replica))},
                               {"why", std::string(Why(finding, copy))}});
  }
  if (named) return;
  Event("scrub.difference",
        {{"key", key}, {"bad", ""}, {"node", ""}, {"why", "nobody can say which copy is right"}});
}

void PartitionScrubber::PlanRepair(const scrub::Finding& finding) {
  if (!parts_.options.repair || finding.good.empty() || finding.bad.empty()) {
    ++result_.unrepaired;
    return;
  }
  const scrub::Copy* good = nullptr;
  for (const scrub::Copy& copy : finding.copies) {
    if (copy.replica == finding.good.front()) good = &copy;
  }
  for (ReplicaId bad : finding.bad) {
    wire::RepairRequest& request = repairs_[{NodeOf(bad), NodeOf(good->replica)}];
    if (finding.is_range) {
      wire::KeyRange& range = *request.add_ranges();
      range.set_first(finding.key);
      range.set_end(finding.end);
      continue;
    }
    wire::RepairRequest::Item& item = *request.add_items();
    item.set_key(finding.key);
    if (good->state == scrub::CopyState::kPresent) item.set_digest(EncodeDigest(good->digest));
  }
}

void PartitionScrubber::EndSession(absl::Status status) {
  ++turn_;
  parts_.executor->Cancel(timer_);
  const scrub::ScrubProgress progress = session_->Progress(parts_.clock->Now());
  result_.vanished += progress.counts.vanished_differences;
  parts_.metrics->Count("scrub.vanished",
                        static_cast<int64_t>(progress.counts.vanished_differences));
  result_.items = cursor_.items;
  result_.bytes = cursor_.bytes;
  result_.replicas = 0;
  for (const scrub::ScrubProgress::Member& member : progress.members)
    result_.replicas += member.lost ? 0 : 1;
  session_ = nullptr;
  session_status_ = std::move(status);
  RepairNext();
}

void PartitionScrubber::RepairNext() {
  if (repairs_.empty()) return AfterSession();
  const RepairKey key = repairs_.begin()->first;
  wire::RepairRequest& all = repairs_.begin()->second;
  wire::RepairRequest request;
  request.set_partition(ToUint(result_.partition));
  request.set_scrub(scrub_);
  request.set_copy_from(ToUint(key.second));
  const int items = std::min(all.items_size(), kRepairPartsMax);
  for (int i = 0; i < items; ++i) *request.add_items() = all.items(i);
  all.mutable_items()->DeleteSubrange(0, items);
  *request.mutable_ranges() = all.ranges();
  all.clear_ranges();
  if (all.items_size() == 0) repairs_.erase(repairs_.begin());
  const auto parts = static_cast<uint64_t>(request.items_size() + request.ranges_size());
  parts_.rpc->Call(key.first, kRepair, request.SerializeAsString(),
                   kRepairTimeouts * parts_.options.call_timeout,
                   Guard([key, parts](PartitionScrubber& self, absl::StatusOr<std::string> result) {
                     self.OnRepaired(key, std::move(result), parts);
                   }));
}

// What could not be repaired is found again by the next scrub.
void PartitionScrubber::OnRepaired(const RepairKey& key, absl::StatusOr<std::string> result,
                                   uint64_t parts) {
  const absl::StatusOr<wire::RepairReply> reply = Parse<wire::RepairReply>(result);
  uint64_t repaired = 0;
  if (!reply.ok()) {
    Event("scrub.repair_failed",
          {{"node", Cat(key.first)}, {"why", std::string(ToStd(reply.status().message()))}});
  } else if (reply->rebuild()) {
    Event("scrub.rebuild", {{"node", Cat(key.first)}});
  } else {
    repaired = std::min(reply->repaired(), parts);
    Event("scrub.repaired", {{"node", Cat(key.first)},
                             {"from", Cat(key.second)},
                             {"items", Cat(repaired)},
                             {"written_since", Cat(reply->changed())}});
  }
  result_.repaired += repaired;
  result_.unrepaired += parts - repaired;
  parts_.metrics->Count("scrub.repaired", static_cast<int64_t>(repaired));
  parts_.metrics->Count("scrub.unrepaired", static_cast<int64_t>(parts - repaired));
  RepairNext();
}

void PartitionScrubber::AfterSession() {
  Release();
  // Lost versions, lost replicas, or more findings than one session takes.
  if (!session_status_.ok()) return Again(session_status_);
  Finish(absl::OkStatus());
}

void PartitionScrubber::Release() {
  wire::ScrubDigestRequest request;
  request.set_partition(ToUint(result_.partition));
  request.set_scrub(scrub_);
  request.set_release(true);
  for (const Member& member : members_) {
    parts_.rpc->Call(member.node, kScrubDigest, request.SerializeAsString(),
                     parts_.options.call_timeout, [](const absl::StatusOr<std::string>&) {});
  }
}

void PartitionScrubber::Again(const absl::Status& why) {
  result_.status = why;
  RunIn(parts_.options.retry_delay, &PartitionScrubber::Begin);
}

void PartitionScrubber::Finish(absl::Status status) {
  if (absl::IsUnavailable(status) && !result_.status.ok()) status = result_.status;
  result_.status = status;
  parts_.metrics->Count("scrub.partitions", 1);
  parts_.metrics->Count("scrub.items", static_cast<int64_t>(result_.items));
  parts_.metrics->Count("scrub.bytes", static_cast<int64_t>(result_.bytes));
  if (!status.ok()) parts_.metrics->Count("scrub.failed", 1);
  Event("scrub.finished",
        {{"replicas", Cat(result_.replicas)},
         {"items", Cat(result_.items)},
         {"differences", Cat(result_.differences)},
         {"repaired", Cat(result_.repaired)},
         {"status", status.ok() ? std::string("ok") : std::string(ToStd(status.message()))}});
  Close();
  parts_.executor->Post(
      [done = std::move(done_), result = result_]() mutable { done(std::move(result)); });
}

void PartitionScrubber::Event(std::string_view name, std::vector<EventField> fields) {
  fields.insert(fields.begin(), {"partition", Cat(result_.partition)});
  parts_.metrics->Event(name, fields);
}

}  // namespace dynlib::cluster
