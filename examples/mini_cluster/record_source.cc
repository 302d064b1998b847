#include "examples/mini_cluster/record_source.h"

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/item.h"
#include "examples/mini_cluster/csv_reader.h"
#include "examples/mini_cluster/json_lines_reader.h"
#include "examples/mini_cluster/text_input.h"

namespace dynlib::mini_cluster {
namespace {

constexpr size_t kCodeDigits = 6;
constexpr size_t kRecordBytesMax = size_t{1} << 30;

bool IsEmpty(const cluster::Value& value) {
  return (value.is(cluster::ValueType::kString) && value.string().empty()) ||
         value.is(cluster::ValueType::kNull);
}

// Sees to it that every record has the keys.
class KeyedSource : public RecordSource {
 public:
  KeyedSource(std::unique_ptr<RecordSource> source, std::string path, std::vector<std::string> keys)
      : source_(std::move(source)), path_(std::move(path)), keys_(std::move(keys)) {}

  absl::Status CheckColumns() const {
    if (columns().empty()) return absl::OkStatus();
    for (const std::string& key : keys_) {
      if (std::find(columns().begin(), columns().end(), key) != columns().end()) continue;
      std::string names;
      for (const std::string& name : columns()) names += Cat(names.empty() ? "" : ", ", name);
      return absl::InvalidArgumentError(Cat(path_, ":1:1: there is no key column '", Escape(key),
                                            "'; the columns are ", Escape(names, 512)));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::optional<Record>> Next() override {
    if (failed_) return std::optional<Record>();
    DYNLIB_ASSIGN_OR_RETURN(std::optional<Record> record, source_->Next());
    if (!record) return record;
    for (const std::string& key : keys_) {
      const cluster::Value* value = record->Find(key);
      if (value != nullptr && !IsEmpty(*value)) continue;
      failed_ = true;
      return absl::InvalidArgumentError(Cat(path_, ":", record->line, ":1: the key column '",
                                            Escape(key), "' is ",
                                            value == nullptr ? "missing" : "empty"));
    }
    return record;
  }

  const std::vector<std::string>& columns() const override { return source_->columns(); }

 private:
  std::unique_ptr<RecordSource> source_;
  std::string path_;
  std::vector<std::string> keys_;
  bool failed_ = false;
};

// Pads `code`, so that "41" does not sort after "1F600".
class UnicodeDataSource : public RecordSource {
 public:
  explicit UnicodeDataSource(std::unique_ptr<RecordSource> source) : source_(std::move(source)) {}

  absl::StatusOr<std::optional<Record>> Next() override {
    DYNLIB_ASSIGN_OR_RETURN(std::optional<Record> record, source_->Next());
    if (!record) return record;
    cluster::Value& code = record->fields.front().second;
    const std::string& digits = code.string();
    if (!digits.empty() && digits.size() < kCodeDigits) {
      code = cluster::Value::String(std::string(kCodeDigits - digits.size(), '0') + digits);
    }
    return record;
  }
  const std::vector<std::string>& columns() const override { return source_->columns(); }

 private:
  std::unique_ptr<RecordSource> source_;
};

RecordFormat FormatOf(const RecordOptions& options) {
  if (options.format != RecordFormat::kByName) return options.format;
  std::string_view path = options.path;
  std::string_view name = path.substr(path.find_last_of('/') + 1);
  if (name == "UnicodeData.txt") return RecordFormat::kUnicodeData;
  if (name.ends_with(".jsonl") || name.ends_with(".ndjson") || name.ends_with(".json")) {
    return RecordFormat::kJsonLines;
  }
  return RecordFormat::kCsv;
}

CsvOptions CsvOptionsOf(const RecordOptions& options) {
  CsvOptions csv{.delimiter = options.delimiter, .column_names = options.column_names};
  if (options.format == RecordFormat::kByName && options.path.ends_with(".tsv")) {
    csv.delimiter = '\t';
  }
  return csv;
}

absl::StatusOr<std::unique_ptr<RecordSource>> OpenFormat(const RecordOptions& options) {
  DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<TextInput> input,
                          TextInput::Open(options.path, options.record_bytes_max));
  std::unique_ptr<RecordSource> source;
  switch (FormatOf(options)) {
    case RecordFormat::kJsonLines:
      source = std::make_unique<JsonLinesReader>(std::move(input));
      break;
    case RecordFormat::kUnicodeData: {
      CsvOptions csv{.delimiter = ';', .quotes = false, .column_names = UnicodeDataColumns()};
      DYNLIB_ASSIGN_OR_RETURN(source, CsvReader::Create(std::move(input), std::move(csv)));
      source = std::make_unique<UnicodeDataSource>(std::move(source));
      break;
    }
    case RecordFormat::kCsv:
    case RecordFormat::kByName: {
      DYNLIB_ASSIGN_OR_RETURN(source, CsvReader::Create(std::move(input), CsvOptionsOf(options)));
      break;
    }
  }
  return source;
}

}  // namespace

const std::vector<std::string>& UnicodeDataColumns() {
  static const auto* columns = new std::vector<std::string>{
      "code",          "name",        "category", "combining_class", "bidi_class",
      "decomposition", "decimal",     "digit",    "numeric",         "mirrored",
      "unicode1_name", "iso_comment", "upper",    "lower",           "title"};
  return *columns;
}

absl::StatusOr<std::unique_ptr<RecordSource>> OpenRecords(const RecordOptions& options) {
  if (options.record_bytes_max < 1 || options.record_bytes_max > kRecordBytesMax) {
    return absl::InvalidArgumentError(
        Cat("record_bytes_max ", options.record_bytes_max, ", allowed are 1 to ", kRecordBytesMax));
  }
  DYNLIB_ASSIGN_OR_RETURN(std::unique_ptr<RecordSource> source, OpenFormat(options));
  auto keyed = std::make_unique<KeyedSource>(std::move(source), options.path, options.key_columns);
  DYNLIB_RETURN_IF_ERROR(keyed->CheckColumns());
  return keyed;
}

}  // namespace dynlib::mini_cluster
