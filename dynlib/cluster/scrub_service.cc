#include "dynlib/cluster/scrub_service.h"

#include <optional>
#include <utility>
#include <vector>

#include "dynlib/base/checksum.h"
#include "dynlib/base/coding.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/scrub_codec.h"
#include "dynlib/cluster/scrub_scan.h"
#include "dynlib/cluster/service.h"
#include "dynlib/cluster/table_state_machine.h"
#include "dynlib/scrub/range_digester.h"
#include "dynlib/scrub/types.h"
#include "dynlib/store/tree.h"

namespace dynlib::cluster {
namespace {

constexpr Duration kRetryDelay = std::chrono::milliseconds(200);
constexpr Duration kApplyWait = std::chrono::milliseconds(10);
constexpr uint64_t kFetchBytes = 1 << 20;
constexpr int kRepairPartsMax = 100'000;  // items and ranges of one request

template <typename Message>
void Send(Rpc::Reply& reply, Message message, const absl::Status& status) {
  wire::Outcome& outcome = *message.mutable_outcome();
  outcome.set_code(static_cast<int>(status.code()));
  outcome.set_message(std::string(ToStd(status.message())));
  reply(message.SerializeAsString());
}

// Markers of a partition come from one client, with the scrub's id as sequence: a marker that is
// sent again is the same one.
ClientId MarkingClient(PartitionId partition) {
  std::string seed("scrub");
  PutFixed64(seed, ToUint(partition));
  return ClientId{Checksum(seed) | 1};
}

}  // namespace

template <typename Request, typename Reply>
void ScrubService::Handle(Rpc::Method method,
                          void (ScrubService::*handler)(const Request&, Instant, Rpc::Reply)) {
  rpc_->Handle(method, [self = shared_from_this(), handler](NodeId, Instant deadline,
                                                            std::string bytes, Rpc::Reply reply) {
    Request request;
    if (self->stopped_) return Send(reply, Reply(), absl::CancelledError("shut down"));
    if (!request.ParseFromString(bytes))
      return Send(reply, Reply(), absl::InvalidArgumentError("the request does not parse"));
    (self.get()->*handler)(request, deadline, std::move(reply));
  });
}

void ScrubService::Register(Rpc* rpc) {
  rpc_ = rpc;
  Handle<wire::ScrubMarkRequest, wire::ScrubMarkReply>(kScrubMark, &ScrubService::Mark);
  Handle<wire::ScrubDigestRequest, wire::ScrubDigestReply>(kScrubDigest, &ScrubService::Digest);
  Handle<wire::ScrubReadRequest, wire::ScrubReadReply>(kScrubRead, &ScrubService::Read);
  Handle<wire::RepairRequest, wire::RepairReply>(kRepair, &ScrubService::Repair);
  SweepPins();
}

void ScrubService::Stop() {
  if (std::exchange(stopped_, true)) return;
  parts_.executor->Cancel(timer_);
  rpc_ = nullptr;
  for (const auto& [partition, replica] : parts_.replicas->replicas()) {
    parts_.file_executor->Post([gone = replica->state_machine.scrub_pins().ReleaseAll()] {});
  }
}

// The last reference to a version may free many pages: not on the executor that all wait for.
void ScrubService::SweepPins() {
  for (const auto& [partition, replica] : parts_.replicas->replicas()) {
    std::vector<store::Snapshot> gone =
        replica->state_machine.scrub_pins().Expire(parts_.clock->Now(), kPinIdle);
    if (!gone.empty()) parts_.file_executor->Post([gone = std::move(gone)] {});
  }
  timer_ = parts_.executor->RunAt(parts_.clock->Now() + kPinIdle / 4, [weak = weak_from_this()] {
    auto self = weak.lock();
    if (self != nullptr && !self->stopped_) self->SweepPins();
  });
}

absl::StatusOr<std::shared_ptr<Replica>> ScrubService::Find(uint64_t partition) const {
  std::shared_ptr<Replica> replica = parts_.replicas->Find(PartitionId{partition});
  if (replica == nullptr || replica->copying || replica->kind == replication::MemberKind::kLog) {
    return absl::NotFoundError(Cat("partition ", partition, " has no whole tree on this node"));
  }
  return replica;
}

absl::StatusOr<store::Snapshot> ScrubService::FindVersion(Replica& replica, uint64_t scrub,
                                                          Slot marker) const {
  std::optional<store::Snapshot> version =
      replica.state_machine.scrub_pins().Find(scrub, parts_.clock->Now());
  if (version.has_value()) return *std::move(version);
  if (replica.tree->position() < marker) {
    return absl::UnavailableError(Cat("partition ", replica.partition, " is applied here up to ",
                                      replica.tree->position(), ", not ", marker));
  }
  return absl::NotFoundError(
      Cat("partition ", replica.partition, ": scrub ", scrub, " has no version here"));
}

void ScrubService::Mark(const wire::ScrubMarkRequest& request, Instant, Rpc::Reply reply) {
  auto answer = [&](const absl::Status& status) { Send(reply, wire::ScrubMarkReply(), status); };
  const absl::StatusOr<std::shared_ptr<Replica>> replica = Find(request.partition());
  if (!replica.ok()) return answer(replica.status());
  if (request.scrub() == 0)
    return answer(absl::InvalidArgumentError("scrub is 0; allowed: at least 1"));
  parts_.host->Propose(
      (*replica)->partition,
      {.client = MarkingClient((*replica)->partition),
       .sequence = request.scrub(),
       .acknowledged = request.scrub() - 1,
       .issued = parts_.clock->WallNow(),
       .command = TableStateMachine::ScrubMarker(request.scrub())},
      [reply = std::move(reply)](replication::ProposalResult result) mutable {
        wire::ScrubMarkReply message;
        wire::WriteResult told;
        if (result.status.ok() && (!told.ParseFromString(result.result) || told.slot() == 0))
          result.status = absl::InternalError("the marker has no slot");
        message.set_slot(told.slot());
        if (result.leader_hint.has_value())
          message.mutable_outcome()->set_leader_node(ToUint(result.leader_hint->node));
        Send(reply, std::move(message), result.status);
      });
}

absl::Status ScrubService::BeginRead() {
  if (reads_ >= kReadsMax) {
    return absl::ResourceExhaustedError(Cat(reads_, " requests of scrubs are being read"));
  }
  ++reads_;
  return absl::OkStatus();
}

void ScrubService::Digest(const wire::ScrubDigestRequest& request, Instant deadline,
                          Rpc::Reply reply) {
  auto answer = [&](const absl::Status& status) { Send(reply, wire::ScrubDigestReply(), status); };
  const absl::StatusOr<std::shared_ptr<Replica>> replica = Find(request.partition());
  if (!replica.ok()) return answer(replica.status());
  if (request.release()) {
    std::optional<store::Snapshot> gone =
        (*replica)->state_machine.scrub_pins().Release(request.scrub());
    if (gone.has_value()) parts_.file_executor->Post([gone = *std::move(gone)] {});
    return answer(absl::OkStatus());
  }
  absl::StatusOr<store::Snapshot> version =
      FindVersion(**replica, request.scrub(), request.marker());
  const Instant now = parts_.clock->Now();
  if (absl::IsUnavailable(version.status()) && now + kApplyWait < deadline &&
      waiting_ < kReadsMax) {
    // A follower that is a moment behind the leader.
    ++waiting_;
    parts_.executor->RunAt(now + kApplyWait, [self = shared_from_this(), request, deadline,
                                              reply = std::move(reply)]() mutable {
      --self->waiting_;
      if (!self->stopped_) return self->Digest(request, deadline, std::move(reply));
      Send(reply, wire::ScrubDigestReply(), absl::CancelledError("shut down"));
    });
    return;
  }
  if (!version.ok()) return answer(version.status());
  if (version->position() != request.marker()) {
    return answer(absl::InvalidArgumentError(Cat("scrub ", request.scrub(), " has its marker at ",
                                                 version->position(), ", not ", request.marker())));
  }
  if (absl::Status begun = BeginRead(); !begun.ok()) return answer(begun);
  if (request.query().first() <= (*replica)->first) CheckMetadata(*replica);
  parts_.file_executor->Post([self = shared_from_this(), version = *std::move(version),
                              query = FromWire(request.query()), deadline,
                              reply = std::move(reply)]() mutable {
    wire::ScrubDigestReply message;
    absl::StatusOr<scrub::Answer> answer = absl::UnavailableError("too late to read");
    if (self->parts_.clock->Now() < deadline) {
      answer = scrub::RangeDigester({}).Digest(
          query, [&](std::string_view first, std::string_view end, scrub::Visitor visit) {
            return ScanItems(version, first, end, visit, message.mutable_damage());
          });
    }
    const uint64_t bytes = answer.ok() ? answer->bytes_read : 0;
    if (answer.ok()) ToWire(*answer, *message.mutable_answer());
    Send(reply, std::move(message), answer.status());
    Executor* executor = self->parts_.executor;
    executor->Post([self = std::move(self), bytes] {
      --self->reads_;
      self->parts_.metrics->Count("scrub.digests", 1);
      self->parts_.metrics->Count("scrub.bytes_read", static_cast<int64_t>(bytes));
    });
  });
}

// What is not compared, each replica's own records, is at least to be readable.
void ScrubService::CheckMetadata(std::shared_ptr<Replica> replica) {
  if (replica->ended.has_value() || replica->damaged.has_value()) return;
  parts_.file_executor->Post([self = shared_from_this(), version = replica->tree->snapshot(),
                              replica = std::move(replica)]() mutable {
    if (!TreeRepair::MetadataIsDamaged(version)) return;
    Executor* executor = self->parts_.executor;
    executor->Post([self = std::move(self), replica = std::move(replica)]() mutable {
      self->RepairMetadata(std::move(replica));
    });
  });
}

void ScrubService::RepairMetadata(std::shared_ptr<Replica> replica) {
  if (stopped_ || parts_.replicas->Find(replica->partition) != replica) return;
  parts_.apply_executor->Post([self = shared_from_this(), replica = std::move(replica)]() mutable {
    const absl::Status repaired = TreeRepair::RepairMetadata(*replica->tree);
    Executor* executor = self->parts_.executor;
    executor->Post([self = std::move(self), replica = std::move(replica), repaired] {
      if (self->stopped_) return;
      if (absl::IsDataLoss(repaired)) return self->Rebuild(*replica, repaired);
      self->parts_.metrics->Count("scrub.metadata_repaired", 1);
      self->parts_.checkpoint([](const absl::Status&) {});
    });
  });
}

void ScrubService::Read(const wire::ScrubReadRequest& request, Instant deadline, Rpc::Reply reply) {
  auto answer = [&](const absl::Status& status) { Send(reply, wire::ScrubReadReply(), status); };
  const absl::StatusOr<std::shared_ptr<Replica>> replica = Find(request.partition());
  if (!replica.ok()) return answer(replica.status());
  absl::StatusOr<store::Snapshot> version = FindVersion(**replica, request.scrub(), 0);
  if (!version.ok()) return answer(version.status());
  if (absl::Status begun = BeginRead(); !begun.ok()) return answer(begun);
  parts_.file_executor->Post([self = shared_from_this(), version = *std::move(version), request,
                              deadline, reply = std::move(reply)]() mutable {
    wire::ScrubReadReply message;
    absl::Status status = absl::UnavailableError("too late to read");
    if (self->parts_.clock->Now() < deadline) status = ReadItems(version, request, message);
    Send(reply, std::move(message), status);
    Executor* executor = self->parts_.executor;
    executor->Post([self = std::move(self)] { --self->reads_; });
  });
}

void ScrubService::Repair(const wire::RepairRequest& request, Instant, Rpc::Reply reply) {
  auto answer = [&](const absl::Status& status) { Send(reply, wire::RepairReply(), status); };
  const absl::StatusOr<std::shared_ptr<Replica>> replica = Find(request.partition());
  if (!replica.ok()) return answer(replica.status());
  if ((*replica)->ended.has_value())
    return answer(absl::FailedPreconditionError("the partition was split or merged"));
  if (request.items_size() + request.ranges_size() > kRepairPartsMax) {
    return answer(
        absl::InvalidArgumentError(Cat("a repair of ", request.items_size() + request.ranges_size(),
                                       " parts; allowed: ", kRepairPartsMax)));
  }
  absl::StatusOr<store::Snapshot> version = FindVersion(**replica, request.scrub(), 0);
  if (!version.ok()) return answer(version.status());
  absl::StatusOr<TreeRepair> made = TreeRepair::Make(request, *std::move(version));
  if (!made.ok()) return answer(made.status());
  if (!repairing_.insert((*replica)->partition).second)
    return answer(absl::UnavailableError("another repair of the partition is under way here"));
  auto repair = std::make_shared<Repairing>(Repairing{.replica = *replica,
                                                      .scrub = request.scrub(),
                                                      .source = NodeId{request.copy_from()},
                                                      .repair = *std::move(made),
                                                      .next_range = 0,
                                                      .asked = 0,
                                                      .next_first = {},
                                                      .failures = 0,
                                                      .reply = std::move(reply)});
  parts_.file_executor->Post([self = shared_from_this(), repair]() mutable {
    const absl::Status status = repair->repair.Examine();
    Executor* executor = self->parts_.executor;
    executor->Post([self = std::move(self), repair, status] {
      if (!status.ok()) return self->EndRepair(repair, {.status = status});
      self->Fetch(repair);
    });
  });
}

void ScrubService::Fetch(RepairPtr repair) {
  if (stopped_) return EndRepair(repair, {.status = absl::CancelledError("shut down")});
  const std::vector<scrub::KeyRange>& wanted = repair->repair.wanted();
  wire::ScrubReadRequest request;
  request.set_partition(ToUint(repair->replica->partition));
  request.set_scrub(repair->scrub);
  request.set_bytes_max(kFetchBytes);
  for (size_t i = repair->next_range; i < wanted.size(); ++i) {
    wire::KeyRange& range = *request.add_ranges();
    range.set_first(wanted[i].first);
    range.set_end(wanted[i].end);
    if (i == repair->next_range && !repair->next_first.empty()) range.set_first(repair->next_first);
    if (request.ByteSizeLong() >= kFetchBytes) break;
  }
  if (request.ranges_size() == 0) return Apply(std::move(repair));
  repair->asked = static_cast<size_t>(request.ranges_size());
  rpc_->Call(repair->source, kScrubRead, request.SerializeAsString(), kCallTimeout,
             [self = shared_from_this(), repair](absl::StatusOr<std::string> result) mutable {
               self->OnRows(std::move(repair), std::move(result));
             });
}

void ScrubService::OnRows(RepairPtr repair, absl::StatusOr<std::string> result) {
  wire::ScrubReadReply rows;
  absl::Status status = result.status();
  if (status.ok() && !rows.ParseFromString(*result))
    status = absl::InternalError("the reply does not parse");
  if (status.ok()) {
    status = absl::Status(static_cast<absl::StatusCode>(rows.outcome().code()),
                          rows.outcome().message());
  }
  const bool over = stopped_ || absl::IsNotFound(status) || absl::IsDataLoss(status);
  if (!status.ok()) {
    if (over || ++repair->failures >= kCallAttempts) return EndRepair(repair, {.status = status});
    parts_.executor->RunAt(parts_.clock->Now() + kRetryDelay,
                           [self = shared_from_this(), repair] { self->Fetch(repair); });
    return;
  }
  repair->failures = 0;
  for (wire::ScrubReadReply::Row& row : *rows.mutable_rows()) {
    status = repair->repair.AddRow(std::move(*row.mutable_key()), std::move(*row.mutable_item()));
    if (!status.ok()) return OnApplied(repair, {.status = absl::OkStatus(), .rebuild = true});
  }
  repair->next_range += rows.done() ? repair->asked : rows.next_range();
  repair->next_first = rows.next_first();
  repair->replica->state_machine.scrub_pins().Find(repair->scrub, parts_.clock->Now());
  Fetch(std::move(repair));
}

// On the executor that applies, between two steps: a tree has one writer.
void ScrubService::Apply(RepairPtr repair) {
  const std::shared_ptr<Replica>& replica = repair->replica;
  if (parts_.replicas->Find(replica->partition) != replica || replica->ended.has_value()) {
    return EndRepair(repair, {.status = absl::FailedPreconditionError("the replica is gone")});
  }
  parts_.apply_executor->Post([self = shared_from_this(), repair = std::move(repair)]() mutable {
    store::Tree& tree = *repair->replica->tree;
    TreeRepair::Outcome outcome;
    const absl::StatusOr<std::optional<wire::EndRecord>> end = TableStateMachine::StoredEnd(tree);
    if (!end.ok()) {
      outcome.rebuild = absl::IsDataLoss(end.status());
      outcome.status = outcome.rebuild ? absl::OkStatus() : end.status();
    } else if (end->has_value()) {
      outcome.status = absl::FailedPreconditionError("the partition was split or merged");
    } else {
      outcome = repair->repair.Apply(tree, repair->replica->state_machine.scrub_pins());
    }
    Executor* executor = self->parts_.executor;
    executor->Post([self = std::move(self), repair = std::move(repair),
                    outcome = std::move(outcome)]() mutable {
      self->OnApplied(std::move(repair), std::move(outcome));
    });
  });
}

void ScrubService::OnApplied(RepairPtr repair, TreeRepair::Outcome outcome) {
  if (stopped_) return EndRepair(repair, {.status = absl::CancelledError("shut down")});
  if (outcome.rebuild) {
    Rebuild(*repair->replica, absl::DataLossError("a page is lost, with more than items in it"));
    return EndRepair(repair, outcome);
  }
  if (!outcome.status.ok()) return EndRepair(repair, outcome);
  parts_.checkpoint([self = shared_from_this(), repair = std::move(repair),
                     outcome = std::move(outcome)](absl::Status status) mutable {
    outcome.status = std::move(status);
    self->EndRepair(std::move(repair), outcome);
  });
}

void ScrubService::EndRepair(RepairPtr repair, const TreeRepair::Outcome& outcome) {
  repairing_.erase(repair->replica->partition);
  wire::RepairReply message;
  if (outcome.status.ok() && !outcome.rebuild) {
    message.set_repaired(outcome.repaired);
    message.set_changed(outcome.changed);
  }
  message.set_rebuild(outcome.rebuild);
  Send(repair->reply, std::move(message), outcome.status);
}

void ScrubService::Rebuild(Replica& replica, const absl::Status& why) {
  const EventField fields[] = {{"node", Cat(parts_.self)},
                               {"partition", Cat(replica.partition)},
                               {"replica", Cat(replica.self)},
                               {"why", std::string(ToStd(why.message()))}};
  parts_.metrics->Event("node.replica_damaged", fields);
  replica.damaged = why;
  parts_.host->TransferLeadership(replica.partition);
  parts_.changed(replica.partition);
}

}  // namespace dynlib::cluster
