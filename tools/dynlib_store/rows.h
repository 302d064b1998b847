// Rows as text: CSV (RFC 4180: key,value) and JSON lines ({"key": "...", "value": "..."}).
//
// Keys and values are bytes. CSV has them as they are, in quotes where need be. JSON has a byte
// that is not printable ASCII as \u00XX; read back, \u0000 to \u00ff are that byte, and other
// characters stand for their UTF-8. So what is dumped is what is loaded.
#ifndef TOOLS_DYNLIB_STORE_ROWS_H_
#define TOOLS_DYNLIB_STORE_ROWS_H_

#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace dynlib::tool {

struct Row {
  std::string key;
  std::string value;
};

// kInvalidArgument for text that is no row.
absl::StatusOr<Row> ParseJsonRow(std::string_view line);
absl::StatusOr<Row> ParseCsvRow(std::string_view record);
std::string ToJson(std::string_view key, std::string_view value);
std::string ToCsv(std::string_view key, std::string_view value);
// A JSON string, with its quotes; and back: kInvalidArgument for text that is none.
std::string JsonString(std::string_view bytes);
absl::StatusOr<std::string> ParseJsonString(std::string_view text);

// Reads a file record by record.
class RowReader {
 public:
  enum class Format { kCsv, kJsonLines };

  RowReader(std::FILE* file, Format format) : file_(file), format_(format) {}

  // Nothing at the end. Errors name the line at which the record begins.
  absl::StatusOr<std::optional<Row>> Next();
  uint64_t bytes() const { return bytes_; }

 private:
  // Up to a line's end that is not in quotes, without it.
  std::optional<std::string> Record();

  std::FILE* const file_;
  const Format format_;
  uint64_t bytes_ = 0;
  uint64_t line_ = 1;
  uint64_t record_line_ = 1;
};

}  // namespace dynlib::tool

#endif  // TOOLS_DYNLIB_STORE_ROWS_H_
