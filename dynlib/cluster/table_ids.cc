#include "dynlib/cluster/table_ids.h"

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "dynlib/base/checksum.h"
#include "dynlib/base/coding.h"
#include "dynlib/cluster/catalogue.h"

namespace dynlib::cluster {
namespace {

constexpr char kIdsAttribute[] = "ids";

}  // namespace

TableIds WithNext(const TableIds& ids, uint64_t seed) {
  if (ids.version > 0)
    return {.version = ids.version + 1, .first = ids.first, .last = TableId{ToUint(ids.last) + 1}};
  std::string bytes;
  PutFixed64(bytes, seed);
  // Above the small ids that every cluster is born with, and below half of what is left.
  const TableId first{Checksum(bytes) >> 2 | uint64_t{1} << 63};
  return {.version = 1, .first = first, .last = first};
}

Item EncodeTableIdsItem(const TableIds& ids) {
  std::string bytes;
  PutFixed64(bytes, ids.version);
  PutFixed64(bytes, ToUint(ids.first));
  PutFixed64(bytes, ToUint(ids.last));
  Item item;
  item[std::string(kCatalogueKey)] = Value::String(std::string(kTableIdsName));
  item[kIdsAttribute] = Value::Binary(std::move(bytes));
  item[std::string(kVersionAttribute)] = Value::Number(static_cast<int64_t>(ids.version));
  return item;
}

absl::StatusOr<TableIds> DecodeTableIdsItem(const Item& item) {
  const auto bytes = item.find(kIdsAttribute);
  if (bytes == item.end() || !bytes->second.is(ValueType::kBinary))
    return absl::DataLossError("what the catalogue keeps of table ids has no attribute 'ids'");
  ByteReader in(bytes->second.binary());
  TableIds ids;
  ids.version = in.Fixed64();
  ids.first = TableId{in.Fixed64()};
  ids.last = TableId{in.Fixed64()};
  if (!in.done() || ids.version == 0 || ids.first > ids.last)
    return absl::DataLossError("what the catalogue keeps of table ids does not parse");
  return ids;
}

}  // namespace dynlib::cluster
