// Good rows in the place of damaged pages, and what waits for them.
//
// Internal to the store. Threads: one; blocks on the disk.
#ifndef DYNLIB_STORE_STORE_REPAIR_H_
#define DYNLIB_STORE_STORE_REPAIR_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/store/page.h"
#include "dynlib/store/store.h"
#include "dynlib/store/store_batch.h"
#include "dynlib/store/tree.h"
#include "dynlib/store/write_batch.h"

namespace dynlib::store {

// Writes that are in the log and not in the trees: a page that they need is damaged, and nobody had
// its good copy. Whoever opens the store reads them in the log again.
struct OwedWrites {
  absl::Status why;  // OK: none
  std::map<TreeId, WriteBatch> batches;
  uint64_t position = 0;  // of the trees, once they are applied

  bool empty() const { return why.ok(); }
};

// The damaged pages without which `batch` cannot be applied, and some that it merely meets.
absl::StatusOr<std::vector<Snapshot::Unreadable>> DamageInTheWay(const Tree& tree,
                                                                 const WriteBatch& batch);

// Puts what `fetch` has for the range in its place. Errors of `fetch`, saying for which range.
absl::Status ReplaceDamaged(const NamedTree& name, Tree& tree, const Snapshot::Unreadable& found,
                            const Store::FetchRows& fetch);
// kDataLoss: `damage`, and why nothing could take its place.
absl::Status NotReplaced(const absl::Status& damage, const absl::Status& why);

// Moves what `batch` does to the keys of [first, end), no upper bound when `end` is empty, to the
// end of `aside`.
void SetAside(const std::string& first, const std::string& end, WriteBatch& batch,
              WriteBatch& aside);

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_STORE_REPAIR_H_
