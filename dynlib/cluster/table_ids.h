// Which ids a catalogue has given to tables: each one once.
//
//   TableIds ids = ...;             // of the item called kTableIdsName; as constructed if none
//   ids = WithNext(ids, client);    // ids.last is a table's, once the write of this took effect
//
// The ids are a run of numbers, and the catalogue keeps the first and the last. A new catalogue
// begins at a random one, so that it does not take for its own the tables of another: those of a
// cluster whose catalogue was lost, say, which are then left alone.
//
// Threads: values.
#ifndef DYNLIB_CLUSTER_TABLE_IDS_H_
#define DYNLIB_CLUSTER_TABLE_IDS_H_

#include <cstdint>
#include <string_view>

#include "absl/status/statusor.h"
#include "dynlib/base/ids.h"
#include "dynlib/cluster/item.h"

namespace dynlib::cluster {

// No table can be called so.
inline constexpr std::string_view kTableIdsName = "ids/tables";

struct TableIds {
  uint64_t version = 0;  // counts writes; 0: never written
  TableId first{};
  TableId last{};

  // Whether `id` was given out here.
  bool Gave(TableId id) const { return version > 0 && first <= id && id <= last; }
  friend bool operator==(const TableIds&, const TableIds&) = default;
};

// With one more given out. `seed` decides where a new catalogue begins. To be written under
// FollowsVersion(its version).
TableIds WithNext(const TableIds& ids, uint64_t seed);

Item EncodeTableIdsItem(const TableIds& ids);
// Safe on anything. Errors: kDataLoss saying what is wrong.
absl::StatusOr<TableIds> DecodeTableIdsItem(const Item& item);

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_TABLE_IDS_H_
