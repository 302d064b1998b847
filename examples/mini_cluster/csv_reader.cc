#include "examples/mini_cluster/csv_reader.h"

#include <set>
#include <utility>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/utf8.h"

namespace dynlib::mini_cluster {

absl::StatusOr<std::unique_ptr<CsvReader>> CsvReader::Create(std::unique_ptr<TextInput> input,
                                                             CsvOptions options) {
  const char delimiter = options.delimiter;
  if (delimiter == '"' || delimiter == '\n' || delimiter == '\r' || delimiter == '\0') {
    return absl::InvalidArgumentError(Cat("delimiter '", Escape(std::string(1, delimiter)),
                                          "': a quote, a line end or zero cannot delimit fields"));
  }
  std::unique_ptr<CsvReader> reader(new CsvReader(std::move(input), std::move(options)));
  if (reader->options_.column_names.empty()) DYNLIB_RETURN_IF_ERROR(reader->ReadHeader());
  DYNLIB_RETURN_IF_ERROR(reader->CheckColumnNames());
  return reader;
}

absl::Status CsvReader::ReadHeader() {
  DYNLIB_ASSIGN_OR_RETURN(std::vector<Field> header, ReadRow());
  if (header.empty()) return input_->Error("the file is empty; its first row must name columns");
  for (Field& field : header) options_.column_names.push_back(std::move(field.text));
  return absl::OkStatus();
}

absl::Status CsvReader::CheckColumnNames() const {
  std::set<std::string> seen;
  uint64_t number = 0;
  for (const std::string& name : options_.column_names) {
    ++number;
    if (name.empty()) return input_->ErrorAt(1, 1, Cat("column ", number, " has an empty name"));
    if (!seen.insert(name).second) {
      return input_->ErrorAt(
          1, 1, Cat("column ", number, " '", Escape(name), "' has the name of an earlier one"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<Record>> CsvReader::Next() {
  if (failed_) return std::optional<Record>();
  absl::StatusOr<std::optional<Record>> record = ReadRecord();
  failed_ = !record.ok();
  return record;
}

absl::StatusOr<std::optional<Record>> CsvReader::ReadRecord() {
  DYNLIB_ASSIGN_OR_RETURN(std::vector<Field> row, ReadRow());
  if (row.empty()) return std::optional<Record>();
  const std::vector<std::string>& names = options_.column_names;
  if (row.size() != names.size()) {
    const Field& last = row.size() > names.size() ? row[names.size()] : row.back();
    return input_->ErrorAt(
        last.line, last.column,
        Cat("the row has ", row.size(), " fields, there are ", names.size(), " columns"));
  }
  Record record{.line = row[0].line};
  record.fields.reserve(row.size());
  for (size_t i = 0; i < row.size(); ++i) {
    record.fields.emplace_back(names[i], cluster::Value::String(std::move(row[i].text)));
  }
  return std::optional<Record>(std::move(record));
}

// Empty at the end of the file.
absl::StatusOr<std::vector<CsvReader::Field>> CsvReader::ReadRow() {
  std::vector<Field> row;
  do {
    row.clear();
    input_->BeginRecord();
    if (input_->Peek() == TextInput::kEnd) {
      DYNLIB_RETURN_IF_ERROR(input_->status());
      return row;
    }
    for (After after = After::kField; after == After::kField;) {
      row.emplace_back();
      DYNLIB_ASSIGN_OR_RETURN(after, ReadField(row.back()));
    }
  } while (IsBlank(row));
  return row;
}

bool CsvReader::IsBlank(const std::vector<Field>& row) {
  return row.size() == 1 && row[0].text.empty() && !row[0].quoted;
}

absl::StatusOr<CsvReader::After> CsvReader::ReadField(Field& field) {
  field.line = input_->line();
  field.column = input_->column();
  if (options_.quotes && input_->Peek() == '"') {
    DYNLIB_RETURN_IF_ERROR(ReadQuoted(field));
  } else {
    DYNLIB_RETURN_IF_ERROR(ReadPlain(field));
  }
  DYNLIB_RETURN_IF_ERROR(input_->status());
  size_t valid = cluster::ValidUtf8Prefix(field.text);
  if (valid != field.text.size()) {
    return input_->ErrorAt(field.line, field.column,
                           Cat("the field '", Escape(field.text), "' is not UTF-8"));
  }
  if (input_->Peek() == static_cast<unsigned char>(options_.delimiter)) {
    input_->Get();
    return After::kField;
  }
  if (input_->Peek() == '\n') input_->Get();
  DYNLIB_RETURN_IF_ERROR(input_->status());
  return After::kRow;
}

absl::Status CsvReader::ReadPlain(Field& field) {
  while (!AtFieldEnd()) {
    int byte = input_->Get();
    if (byte == TextInput::kEnd) return input_->status();
    if (byte == '"' && options_.quotes) {
      return input_->Error("a quote within a field that does not begin with one");
    }
    field.text.push_back(static_cast<char>(byte));
  }
  // A carriage return belongs to the line end only right before the line feed.
  if (input_->Peek() == '\n' && field.text.ends_with('\r')) field.text.pop_back();
  return absl::OkStatus();
}

absl::Status CsvReader::ReadQuoted(Field& field) {
  field.quoted = true;
  input_->Get();
  while (true) {
    int byte = input_->Get();
    if (byte == TextInput::kEnd) {
      DYNLIB_RETURN_IF_ERROR(input_->status());
      return input_->ErrorAt(field.line, field.column, "the quote that begins here is not closed");
    }
    if (byte != '"') {
      field.text.push_back(static_cast<char>(byte));
    } else if (input_->Peek() == '"') {
      input_->Get();
      field.text.push_back('"');
    } else {
      break;
    }
  }
  if (input_->Peek() == '\r') {
    input_->Get();
    if (input_->Peek() != '\n') return input_->Error("a carriage return without a line feed");
  }
  if (AtFieldEnd()) return absl::OkStatus();
  return input_->ErrorAt(input_->line(), input_->column(), "text after the closing quote");
}

bool CsvReader::AtFieldEnd() {
  int byte = input_->Peek();
  return byte == TextInput::kEnd || byte == '\n' ||
         byte == static_cast<unsigned char>(options_.delimiter);
}

}  // namespace dynlib::mini_cluster
