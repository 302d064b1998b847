// A record of a file, and what reads them one by one.
//
// Threads: one at a time.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_RECORD_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_RECORD_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "dynlib/cluster/item.h"

namespace dynlib::mini_cluster {

struct Record {
  uint64_t line = 0;  // Where it begins, from 1.
  // In the file's order; names differ.
  std::vector<std::pair<std::string, cluster::Value>> fields;

  const cluster::Value* Find(const std::string& name) const;
};

cluster::Item ToItem(Record record);

class RecordSource {
 public:
  virtual ~RecordSource() = default;

  // The next record; nullopt at the end of the file.
  virtual absl::StatusOr<std::optional<Record>> Next() = 0;
  // The names that every record has, when the format fixes them; otherwise empty.
  virtual const std::vector<std::string>& columns() const = 0;
};

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_RECORD_H_
