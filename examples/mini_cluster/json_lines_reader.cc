#include "examples/mini_cluster/json_lines_reader.h"

#include <cstdint>

#include "dynlib/base/status_macros.h"
#include "examples/mini_cluster/json_object.h"

namespace dynlib::mini_cluster {

absl::StatusOr<std::optional<Record>> JsonLinesReader::Next() {
  if (failed_) return std::optional<Record>();
  absl::StatusOr<std::optional<Record>> record = ReadRecord();
  failed_ = !record.ok();
  return record;
}

absl::StatusOr<std::optional<Record>> JsonLinesReader::ReadRecord() {
  while (input_->Peek() != TextInput::kEnd) {
    const uint64_t line = input_->line();
    DYNLIB_ASSIGN_OR_RETURN(std::string text, ReadLine());
    if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
    JsonResult parsed = ParseJsonObject(text);
    if (!parsed.error.empty()) return input_->ErrorAt(line, parsed.error_at + 1, parsed.error);
    return std::optional<Record>(Record{.line = line, .fields = std::move(parsed.fields)});
  }
  DYNLIB_RETURN_IF_ERROR(input_->status());
  return std::optional<Record>();
}

absl::StatusOr<std::string> JsonLinesReader::ReadLine() {
  input_->BeginRecord();
  std::string text;
  while (true) {
    int byte = input_->Get();
    if (byte == TextInput::kEnd || byte == '\n') break;
    text.push_back(static_cast<char>(byte));
  }
  DYNLIB_RETURN_IF_ERROR(input_->status());
  return text;
}

}  // namespace dynlib::mini_cluster
