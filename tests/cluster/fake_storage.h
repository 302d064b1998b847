// Storage nodes that answer at once from one shared state, in a simulated world: what a router sees
// of a cluster, with every misbehaviour at a test's command.
#ifndef DYNLIB_TESTS_CLUSTER_FAKE_STORAGE_H_
#define DYNLIB_TESTS_CLUSTER_FAKE_STORAGE_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/cluster/catalogue.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/condition.h"
#include "dynlib/cluster/item.h"
#include "dynlib/cluster/key.h"
#include "dynlib/cluster/service.h"
#include "dynlib/partition_map/partition_map.h"
#include "dynlib/partition_map/partition_record.h"
#include "dynlib/runtime/rpc.h"
#include "dynlib/sim/world.h"
#include "gtest/gtest.h"

namespace dynlib::cluster {

// What a node is asked, as the test's hook sees it.
struct FakeRequest {
  NodeId node{};
  Rpc::Method method{};
  PartitionId partition{};
  bool strong = false;
};

// How it misbehaves.
struct FakeFault {
  absl::StatusCode code = absl::StatusCode::kOk;  // not OK: it answers this, and does nothing
  uint64_t retry_after_us = 0;
  bool full = false;
  bool lose_request = false;
  bool lose_reply = false;  // it does what was asked
  bool garble_reply = false;
};

class FakeStorage {
 public:
  explicit FakeStorage(sim::World* world)
      : world_(world), map_(*partition_map::PartitionMap::Create({})) {}

  void AddNode(NodeId id) {
    sim::Node* node = world_->AddNode(id);
    sim::SimExecutor* executor = node->NewExecutor("main");
    auto rpc = std::make_unique<Rpc>(Rpc::Options{}, node->transport(), kRpcChannel, executor,
                                     node->clock());
    auto handle = [&](Rpc::Method method, auto serve) {
      rpc->Handle(method, [=, this](NodeId, Instant, std::string bytes, Rpc::Reply reply) {
        (this->*serve)(id, method, bytes, std::move(reply));
      });
    };
    handle(kWrite, &FakeStorage::Serve<wire::WriteRequest, wire::WriteReply>);
    handle(kRead, &FakeStorage::Serve<wire::ReadRequest, wire::ReadReply>);
    handle(kQuery, &FakeStorage::Serve<wire::QueryRequest, wire::QueryReply>);
    rpc->Handle(kCreateReplica, [this, id](NodeId, Instant, std::string bytes, Rpc::Reply reply) {
      CreateReplica(id, bytes, std::move(reply));
    });
    rpc->Handle(kNodeStatus, [this, id](NodeId, Instant, const std::string&, Rpc::Reply reply) {
      requests_[{id, kNodeStatus}]++;
      if (hook_ && hook_({id, kNodeStatus, {}, true}).lose_request) return Lose(std::move(reply));
      reply(statuses_[id].SerializeAsString());
    });
    rpcs_.push_back(std::move(rpc));
  }

  void AddTable(const TableInfo& table) {
    items_[kCataloguePartition][KeyOfTable(table.name)] = EncodeItem(EncodeTableItem(table));
    for (const PartitionInfo& partition : table.partitions) Place(partition);
  }
  // The catalogue's, itself among them.
  std::vector<TableInfo> Tables() {
    std::vector<TableInfo> tables;
    for (const auto& [key, bytes] : items_[kCataloguePartition]) {
      absl::StatusOr<TableInfo> table = DecodeTableItem(*DecodeItem(bytes));
      if (table.ok()) tables.push_back(*std::move(table));
    }
    return tables;
  }
  void Place(const PartitionInfo& partition) {
    std::vector<NodeId> nodes;
    for (const PartitionMember& member : partition.members) nodes.push_back(member.node);
    leader_[partition.id] = nodes.front();
    members_[partition.id] = std::move(nodes);
  }

