// Opens the file that the mini-cluster's items come from.
//
//   DYNLIB_ASSIGN_OR_RETURN(
//       std::unique_ptr<RecordSource> source,
//       OpenRecords({.path = "cities.csv", .key_columns = {"country", "name"}}));
//   while (true) {
//     DYNLIB_ASSIGN_OR_RETURN(std::optional<Record> record, source->Next());
//     if (!record) break;
//     Put(ToItem(*std::move(record)));
//   }
//
// Formats
//   CSV           RFC 4180: quotes, CRLF or LF, a header row or names given by the caller, any
//                 delimiter of one byte. Every column of a row becomes an attribute, a string,
//                 empty ones too. Blank lines are skipped.
//   JSON lines    One object a line (RFC 8259, strictly): numbers exact, lists and maps nested up
//                 to 32 levels. Blank lines are skipped.
//   Unicode data  UnicodeData.txt of the Unicode Character Database: 15 columns, of which `code` is
//                 padded to 6 hexadecimal digits so that its order is that of the code points.
//
// Errors: kInvalidArgument "file:line:column: what is wrong", with the line and the byte within it
// counted from 1; kNotFound, kPermissionDenied or kUnavailable when the file cannot be read. After
// an error the source is at its end. Text that is not UTF-8 is an error.
//
// Threads: one at a time.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_RECORD_SOURCE_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_RECORD_SOURCE_H_

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "examples/mini_cluster/record.h"

namespace dynlib::mini_cluster {

enum class RecordFormat { kByName, kCsv, kJsonLines, kUnicodeData };

struct RecordOptions {
  std::string path;
  // kByName: UnicodeData.txt is Unicode data; .jsonl, .ndjson and .json are JSON lines; .tsv is CSV
  // with tabs; everything else is CSV.
  RecordFormat format = RecordFormat::kByName;
  char delimiter = ',';                   // Of CSV.
  std::vector<std::string> column_names;  // Of CSV without a header row.
  // Attributes that each record must have, not empty: the table's keys. Checked against the header
  // on opening, and in every record.
  std::vector<std::string> key_columns;
  size_t record_bytes_max = 4 << 20;  // 1 to 1 GiB.
};

absl::StatusOr<std::unique_ptr<RecordSource>> OpenRecords(const RecordOptions& options);

// Debian's unicode-data, the columns of UnicodeData.txt, and the keys of a table of it: range
// queries on (category, code) are meaningful.
inline constexpr char kUnicodeDataPath[] = "/usr/share/unicode/UnicodeData.txt";
inline constexpr char kUnicodePartitionKey[] = "category";
inline constexpr char kUnicodeSortKey[] = "code";
const std::vector<std::string>& UnicodeDataColumns();

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_RECORD_SOURCE_H_
