#include "tools/dynlib_store/arguments.h"

#include <algorithm>
#include <charconv>

#include "dynlib/base/strings.h"

namespace dynlib::tool {
namespace {

const Command::Option* Find(const Command& command, std::string_view name) {
  for (const Command::Option& option : command.options) {
    if (option.name == name) return &option;
  }
  return nullptr;
}

absl::Status Wrong(const Command& command, std::string_view what) {
  return absl::InvalidArgumentError(Cat(what, "\n\n", Usage(command)));
}

}  // namespace

absl::StatusOr<Arguments> Arguments::Parse(const Command& command,
                                           const std::vector<std::string>& words) {
  Arguments arguments;
  bool options_end = false;
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (options_end || word.substr(0, 2) != "--") {
      arguments.positions_.push_back(word);
      continue;
    }
    if (word == "--") {
      options_end = true;
      continue;
    }
    const size_t equals = word.find('=');
    const std::string name = word.substr(2, equals == std::string::npos ? equals : equals - 2);
    if (name == "help") {
      arguments.options_[name];
      return arguments;
    }
    const Command::Option* option = Find(command, name);
    if (option == nullptr) return Wrong(command, Cat("unknown option --", name));
    if (option->value.empty()) {
      if (equals != std::string::npos) return Wrong(command, Cat("--", name, " takes no value"));
      arguments.options_[name];
    } else if (equals != std::string::npos) {
      arguments.options_[name] = word.substr(equals + 1);
    } else if (++i < words.size()) {
      arguments.options_[name] = words[i];
    } else {
      return Wrong(command, Cat("--", name, " needs a value: ", option->value));
    }
  }
  if (arguments.positions_.size() != command.positions.size()) {
    return Wrong(command, Cat(arguments.positions_.size(), " arguments; ", command.name, " takes ",
                              command.positions.size()));
  }
  return arguments;
}

std::string Arguments::Text(std::string_view option, std::string_view otherwise) const {
  auto at = options_.find(option);
  return at == options_.end() ? std::string(otherwise) : at->second;
}

absl::StatusOr<uint64_t> Arguments::Number(std::string_view option, uint64_t otherwise) const {
  auto at = options_.find(option);
  if (at == options_.end()) return otherwise;
  uint64_t number = 0;
  const std::string& text = at->second;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc() && end == text.data() + text.size() && number > 0) return number;
  return absl::InvalidArgumentError(
      Cat("--", option, " = ", Escape(text), " is not a whole number from 1"));
}

std::string Usage(const Command& command) {
  std::string out = Cat("usage: dynlib-store ", command.name);
  for (std::string_view position : command.positions) out += Cat(" ", position);
  if (!command.options.empty()) out += " [OPTION]...";
  out += Cat("\n\n", command.help, "\n");
  if (!command.options.empty()) out += "\n";
  for (const Command::Option& option : command.options) {
    std::string left = Cat("  --", option.name);
    if (!option.value.empty()) left += Cat(" ", option.value);
    left.resize(std::max<size_t>(left.size() + 2, 22), ' ');
    out += Cat(left, option.help, "\n");
  }
  return out;
}

}  // namespace dynlib::tool
