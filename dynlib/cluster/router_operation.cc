#include "dynlib/cluster/router_operation.h"

#include <algorithm>
#include <chrono>
#include <cstddef>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/item_limits.h"
#include "dynlib/cluster/retry_after.h"
#include "dynlib/cluster/service.h"
#include "dynlib/cluster/table_schema.h"

namespace dynlib::cluster {
namespace {

using Reply = RouterOperation::Reply;

std::optional<Reply> ToReply(const wire::Outcome& outcome) {
  const auto code = static_cast<absl::StatusCode>(outcome.code());
  if (code < absl::StatusCode::kOk || code > absl::StatusCode::kUnauthenticated)
    return std::nullopt;
  Reply reply{.outcome = absl::Status(code, outcome.message()),
              .leader_hint = NodeId{outcome.leader_node()},
              .newest = outcome.newest(),
              .consumed_milliunits = outcome.consumed_milliunits(),
              .full = outcome.full()};
  if (code == absl::StatusCode::kResourceExhausted && outcome.retry_after_us() > 0) {
    constexpr uint64_t kHour = 3'600'000'000;
    reply.outcome = ThrottledError(
        outcome.message(), std::chrono::microseconds(std::min(outcome.retry_after_us(), kHour)));
  }
  return reply;
}

template <typename Message>
bool Parse(std::string_view bytes, Message& message) {
  return message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
}

// The least storage key above this one.
std::string After(std::string key) {
  key.push_back('\0');
  return key;
}

class WriteOperation final : public RouterOperation {
 public:
  using Done = absl::AnyInvocable<void(absl::Status)>;

  WriteOperation(std::string table, std::optional<Item> item, PrimaryKey key, Condition condition,
                 Done done)
      : RouterOperation(std::move(table), kWrite, /*strong=*/true),
        item_(std::move(item)),
        key_(std::move(key)),
        condition_(std::move(condition)),
        done_(std::move(done)) {}

  absl::Status Prepare(const TableInfo& table) override {
    DYNLIB_RETURN_IF_ERROR(ValidateCondition(condition_));
    std::string encoded_condition;
    if (!condition_.empty()) encoded_condition = EncodeCondition(condition_);
    if (encoded_condition.size() > kEncodedConditionBytesMax) {
      return absl::InvalidArgumentError(Cat("the condition has ", encoded_condition.size(),
                                            " bytes, allowed are ", kEncodedConditionBytesMax));
    }
    request_.set_table(ToUint(table.id));
    wire::WriteCommand& command = *request_.mutable_command();
    if (item_.has_value()) {
      DYNLIB_RETURN_IF_ERROR(ValidateItem(table.schema, *item_));
      DYNLIB_ASSIGN_OR_RETURN(storage_key_, EncodeItemKey(table.schema, *item_));
      command.set_put(EncodeItem(*item_));
      written_bytes_ = command.put().size();
      item_ = Item();  // its bytes are enough from here on
    } else {
      DYNLIB_ASSIGN_OR_RETURN(storage_key_, EncodeKey(table.schema, key_));
      command.set_erase(true);
    }
    command.set_key(storage_key_);
    command.set_condition(std::move(encoded_condition));
    return absl::OkStatus();
  }

  std::string EncodeRequest(PartitionId partition, const WriteStamp& stamp) const override {
    request_.set_partition(ToUint(partition));
    request_.set_client(ToUint(stamp.client));
    request_.set_sequence(stamp.sequence);
    request_.set_acknowledged(stamp.acknowledged);
    request_.set_issued_ns(stamp.issued.nanos());
    return request_.SerializeAsString();
  }

  std::optional<Reply> DecodeReply(std::string_view bytes) override {
    wire::WriteReply reply;
    if (!Parse(bytes, reply)) return std::nullopt;
    return ToReply(reply.outcome());
  }

  void Finish(absl::Status status) override { done_(std::move(status)); }

 private:
  std::optional<Item> item_;
  const PrimaryKey key_;
  const Condition condition_;
  mutable wire::WriteRequest request_;  // the command, kept; the rest set for each attempt
  Done done_;
};

class GetOperation final : public RouterOperation {
 public:
  using Done = absl::AnyInvocable<void(absl::StatusOr<std::optional<Item>>)>;

