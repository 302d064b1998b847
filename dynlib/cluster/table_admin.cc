#include "dynlib/cluster/table_admin.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dynlib/base/ids.h"
#include "dynlib/base/strings.h"
#include "dynlib/base/time.h"
#include "dynlib/cluster/admin_planner.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/condition.h"
#include "dynlib/cluster/item.h"
#include "dynlib/cluster/key.h"
#include "dynlib/cluster/node_statuses.h"
#include "dynlib/cluster/partition_plan.h"
#include "dynlib/cluster/placement.h"
#include "dynlib/cluster/service.h"
#include "dynlib/cluster/table_ids.h"
#include "dynlib/partition_map/partition_record.h"

namespace dynlib::cluster {
namespace {

constexpr int kCallsLost = 2;       // in a row, to one node: it is silent, and others are sought
constexpr int kDeletionTries = 10;  // of a table whose entry changes all the time
constexpr size_t kParallel = 16;    // replicas being made at a time, by one creation

using Done = absl::AnyInvocable<void(absl::Status)>;

std::string Describe(const KeyAttribute& key) {
  const std::string_view type = key.type == KeyType::kNumber   ? "number"
                                : key.type == KeyType::kString ? "string"
                                                               : "binary";
  return Cat("'", Escape(key.name), "' (", type, ")");
}

std::string Describe(const TableSchema& schema) {
  return Cat("partition key ", Describe(schema.partition_key), " and ",
             schema.sort_key.has_value() ? Cat("sort key ", Describe(*schema.sort_key))
                                         : std::string("no sort key"));
}

std::string Describe(const Throughput& throughput) {
  if (throughput.on_demand) return "on demand";
  return Cat(throughput.read_units, " read and ", throughput.write_units, " write units a second");
}

// In what the table is not as the spec says, with both values; empty: it is the same.
std::string Difference(const TableInfo& table, const TableSpec& spec) {
  std::string differences;
  auto note = [&](std::string_view what, const std::string& is, const std::string& asked) {
    if (is != asked)
      differences += Cat(differences.empty() ? "" : "; ", what, " is ", is, ", asked for ", asked);
  };
  note("schema", Describe(table.schema), Describe(spec.schema));
  note("throughput", Describe(table.throughput), Describe(spec.throughput));
  const bool as_made = std::all_of(table.partitions.begin(), table.partitions.end(),
                                   [](const PartitionInfo& p) { return p.generation == 0; });
  if (as_made) note("number of partitions", Cat(table.partitions.size()), Cat(spec.partitions));
  return differences;
}

bool AllAlive(const TableInfo& table, const std::vector<PlacementNode>& nodes) {
  std::set<NodeId> alive;
  for (const PlacementNode& node : nodes) {
    if (node.alive) alive.insert(node.info.id);
  }
  for (const PartitionInfo& partition : table.partitions) {
    for (const PartitionMember& member : partition.members) {
      if (!alive.contains(member.node)) return false;
    }
  }
  return true;
}

}  // namespace

class TableAdmin::Impl : public std::enable_shared_from_this<TableAdmin::Impl> {
 public:
  Impl(ClusterConfig config, RouterOptions options, Rpc* rpc, Executor* executor,
       const Clock* clock)
      : config_(std::move(config)),
        options_(options),
        rpc_(rpc),
        executor_(executor),
        clock_(clock),
        router_(std::make_unique<Router>(std::move(options), rpc, executor, clock)) {}

  void CreateTable(TableSpec spec, Done done);
  void DeleteTable(std::string name, Done done);
  void Close();

 private:
  using CreationId = uint64_t;

