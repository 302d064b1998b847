// The words of a command line: positions and --options.
#ifndef TOOLS_DYNLIB_STORE_ARGUMENTS_H_
#define TOOLS_DYNLIB_STORE_ARGUMENTS_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace dynlib::tool {

struct Command;

class Arguments {
 public:
  // `words` follow the command's name. kInvalidArgument, with what would be right.
  static absl::StatusOr<Arguments> Parse(const Command& command,
                                         const std::vector<std::string>& words);

  bool help() const { return Has("help"); }
  const std::string& position(size_t index) const { return positions_[index]; }
  bool Has(std::string_view option) const { return options_.find(option) != options_.end(); }
  std::string Text(std::string_view option, std::string_view otherwise = "") const;
  absl::StatusOr<uint64_t> Number(std::string_view option, uint64_t otherwise) const;

 private:
  std::vector<std::string> positions_;
  std::map<std::string, std::string, std::less<>> options_;
};

// What a command takes, and what does it.
struct Command {
  struct Option {
    std::string_view name;
    std::string_view value;  // what to call its value; empty: it has none
    std::string_view help;
  };
  std::string_view name;
  std::vector<std::string_view> positions;
  std::string_view help;
  std::vector<Option> options;
  absl::Status (*run)(const Arguments& arguments);
};

std::string Usage(const Command& command);

}  // namespace dynlib::tool

#endif  // TOOLS_DYNLIB_STORE_ARGUMENTS_H_
