// Records from JSON lines: one object a line, parsed strictly by RFC 8259.
//
// Beyond the grammar, these are errors: a name twice in one object, a number that no Decimal holds,
// an escaped surrogate without its other half, text that is not UTF-8, lists and objects nested
// deeper than 32 levels.
//
// Threads: one at a time.
#ifndef DYNLIB_EXAMPLES_MINI_CLUSTER_JSON_LINES_READER_H_
#define DYNLIB_EXAMPLES_MINI_CLUSTER_JSON_LINES_READER_H_

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "examples/mini_cluster/record.h"
#include "examples/mini_cluster/text_input.h"

namespace dynlib::mini_cluster {

class JsonLinesReader : public RecordSource {
 public:
  explicit JsonLinesReader(std::unique_ptr<TextInput> input) : input_(std::move(input)) {}

  absl::StatusOr<std::optional<Record>> Next() override;
  const std::vector<std::string>& columns() const override { return columns_; }

 private:
  absl::StatusOr<std::optional<Record>> ReadRecord();
  // Without its line end.
  absl::StatusOr<std::string> ReadLine();

  std::unique_ptr<TextInput> input_;
  std::vector<std::string> columns_;  // None: each record has its own.
  bool failed_ = false;
};

}  // namespace dynlib::mini_cluster

#endif  // DYNLIB_EXAMPLES_MINI_CLUSTER_JSON_LINES_READER_H_