  // The partition's keys go to its children, with its exactly-once table; its nodes say from now on
  // who has them.
  void Split(PartitionId parent, const PartitionInfo& left, const PartitionInfo& right) {
    for (const PartitionInfo* child : {&left, &right}) {
      Place(*child);
      for (const auto& [key, item] : items_[parent]) {
        if (key >= child->first && (child->end.empty() || key < child->end))
          items_[child->id][key] = item;
      }
      std::map<std::tuple<uint64_t, uint64_t, uint64_t>, absl::StatusCode> copies;
      for (const auto& [who, result] : results_) {
        if (std::get<0>(who) == ToUint(parent))
          copies[{ToUint(child->id), std::get<1>(who), std::get<2>(who)}] = result;
      }
      results_.merge(copies);
    }
    members_.erase(parent);
  }
  // What nodes without a partition tell of who has a key.
  void Know(const partition_map::PartitionRecord& record) {
    EXPECT_TRUE(map_->Upsert(record).ok());
  }

  // What it says of itself; of nothing when nothing is set.
  wire::NodeStatusReply& status(NodeId node) { return statuses_[node]; }
  void SetLeader(PartitionId partition, NodeId node) { leader_[partition] = node; }
  void SetHook(std::function<FakeFault(const FakeRequest&)> hook) { hook_ = std::move(hook); }

  // What was asked of a node, misbehaving or not.
  uint64_t requests(NodeId node, Rpc::Method method) const {
    const auto found = requests_.find({node, method});
    return found == requests_.end() ? 0 : found->second;
  }
  uint64_t requests(Rpc::Method method) const {
    uint64_t sum = 0;
    for (const auto& [key, count] : requests_) sum += key.second == method ? count : 0;
    return sum;
  }
  const std::vector<wire::WriteRequest>& writes() const { return writes_; }
  uint64_t applied() const { return applied_; }
  size_t items(PartitionId partition) { return items_[partition].size(); }
  std::map<std::pair<NodeId, PartitionId>, std::string>& replicas() { return replicas_; }
  // Rows of a query's page.
  size_t page_rows = 1000;

 private:
  static std::string KeyOfTable(const std::string& name) {
    return *EncodeKey(CatalogueSchema(), Value::String(name));
  }

  template <typename Request, typename ReplyMessage>
  void Serve(NodeId node, Rpc::Method method, const std::string& bytes, Rpc::Reply reply) {
    Request request;
    request.ParseFromString(bytes);
    const PartitionId partition{request.partition()};
    requests_[{node, method}]++;
    bool strong = true;
    if constexpr (requires { request.strong(); }) strong = request.strong();
    FakeFault fault;
    if (hook_) fault = hook_({node, method, partition, strong});
    // A reply that is dropped uncalled would be an answer too.
    if (fault.lose_request) return Lose(std::move(reply));
    ReplyMessage message;
    wire::Outcome& outcome = *message.mutable_outcome();
    if (fault.code != absl::StatusCode::kOk) {
      outcome.set_code(static_cast<int>(fault.code));
      outcome.set_message("as the test wants");
      outcome.set_retry_after_us(fault.retry_after_us);
      outcome.set_full(fault.full);
    } else if (!IsMember(partition, node)) {
      outcome.set_code(static_cast<int>(absl::StatusCode::kNotFound));
      if (auto newest = map_->Find(TableId{request.table()}, KeyOf(request)))
        outcome.set_newest(partition_map::Encode(*newest));
    } else if (strong && leader_.at(partition) != node) {
      outcome.set_code(static_cast<int>(absl::StatusCode::kFailedPrecondition));
      outcome.set_leader_node(ToUint(leader_.at(partition)));
    } else {
      Do(request, message);
    }
    if (fault.lose_reply) return Lose(std::move(reply));
    if (fault.garble_reply) return reply(std::string("\xff\xff\xff"));
    reply(message.SerializeAsString());
  }

  bool IsMember(PartitionId partition, NodeId node) const {
    const auto found = members_.find(partition);
    return found != members_.end() &&
           std::find(found->second.begin(), found->second.end(), node) != found->second.end();
  }
  static std::string KeyOf(const wire::WriteRequest& request) { return request.command().key(); }
  static std::string KeyOf(const wire::ReadRequest& request) { return request.key(); }
  static std::string KeyOf(const wire::QueryRequest& request) { return request.first(); }

  void Lose(Rpc::Reply reply) { lost_.push_back(std::move(reply)); }

