#include "dynlib/cluster/table_admin.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dynlib/base/checksum.h"
#include "dynlib/base/coding.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/base/time.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/condition.h"
#include "dynlib/cluster/item.h"
#include "dynlib/cluster/key.h"
#include "dynlib/cluster/partition_plan.h"
#include "dynlib/cluster/service.h"
#include "dynlib/partition_map/partition_record.h"

namespace dynlib::cluster {
namespace {

constexpr size_t kNameBytesMin = 3;
constexpr size_t kNameBytesMax = 255;
constexpr size_t kZones = 3;
constexpr int kDeletionTries = 10;  // of a table whose entry changes all the time
constexpr size_t kParallel = 16;    // replicas being made at a time, by one creation

using Done = absl::AnyInvocable<void(absl::Status)>;

bool IsNameByte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '-' || c == '.';
}

absl::Status ValidateSpec(const TableSpec& spec) {
  if (spec.name.size() < kNameBytesMin || spec.name.size() > kNameBytesMax ||
      !std::all_of(spec.name.begin(), spec.name.end(), IsNameByte)) {
    return absl::InvalidArgumentError(Cat("name is '", Escape(spec.name),
                                          "'; allowed: ", kNameBytesMin, " to ", kNameBytesMax,
                                          " characters of a-z A-Z 0-9 _ - ."));
  }
  if (spec.name == kCatalogueName)
    return absl::InvalidArgumentError(
        Cat("name is '", kCatalogueName, "', which every cluster has"));
  if (spec.partitions < 1 || spec.partitions > kTablePartitionsMax) {
    return absl::InvalidArgumentError(
        Cat("partitions is ", spec.partitions, "; allowed: 1 to ", kTablePartitionsMax));
  }
  DYNLIB_RETURN_IF_ERROR(Validate(spec.throughput));
  return ValidateSchema(spec.schema);
}

// The nodes of each zone, zones by name, nodes by id.
using Zones = std::vector<std::vector<NodeId>>;

absl::StatusOr<Zones> ZonesOf(const ClusterConfig& config) {
  std::map<std::string, std::vector<NodeId>> by_name;
  for (const NodeInfo& node : config.nodes) by_name[node.location.zone].push_back(node.id);
  if (by_name.size() < kZones && config.nodes.size() != 1) {
    return absl::InvalidArgumentError(Cat("the cluster has ", config.nodes.size(), " nodes in ",
                                          by_name.size(), " zones; allowed: ", kZones,
                                          " zones or more, or a single node"));
  }
  Zones zones;
  for (auto& [name, nodes] : by_name) {
    std::sort(nodes.begin(), nodes.end());
    zones.push_back(std::move(nodes));
  }
  return zones;
}

// Never 0, nor one of the small ids that every cluster is born with.
uint64_t DrawId(const TableSpec& spec, TableId predecessor, uint64_t number) {
  std::string seed;
  PutLengthPrefixed(seed, spec.name);
  PutLengthPrefixed(seed, EncodeSchema(spec.schema));
  PutVarint(seed, spec.partitions);
  PutFixed64(seed, ToUint(predecessor));
  PutVarint(seed, number);
  return Checksum(seed) | uint64_t{1} << 63;
}

// The least hash of partition `index`: the hash space in equal parts.
uint64_t FirstHash(size_t index, size_t partitions) {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(index) << 64) / partitions);
}

std::vector<PartitionMember> PlacePartition(const Zones& zones, uint64_t number) {
  std::vector<PartitionMember> members;
  const size_t replicas = std::min(kZones, zones.size());
  for (size_t i = 0; i < replicas; ++i) {
    const std::vector<NodeId>& nodes = zones[(number + i) % zones.size()];
    members.push_back({ReplicaId{i + 1}, nodes[number / zones.size() % nodes.size()]});
  }
  return members;
}

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

}  // namespace

