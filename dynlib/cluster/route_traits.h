// How routing records lie in the cache's range index: by table and storage key.
#ifndef DYNLIB_CLUSTER_ROUTE_TRAITS_H_
#define DYNLIB_CLUSTER_ROUTE_TRAITS_H_

#include <compare>
#include <cstdint>
#include <optional>
#include <string>

#include "dynlib/base/ids.h"
#include "dynlib/partition_map/partition_record.h"

namespace dynlib::cluster {

struct RouteKey {
  TableId table{};
  std::string key;  // storage key
  friend auto operator<=>(const RouteKey&, const RouteKey&) = default;
};

struct RouteTraits {
  using Key = RouteKey;
  using Value = partition_map::PartitionRecord;

  static Key First(const Value& record) { return {record.table, record.first}; }
  // The last partition of a table ends where the next table begins.
  static std::optional<Key> End(const Value& record) {
    if (!record.end.empty()) return Key{record.table, record.end};
    if (ToUint(record.table) == UINT64_MAX) return std::nullopt;
    return Key{TableId{ToUint(record.table) + 1}, {}};
  }
  static bool Newer(const Value& a, const Value& b) { return partition_map::IsNewer(a, b); }
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_ROUTE_TRAITS_H_
