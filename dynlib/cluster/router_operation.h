// What a router does for one request, apart from getting it there: checks, the request's bytes, the
// reply's meaning, and the answer to the caller.
//
// In order: Prepare once; EncodeRequest and DecodeReply for each attempt; Finish once. Part of
// Router. Pure but for the caller's callback in Finish. Threads: one executor's.
#ifndef DYNLIB_CLUSTER_ROUTER_OPERATION_H_
#define DYNLIB_CLUSTER_ROUTER_OPERATION_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/admission/request_units.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/time.h"
#include "dynlib/cluster/catalogue.h"
#include "dynlib/cluster/condition.h"
#include "dynlib/cluster/item.h"
#include "dynlib/cluster/key.h"
#include "dynlib/cluster/router_types.h"
#include "dynlib/runtime/rpc.h"

namespace dynlib::cluster {

// Who writes, for exactly-once; the same each time but for `acknowledged`.
struct WriteStamp {
  ClientId client{};
  uint64_t sequence = 0;
  uint64_t acknowledged = 0;
  WallTime issued;
};

class RouterOperation {
 public:
  struct Reply {
    absl::Status outcome;
    NodeId leader_hint{};  // 0: none
    std::string newest;    // an encoded partition_map::PartitionRecord; empty: none
    uint64_t consumed_milliunits = 0;
    bool full = false;  // kResourceExhausted, and it passes: worth another attempt when it says
  };

  RouterOperation(std::string table, Rpc::Method method, bool strong)
      : table_(std::move(table)), method_(method), strong_(strong) {}
  virtual ~RouterOperation() = default;

  const std::string& table() const { return table_; }
  Rpc::Method method() const { return method_; }
  // Only the leader can do it.
  bool strong() const { return strong_; }
  // Where it goes, once it is prepared.
  const std::string& storage_key() const { return storage_key_; }

  // Checks the request against its table. Errors are final.
  virtual absl::Status Prepare(const TableInfo& table) = 0;
  // What it costs at least, once it is prepared.
  admission::RequestUnits Estimate() const;
  // Nothing can be found: Finish can be called with OK at once.
  virtual bool IsDone() const { return false; }
  // `stamp` is used by writes alone.
  virtual std::string EncodeRequest(PartitionId partition, const WriteStamp& stamp) const = 0;
  // Keeps what an OK reply brings. Nothing if the bytes are not a reply.
  virtual std::optional<Reply> DecodeReply(std::string_view bytes) = 0;
  // Tells the caller: `status`, or what the last reply brought when that is OK.
  virtual void Finish(absl::Status status) = 0;

 protected:
  std::string storage_key_;
  uint64_t written_bytes_ = 0;  // of the item that is put

 private:
  const std::string table_;
  const Rpc::Method method_;
  const bool strong_;
};

std::unique_ptr<RouterOperation> MakePut(std::string table, Item item, Condition condition,
                                         absl::AnyInvocable<void(absl::Status)> done);
std::unique_ptr<RouterOperation> MakeDelete(std::string table, PrimaryKey key, Condition condition,
                                            absl::AnyInvocable<void(absl::Status)> done);
std::unique_ptr<RouterOperation> MakeGet(
    std::string table, PrimaryKey key, Consistency consistency,
    absl::AnyInvocable<void(absl::StatusOr<std::optional<Item>>)> done);
std::unique_ptr<RouterOperation> MakeQuery(
    Query query, absl::AnyInvocable<void(absl::StatusOr<QueryPage>)> done);

std::unique_ptr<RouterOperation> MakeCatalogueRead(
    std::string first, absl::AnyInvocable<void(absl::StatusOr<CataloguePage>)> done);

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_ROUTER_OPERATION_H_
