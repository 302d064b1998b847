#include "dynlib/store/store_record.h"

#include <cstdint>

#include "absl/status/status.h"
#include "dynlib/base/coding.h"

namespace dynlib::store {
namespace {

constexpr uint8_t kVersion = 1;
constexpr uint8_t kPut = 1;
constexpr uint8_t kDelete = 2;

}  // namespace

std::string EncodeWriteBatch(const WriteBatch& batch) {
  std::string out;
  out.reserve(batch.bytes() + 8 * batch.size() + 8);
  PutFixed8(out, kVersion);
  PutVarint(out, batch.size());
  for (const WriteBatch::Operation& operation : batch.operations()) {
    PutFixed8(out, operation.value.has_value() ? kPut : kDelete);
    PutLengthPrefixed(out, operation.key);
    if (operation.value.has_value()) PutLengthPrefixed(out, *operation.value);
  }
  return out;
}

absl::StatusOr<WriteBatch> DecodeWriteBatch(std::string_view bytes) {
  ByteReader in(bytes);
  WriteBatch batch;
  if (in.Fixed8() != kVersion) return absl::DataLossError("a log record of an unknown version");
  for (uint64_t left = in.Varint(); left > 0 && in.ok(); --left) {
    const uint8_t operation = in.Fixed8();
    std::string key(in.LengthPrefixed());
    if (operation == kPut) {
      batch.Put(std::move(key), std::string(in.LengthPrefixed()));
    } else if (operation == kDelete) {
      batch.Delete(std::move(key));
    } else {
      in.Fail();
    }
  }
  if (!in.done()) return absl::DataLossError("a log record that is no write batch");
  return batch;
}

}  // namespace dynlib::store
