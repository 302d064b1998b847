#include "dynlib/runtime/object_name.h"

#include <algorithm>

#include "dynlib/base/strings.h"

namespace dynlib {
namespace {

constexpr size_t kMaxNameBytes = 1024;

bool IsNameByte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
         c == '_' || c == '-' || c == '=';
}

}  // namespace

absl::Status CheckObjectName(std::string_view name) {
  const auto refuse = [&](std::string_view why) {
    return absl::InvalidArgumentError(Cat("object name \"", Escape(name, 200), "\": ", why));
  };
  if (name.empty()) return refuse("is empty");
  if (name.size() > kMaxNameBytes) return refuse(Cat("is longer than ", kMaxNameBytes, " bytes"));
  for (size_t begin = 0; begin <= name.size();) {
    const size_t end = std::min(name.find('/', begin), name.size());
    const std::string_view part = name.substr(begin, end - begin);
    if (part.empty() || part == "." || part == "..") return refuse("has an empty or dotted part");
    if (!std::all_of(part.begin(), part.end(), IsNameByte)) {
      return refuse("has a byte other than letters, digits and . _ - = /");
    }
    begin = end + 1;
  }
  return absl::OkStatus();
}

}  // namespace dynlib
