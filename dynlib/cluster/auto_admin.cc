#include "dynlib/cluster/auto_admin.h"

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "dynlib/base/check.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/admin_planner.h"
#include "dynlib/cluster/catalogue.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/key.h"
#include "dynlib/cluster/orphan_replicas.h"
#include "dynlib/cluster/partition_plan.h"
#include "dynlib/cluster/router.h"
#include "dynlib/cluster/service.h"
#include "dynlib/cluster/table_ids.h"
#include "dynlib/partition_map/partition_record.h"

namespace dynlib::cluster {
namespace {

constexpr size_t kTablesAPush = 64;

absl::Status ToStatus(const wire::Outcome& outcome) {
  return absl::Status(static_cast<absl::StatusCode>(outcome.code()), outcome.message());
}

// A node that refuses so many times to make a replica is not asked again for so long.
constexpr int kRefusalsMax = 5;
constexpr Duration kRefusalCounts = std::chrono::minutes(1);

PrimaryKey CatalogueKey(std::string name) {
  return {.partition = Value::String(std::move(name)), .sort = {}};
}

template <typename Request>
struct CallTraits;
template <>
struct CallTraits<wire::CreateReplicaRequest> {
  using Reply = wire::CreateReplicaReply;
  static constexpr Rpc::Method kMethod = kCreateReplica;
  static constexpr std::string_view kEvent = "admin.learner_made";
  static uint64_t Partition(const wire::CreateReplicaRequest& request) {
    return request.partition().id();
  }
};
template <>
struct CallTraits<wire::AddLearnerRequest> {
  using Reply = wire::AddLearnerReply;
  static constexpr Rpc::Method kMethod = kAddLearner;
  static constexpr std::string_view kEvent = "";
  static uint64_t Partition(const wire::AddLearnerRequest& request) { return request.partition(); }
};
template <>
struct CallTraits<wire::ChangeMembersRequest> {
  using Reply = wire::ChangeMembersReply;
  static constexpr Rpc::Method kMethod = kChangeMembers;
  static constexpr std::string_view kEvent = "admin.members_changed";
  static uint64_t Partition(const wire::ChangeMembersRequest& request) {
    return request.partition();
  }
};
template <>
struct CallTraits<wire::SplitRequest> {
  using Reply = wire::SplitReply;
  static constexpr Rpc::Method kMethod = kSplit;
  static constexpr std::string_view kEvent = "admin.split";
  static uint64_t Partition(const wire::SplitRequest& request) { return request.partition(); }
};
template <>
struct CallTraits<wire::MergeRequest> {
  using Reply = wire::MergeReply;
  static constexpr Rpc::Method kMethod = kMerge;
  static constexpr std::string_view kEvent = "admin.merge";
  static uint64_t Partition(const wire::MergeRequest& request) { return request.partition(); }
};
template <>
struct CallTraits<wire::DropReplicaRequest> {
  using Reply = wire::DropReplicaReply;
  static constexpr Rpc::Method kMethod = kDropReplica;
  static constexpr std::string_view kEvent = "admin.replica_dropped";
  static uint64_t Partition(const wire::DropReplicaRequest& request) { return request.partition(); }
};

}  // namespace

absl::Status Validate(const AutoAdminOptions& options) {
  auto bad = [](std::string_view name, int64_t value, std::string_view allowed) {
    return absl::InvalidArgumentError(
        Cat("auto_admin.", name, " is ", value, "; allowed: ", allowed));
  };
  if (absl::Status status = Validate(options.router); !status.ok()) return status;
  if (absl::Status status = Validate(options.planner); !status.ok()) return status;
  constexpr Duration kMost = std::chrono::minutes(10);
  if (options.interval < std::chrono::milliseconds(10) || options.interval > kMost)
    return bad("interval", ToMicros(options.interval), "10 ms to 10 min, in us");
  if (options.busy_interval < std::chrono::milliseconds(1) ||
      options.busy_interval > options.interval)
    return bad("busy_interval", ToMicros(options.busy_interval), "1 ms to interval, in us");
  if (options.death_after < 2 * options.interval || options.death_after > std::chrono::hours(1))
    return bad("death_after", ToMicros(options.death_after), "twice interval to 1 h, in us");
  if (options.give_up_after < std::chrono::seconds(1) ||
      options.give_up_after > std::chrono::hours(24)) {
    return bad("give_up_after", ToMicros(options.give_up_after), "1 s to 24 h, in us");
  }
  if (options.call_timeout < std::chrono::milliseconds(1) || options.call_timeout > kMost)
    return bad("call_timeout", ToMicros(options.call_timeout), "1 ms to 10 min, in us");
  if (options.actions_max < 1 || options.actions_max > 10'000)
    return bad("actions_max", static_cast<int64_t>(options.actions_max), "1 to 10,000");
  return absl::OkStatus();
}

class AutoAdmin::Impl : public std::enable_shared_from_this<AutoAdmin::Impl> {
 public:
  Impl(AutoAdminOptions options, ClusterConfig config, Rpc* rpc, Executor* executor,
       const Clock* clock, MetricsSink* metrics, absl::AnyInvocable<bool()> may_act)
      : options_(std::move(options)),
        config_(std::move(config)),
        rpc_(rpc),
        executor_(executor),
        clock_(clock),
        metrics_(metrics),
        may_act_(std::move(may_act)),
        router_(std::make_unique<Router>(options_.router, rpc, executor, clock)) {}

  void Round();
  void Close();

 private:
  struct Known {
    Instant well;  // when it last said so, or since when it is asked
    bool answered = false;
    bool dead = false;
    wire::NodeStatusReply status;
  };

  void Schedule(Duration delay);
  void AskNodes();
  void OnNodeStatus(NodeId node, absl::StatusOr<std::string> result);
  void ReadCatalogue(std::string first);
  void OnCatalogue(absl::StatusOr<CataloguePage> page);
  void Arrived();
  void JudgeNodes();
  void FindMissing(AdminView& view);
  void FindRefused(AdminView& view);
  void GiveUpCreations(std::vector<AdminAction>& actions);
  void Act();
  void TellTables();
  void Done(const absl::Status& status, std::string_view event,
            std::vector<EventField> fields = {});
  void EndAction();
  void Event(std::string_view name, std::vector<EventField> fields);

  template <typename Request>
  void Run(const AdminCall<Request>& call);
  void Run(const WritePlan& action);
  void Run(const UpdateTable& action);
  void Run(const RemoveTable& action);
  void Run(const RemovePlan& action);
  template <typename Request, typename Reply>
  void OnReply(const Request& request, const Reply& reply) {}
  void OnReply(const wire::AddLearnerRequest& request, const wire::AddLearnerReply& reply);
  template <typename Request, typename Reply>
  static std::string_view EventOf(const Request& request, const Reply& reply) {
    return CallTraits<Request>::kEvent;
  }
  // Of one that was there, it had to learn something, or its first answer was lost.
  static std::string_view EventOf(const wire::CreateReplicaRequest& request,
                                  const wire::CreateReplicaReply& reply) {
    return reply.was_there() ? "" : CallTraits<wire::CreateReplicaRequest>::kEvent;
  }
  template <typename Request>
  void OnRefusal(NodeId node, const Request& request) {}
  void OnRefusal(NodeId node, const wire::CreateReplicaRequest& request);
  template <typename Callback>
  auto Guard(Callback callback);

  const AutoAdminOptions options_;
  const ClusterConfig config_;
  Rpc* const rpc_;
  Executor* const executor_;
  const Clock* const clock_;
  MetricsSink* const metrics_;
  absl::AnyInvocable<bool()> may_act_;
  std::unique_ptr<Router> router_;
  bool closed_ = false;
  Executor::TimerId timer_ = Executor::kNoTimer;

  std::map<NodeId, Known> nodes_;
  std::map<std::pair<PartitionId, NodeId>, Instant> missing_since_;
  std::map<PartitionId, ReplicaId> caught_up_;
  struct Refusals {
    int times = 0;
    Instant last;
  };
  std::map<std::pair<PartitionId, NodeId>, Refusals> refusals_;  // to make a replica
  std::set<TableId> shown_before_;                               // in earlier rounds
  // Creations as they were entered, and since when.
  std::map<std::pair<TableId, uint64_t>, Instant> created_since_;

  // Of the round.
  size_t awaited_ = 0;  // answers, then actions
  bool catalogue_ok_ = false;
  std::vector<TableInfo> tables_;
  std::vector<TableInfo> creations_;  // entries of tables that are not there yet
  KnownTables known_;
  bool unreadable_ = false;  // some entry is
  std::map<PartitionId, PartitionPlan> plans_;
  bool progress_ = false;
};

template <typename Callback>
auto AutoAdmin::Impl::Guard(Callback callback) {
  return [weak = weak_from_this(), callback = std::move(callback)](auto result) mutable {
    auto self = weak.lock();
    if (self != nullptr && !self->closed_) callback(*self, std::move(result));
  };
}

void AutoAdmin::Impl::Close() {
  closed_ = true;
  executor_->Cancel(timer_);
  router_ = nullptr;
}

void AutoAdmin::Impl::Schedule(Duration delay) {
  timer_ = executor_->RunAt(clock_->Now() + delay, [weak = weak_from_this()] {
    if (auto self = weak.lock(); self != nullptr && !self->closed_) self->Round();
  });
}

void AutoAdmin::Impl::Round() {
  if (!may_act_()) {
    // Another acts; how long nodes have been silent is to be judged anew when it is this one's
    // turn.
    nodes_.clear();
    missing_since_.clear();
    caught_up_.clear();
    refusals_.clear();
    shown_before_.clear();
    created_since_.clear();
    return Schedule(options_.interval);
  }
  metrics_->Count("admin.rounds", 1);
  awaited_ = 1;
  catalogue_ok_ = false;
  progress_ = false;
  tables_.clear();
  creations_.clear();
  plans_.clear();
  known_ = {};
  unreadable_ = false;
  AskNodes();
  ReadCatalogue("");
}

void AutoAdmin::Impl::AskNodes() {
  for (const NodeInfo& node : config_.nodes) {
    Known& known = nodes_.try_emplace(node.id, Known{.well = clock_->Now()}).first->second;
    known.answered = false;
    // A dead one is asked, but nobody waits: it would take its time in every round, while others
    // are to be covered for it.
    const bool waits = !known.dead;
    if (waits) ++awaited_;
    rpc_->Call(node.id, kNodeStatus, wire::NodeStatusRequest().SerializeAsString(),
               options_.call_timeout,
               Guard([id = node.id, waits](Impl& self, absl::StatusOr<std::string> result) {
                 self.OnNodeStatus(id, std::move(result));
                 if (waits) self.Arrived();
               }));
  }
}

void AutoAdmin::Impl::OnNodeStatus(NodeId node, absl::StatusOr<std::string> result) {
  if (!nodes_.contains(node)) return;  // It is another's turn since.
  Known& known = nodes_.at(node);
  wire::NodeStatusReply status;
  if (result.ok() && status.ParseFromString(*result) &&
      status.outcome().code() == static_cast<int>(absl::StatusCode::kOk)) {
    known.answered = true;
    known.status = std::move(status);
    if (!known.status.log_unhealthy()) known.well = clock_->Now();
  }
}

void AutoAdmin::Impl::ReadCatalogue(std::string first) {
  router_->ReadCatalogue(std::move(first),
                         Guard([](Impl& self, absl::StatusOr<CataloguePage> page) {
                           self.OnCatalogue(std::move(page));
                         }));
}

void AutoAdmin::Impl::OnCatalogue(absl::StatusOr<CataloguePage> page) {
  if (!page.ok()) return Arrived();
  for (const Item& item : page->items) {
    const auto name = item.find(kCatalogueKey);
    if (name == item.end() || !name->second.is(ValueType::kString)) continue;
    if (IsPlanName(name->second.string())) {
      if (absl::StatusOr<PartitionPlan> plan = DecodePlanItem(item); plan.ok())
        plans_[plan->partition] = *std::move(plan);
    } else if (name->second.string() == kTableIdsName) {
      if (absl::StatusOr<TableIds> given = DecodeTableIdsItem(item); given.ok())
        known_.given = *given;
    } else if (absl::StatusOr<TableInfo> table = DecodeTableItem(item); table.ok()) {
      known_.entries.insert(table->id);
      (table->creating ? creations_ : tables_).push_back(*std::move(table));
    } else {
      unreadable_ = true;
    }
  }
  if (!page->next.empty()) return ReadCatalogue(std::move(page->next));
  catalogue_ok_ = true;
  Arrived();
}

void AutoAdmin::Impl::Arrived() {
  if (--awaited_ > 0) return;
  if (!catalogue_ok_ || !may_act_()) return Schedule(options_.interval);
  JudgeNodes();
  Act();
}

void AutoAdmin::Impl::JudgeNodes() {
  for (auto& [id, known] : nodes_) {
    const bool well = known.answered && !known.status.log_unhealthy();
    const bool dead = !well && clock_->Now() - known.well >= options_.death_after;
    if (dead == known.dead) continue;
    known.dead = dead;
    Event(dead ? "admin.node_dead" : "admin.node_back", {{"node", Cat(id)}});
  }
}

void AutoAdmin::Impl::FindMissing(AdminView& view) {
  std::map<std::pair<PartitionId, NodeId>, Instant> missing;
  for (const auto& [leader, known] : nodes_) {
    if (!known.answered) continue;
    for (const wire::ReplicaStatus& status : known.status.replicas()) {
      if (!status.leads() || status.removed()) continue;
      for (const wire::Member& member : status.members()) {
        const auto node = nodes_.find(NodeId{member.node()});
        if (node == nodes_.end() || !node->second.answered) continue;
        bool shown = false;
        for (const wire::ReplicaStatus& other : node->second.status.replicas()) {
          shown = shown || (other.partition() == status.partition() &&
                            other.replica() == member.replica() && !CannotBeFed(other, status));
        }
        if (shown) continue;
        const std::pair key(PartitionId{status.partition()}, node->first);
        const auto before = missing_since_.find(key);
        missing[key] = before == missing_since_.end() ? clock_->Now() : before->second;
      }
    }
  }
  missing_since_ = std::move(missing);
  for (const auto& [key, since] : missing_since_) {
    if (clock_->Now() - since >= options_.death_after) view.missing.insert(key);
  }
}

// For as long as it goes on, and a while longer: what is short may be there again.
void AutoAdmin::Impl::FindRefused(AdminView& view) {
  for (auto it = refusals_.begin(); it != refusals_.end();) {
    if (clock_->Now() - it->second.last >= kRefusalCounts) {
      it = refusals_.erase(it);
      continue;
    }
    if (it->second.times >= kRefusalsMax) view.refused.insert(it->first);
    ++it;
  }
}

// Of whom nobody has written anything for long: what they made goes the way of a deleted table's.
void AutoAdmin::Impl::GiveUpCreations(std::vector<AdminAction>& actions) {
  std::map<std::pair<TableId, uint64_t>, Instant> since;
  for (const TableInfo& table : creations_) {
    const std::pair key(table.id, table.version);
    const auto before = created_since_.find(key);
    since[key] = before == created_since_.end() ? clock_->Now() : before->second;
    if (clock_->Now() - since[key] < options_.give_up_after) continue;
    TableInfo given_up = table;
    given_up.creating = false;
    ++given_up.version;
    actions.push_back(UpdateTable{std::move(given_up)});
  }
  created_since_ = std::move(since);
}

void AutoAdmin::Impl::Act() {
  AdminView view{.config = &config_,
                 .tables = tables_,
                 .plans = plans_,
                 .nodes = {},
                 .caught_up = std::exchange(caught_up_, {}),
                 .missing = {},
                 .refused = {}};
  for (const auto& [id, known] : nodes_) {
    view.nodes[id] = {
        .alive = known.answered && !known.dead, .dead = known.dead, .status = known.status};
  }
  FindMissing(view);
  FindRefused(view);
  std::vector<AdminAction> actions = PlanAdmin(options_.planner, view);
  GiveUpCreations(actions);
  const std::set<TableId> shown_before = std::exchange(shown_before_, TablesShown(view.nodes));
  if (!unreadable_) {
    for (AdminCall<wire::DropReplicaRequest>& drop : DropOrphans(known_, shown_before, view.nodes))
      actions.push_back(std::move(drop));
  }
  if (actions.size() > options_.actions_max) actions.resize(options_.actions_max);
  awaited_ = 1;
  for (const AdminAction& action : actions) {
    ++awaited_;
    metrics_->Count("admin.actions", 1);
    std::visit([this](const auto& what) { Run(what); }, action);
  }
  TellTables();
  EndAction();
}

// The same to all metadata nodes in every round; what is lost comes again.
void AutoAdmin::Impl::TellTables() {
  wire::PushRequest request;
  auto send = [&] {
    if (request.tables_size() == 0) return;
    for (NodeId node : config_.metadata_nodes) {
      rpc_->Call(node, kPush, request.SerializeAsString(), options_.call_timeout,
                 [](absl::StatusOr<std::string>) {});
    }
    request.Clear();
  };
  for (const TableInfo& table : tables_) {
    partition_map::TableRecord record{.table = table.id,
                                      .name = table.name,
                                      .version = table.version,
                                      .dropped = table.deleting,
                                      .descriptor = EncodeDescriptor(table)};
    request.add_tables(partition_map::Encode(record));
    if (request.tables_size() >= static_cast<int>(kTablesAPush)) send();
  }
  send();
}

void AutoAdmin::Impl::EndAction() {
  if (--awaited_ > 0) return;
  Schedule(progress_ ? options_.busy_interval : options_.interval);
}

void AutoAdmin::Impl::Done(const absl::Status& status, std::string_view event,
                           std::vector<EventField> fields) {
  if (status.ok()) {
    progress_ = true;
    if (!event.empty()) Event(event, std::move(fields));
  } else {
    metrics_->Count("admin.failed_actions", 1);
    fields.push_back({"why", std::string(ToStd(status.message()))});
    Event("admin.action_failed", std::move(fields));
  }
  EndAction();
}

void AutoAdmin::Impl::Event(std::string_view name, std::vector<EventField> fields) {
  metrics_->Event(name, fields);
}

template <typename Request>
void AutoAdmin::Impl::Run(const AdminCall<Request>& call) {
  using Traits = CallTraits<Request>;
  rpc_->Call(call.node, Traits::kMethod, call.request.SerializeAsString(), options_.call_timeout,
             Guard([call](Impl& self, absl::StatusOr<std::string> result) {
               typename Traits::Reply reply;
               absl::Status status = result.status();
               if (status.ok() && !reply.ParseFromString(*result))
                 status = absl::InternalError("the reply does not parse");
               if (status.ok()) status = ToStatus(reply.outcome());
               if (status.ok()) self.OnReply(call.request, reply);
               if (result.ok() && !status.ok()) self.OnRefusal(call.node, call.request);
               self.Done(
                   status, EventOf(call.request, reply),
                   {{"partition", Cat(Traits::Partition(call.request))}, {"node", Cat(call.node)}});
             }));
}

void AutoAdmin::Impl::OnReply(const wire::AddLearnerRequest& request,
                              const wire::AddLearnerReply& reply) {
  if (reply.caught_up())
    caught_up_[PartitionId{request.partition()}] = ReplicaId{request.learner().replica()};
}

void AutoAdmin::Impl::OnRefusal(NodeId node, const wire::CreateReplicaRequest& request) {
  Refusals& refusals = refusals_[{PartitionId{request.partition().id()}, node}];
  ++refusals.times;
  refusals.last = clock_->Now();
}

void AutoAdmin::Impl::Run(const WritePlan& action) {
  const PartitionPlan& plan = action.plan;
  std::vector<EventField> fields = {{"partition", Cat(plan.partition)}};
  if (plan.move.has_value()) {
    fields.push_back({"replica", Cat(plan.move->learner.replica)});
    fields.push_back({"node", Cat(plan.move->learner.node)});
    fields.push_back({"kind", plan.move->learner.log ? "log" : "storage"});
    fields.push_back({"replaces", Cat(plan.move->replaces)});
  }
  router_->Put(std::string(kCatalogueName), EncodePlanItem(plan), FollowsVersion(plan.version),
               Guard([fields, planned = plan.move.has_value()](Impl& self, absl::Status status) {
                 self.Done(status, planned ? "admin.move_planned" : "admin.move_ended", fields);
               }));
}

void AutoAdmin::Impl::Run(const UpdateTable& action) {
  router_->Put(std::string(kCatalogueName), EncodeTableItem(action.table),
               TableIs(action.table.id, action.table.version - 1),
               Guard([name = action.table.name](Impl& self, absl::Status status) {
                 self.Done(status, "admin.table_changed", {{"table", name}});
               }));
}

void AutoAdmin::Impl::Run(const RemoveTable& action) {
  const TableInfo& table = action.table;
  router_->Delete(std::string(kCatalogueName), CatalogueKey(table.name),
                  TableIs(table.id, table.version),
                  Guard([name = table.name](Impl& self, absl::Status status) {
                    self.Done(status, "admin.table_removed", {{"table", name}});
                  }));
}

void AutoAdmin::Impl::Run(const RemovePlan& action) {
  router_->Delete(std::string(kCatalogueName), CatalogueKey(PlanName(action.plan.partition)),
                  FollowsVersion(action.plan.version + 1),
                  Guard([](Impl& self, absl::Status status) { self.Done(status, ""); }));
}

AutoAdmin::AutoAdmin(AutoAdminOptions options, ClusterConfig config, Rpc* rpc, Executor* executor,
                     const Clock* clock, MetricsSink* metrics, absl::AnyInvocable<bool()> may_act) {
  DYNLIB_CHECK(Validate(options).ok());
  impl_ = std::make_shared<Impl>(std::move(options), std::move(config), rpc, executor, clock,
                                 metrics, std::move(may_act));
}

AutoAdmin::~AutoAdmin() { impl_->Close(); }

void AutoAdmin::Start() { impl_->Round(); }

}  // namespace dynlib::cluster
