#include "examples/mini_cluster/json_object.h"

#include <cstdint>
#include <set>

#include "absl/status/statusor.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/decimal.h"
#include "dynlib/cluster/utf8.h"

namespace dynlib::mini_cluster {
namespace {

using cluster::Decimal;
using cluster::Value;

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

void AppendUtf8(std::string& out, uint32_t code) {
  auto put = [&](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code < 0x80) return put(code);
  if (code < 0x800) {
    put(0xc0 | code >> 6);
  } else if (code < 0x10000) {
    put(0xe0 | code >> 12);
    put(0x80 | (code >> 6 & 0x3f));
  } else {
    put(0xf0 | code >> 18);
    put(0x80 | (code >> 12 & 0x3f));
    put(0x80 | (code >> 6 & 0x3f));
  }
  put(0x80 | (code & 0x3f));
}

// Each Parse function returns false after noting the first error, and otherwise leaves at_ after
// what it parsed.
class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  JsonResult Run() {
    size_t valid = cluster::ValidUtf8Prefix(text_);
    if (valid != text_.size()) {
      at_ = valid;
      Fail("not UTF-8");
      return std::move(result_);
    }
    SkipSpace();
    if (!Is('{')) {
      Fail("a record is a JSON object, in braces");
    } else if (ParseMembers(0, &result_.fields)) {
      SkipSpace();
      if (at_ != text_.size()) Fail("more follows the object");
    }
    if (!result_.error.empty()) result_.fields.clear();
    return std::move(result_);
  }

 private:
  using Fields = std::vector<std::pair<std::string, Value>>;

  bool Fail(std::string error) {
    result_.error = std::move(error);
    result_.error_at = at_;
    return false;
  }
  bool Is(char c) const { return at_ < text_.size() && text_[at_] == c; }
  bool IsDigitNext() const { return at_ < text_.size() && IsDigit(text_[at_]); }
  void SkipSpace() {
    while (Is(' ') || Is('\t') || Is('\r') || Is('\n')) ++at_;
  }
  bool Take(char c) {
    if (!Is(c)) return false;
    ++at_;
    return true;
  }
  bool TakeWord(std::string_view word) {
    if (!text_.substr(at_).starts_with(word)) return Fail("not a JSON value");
    at_ += word.size();
    return true;
  }

  // From '{' on. `depth`: how many lists and objects within the record's own hold this one's
  // members.
  bool ParseMembers(int depth, Fields* fields) {
    std::set<std::string> names;
    ++at_;
    SkipSpace();
    if (Take('}')) return true;
    do {
      SkipSpace();
      std::string name;
      size_t name_at = at_;
      if (!Is('"')) return Fail("a name in quotes is wanted here");
      if (!ParseString(&name)) return false;
      if (!names.insert(name).second) {
        at_ = name_at;
        return Fail(Cat("the name '", Escape(name), "' is there twice"));
      }
      SkipSpace();
      if (!Take(':')) return Fail("a colon is wanted here");
      Value value;
      if (!ParseValue(depth, &value)) return false;
      fields->emplace_back(std::move(name), std::move(value));
      SkipSpace();
    } while (Take(','));
    return Take('}') || Fail("a comma or a closing brace is wanted here");
  }

  bool ParseElements(int depth, cluster::List* list) {
    ++at_;
    SkipSpace();
    if (Take(']')) return true;
    do {
      list->emplace_back();
      if (!ParseValue(depth, &list->back())) return false;
      SkipSpace();
    } while (Take(','));
    return Take(']') || Fail("a comma or a closing bracket is wanted here");
  }

  bool ParseValue(int depth, Value* value) {
    SkipSpace();
    if (at_ == text_.size()) return Fail("a value is wanted here");
    switch (text_[at_]) {
      case '{':
      case '[':
        return ParseContainer(depth, value);
      case '"': {
        std::string text;
        if (!ParseString(&text)) return false;
        *value = Value::String(std::move(text));
        return true;
      }
      case 't':
        *value = Value::Boolean(true);
        return TakeWord("true");
      case 'f':
        *value = Value::Boolean(false);
        return TakeWord("false");
      case 'n':
        *value = Value::Null();
        return TakeWord("null");
      default:
        return ParseNumber(value);
    }
  }

