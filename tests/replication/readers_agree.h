// What the codec reads by hand, and what it leaves to the generated classes, must be read alike:
// nobody may be able to tell by which of the two a message was read.
#ifndef TESTS_REPLICATION_READERS_AGREE_H_
#define TESTS_REPLICATION_READERS_AGREE_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "dynlib/replication/message_codec.h"

namespace dynlib::replication {

// Whether these bytes, good or not, mean the same to both.
inline bool ReadersAgree(std::string_view bytes) {
  // A number in a field that no version knows: the reader by hand passes such a message on, and
  // the generated classes pass over the field.
  constexpr std::string_view kUnknownField("\x78\x01", 2);
  const absl::StatusOr<NodeMessage> read = DecodeNodeMessage(std::string(bytes));
  const absl::StatusOr<NodeMessage> by_classes =
      DecodeNodeMessage(std::string(kUnknownField).append(bytes));
  if (!read.ok() || !by_classes.ok()) return read.status().code() == by_classes.status().code();
  return Encode(*read) == Encode(*by_classes);
}

}  // namespace dynlib::replication

#endif  // TESTS_REPLICATION_READERS_AGREE_H_
