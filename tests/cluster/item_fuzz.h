// What a fuzzer feeds to the readers of items and of what stands beside them (conditions, storage
// keys, schemas), and what must hold of any input: no crash, kDataLoss or the value of which these
// bytes are the encoding, and no bytes but these.
//
// Each returns whether the bytes were taken for good.
#ifndef TESTS_CLUSTER_ITEM_FUZZ_H_
#define TESTS_CLUSTER_ITEM_FUZZ_H_

#include <string_view>

#include "absl/status/status.h"
#include "dynlib/base/check.h"
#include "dynlib/cluster/condition.h"
#include "dynlib/cluster/item.h"
#include "dynlib/cluster/key.h"
#include "dynlib/cluster/table_schema.h"

namespace dynlib::cluster {

inline bool FuzzItem(std::string_view bytes) {
  const auto item = DecodeItem(bytes);
  if (!item.ok()) {
    DYNLIB_CHECK(absl::IsDataLoss(item.status()));
    return false;
  }
  DYNLIB_CHECK(EncodeItem(*item) == bytes);
  for (const auto& [name, value] : *item) DYNLIB_CHECK(!value.ToString(50).empty());
  return true;
}

inline bool FuzzCondition(std::string_view bytes) {
  const auto condition = DecodeCondition(bytes);
  if (!condition.ok()) {
    DYNLIB_CHECK(absl::IsDataLoss(condition.status()));
    return false;
  }
  DYNLIB_CHECK(EncodeCondition(*condition) == bytes);
  // It may be one that nobody would let in: it can be asked none the less.
  Item item;
  for (const Clause& clause : condition->clauses) item[clause.attribute] = clause.operand;
  Holds(*condition, &item);
  Holds(*condition, nullptr);
  return true;
}

inline bool FuzzSchema(std::string_view bytes) {
  const auto schema = DecodeSchema(bytes);
  if (!schema.ok()) {
    DYNLIB_CHECK(absl::IsDataLoss(schema.status()));
    return false;
  }
  DYNLIB_CHECK(EncodeSchema(*schema) == bytes);
  return true;
}

// Of the table whose keys the fuzzers use.
inline TableSchema FuzzKeySchema() {
  return {.partition_key = {"id", KeyType::kString},
          .sort_key = KeyAttribute{"at", KeyType::kNumber}};
}

inline bool FuzzKey(std::string_view bytes) {
  const TableSchema schema = FuzzKeySchema();
  const auto key = DecodeKey(schema, bytes);
  if (!key.ok()) {
    DYNLIB_CHECK(absl::IsDataLoss(key.status()));
    return false;
  }
  const auto again = EncodeKey(schema, *key);
  DYNLIB_CHECK(again.ok() && *again == bytes);
  return true;
}

}  // namespace dynlib::cluster

#endif  // TESTS_CLUSTER_ITEM_FUZZ_H_
