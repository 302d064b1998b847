// What two maps say to each other to find what they do not share: plain messages, with their bytes.
// sync_session.h asks, MemDs::AnswerSync answers.
//
// A request carries entries for the peer to join into its map, and asks about subtrees. An ask for
// a branch is answered with the digests below it; an ask for a list, with the entries themselves. A
// reply answers as many of the asks as fit into it, in their order; the others are asked again.
//
// Sizes: neither message is made longer than the bound that its maker was given (the sum of the
// parts, of which every one fits into 64 KiB).
#ifndef DYNLIB_PARTITION_MAP_SYNC_MESSAGE_H_
#define DYNLIB_PARTITION_MAP_SYNC_MESSAGE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "dynlib/base/checksum.h"
#include "dynlib/partition_map/perkle.h"

namespace dynlib::partition_map {

// Key and value as in map_entry.h.
struct SyncEntry {
  std::string key;
  std::string value;
  friend bool operator==(const SyncEntry&, const SyncEntry&) = default;
};

struct SyncAsk {
  PerklePath path;
  bool list = false;  // the entries, instead of the digests below the first branch
  // With `list`: only the entries after this key. Empty: all.
  std::string after;
  friend bool operator==(const SyncAsk&, const SyncAsk&) = default;
};

struct SyncRequest {
  // Of the asker's map. When the answerer's is equal, entries joined, it answers no asks.
  Digest128 digest;
  std::vector<SyncEntry> entries;
  std::vector<SyncAsk> asks;
  friend bool operator==(const SyncRequest&, const SyncRequest&) = default;
};

// Of a digest the half that is sent for each child: differences are missed with a probability of
// 2^-64 each, and then the roots, which are compared in full, say that the maps are not in step.
inline uint64_t ShortDigest(const Digest128& digest) { return digest.low; }

struct SyncChild {
  uint8_t nibble = 0;
  uint64_t digest = 0;  // ShortDigest
  uint64_t entries = 0;
  friend bool operator==(const SyncChild&, const SyncChild&) = default;
};

struct SyncAnswer {
  bool list = false;
  // With `list`: entries in key order; `more` when there are others after them. Without: the entry
  // whose key ends at the branch, if there is one.
  std::vector<SyncEntry> entries;
  bool more = false;
  // Without `list`: the first branch at or below the path of the ask, and its children in order.
  // Neither entries nor children: nothing is below the path.
  PerklePath branch;
  std::vector<SyncChild> children;
  friend bool operator==(const SyncAnswer&, const SyncAnswer&) = default;
};

struct SyncReply {
  Digest128 digest;  // of the answerer's map, with the request's entries in it
  std::vector<SyncAnswer> answers;
  friend bool operator==(const SyncReply&, const SyncReply&) = default;
};

// What a message takes besides its parts, and what a part adds to it, at most.
inline constexpr size_t kSyncHeaderBytesMax = 64;
size_t SyncBytes(const SyncEntry& entry);
size_t SyncBytes(const SyncAsk& ask);
size_t SyncBytes(const SyncAnswer& answer);

// Bytes that begin with the version of their format. Decoding is safe on any bytes, and takes
// memory in proportion to them; kDataLoss for what is malformed.
std::string Encode(const SyncRequest& request);
std::string Encode(const SyncReply& reply);
absl::StatusOr<SyncRequest> DecodeSyncRequest(std::string_view bytes);
absl::StatusOr<SyncReply> DecodeSyncReply(std::string_view bytes);

}  // namespace dynlib::partition_map

#endif  // DYNLIB_PARTITION_MAP_SYNC_MESSAGE_H_
