// A strict parser of one JSON object (RFC 8259) into attributes.
//
// Threads: a pure function.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_JSON_OBJECT_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_JSON_OBJECT_H_

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dynlib/cluster/item.h"

namespace dynlib::mini_cluster {

struct JsonResult {
  // In the text's order; names differ.
  std::vector<std::pair<std::string, cluster::Value>> fields;
  std::string error;    // Empty when the text was parsed.
  size_t error_at = 0;  // The byte that is wrong, from 0.
};

// `text` is one object, with nothing but white space around it.
JsonResult ParseJsonObject(std::string_view text);

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_JSON_OBJECT_H_
