// Records from CSV: record_source.h tells the dialect.
//
// Stricter than most readers, so that a damaged file is noticed: a quote within an unquoted field,
// text after a closing quote, a quote that is never closed, and a row with another number of fields
// than there are columns are errors.
//
// Threads: one at a time.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_CSV_READER_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_CSV_READER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "examples/mini_cluster/record.h"
#include "examples/mini_cluster/text_input.h"

namespace dynlib::mini_cluster {

struct CsvOptions {
  char delimiter = ',';  // Not a quote, carriage return or line feed.
  bool quotes = true;    // False: a quote is a character like any other.
  // The columns. Empty: the first row names them.
  std::vector<std::string> column_names;
};

class CsvReader : public RecordSource {
 public:
  // Errors: kInvalidArgument for a bad option, a missing header, and empty or repeated names.
  static absl::StatusOr<std::unique_ptr<CsvReader>> Create(std::unique_ptr<TextInput> input,
                                                           CsvOptions options);

  absl::StatusOr<std::optional<Record>> Next() override;
  const std::vector<std::string>& columns() const override { return options_.column_names; }

 private:
  struct Field {
    std::string text;
    uint64_t line = 0;
    uint64_t column = 0;
    bool quoted = false;
  };
  enum class After { kField, kRow };

  CsvReader(std::unique_ptr<TextInput> input, CsvOptions options)
      : input_(std::move(input)), options_(std::move(options)) {}
  absl::Status ReadHeader();
  absl::Status CheckColumnNames() const;
  absl::StatusOr<std::optional<Record>> ReadRecord();
  absl::StatusOr<std::vector<Field>> ReadRow();
  static bool IsBlank(const std::vector<Field>& row);
  absl::StatusOr<After> ReadField(Field& field);
  absl::Status ReadPlain(Field& field);
  absl::Status ReadQuoted(Field& field);
  bool AtFieldEnd();

  std::unique_ptr<TextInput> input_;
  CsvOptions options_;
  bool failed_ = false;
};

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_CSV_READER_H_
