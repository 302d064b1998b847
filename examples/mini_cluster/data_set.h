// The items that the mini-cluster is to hold: a file's records, a few times over.
//
//   DYNLIB_ASSIGN_OR_RETURN(DataSet data, DataSet::Open({.records = {.path = "cities.csv"},
//       .partition_key = "country", .sort_key = "name", .repeat = 10}));
//   data.ForEach([&](uint64_t row, cluster::Item item) { ...; return true; });
//
// Open reads the whole file once and finds what is wrong with it: malformed text, records without
// keys, items that no table takes, a key that occurs twice. Copy k of a record, from 1, has "#k" at
// the end of its sort key (of its partition key when there is no sort key).
//
// Errors: kInvalidArgument with "file:line:column: " or "file:line: " in front; what reading the
// file gives.
//
// Threads: const methods from any.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_DATA_SET_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_DATA_SET_H_

#include <cstdint>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/checksum.h"
#include "dynlib/cluster/item.h"
#include "dynlib/cluster/table_schema.h"
#include "examples/mini_cluster/record_source.h"

namespace dynlib::mini_cluster {

inline constexpr char kGeneration[] = "_generation";  // a number

struct DataSetOptions {
  RecordOptions records;      // its key_columns are set from the two below
  std::string partition_key;  // an attribute's name
  std::string sort_key;       // empty: none
  uint64_t repeat = 1;        // 1 to 1000
  // Unless 0, every item gets it as attribute kGeneration: so that an overwrite that was lost
  // shows.
  uint64_t generation = 0;
};

class DataSet {
 public:
  static absl::StatusOr<DataSet> Open(DataSetOptions options);

  const cluster::TableSchema& schema() const { return schema_; }
  const std::string& path() const { return options_.records.path; }
  // Items, repetitions included.
  uint64_t rows() const { return records_ * options_.repeat; }
  uint64_t generation() const { return options_.generation; }
  // Of every item, in order, and of the schema; the same for every generation.
  Digest128 digest() const { return digest_; }

  // Visits each item with its number, from 0, until `visit` returns false.
  absl::Status ForEach(absl::FunctionRef<bool(uint64_t row, cluster::Item item)> visit) const;

 private:
  absl::Status Scan();
  absl::Status ChooseSchema(const Record& record);
  absl::Status Repeat(cluster::Item& item, uint64_t copy) const;

  DataSetOptions options_;
  cluster::TableSchema schema_;
  uint64_t records_ = 0;
  Digest128 digest_;
};

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_DATA_SET_H_