  void Do(const wire::WriteRequest& request, wire::WriteReply& reply) {
    writes_.push_back(request);
    auto [known, is_new] = results_.try_emplace(
        {request.partition(), request.client(), request.sequence()}, absl::StatusCode::kOk);
    if (is_new) known->second = Apply(request);
    reply.mutable_outcome()->set_code(static_cast<int>(known->second));
  }

  absl::StatusCode Apply(const wire::WriteRequest& request) {
    auto& items = items_[PartitionId{request.partition()}];
    const wire::WriteCommand& command = request.command();
    const auto found = items.find(command.key());
    if (!command.condition().empty()) {
      std::optional<Item> item;
      if (found != items.end()) item = *DecodeItem(found->second);
      if (!Holds(*DecodeCondition(command.condition()), item ? &*item : nullptr))
        return absl::StatusCode::kAborted;
    }
    applied_++;
    if (command.has_put()) {
      items[command.key()] = command.put();
    } else {
      items.erase(command.key());
    }
    return absl::StatusCode::kOk;
  }

  void Do(const wire::ReadRequest& request, wire::ReadReply& reply) {
    const auto& items = items_[PartitionId{request.partition()}];
    const auto found = items.find(request.key());
    reply.set_found(found != items.end());
    if (found != items.end()) reply.set_item(found->second);
  }

  void Do(const wire::QueryRequest& request, wire::QueryReply& reply) {
    const auto& items = items_[PartitionId{request.partition()}];
    std::vector<std::pair<std::string, std::string>> rows;
    for (const auto& [key, item] : items) {
      if (key >= request.first() && (request.end().empty() || key < request.end()))
        rows.emplace_back(key, item);
    }
    if (request.reverse()) rows = {rows.rbegin(), rows.rend()};
    size_t limit = page_rows;
    if (request.limit() > 0) limit = std::min<size_t>(limit, request.limit());
    for (const auto& [key, item] : rows) {
      if (reply.rows_size() == static_cast<int>(limit)) {
        reply.set_more(true);
        break;
      }
      wire::QueryReply::Row& row = *reply.add_rows();
      row.set_key(key);
      row.set_item(item);
    }
  }

  void CreateReplica(NodeId node, const std::string& bytes, Rpc::Reply reply) {
    requests_[{node, kCreateReplica}]++;
    wire::CreateReplicaRequest request;
    request.ParseFromString(bytes);
    const PartitionId partition{request.partition().id()};
    FakeFault fault;
    if (hook_) fault = hook_({node, kCreateReplica, partition, true});
    if (fault.lose_request) return Lose(std::move(reply));
    wire::CreateReplicaReply message;
    message.mutable_outcome()->set_code(static_cast<int>(fault.code));
    if (fault.code == absl::StatusCode::kOk) {
      auto [known, is_new] = replicas_.try_emplace({node, partition}, bytes);
      if (known->second != bytes)
        message.mutable_outcome()->set_code(static_cast<int>(absl::StatusCode::kAlreadyExists));
    }
    if (fault.lose_reply) return Lose(std::move(reply));
    reply(message.SerializeAsString());
  }

  sim::World* const world_;
  const std::unique_ptr<partition_map::PartitionMap> map_;
  std::vector<std::unique_ptr<Rpc>> rpcs_;
  std::vector<Rpc::Reply> lost_;
  std::function<FakeFault(const FakeRequest&)> hook_;
  std::map<PartitionId, std::map<std::string, std::string>> items_;
  std::map<PartitionId, NodeId> leader_;
  std::map<PartitionId, std::vector<NodeId>> members_;
  std::map<std::tuple<uint64_t, uint64_t, uint64_t>, absl::StatusCode> results_;
  std::vector<wire::WriteRequest> writes_;  // that a leader took
  std::map<std::pair<NodeId, Rpc::Method>, uint64_t> requests_;
  std::map<std::pair<NodeId, PartitionId>, std::string> replicas_;
  std::map<NodeId, wire::NodeStatusReply> statuses_;
  uint64_t applied_ = 0;
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_TESTS_CLUSTER_FAKE_STORAGE_H_
