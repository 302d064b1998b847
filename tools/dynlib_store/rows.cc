#include "tools/dynlib_store/rows.h"

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::tool {
namespace {

absl::Status NoRow(std::string_view why) { return absl::InvalidArgumentError(ToAbsl(why)); }

// One JSON object of strings, read from left to right.
class JsonParser {
 public:
  explicit JsonParser(std::string_view text) : rest_(text) {}

  absl::StatusOr<Row> Run() {
    std::optional<std::string> key;
    std::optional<std::string> value;
    if (!Take('{')) return NoRow("a row is an object: {\"key\": \"...\", \"value\": \"...\"}");
    while (!Take('}')) {
      DYNLIB_ASSIGN_OR_RETURN(const std::string name, String());
      if (!Take(':')) return NoRow("a ':' is missing");
      DYNLIB_ASSIGN_OR_RETURN(std::string text, String());
      if (name != "key" && name != "value") return NoRow(Cat("unknown field ", Escape(name)));
      std::optional<std::string>& field = name == "key" ? key : value;
      if (field.has_value()) return NoRow(Cat("field ", name, " twice"));
      field = std::move(text);
      if (Take(',')) continue;
      if (!Take('}')) return NoRow("a '}' is missing");
      break;
    }
    SkipSpace();
    if (!rest_.empty()) return NoRow("there is more behind the object");
    if (!key.has_value()) return NoRow("field key is missing");
    if (!value.has_value()) return NoRow("field value is missing");
    return Row{*std::move(key), *std::move(value)};
  }

  absl::StatusOr<std::string> RunString() {
    DYNLIB_ASSIGN_OR_RETURN(std::string out, String());
    SkipSpace();
    if (!rest_.empty()) return NoRow("there is more behind the string");
    return out;
  }

 private:
  void SkipSpace() {
    while (!rest_.empty() && (rest_[0] == ' ' || rest_[0] == '\t' || rest_[0] == '\r')) {
      rest_.remove_prefix(1);
    }
  }

  bool Take(char c) {
    SkipSpace();
    if (rest_.empty() || rest_[0] != c) return false;
    rest_.remove_prefix(1);
    return true;
  }

  absl::StatusOr<std::string> String() {
    if (!Take('"')) return NoRow("a string in quotes was expected");
    std::string out;
    while (true) {
      if (rest_.empty()) return NoRow("a string has no end");
      const char c = rest_[0];
      rest_.remove_prefix(1);
      if (c == '"') return out;
      if (c != '\\') {
        out.push_back(c);
        continue;
      }
      DYNLIB_RETURN_IF_ERROR(Escaped(out));
    }
  }

  absl::Status Escaped(std::string& out) {
    if (rest_.empty()) return NoRow("a string has no end");
    const char c = rest_[0];
    rest_.remove_prefix(1);
    constexpr std::string_view kFrom = "\"\\/bfnrt";
    constexpr std::string_view kTo = "\"\\/\b\f\n\r\t";
    const size_t at = kFrom.find(c);
    if (at != std::string_view::npos) {
      out.push_back(kTo[at]);
      return absl::OkStatus();
    }
    if (c != 'u') return NoRow(Cat("\\", std::string_view(&c, 1), " means nothing in JSON"));
    DYNLIB_ASSIGN_OR_RETURN(uint32_t code, HexDigits());
    if (code >= 0xd800 && code < 0xdc00 && rest_.substr(0, 2) == "\\u") {
      rest_.remove_prefix(2);
      DYNLIB_ASSIGN_OR_RETURN(const uint32_t low, HexDigits());
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    AppendCode(code, out);
    return absl::OkStatus();
  }

  absl::StatusOr<uint32_t> HexDigits() {
    if (rest_.size() < 4) return NoRow("\\u has four digits");
    uint32_t code = 0;
    for (const char c : rest_.substr(0, 4)) {
      const std::string_view digits = "0123456789abcdefABCDEF";
      const size_t digit = digits.find(c);
      if (digit == std::string_view::npos) return NoRow("\\u has four digits");
      code = code * 16 + static_cast<uint32_t>(digit < 16 ? digit : digit - 6);
    }
    rest_.remove_prefix(4);
    return code;
  }

  static void AppendCode(uint32_t code, std::string& out) {
    if (code <= 0xff) {
      out.push_back(static_cast<char>(code));
      return;
    }
    if (code < 0x800) {
      out.push_back(static_cast<char>(0xc0 | (code >> 6)));
    } else {
      if (code < 0x10000) {
        out.push_back(static_cast<char>(0xe0 | (code >> 12)));
      } else {
        out.push_back(static_cast<char>(0xf0 | (code >> 18)));
        out.push_back(static_cast<char>(0x80 | ((code >> 12) & 0x3f)));
      }
      out.push_back(static_cast<char>(0x80 | ((code >> 6) & 0x3f)));
    }
    out.push_back(static_cast<char>(0x80 | (code & 0x3f)));
  }

  std::string_view rest_;
};

std::string CsvField(std::string_view bytes) {
  if (bytes.find_first_of(",\"\r\n") == std::string_view::npos) return std::string(bytes);
  std::string out = "\"";
  for (const char c : bytes) {
    if (c == '"') out.push_back('"');
    out.push_back(c);
  }
  out.push_back('"');
  return out;
}

}  // namespace

absl::StatusOr<Row> ParseJsonRow(std::string_view line) { return JsonParser(line).Run(); }

absl::StatusOr<std::string> ParseJsonString(std::string_view text) {
  return JsonParser(text).RunString();
}

absl::StatusOr<Row> ParseCsvRow(std::string_view record) {
  std::string fields[2];
  size_t field = 0;
  size_t i = 0;
  while (true) {
    if (field == 2) return NoRow("a row has two fields: key,value");
    std::string& out = fields[field++];
    if (i < record.size() && record[i] == '"') {
      for (++i;; ++i) {
        if (i == record.size()) return NoRow("a quote has no end");
        if (record[i] != '"') {
          out.push_back(record[i]);
        } else if (i + 1 < record.size() && record[i + 1] == '"') {
          out.push_back(record[i++]);
        } else {
          break;
        }
      }
      ++i;
      if (i < record.size() && record[i] != ',') return NoRow("text behind a closing quote");
    } else {
      while (i < record.size() && record[i] != ',') out.push_back(record[i++]);
    }
    if (i == record.size()) break;
    ++i;
  }
  if (field != 2) return NoRow("a row has two fields: key,value");
  return Row{std::move(fields[0]), std::move(fields[1])};
}

std::string JsonString(std::string_view bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string out = "\"";
  for (const char c : bytes) {
    const auto byte = static_cast<uint8_t>(c);
    if (c == '"' || c == '\\') {
      out.push_back('\\');
      out.push_back(c);
    } else if (byte >= 0x20 && byte < 0x7f) {
      out.push_back(c);
    } else {
      out += "\\u00";
      out.push_back(kDigits[byte >> 4]);
      out.push_back(kDigits[byte & 15]);
    }
  }
  out.push_back('"');
  return out;
}

std::string ToJson(std::string_view key, std::string_view value) {
  return Cat("{\"key\": ", JsonString(key), ", \"value\": ", JsonString(value), "}");
}

std::string ToCsv(std::string_view key, std::string_view value) {
  return Cat(CsvField(key), ",", CsvField(value));
}

std::optional<std::string> RowReader::Record() {
  std::string record;
  bool quoted = false;
  record_line_ = line_;
  int c = 0;
  while ((c = std::fgetc(file_)) != EOF) {
    ++bytes_;
    if (c == '\n') ++line_;
    if (c == '"' && format_ == Format::kCsv) quoted = !quoted;
    if (c == '\n' && !quoted) break;
    record.push_back(static_cast<char>(c));
  }
  if (c == EOF && record.empty()) return std::nullopt;
  if (!record.empty() && record.back() == '\r') record.pop_back();
  return record;
}

absl::StatusOr<std::optional<Row>> RowReader::Next() {
  while (true) {
    const std::optional<std::string> record = Record();
    if (!record.has_value()) return std::nullopt;
    if (record->empty()) continue;
    absl::StatusOr<Row> row =
        format_ == Format::kCsv ? ParseCsvRow(*record) : ParseJsonRow(*record);
    if (row.ok()) return *std::move(row);
    return absl::InvalidArgumentError(
        Cat("line ", record_line_, ": ", ToStd(row.status().message())));
  }
}

}  // namespace dynlib::tool