absl::StatusOr<TableInfo> PlaceTable(const ClusterConfig& config, const TableSpec& spec,
                                     TableId predecessor) {
  DYNLIB_RETURN_IF_ERROR(ValidateSpec(spec));
  DYNLIB_ASSIGN_OR_RETURN(const Zones zones, ZonesOf(config));
  TableInfo table{.id = TableId{DrawId(spec, predecessor, 0)},
                  .name = spec.name,
                  .schema = spec.schema,
                  .partitions = {},
                  .throughput = spec.throughput};
  // Tables of one partition shall not all be led in the same zone.
  const uint64_t start = Checksum(spec.name) % (uint64_t{1} << 32);
  for (size_t i = 0; i < spec.partitions; ++i) {
    PartitionInfo partition{.id = PartitionId{DrawId(spec, predecessor, i + 1)},
                            .first = {},
                            .end = {},
                            .members = PlacePartition(zones, start + i)};
    if (i > 0) partition.first = HashBoundary(FirstHash(i, spec.partitions));
    if (i + 1 < spec.partitions) partition.end = HashBoundary(FirstHash(i + 1, spec.partitions));
    table.partitions.push_back(std::move(partition));
  }
  return table;
}

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

  // Looks the table up, makes the replicas, enters the table.
  struct Creation {
    CreationId id;
    TableSpec spec;
    TableInfo table;
    Done done;
    Instant deadline;
    std::vector<std::pair<size_t, size_t>> to_make;  // partition, member: the last first
    size_t making = 0;
    size_t telling = 0;  // metadata nodes
    std::string last_failure;
  };

  void TryDelete(std::string name, Done done, int tries);
  void Mark(TableInfo table, Done done, int tries);
  Creation* Find(CreationId id);
  void LookUp(CreationId id);
  void OnFound(CreationId id, absl::StatusOr<std::optional<Item>> item);
  void LookUpPredecessor(CreationId id);
  void OnPredecessor(CreationId id, absl::StatusOr<std::optional<Item>> item);
  void MakeReplicas(Creation& creation);
  void MakeReplica(Creation& creation, std::pair<size_t, size_t> what);
  void OnMade(CreationId id, std::pair<size_t, size_t> what, absl::StatusOr<std::string> result);
  void MakeAgain(CreationId id, std::pair<size_t, size_t> what, std::string why);
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
  absl::StatusOr<TableInfo> table = PlaceTable(config_, spec);
  if (!table.ok()) {
    return executor_->Post(
        [done = std::move(done), status = table.status()]() mutable { done(std::move(status)); });
  }
  const CreationId id = ++last_creation_;
  Creation& creation = creations_[id];
  creation.id = id;
  creation.spec = std::move(spec);
  creation.table = *std::move(table);
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
    if (!table.ok() || table->deleting) return done(table.status());
    admin->Mark(*std::move(table), std::move(done), tries);
  };
  router_->Get(std::string(kCatalogueName),
               {.partition = Value::String(std::move(name)), .sort = {}}, Consistency::kStrong,
               std::move(mark));
}