  GetOperation(std::string table, PrimaryKey key, Consistency consistency, Done done)
      : RouterOperation(std::move(table), kRead, consistency == Consistency::kStrong),
        key_(std::move(key)),
        done_(std::move(done)) {}

  absl::Status Prepare(const TableInfo& table) override {
    table_id_ = table.id;
    DYNLIB_ASSIGN_OR_RETURN(storage_key_, EncodeKey(table.schema, key_));
    return absl::OkStatus();
  }

  std::string EncodeRequest(PartitionId partition, const WriteStamp&) const override {
    wire::ReadRequest request;
    request.set_partition(ToUint(partition));
    request.set_table(ToUint(table_id_));
    request.set_key(storage_key_);
    request.set_strong(strong());
    return request.SerializeAsString();
  }

  std::optional<Reply> DecodeReply(std::string_view bytes) override {
    wire::ReadReply reply;
    if (!Parse(bytes, reply)) return std::nullopt;
    std::optional<Reply> result = ToReply(reply.outcome());
    if (!result.has_value() || !result->outcome.ok() || !reply.found()) return result;
    absl::StatusOr<Item> item = DecodeItem(reply.item());
    if (item.ok()) {
      item_ = *std::move(item);
    } else {
      result->outcome = item.status();
    }
    return result;
  }

  void Finish(absl::Status status) override {
    if (!status.ok()) return done_(std::move(status));
    done_(std::move(item_));
  }

 private:
  const PrimaryKey key_;
  TableId table_id_{};
  std::optional<Item> item_;
  Done done_;
};

class QueryOperation final : public RouterOperation {
 public:
  using Done = absl::AnyInvocable<void(absl::StatusOr<QueryPage>)>;

  QueryOperation(Query query, Done done)
      : RouterOperation(query.table, kQuery, query.consistency == Consistency::kStrong),
        query_(std::move(query)),
        done_(std::move(done)) {}

  absl::Status Prepare(const TableInfo& table) override {
    schema_ = table.schema;
    table_id_ = table.id;
    DYNLIB_ASSIGN_OR_RETURN(range_, QueryRange(schema_, query_.partition, query_.sort));
    storage_key_ = range_.first;
    if (!query_.after.has_value()) return absl::OkStatus();
    if (query_.after->partition != query_.partition) {
      return absl::InvalidArgumentError(Cat("query: 'after' has partition key ",
                                            query_.after->partition.ToString(64),
                                            ", the query is for ", query_.partition.ToString(64)));
    }
    DYNLIB_ASSIGN_OR_RETURN(std::string after, EncodeKey(schema_, *query_.after));
    if (query_.reverse) {
      range_.end = std::min(range_.end, after);
    } else {
      range_.first = std::max(range_.first, After(std::move(after)));
    }
    return absl::OkStatus();
  }

  bool IsDone() const override { return range_.empty(); }

  std::string EncodeRequest(PartitionId partition, const WriteStamp&) const override {
    wire::QueryRequest request;
    request.set_partition(ToUint(partition));
    request.set_table(ToUint(table_id_));
    request.set_first(range_.first);
    request.set_end(range_.end);
    request.set_reverse(query_.reverse);
    request.set_limit(static_cast<uint32_t>(std::min<size_t>(query_.limit, UINT32_MAX)));
    request.set_strong(strong());
    return request.SerializeAsString();
  }

  std::optional<Reply> DecodeReply(std::string_view bytes) override {
    wire::QueryReply reply;
    if (!Parse(bytes, reply)) return std::nullopt;
    std::optional<Reply> result = ToReply(reply.outcome());
    if (!result.has_value() || !result->outcome.ok()) return result;
    if (reply.more() && reply.rows().empty()) return std::nullopt;
    result->outcome = TakeRows(reply);
    return result;
  }

  void Finish(absl::Status status) override {
    if (!status.ok()) return done_(std::move(status));
    done_(std::move(page_));
  }

