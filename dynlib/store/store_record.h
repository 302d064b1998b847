// How a write batch of a stand-alone store stands in its log (docs/format/wal.md).
//
// Threads: pure functions.
#ifndef DYNLIB_STORE_STORE_RECORD_H_
#define DYNLIB_STORE_STORE_RECORD_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "dynlib/store/write_batch.h"

namespace dynlib::store {

std::string EncodeWriteBatch(const WriteBatch& batch);

// kDataLoss for bytes that are none.
absl::StatusOr<WriteBatch> DecodeWriteBatch(std::string_view bytes);

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_STORE_RECORD_H_