void TableAdmin::Impl::Mark(TableInfo table, Done done, int tries) {
  Condition unchanged = TableIs(table.id, table.version);
  table.deleting = true;
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

void TableAdmin::Impl::LookUp(CreationId id) {
  const std::string& name = creations_.at(id).spec.name;
  router_->Get(std::string(kCatalogueName), {.partition = Value::String(name), .sort = {}},
               Consistency::kStrong,
               [weak = weak_from_this(), id](absl::StatusOr<std::optional<Item>> item) {
                 if (auto admin = weak.lock()) admin->OnFound(id, std::move(item));
               });
}

void TableAdmin::Impl::OnFound(CreationId id, absl::StatusOr<std::optional<Item>> item) {
  Creation* creation = Find(id);
  if (creation == nullptr) return;
  if (!item.ok()) return Finish(id, item.status());
  if (!item->has_value()) return LookUpPredecessor(id);
  absl::StatusOr<TableInfo> table = DecodeTableItem(**item);
  if (!table.ok()) return Finish(id, table.status());
  if (table->deleting) {
    return Finish(
        id, absl::UnavailableError(Cat("table '", creation->spec.name, "' is being deleted")));
  }
  const std::string difference = Difference(*table, creation->spec);
  if (difference.empty()) return Finish(id, absl::OkStatus());
  Finish(id, absl::AlreadyExistsError(
                 Cat("table '", creation->spec.name, "' exists, but its ", difference)));
}

void TableAdmin::Impl::LookUpPredecessor(CreationId id) {
  router_->Get(std::string(kCatalogueName),
               {.partition = Value::String(PastName(creations_.at(id).spec.name)), .sort = {}},
               Consistency::kStrong,
               [weak = weak_from_this(), id](absl::StatusOr<std::optional<Item>> item) {
                 if (auto admin = weak.lock()) admin->OnPredecessor(id, std::move(item));
               });
}

void TableAdmin::Impl::OnPredecessor(CreationId id, absl::StatusOr<std::optional<Item>> item) {
  Creation* creation = Find(id);
  if (creation == nullptr) return;
  if (!item.ok()) return Finish(id, item.status());
  if (item->has_value()) {
    const absl::StatusOr<TableId> predecessor = DecodePastItem(**item);
    if (!predecessor.ok()) return Finish(id, predecessor.status());
    creation->table = *PlaceTable(config_, creation->spec, *predecessor);
  }
  for (size_t i = creation->table.partitions.size(); i > 0; --i) {
    for (size_t j = creation->table.partitions[i - 1].members.size(); j > 0; --j)
      creation->to_make.emplace_back(i - 1, j - 1);
  }
  MakeReplicas(*creation);
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
  const PartitionInfo& partition = creation.table.partitions[what.first];
  const Duration left = creation.deadline - clock_->Now();
  rpc_->Call(partition.members[what.second].node, kCreateReplica,
             EncodeCreateReplica(creation.table, partition),
             std::min(options_.attempt_timeout, left),
             [weak = weak_from_this(), id = creation.id, what](absl::StatusOr<std::string> result) {
               if (auto admin = weak.lock()) admin->OnMade(id, what, std::move(result));
             });
}

void TableAdmin::Impl::OnMade(CreationId id, std::pair<size_t, size_t> what,
                              absl::StatusOr<std::string> result) {
  Creation* creation = Find(id);
  if (creation == nullptr) return;
  const PartitionInfo& partition = creation->table.partitions[what.first];
  const std::string where =
      Cat("partition ", partition.id, " on node ", partition.members[what.second].node, ": ");
  if (!result.ok()) return MakeAgain(id, what, Cat(where, ToStd(result.status().message())));
  wire::CreateReplicaReply reply;
  if (!reply.ParseFromString(*result)) return MakeAgain(id, what, Cat(where, "malformed reply"));
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
      return MakeAgain(id, what, why);
  }
}

void TableAdmin::Impl::MakeAgain(CreationId id, std::pair<size_t, size_t> what, std::string why) {
  creations_.at(id).last_failure = std::move(why);
  executor_->RunAt(clock_->Now() + options_.retry_delay_max, [weak = weak_from_this(), id, what] {
    auto admin = weak.lock();
    Creation* creation = admin == nullptr ? nullptr : admin->Find(id);
    if (creation == nullptr) return;
    if (admin->clock_->Now() < creation->deadline) return admin->MakeReplica(*creation, what);
    admin->Finish(
        id, absl::DeadlineExceededError(Cat(
                "table '", creation->spec.name, "' is not finished after ",
                ToMicros(admin->options_.timeout) / 1000, " ms; last: ", creation->last_failure)));
  });
}

void TableAdmin::Impl::Enter(Creation& creation) {
  Condition is_new{
      {{.attribute = std::string(kCatalogueKey), .op = Clause::Op::kNotExists, .operand = {}}}};
  router_->Put(std::string(kCatalogueName), EncodeTableItem(creation.table), std::move(is_new),
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
  const partition_map::TableRecord record{.table = creation.table.id,
                                          .name = creation.table.name,
                                          .version = creation.table.version,
                                          .dropped = false,
                                          .descriptor = EncodeDescriptor(creation.table)};
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
