// Bytes of a text file, with the line and column of each, for the readers of records.
//
//   int c = input->Get();          // The next byte, or TextInput::kEnd.
//   return input->Error("...");    // "file:line:column: ..." about the byte last got.
//
// Bounds the bytes of one record: after BeginRecord, at most record_bytes_max are given; then the
// input fails. A failed read ends the input too; status() tells.
//
// Threads: one at a time.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_TEXT_INPUT_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_TEXT_INPUT_H_

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace dynlib::mini_cluster {

class TextInput {
 public:
  static constexpr int kEnd = -1;

  // A byte order mark at the beginning is skipped.
  static absl::StatusOr<std::unique_ptr<TextInput>> Open(const std::string& path,
                                                         size_t record_bytes_max);
  // Reads `text` as if it were the file `name`.
  static std::unique_ptr<TextInput> OfText(std::string name, std::string text,
                                           size_t record_bytes_max);

  // The next byte as 0 to 255, or kEnd at the end of the file and after a failure.
  int Get();
  // What Get() will return.
  int Peek();
  void BeginRecord() { record_bytes_ = 0; }

  // OK until reading failed or a record was too long.
  const absl::Status& status() const { return status_; }
  // Of the byte that Get() will return, from 1.
  uint64_t line() const { return line_; }
  uint64_t column() const { return column_; }
  // kInvalidArgument about the byte last got, or about a place given.
  absl::Status Error(std::string_view what) const;
  absl::Status ErrorAt(uint64_t line, uint64_t column, std::string_view what) const;

 private:
  struct CloseFile {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };

  TextInput(std::string name, size_t record_bytes_max)
      : name_(std::move(name)), record_bytes_max_(record_bytes_max) {}
  void Fill();
  void SkipByteOrderMark();

  std::string name_;
  size_t record_bytes_max_;
  std::unique_ptr<std::FILE, CloseFile> file_;  // Null for text in memory.
  std::string buffer_;
  size_t at_ = 0;
  size_t record_bytes_ = 0;
  uint64_t line_ = 1;
  uint64_t column_ = 1;
  uint64_t last_line_ = 1;
  uint64_t last_column_ = 1;
  absl::Status status_;
};

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_TEXT_INPUT_H_