  bool ParseContainer(int depth, Value* value) {
    if (depth == cluster::kNestingMax) {
      return Fail(Cat("nested more than ", cluster::kNestingMax, " levels deep"));
    }
    if (Is('[')) {
      cluster::List list;
      if (!ParseElements(depth + 1, &list)) return false;
      *value = Value::OfList(std::move(list));
      return true;
    }
    Fields fields;
    if (!ParseMembers(depth + 1, &fields)) return false;
    cluster::Map map;
    for (auto& [name, member] : fields) map.emplace(std::move(name), std::move(member));
    *value = Value::OfMap(std::move(map));
    return true;
  }

  bool ParseDigits() {
    if (!IsDigitNext()) return Fail("a digit is wanted here");
    while (IsDigitNext()) ++at_;
    return true;
  }

  // JSON's grammar, narrower than Decimal's: no plus sign, no leading zero, digits on both sides of
  // the point.
  bool ParseNumber(Value* value) {
    size_t begin = at_;
    bool negative = Take('-');
    if (!negative && !IsDigitNext()) return Fail("not a JSON value");
    if (Take('0')) {
      if (IsDigitNext()) return Fail("a number does not begin with a zero");
    } else if (!ParseDigits()) {
      return false;
    }
    if (Take('.') && !ParseDigits()) return false;
    if (Take('e') || Take('E')) {
      if (!Take('+')) Take('-');
      if (!ParseDigits()) return false;
    }
    absl::StatusOr<Decimal> number = Decimal::Parse(text_.substr(begin, at_ - begin));
    if (!number.ok()) {
      at_ = begin;
      return Fail(std::string(ToStd(number.status().message())));
    }
    *value = Value::Number(*number);
    return true;
  }

  bool ParseString(std::string* out) {
    size_t begin = at_;
    ++at_;
    while (at_ < text_.size()) {
      char c = text_[at_];
      if (c == '"') {
        ++at_;
        return true;
      }
      if (static_cast<unsigned char>(c) < 0x20) return Fail("a control character in a string");
      if (c == '\\') {
        if (!ParseEscape(out)) return false;
      } else {
        out->push_back(c);
        ++at_;
      }
    }
    at_ = begin;
    return Fail("the string that begins here is not closed");
  }

  bool ParseEscape(std::string* out) {
    constexpr std::string_view kLetters = "\"\\/bfnrt";
    constexpr std::string_view kMeant = "\"\\/\b\f\n\r\t";
    size_t begin = at_;
    ++at_;
    if (Take('u')) return ParseCodePoint(begin, out);
    size_t which = at_ < text_.size() ? kLetters.find(text_[at_]) : std::string_view::npos;
    if (which == std::string_view::npos) {
      at_ = begin;
      return Fail("an escape that JSON does not know");
    }
    out->push_back(kMeant[which]);
    ++at_;
    return true;
  }

  // After "\u". Characters beyond the first 65,536 are escaped as two surrogates.
  bool ParseCodePoint(size_t begin, std::string* out) {
    uint32_t code = 0;
    if (!ParseHex(&code)) return false;
    if (code >= 0xd800 && code <= 0xdfff) {
      uint32_t low = 0;
      bool pair = code < 0xdc00 && Take('\\') && Take('u') && ParseHex(&low) && low >= 0xdc00 &&
                  low <= 0xdfff;
      if (!pair) {
        at_ = begin;
        return Fail("half of a surrogate pair");
      }
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    AppendUtf8(*out, code);
    return true;
  }

  bool ParseHex(uint32_t* code) {
    for (int i = 0; i < 4; ++i, ++at_) {
      char c = at_ < text_.size() ? text_[at_] : '\0';
      uint32_t digit = 0;
      if (IsDigit(c)) {
        digit = static_cast<uint32_t>(c - '0');
      } else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f') {
        digit = static_cast<uint32_t>((c | 0x20) - 'a' + 10);
      } else {
        return Fail("a hexadecimal digit is wanted here");
      }
      *code = *code * 16 + digit;
    }
    return true;
  }

  std::string_view text_;
  size_t at_ = 0;
  JsonResult result_;
};

}  // namespace

JsonResult ParseJsonObject(std::string_view text) { return Parser(text).Run(); }

}  // namespace dynlib::mini_cluster
