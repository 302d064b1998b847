// What the node log stores: records of streams.
#ifndef DYNLIB_STORE_NODE_LOG_RECORD_H_
#define DYNLIB_STORE_NODE_LOG_RECORD_H_

#include <cstdint>
#include <string>

#include "dynlib/base/shared_bytes.h"

namespace dynlib::store {

// Whose log: the store's own word. A cluster maps each of its replicas to one. Never 0.
enum class StreamId : uint64_t {};

enum class RecordKind : uint8_t {
  kEntry = 1,  // An entry at a slot.
  kState = 2,  // The stream's latest state. `slot` and `ballot` are the caller's to use: they are
               // in the batch's listing, kept twice, so they mostly survive damage to the payload.
};

struct LogRecord {
  StreamId stream{};
  RecordKind kind = RecordKind::kEntry;
  uint64_t slot = 0;
  uint64_t ballot = 0;
  std::string payload;
  // Follows `payload` in the log, if not null: bytes that the caller shares with the log rather
  // than copies for it. Null in what recovery gives back, whose `payload` is whole.
  SharedBytes rest;
  uint64_t payload_bytes() const { return payload.size() + (rest == nullptr ? 0 : rest->size()); }
  friend bool operator==(const LogRecord&, const LogRecord&) = default;
};

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_NODE_LOG_RECORD_H_
