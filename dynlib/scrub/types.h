// What a scrub asks of replicas, what they answer, and what it finds; plain data.
//
// Keys are byte strings in the order of their bytes. A range is [first, end); an empty `end` is no
// end.
#ifndef DYNLIB_SCRUB_TYPES_H_
#define DYNLIB_SCRUB_TYPES_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "dynlib/base/checksum.h"
#include "dynlib/base/ids.h"

namespace dynlib::scrub {

enum class RequestKind : uint8_t {
  kSplit = 1,  // digests of sub-ranges that the replica chooses, from `first` on
  kExact = 2,  // digests of just these sub-ranges
  kItems = 3,  // a digest of each item
};

struct Request {
  uint64_t id = 0;  // the session's; the answer is given to it under this
  ReplicaId replica{};
  Slot marker = 0;  // the replica reads its contents as of this slot
  RequestKind kind = RequestKind::kSplit;
  std::string first;
  std::string end;
  // kExact: where each sub-range ends but the last, which ends at `end`. Increasing, inside the
  // range.
  std::vector<std::string> boundaries;
  // kSplit: a sub-range is complete when it has so many items or bytes. At least 1 each.
  uint64_t part_items = 0;
  uint64_t part_bytes = 0;
  uint32_t parts_max = 0;  // kSplit, at least 1
  uint64_t bytes_max = 0;  // reads no further than the item that reaches it; at least 1
  uint64_t items_max = 0;  // kItems: nor lists more; at least 1
};

struct Part {
  std::string end;  // it begins where the part before it ends
  bool unreadable = false;
  Digest128 digest;
  uint64_t items = 0;
  uint64_t bytes = 0;  // keys and values
};

struct ItemDigest {
  std::string key;
  Digest128 digest;
  uint64_t bytes = 0;
};

struct KeyRange {
  std::string first;
  std::string end;
};

struct UnreadableRange {
  std::string first;
  std::string end;
  // True if just this cannot be read; false if all that is known is that reading stopped somewhere
  // behind `first`.
  bool exact = false;
};

// A replica that does not come to the end of what was asked, because of a limit, answers for the
// part that it read: at least one item.
struct Answer {
  std::vector<Part> parts;  // kSplit and kExact, in order, without gaps; at least one
  // kItems: all items and unreadable ranges of [first, end of the answer), in order.
  std::vector<ItemDigest> items;
  std::vector<UnreadableRange> unreadable;
  std::string end;  // the answer covers [request.first, end)
  uint64_t bytes_read = 0;
};

enum class CopyState : uint8_t { kPresent = 1, kAbsent = 2, kUnreadable = 3 };

struct Copy {
  ReplicaId replica{};
  CopyState state = CopyState::kAbsent;
  Digest128 digest;  // of a present one
};

enum class Verdict : uint8_t {
  kDecided = 1,    // `good` agree with each other, or are the reference; `bad` do not
  kSoleCopy = 2,   // one copy can be read, and no other speaks for it or against it
  kUndecided = 3,  // those that can be read differ and none has a majority, or none can be read
};

// A difference.
struct Finding {
  std::string key;
  // Of a whole range that one or more replicas cannot read and in which the others have nothing:
  // [key, end). Else `end` has no meaning.
  bool is_range = false;
  std::string end;
  std::vector<Copy> copies;  // one for each replica compared
  Verdict verdict = Verdict::kUndecided;
  std::vector<ReplicaId> good;
  std::vector<ReplicaId> bad;  // unreadable copies always
};

// As ends of ranges: an empty one is behind all others.
bool EndBefore(std::string_view a, std::string_view b);
std::string_view EarlierEnd(std::string_view a, std::string_view b);
// Whether a key is before an end.
bool IsBefore(std::string_view key, std::string_view end);
// The first key after `key`.
std::string After(std::string_view key);

}  // namespace dynlib::scrub

#endif  // DYNLIB_SCRUB_TYPES_H_
