#include "examples/mini_cluster/sample_queries.h"

#include <cstdio>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/item.h"
#include "dynlib/cluster/key.h"
#include "dynlib/cluster/router_types.h"
#include "examples/mini_cluster/names.h"

namespace dynlib::mini_cluster {
namespace {

using cluster::Value;

constexpr size_t kShown = 3;

class SampleQueries {
 public:
  SampleQueries(Client& client, const cluster::TableInfo& table) : client_(client), table_(table) {}

  absl::Status Show(const std::string& what, cluster::Query query) {
    query.table = kRecordsTable;
    query.limit = kShown;
    DYNLIB_ASSIGN_OR_RETURN(cluster::QueryPage page, client_.RunQuery(std::move(query)));
    if (page.items.empty()) return absl::DataLossError(Cat("a query found nothing: ", what));
    std::string line = Cat("query       ", what, ":");
    for (const cluster::Item& item : page.items)
      line += Cat(" ", item.at(table_.schema.sort_key->name).ToString(40));
    if (page.next.has_value()) line += " ...";
    std::printf("%s\n", line.c_str());
    return absl::OkStatus();
  }

  absl::Status ShowItem(const cluster::PrimaryKey& key) {
    DYNLIB_ASSIGN_OR_RETURN(std::optional<cluster::Item> item, client_.Get(kRecordsTable, key));
    if (!item.has_value()) return absl::DataLossError(Cat("no item ", key.partition.ToString(64)));
    std::printf("get         %s: %s\n", key.partition.ToString(64).c_str(),
                Value::OfMap(*std::move(item)).ToString(100).c_str());
    return absl::OkStatus();
  }

 private:
  Client& client_;
  const cluster::TableInfo& table_;
};

// About half of it, whole characters; empty if there is no such part.
std::string HalfOf(const std::string& text) {
  size_t length = text.size() / 2;
  while (length > 0 && (static_cast<unsigned char>(text[length]) & 0xc0) == 0x80) length--;
  return text.substr(0, length);
}

}  // namespace

absl::Status PrintSampleQueries(Client& client, const cluster::TableInfo& table,
                                const DataSet& data) {
  std::optional<cluster::PrimaryKey> key;
  DYNLIB_RETURN_IF_ERROR(data.ForEach([&](uint64_t row, cluster::Item item) {
    if (row == data.rows() / 4) key = *cluster::KeyOf(table.schema, item);
    return !key.has_value();
  }));
  if (!key.has_value()) return absl::OkStatus();
  SampleQueries queries(client, table);
  if (!key->sort.has_value()) return queries.ShowItem(*key);
  const std::string partition = key->partition.ToString(40);
  const std::string from = Cat(partition, " from ", key->sort->ToString(40), " on");
  DYNLIB_RETURN_IF_ERROR(
      queries.Show(from, {.table = {},
                          .partition = key->partition,
                          .sort = cluster::SortCondition::GreaterEqual(*key->sort)}));
  if (key->sort->is(cluster::ValueType::kString)) {
    if (const std::string prefix = HalfOf(key->sort->string()); !prefix.empty()) {
      DYNLIB_RETURN_IF_ERROR(
          queries.Show(Cat(partition, " beginning with \"", prefix, "\""),
                       {.table = {},
                        .partition = key->partition,
                        .sort = cluster::SortCondition::BeginsWith(Value::String(prefix))}));
    }
  }
  return queries.Show(Cat(partition, " from the end"),
                      {.table = {}, .partition = key->partition, .sort = {}, .reverse = true});
}

}  // namespace dynlib::mini_cluster
