// Whether a range of keys is as it was, without reading its rows: a digest of what branches say of
// the leaves there.
//
// A reference to a page has the checksum of its bytes, seeded with its place, and a leaf's bytes
// have the references to its overflow values. So two versions of a tree in which the leaves of a
// range have the same references have the same rows there, and what differs may be the same rows
// too, written anew.
//
// Internal to the store: Snapshot::PagesDigest. Threads: one; blocks on the disk.
#ifndef DYNLIB_STORE_PAGE_DIGEST_H_
#define DYNLIB_STORE_PAGE_DIGEST_H_

#include <optional>
#include <string_view>

#include "absl/status/statusor.h"
#include "dynlib/base/checksum.h"
#include "dynlib/store/node.h"
#include "dynlib/store/node_store.h"

namespace dynlib::store {

// Of the keys [first, end), no bound above when `end` is empty; nothing while a leaf there is not
// on disk. Reads branches alone, and keeps none.
absl::StatusOr<std::optional<Digest128>> DigestOfPages(NodeStore& nodes, Node& root,
                                                       std::string_view first,
                                                       std::string_view end);

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_PAGE_DIGEST_H_
