#include "examples/mini_cluster/data_set.h"

#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "dynlib/base/coding.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/item_limits.h"
#include "dynlib/cluster/key.h"
#include "examples/mini_cluster/record.h"

namespace dynlib::mini_cluster {
namespace {

constexpr uint64_t kRepeatMax = 1000;

absl::Status At(const DataSetOptions& options, const Record& record, std::string_view what) {
  return absl::InvalidArgumentError(Cat(options.records.path, ":", record.line, ": ", what));
}

absl::StatusOr<cluster::KeyAttribute> KeyAttributeOf(const DataSetOptions& options,
                                                     const Record& record,
                                                     const std::string& name) {
  const cluster::Value* value = record.Find(name);
  if (value == nullptr) return At(options, record, Cat("there is no attribute '", name, "'"));
  switch (value->type()) {
    case cluster::ValueType::kString:
      return cluster::KeyAttribute{name, cluster::KeyType::kString};
    case cluster::ValueType::kNumber:
      return cluster::KeyAttribute{name, cluster::KeyType::kNumber};
    default:
      return At(options, record,
                Cat("the key '", name, "' is a ", cluster::ValueTypeName(value->type()),
                    "; allowed: a string or a number"));
  }
}

}  // namespace

absl::StatusOr<DataSet> DataSet::Open(DataSetOptions options) {
  if (options.repeat < 1 || options.repeat > kRepeatMax) {
    return absl::InvalidArgumentError(
        Cat("repeat is ", options.repeat, "; allowed: 1 to ", kRepeatMax));
  }
  if (options.partition_key.empty())
    return absl::InvalidArgumentError(
        Cat("--partition-key is needed: which column of ", options.records.path, " it is"));
  if (options.partition_key == options.sort_key) {
    return absl::InvalidArgumentError(
        Cat("--partition-key and --sort-key are both '", options.sort_key, "'"));
  }
  options.records.key_columns = {options.partition_key};
  if (!options.sort_key.empty()) options.records.key_columns.push_back(options.sort_key);
  DataSet data;
  data.options_ = std::move(options);
  DYNLIB_RETURN_IF_ERROR(data.Scan());
  return data;
}

absl::Status DataSet::Scan() {
  DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<RecordSource> source, OpenRecords(options_.records));
  std::map<Digest128, uint64_t> lines;  // by key: where it was seen
  std::string digests;
  while (true) {
    DYNLIB_ASSIGN_OR_RETURN(std::optional<Record> record, source->Next());
    if (!record.has_value()) break;
    const uint64_t line = record->line;
    if (records_ == 0) DYNLIB_RETURN_IF_ERROR(ChooseSchema(*record));
    cluster::Item item = ToItem(*std::move(record));
    auto fail = [&](std::string_view what) {
      return absl::InvalidArgumentError(Cat(path(), ":", line, ": ", what));
    };
    cluster::Item last_copy = item;
    absl::Status status = cluster::ValidateItem(schema_, item);
    if (status.ok()) status = Repeat(last_copy, options_.repeat - 1);
    if (!status.ok()) return fail(ToStd(status.message()));
    DYNLIB_ASSIGN_OR_RETURN(std::string key, cluster::EncodeItemKey(schema_, item));
    const auto [seen, is_new] = lines.try_emplace(Digest(key), line);
    if (!is_new) {
      return fail(Cat(
          "the key of this record, ", item.at(options_.partition_key).ToString(64),
          options_.sort_key.empty() ? "" : Cat(" and ", item.at(options_.sort_key).ToString(64)),
          ", is that of line ", seen->second, " too"));
    }
    const Digest128 digest = Digest(cluster::EncodeItem(item));
    PutFixed64(digests, digest.low);
    PutFixed64(digests, digest.high);
    records_++;
  }
  if (records_ == 0) return absl::InvalidArgumentError(Cat(path(), ": no records in it"));
  PutVarint(digests, options_.repeat);
  digests += cluster::EncodeSchema(schema_);
  digest_ = Digest(digests);
  return absl::OkStatus();
}

absl::Status DataSet::ChooseSchema(const Record& record) {
  DYNLIB_ASSIGN_OR_RETURN(schema_.partition_key,
                          KeyAttributeOf(options_, record, options_.partition_key));
  if (!options_.sort_key.empty()) {
    DYNLIB_ASSIGN_OR_RETURN(schema_.sort_key, KeyAttributeOf(options_, record, options_.sort_key));
  }
  const cluster::KeyAttribute& repeated =
      schema_.sort_key.has_value() ? *schema_.sort_key : schema_.partition_key;
  if (options_.repeat > 1 && repeated.type != cluster::KeyType::kString) {
    return absl::InvalidArgumentError(Cat("--repeat needs keys that are strings, and '",
                                          repeated.name, "' is a number in ", path()));
  }
  return absl::OkStatus();
}

absl::Status DataSet::Repeat(cluster::Item& item, uint64_t copy) const {
  if (copy == 0) return absl::OkStatus();
  cluster::Value& key =
      item.at(options_.sort_key.empty() ? options_.partition_key : options_.sort_key);
  // "a#1" and the first copy of "a" would be one key.
  if (key.string().find('#') != std::string::npos)
    return absl::InvalidArgumentError("--repeat needs keys without a '#'");
  key = cluster::Value::String(Cat(key.string(), "#", copy));
  return cluster::ValidateItem(schema_, item);
}

absl::Status DataSet::ForEach(
    absl::FunctionRef<bool(uint64_t row, cluster::Item item)> visit) const {
  uint64_t row = 0;
  for (uint64_t copy = 0; copy < options_.repeat; ++copy) {
    DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<RecordSource> source, OpenRecords(options_.records));
    for (uint64_t i = 0; i < records_; ++i) {
      DYNLIB_ASSIGN_OR_RETURN(std::optional<Record> record, source->Next());
      if (!record.has_value())
        return absl::FailedPreconditionError(Cat(path(), " changed while it was read"));
      cluster::Item item = ToItem(*std::move(record));
      DYNLIB_RETURN_IF_ERROR(Repeat(item, copy));
      if (options_.generation != 0)
        item[kGeneration] = cluster::Value::Number(static_cast<int64_t>(options_.generation));
      if (!visit(row++, std::move(item))) return absl::OkStatus();
    }
  }
  return absl::OkStatus();
}

}  // namespace dynlib::mini_cluster