 private:
  absl::Status TakeRows(const wire::QueryReply& reply) {
    page_ = {};
    for (const wire::QueryReply::Row& row : reply.rows()) {
      DYNLIB_ASSIGN_OR_RETURN(Item item, DecodeItem(row.item()));
      page_.items.push_back(std::move(item));
    }
    if (!reply.more()) return absl::OkStatus();
    DYNLIB_ASSIGN_OR_RETURN(page_.next, DecodeKey(schema_, reply.rows().rbegin()->key()));
    return absl::OkStatus();
  }

  const Query query_;
  TableSchema schema_;
  TableId table_id_{};
  KeyRange range_;
  QueryPage page_;
  Done done_;
};

class CatalogueOperation final : public RouterOperation {
 public:
  using Done = absl::AnyInvocable<void(absl::StatusOr<CataloguePage>)>;

  CatalogueOperation(std::string first, Done done)
      : RouterOperation(std::string(kCatalogueName), kQuery, /*strong=*/true),
        done_(std::move(done)) {
    storage_key_ = std::move(first);
  }

  absl::Status Prepare(const TableInfo&) override { return absl::OkStatus(); }

  std::string EncodeRequest(PartitionId partition, const WriteStamp&) const override {
    wire::QueryRequest request;
    request.set_partition(ToUint(partition));
    request.set_table(ToUint(kCatalogueTable));
    request.set_first(storage_key_);
    request.set_strong(true);
    return request.SerializeAsString();
  }

  std::optional<Reply> DecodeReply(std::string_view bytes) override {
    wire::QueryReply reply;
    if (!Parse(bytes, reply)) return std::nullopt;
    std::optional<Reply> result = ToReply(reply.outcome());
    if (!result.has_value() || !result->outcome.ok()) return result;
    if (reply.more() && reply.rows().empty()) return std::nullopt;
    page_ = {};
    for (const wire::QueryReply::Row& row : reply.rows()) {
      absl::StatusOr<Item> item = DecodeItem(row.item());
      if (!item.ok()) return Reply{.outcome = item.status()};
      page_.items.push_back(*std::move(item));
    }
    if (reply.more()) page_.next = After(reply.rows().rbegin()->key());
    return result;
  }

  void Finish(absl::Status status) override {
    if (!status.ok()) return done_(std::move(status));
    done_(std::move(page_));
  }

 private:
  CataloguePage page_;
  Done done_;
};

}  // namespace

admission::RequestUnits RouterOperation::Estimate() const {
  if (method_ == kWrite) return admission::WriteUnits(written_bytes_);
  return admission::ReadUnits(
      0, strong_ ? admission::Consistency::kStrong : admission::Consistency::kEventual);
}

std::unique_ptr<RouterOperation> MakePut(std::string table, Item item, Condition condition,
                                         absl::AnyInvocable<void(absl::Status)> done) {
  return std::make_unique<WriteOperation>(std::move(table), std::move(item), PrimaryKey(),
                                          std::move(condition), std::move(done));
}

std::unique_ptr<RouterOperation> MakeDelete(std::string table, PrimaryKey key, Condition condition,
                                            absl::AnyInvocable<void(absl::Status)> done) {
  return std::make_unique<WriteOperation>(std::move(table), std::nullopt, std::move(key),
                                          std::move(condition), std::move(done));
}

std::unique_ptr<RouterOperation> MakeGet(
    std::string table, PrimaryKey key, Consistency consistency,
    absl::AnyInvocable<void(absl::StatusOr<std::optional<Item>>)> done) {
  return std::make_unique<GetOperation>(std::move(table), std::move(key), consistency,
                                        std::move(done));
}

std::unique_ptr<RouterOperation> MakeQuery(
    Query query, absl::AnyInvocable<void(absl::StatusOr<QueryPage>)> done) {
  return std::make_unique<QueryOperation>(std::move(query), std::move(done));
}

std::unique_ptr<RouterOperation> MakeCatalogueRead(
    std::string first, absl::AnyInvocable<void(absl::StatusOr<CataloguePage>)> done) {
  return std::make_unique<CatalogueOperation>(std::move(first), std::move(done));
}

}  // namespace dynlib::cluster