  // Looks the table up, asks nodes what they have, places the table, enters it as one being
  // created, makes the replicas, and enters it as one that is there.
  struct Creation {
    CreationId id;
    TableSpec spec;
    Done done;
    Instant deadline;
    std::optional<TableInfo> entry;  // as it was last read or written
    bool entered = false;            // by this creation
    size_t attempt = 0;              // to make the replicas; what comes of earlier ones is ignored
    std::vector<std::pair<size_t, size_t>> to_make;  // partition, member: the last first
    size_t making = 0;
    std::map<NodeId, int> lost;  // calls since it last answered
    size_t telling = 0;          // metadata nodes
    std::string last_failure;
  };

  void TryDelete(std::string name, Done done, int tries);
  void Mark(TableInfo table, Done done, int tries);
  Creation* Find(CreationId id);
  bool Expired(Creation& creation);
  void Again(CreationId id, std::string why, void (Impl::*step)(CreationId));
  void LookUp(CreationId id);
  void OnFound(CreationId id, absl::StatusOr<std::optional<Item>> item);
  void OnFoundCreation(Creation& creation, TableInfo table);
  void AskNodes(CreationId id);
  void OnNodes(CreationId id, const NodeStatuses& statuses);
  std::vector<PlacementNode> NodesFor(const Creation& creation, const NodeStatuses& statuses,
                                      bool around_silent) const;
  void DrawId(CreationId id, TableInfo table);
  void OnIds(CreationId id, TableInfo table, absl::StatusOr<std::optional<Item>> item);
  void EnterCreation(CreationId id, TableInfo table);
  void StartMaking(Creation& creation);
  void MakeReplicas(Creation& creation);
  void MakeReplica(Creation& creation, std::pair<size_t, size_t> what);
  void OnMade(CreationId id, size_t attempt, std::pair<size_t, size_t> what,
              absl::StatusOr<std::string> result);
  void OnLost(Creation& creation, std::pair<size_t, size_t> what, std::string why);
  void MakeAgain(Creation& creation, std::pair<size_t, size_t> what, std::string why);
  void Enter(Creation& creation);
  void OnEntered(CreationId id, const absl::Status& status);
  void TellMetadata(Creation& creation);
  void OnTold(CreationId id);
  void Finish(CreationId id, absl::Status status);

