// What routers are asked and what they answer.
//
// Threads: values.
#ifndef DYNLIB_CLUSTER_ROUTER_TYPES_H_
#define DYNLIB_CLUSTER_ROUTER_TYPES_H_

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "dynlib/cluster/item.h"
#include "dynlib/cluster/key.h"

namespace dynlib::cluster {

// kStrong: the newest state, from the leader. kEventual: from any replica, perhaps a little old.
enum class Consistency { kStrong, kEventual };

struct Query {
  std::string table;
  Value partition;
  SortCondition sort;
  bool reverse = false;
  size_t limit = 0;                 // items; 0: up to 1 MiB of them
  std::optional<PrimaryKey> after;  // exclusive start: `next` of the last page
  Consistency consistency = Consistency::kStrong;
};

struct QueryPage {
  std::vector<Item> items;
  std::optional<PrimaryKey> next;  // empty when the query is exhausted
};

struct BatchWriteItem {
  std::string table;
  std::optional<Item> put;          // either this
  std::optional<PrimaryKey> erase;  // or this
};

struct BatchGetItem {
  std::string table;
  PrimaryKey key;
};

// One page of the catalogue's items, from storage key `first` on.
struct CataloguePage {
  std::vector<Item> items;
  std::string next;  // where the next page begins; empty: this is the last
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_ROUTER_TYPES_H_
