// A replica's side of a scrub: answers a request by one bounded scan of its contents.
//
//   RangeDigester digester({.bytes_max = 4 << 20});
//   StatusOr<Answer> answer = digester.Digest(request, [&](first, end, visit) {
//     return ScanSnapshot(*snapshot, first, end, visit); });
//
// Digests are XXH3-128, of keys, values and their order: a range's digest is a chain over its
// items, so that equal digests mean equal contents, short of a collision (2^-128 for contents that
// differ by damage; they are no defence against someone who chooses the contents).
//
// Pure. Threads: any. Errors: kInvalidArgument for a request that is not well formed (it comes from
// the network); what the scan says other than kDataLoss.
#ifndef DYNLIB_SCRUB_RANGE_DIGESTER_H_
#define DYNLIB_SCRUB_RANGE_DIGESTER_H_

#include <cstdint>
#include <optional>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/base/checksum.h"
#include "dynlib/scrub/types.h"

namespace dynlib::scrub {

// Returns false to end the scan.
using Visitor = absl::FunctionRef<bool(std::string_view key, std::string_view value)>;

struct ScanEnd {
  // OK: it came to the end, or the visitor ended it. kDataLoss: what follows the last item visited
  // cannot be read.
  absl::Status status;
  // With kDataLoss: the range that cannot be read, if it is known (all keys that the lost page may
  // hold). Everything up to it was visited, and reading can go on at its end. Without it a scrub
  // narrows the loss down by the keys of the other replicas, and what only this one has behind the
  // loss, before the next of those keys, stays hidden in a range that it reports as unreadable.
  std::optional<KeyRange> unreadable;
};

// Visits the items of [first, end), in order, each once. It should read the disk, not a cache.
using Scanner =
    absl::FunctionRef<ScanEnd(std::string_view first, std::string_view end, Visitor visit)>;

// Of one item.
Digest128 DigestItem(std::string_view key, std::string_view value);

class RangeDigester {
 public:
  // What no request may exceed; what it asks beyond is cut down to this.
  struct Limits {
    uint64_t bytes_max = 4 << 20;
    uint32_t parts_max = 1'024;
    uint64_t items_max = 10'000;
  };

  explicit RangeDigester(Limits limits) : limits_(limits) {}

  absl::StatusOr<Answer> Digest(const Request& request, Scanner scan) const;

 private:
  const Limits limits_;
};

}  // namespace dynlib::scrub

#endif  // DYNLIB_SCRUB_RANGE_DIGESTER_H_