  const ClusterConfig config_;
  const RouterOptions options_;
  Rpc* const rpc_;
  Executor* const executor_;
  const Clock* const clock_;
  std::unique_ptr<Router> router_;
  std::map<CreationId, Creation> creations_;
  CreationId last_creation_ = 0;
};

void TableAdmin::Impl::CreateTable(TableSpec spec, Done done) {
  if (absl::Status status = Validate(spec, config_); !status.ok()) {
    return executor_->Post([done = std::move(done), status = std::move(status)]() mutable {
      done(std::move(status));
    });
  }
  const CreationId id = ++last_creation_;
  Creation& creation = creations_[id];
  creation.id = id;
  creation.spec = std::move(spec);
  creation.done = std::move(done);
  creation.deadline = clock_->Now() + options_.timeout;
  LookUp(id);
}

void TableAdmin::Impl::DeleteTable(std::string name, Done done) {
  TryDelete(std::move(name), std::move(done), kDeletionTries);
}

// Reads the entry and marks it. One that changes in between, by a split, say, is read again.
void TableAdmin::Impl::TryDelete(std::string name, Done done, int tries) {
  auto mark = [weak = weak_from_this(), name, tries,
               done = std::move(done)](absl::StatusOr<std::optional<Item>> item) mutable {
    auto admin = weak.lock();
    if (admin == nullptr || admin->router_ == nullptr)
      return done(absl::CancelledError("the table admin was destroyed"));
    if (!item.ok()) return done(item.status());
    if (!item->has_value())
      return done(absl::NotFoundError(Cat("no table is called '", Escape(name), "'")));
    absl::StatusOr<TableInfo> table = DecodeTableItem(**item);
    if (!table.ok() || (table->deleting && !table->creating)) return done(table.status());
    admin->Mark(*std::move(table), std::move(done), tries);
  };
  router_->Get(std::string(kCatalogueName),
               {.partition = Value::String(std::move(name)), .sort = {}}, Consistency::kStrong,
               std::move(mark));
}

void TableAdmin::Impl::Mark(TableInfo table, Done done, int tries) {
  Condition unchanged = TableIs(table.id, table.version);
  table.deleting = true;
  table.creating = false;
  ++table.version;
  router_->Put(std::string(kCatalogueName), EncodeTableItem(table), std::move(unchanged),
               [weak = weak_from_this(), name = table.name, tries,
                done = std::move(done)](absl::Status status) mutable {
                 auto admin = weak.lock();
                 const bool again = absl::IsAborted(status) && tries > 1 && admin != nullptr &&
                                    admin->router_ != nullptr;
                 if (!again) return done(std::move(status));
                 admin->TryDelete(std::move(name), std::move(done), tries - 1);
               });
}

void TableAdmin::Impl::Close() {
  router_ = nullptr;
  while (!creations_.empty())
    Finish(creations_.begin()->first, absl::CancelledError("the table admin was destroyed"));
}

TableAdmin::Impl::Creation* TableAdmin::Impl::Find(CreationId id) {
  const auto found = creations_.find(id);
  return found == creations_.end() ? nullptr : &found->second;
}

bool TableAdmin::Impl::Expired(Creation& creation) {
  if (clock_->Now() < creation.deadline) return false;
  Finish(creation.id,
         absl::DeadlineExceededError(Cat("table '", creation.spec.name, "' is not finished after ",
                                         ToMicros(options_.timeout) / 1000,
                                         " ms; last: ", creation.last_failure)));
  return true;
}

// A step that failed, again after a while.
void TableAdmin::Impl::Again(CreationId id, std::string why, void (Impl::*step)(CreationId)) {
  creations_.at(id).last_failure = std::move(why);
  executor_->RunAt(clock_->Now() + options_.retry_delay_max, [weak = weak_from_this(), id, step] {
    auto admin = weak.lock();
    if (admin != nullptr && admin->Find(id) != nullptr) (admin.get()->*step)(id);
  });
}

void TableAdmin::Impl::LookUp(CreationId id) {
  Creation& creation = creations_.at(id);
  if (Expired(creation)) return;
  router_->Get(std::string(kCatalogueName),
               {.partition = Value::String(creation.spec.name), .sort = {}}, Consistency::kStrong,
               [weak = weak_from_this(), id](absl::StatusOr<std::optional<Item>> item) {
                 if (auto admin = weak.lock()) admin->OnFound(id, std::move(item));
               });
}

void TableAdmin::Impl::OnFound(CreationId id, absl::StatusOr<std::optional<Item>> item) {
  Creation* creation = Find(id);
  if (creation == nullptr) return;
  if (!item.ok()) return Finish(id, item.status());
  if (!item->has_value()) {
    creation->entry = std::nullopt;
    return AskNodes(id);
  }
  absl::StatusOr<TableInfo> table = DecodeTableItem(**item);
  if (!table.ok()) return Finish(id, table.status());
  if (table->creating) return OnFoundCreation(*creation, *std::move(table));
  if (table->deleting) {
    return Finish(
        id, absl::UnavailableError(Cat("table '", creation->spec.name, "' is being deleted")));
  }
  const std::string difference = Difference(*table, creation->spec);
  if (difference.empty()) return Finish(id, absl::OkStatus());
  Finish(id, absl::AlreadyExistsError(
                 Cat("table '", creation->spec.name, "' exists, but its ", difference)));
}

// Of the same table: it is gone on with, whoever began it. Of another: perhaps it was cut, and then
// it must not stand in the way; the later of two that are not cut wins.
void TableAdmin::Impl::OnFoundCreation(Creation& creation, TableInfo table) {
  const std::string difference = Difference(table, creation.spec);
  if (!difference.empty() && creation.entered) {
    return Finish(creation.id,
                  absl::AlreadyExistsError(Cat("table '", creation.spec.name,
                                               "' is being created anew, but its ", difference)));
  }
  creation.entry = std::move(table);
  AskNodes(creation.id);
}

void TableAdmin::Impl::AskNodes(CreationId id) {
  Creation& creation = creations_.at(id);
  if (Expired(creation)) return;
  std::vector<NodeId> nodes;
  for (const NodeInfo& node : config_.nodes) nodes.push_back(node.id);
  AskNodeStatuses(nodes, rpc_,
                  std::min(options_.attempt_timeout, creation.deadline - clock_->Now()),
                  [weak = weak_from_this(), id](NodeStatuses statuses) {
                    if (auto admin = weak.lock()) admin->OnNodes(id, statuses);
                  });
}

std::vector<PlacementNode> TableAdmin::Impl::NodesFor(const Creation& creation,
                                                      const NodeStatuses& statuses,
                                                      bool around_silent) const {
  std::map<NodeId, NodeView> views;
  for (const auto& [node, status] : statuses) {
    const auto lost = creation.lost.find(node);
    const bool silent = lost != creation.lost.end() && lost->second >= kCallsLost;
    views[node] = {.alive = !(silent && around_silent), .dead = false, .status = status};
  }
  std::vector<PlacementNode> nodes = PlacementNodes(config_, views);
  for (const auto& [id, other] : creations_) {
    if (id != creation.id && other.entry.has_value()) CountTable(*other.entry, nodes);
  }
  return nodes;
}

// Silent nodes are placed around if there are others in their zones; else they are asked again.
void TableAdmin::Impl::OnNodes(CreationId id, const NodeStatuses& statuses) {
  Creation* creation = Find(id);
  if (creation == nullptr) return;
  absl::Status unplaced;
  for (bool around_silent : {true, false}) {
    const std::vector<PlacementNode> nodes = NodesFor(*creation, statuses, around_silent);
    if (creation->entry.has_value() && Difference(*creation->entry, creation->spec).empty() &&
        AllAlive(*creation->entry, nodes)) {
      return StartMaking(*creation);
    }
    absl::StatusOr<TableInfo> table = PlaceTable(nodes, creation->spec, TableId{});
    if (table.ok()) return DrawId(id, *std::move(table));
    unplaced = table.status();
  }
  Again(id, std::string(ToStd(unplaced.message())), &Impl::AskNodes);
}

void TableAdmin::Impl::DrawId(CreationId id, TableInfo table) {
  if (Expired(creations_.at(id))) return;
  router_->Get(std::string(kCatalogueName),
               {.partition = Value::String(std::string(kTableIdsName)), .sort = {}},
               Consistency::kStrong,
               [weak = weak_from_this(), id,
                table = std::move(table)](absl::StatusOr<std::optional<Item>> item) mutable {
                 if (auto admin = weak.lock()) admin->OnIds(id, std::move(table), std::move(item));
               });
}

void TableAdmin::Impl::OnIds(CreationId id, TableInfo table,
                             absl::StatusOr<std::optional<Item>> item) {
  if (Find(id) == nullptr) return;
  if (!item.ok()) return Finish(id, item.status());
  TableIds given;
  if (item->has_value()) {
    absl::StatusOr<TableIds> decoded = DecodeTableIdsItem(**item);
    if (!decoded.ok()) return Finish(id, decoded.status());
    given = *decoded;
  }
  const TableIds next = WithNext(given, ToUint(options_.client));
  router_->Put(std::string(kCatalogueName), EncodeTableIdsItem(next), FollowsVersion(next.version),
               [weak = weak_from_this(), id, drawn = next.last,
                table = std::move(table)](const absl::Status& status) mutable {
                 auto admin = weak.lock();
                 if (admin == nullptr || admin->Find(id) == nullptr) return;
                 // Somebody else drew one.
                 if (absl::IsAborted(status)) return admin->DrawId(id, std::move(table));
                 if (!status.ok()) return admin->Finish(id, status);
                 SetIds(drawn, table);
                 admin->EnterCreation(id, std::move(table));
               });
}

// From here on the table's replicas are wanted.
void TableAdmin::Impl::EnterCreation(CreationId id, TableInfo table) {
  const std::optional<TableInfo>& before = creations_.at(id).entry;
  table.creating = true;
  table.deleting = true;
  table.version = before.has_value() ? before->version + 1 : 1;
  Condition unchanged =
      before.has_value() ? TableIs(before->id, before->version) : FollowsVersion(1);
  Item item = EncodeTableItem(table);
  router_->Put(
      std::string(kCatalogueName), std::move(item), std::move(unchanged),
      [weak = weak_from_this(), id, table = std::move(table)](const absl::Status& status) mutable {
        auto admin = weak.lock();
        Creation* creation = admin == nullptr ? nullptr : admin->Find(id);
        if (creation == nullptr) return;
        if (absl::IsAborted(status)) return admin->LookUp(id);
        if (!status.ok()) return admin->Finish(id, status);
        creation->entry = std::move(table);
        creation->entered = true;
        admin->StartMaking(*creation);
      });
}

void TableAdmin::Impl::StartMaking(Creation& creation) {
  creation.attempt++;
  creation.making = 0;
  creation.to_make.clear();
  const std::vector<PartitionInfo>& partitions = creation.entry->partitions;
  for (size_t i = partitions.size(); i > 0; --i) {
    for (size_t j = partitions[i - 1].members.size(); j > 0; --j) {
      creation.to_make.emplace_back(i - 1, j - 1);
      // A node that is needed all the same is given time again; others stay placed around.
      creation.lost.erase(partitions[i - 1].members[j - 1].node);
    }
  }
  MakeReplicas(creation);
}

void TableAdmin::Impl::MakeReplicas(Creation& creation) {
  while (creation.making < kParallel && !creation.to_make.empty()) {
    const auto what = creation.to_make.back();
    creation.to_make.pop_back();
    creation.making++;
    MakeReplica(creation, what);
  }
  if (creation.making == 0) Enter(creation);
}

void TableAdmin::Impl::MakeReplica(Creation& creation, std::pair<size_t, size_t> what) {
  const PartitionInfo& partition = creation.entry->partitions[what.first];
  rpc_->Call(partition.members[what.second].node, kCreateReplica,
             EncodeCreateReplica(*creation.entry, partition),
             std::min(options_.attempt_timeout, creation.deadline - clock_->Now()),
             [weak = weak_from_this(), id = creation.id, attempt = creation.attempt,
              what](absl::StatusOr<std::string> result) {
               if (auto admin = weak.lock()) admin->OnMade(id, attempt, what, std::move(result));
             });
}

void TableAdmin::Impl::OnMade(CreationId id, size_t attempt, std::pair<size_t, size_t> what,
                              absl::StatusOr<std::string> result) {
  Creation* creation = Find(id);
  if (creation == nullptr || creation->attempt != attempt) return;
  const PartitionInfo& partition = creation->entry->partitions[what.first];
  const NodeId node = partition.members[what.second].node;
  const std::string where = Cat("partition ", partition.id, " on node ", node, ": ");
  if (!result.ok()) return OnLost(*creation, what, Cat(where, ToStd(result.status().message())));
  creation->lost.erase(node);
  wire::CreateReplicaReply reply;
  if (!reply.ParseFromString(*result)) return MakeAgain(*creation, what, where + "malformed reply");
  const std::string why = Cat(where, reply.outcome().message());
  switch (static_cast<absl::StatusCode>(reply.outcome().code())) {
    case absl::StatusCode::kOk:
      creation->making--;
      return MakeReplicas(*creation);
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kFailedPrecondition:
      return Finish(id, absl::FailedPreconditionError(why));
    default:
      return MakeAgain(*creation, what, why);
  }
}

void TableAdmin::Impl::OnLost(Creation& creation, std::pair<size_t, size_t> what, std::string why) {
  const NodeId node = creation.entry->partitions[what.first].members[what.second].node;
  if (++creation.lost[node] < kCallsLost) return MakeAgain(creation, what, std::move(why));
  creation.attempt++;
  creation.last_failure = std::move(why);
  AskNodes(creation.id);
}

void TableAdmin::Impl::MakeAgain(Creation& creation, std::pair<size_t, size_t> what,
                                 std::string why) {
  creation.last_failure = std::move(why);
  executor_->RunAt(clock_->Now() + options_.retry_delay_max,
                   [weak = weak_from_this(), id = creation.id, attempt = creation.attempt, what] {
                     auto admin = weak.lock();
                     Creation* found = admin == nullptr ? nullptr : admin->Find(id);
                     if (found == nullptr || found->attempt != attempt) return;
                     if (!admin->Expired(*found)) admin->MakeReplica(*found, what);
                   });
}

void TableAdmin::Impl::Enter(Creation& creation) {
  Condition unchanged = TableIs(creation.entry->id, creation.entry->version);
  creation.entry->creating = false;
  creation.entry->deleting = false;
  creation.entry->version++;
  router_->Put(std::string(kCatalogueName), EncodeTableItem(*creation.entry), std::move(unchanged),
               [weak = weak_from_this(), id = creation.id](absl::Status status) {
                 if (auto admin = weak.lock()) admin->OnEntered(id, status);
               });
}

void TableAdmin::Impl::OnEntered(CreationId id, const absl::Status& status) {
  Creation* creation = Find(id);
  if (creation == nullptr) return;
  // Somebody else was faster: with the same table, perhaps.
  if (absl::IsAborted(status)) return LookUp(id);
  if (!status.ok() || config_.metadata_nodes.empty()) return Finish(id, status);
  TellMetadata(*creation);
}

void TableAdmin::Impl::TellMetadata(Creation& creation) {
  const partition_map::TableRecord record{.table = creation.entry->id,
                                          .name = creation.entry->name,
                                          .version = creation.entry->version,
                                          .dropped = false,
                                          .descriptor = EncodeDescriptor(*creation.entry)};
  wire::PushRequest request;
  request.add_tables(partition_map::Encode(record));
  creation.telling = config_.metadata_nodes.size();
  for (NodeId node : config_.metadata_nodes) {
    rpc_->Call(node, kPush, request.SerializeAsString(), options_.look_up_timeout,
               [weak = weak_from_this(), id = creation.id](absl::StatusOr<std::string>) {
                 if (auto admin = weak.lock()) admin->OnTold(id);
               });
  }
}

void TableAdmin::Impl::OnTold(CreationId id) {
  Creation* creation = Find(id);
  if (creation != nullptr && --creation->telling == 0) Finish(id, absl::OkStatus());
}

void TableAdmin::Impl::Finish(CreationId id, absl::Status status) {
  auto creation = creations_.extract(id);
  executor_->Post([done = std::move(creation.mapped().done), status = std::move(status)]() mutable {
    done(std::move(status));
  });
}

TableAdmin::TableAdmin(ClusterConfig config, RouterOptions options, Rpc* rpc, Executor* executor,
                       const Clock* clock)
    : impl_(std::make_shared<Impl>(std::move(config), std::move(options), rpc, executor, clock)) {}

TableAdmin::~TableAdmin() { impl_->Close(); }

void TableAdmin::CreateTable(TableSpec spec, absl::AnyInvocable<void(absl::Status)> done) {
  impl_->CreateTable(std::move(spec), std::move(done));
}

void TableAdmin::DeleteTable(std::string name, absl::AnyInvocable<void(absl::Status)> done) {
  impl_->DeleteTable(std::move(name), std::move(done));
}

}  // namespace dynlib::cluster
