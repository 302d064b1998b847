// The catalogue of a Store's trees: itself a tree, with the id 0, of which a row says name -> id (8
// bytes), and the row with the empty name which id comes next. Ids are never used twice.
//
// Internal to the store. Pure functions.
#ifndef DYNLIB_STORE_STORE_CATALOGUE_H_
#define DYNLIB_STORE_STORE_CATALOGUE_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dynlib/store/page.h"
#include "dynlib/store/tree.h"
#include "dynlib/store/write_batch.h"

namespace dynlib::store {

// Its position is that of the store: all writes up to it, and no others, are in all trees.
inline constexpr TreeId kCatalogueTree{0};
inline constexpr uint64_t kFirstNamedTree = 16;
inline constexpr size_t kMaxTreeNameBytes = 255;

struct Catalogue {
  std::map<std::string, TreeId> trees;
  uint64_t next_id = kFirstNamedTree;
};

// kDataLoss for rows that are none, and for trees of which two have one id, or one has an id that
// is still to come.
absl::StatusOr<Catalogue> ReadCatalogue(const Snapshot& tree);
// What ReadCatalogue is made of: a row, and, after the last of them, a look at the whole.
absl::Status AddCatalogueRow(std::string_view name, std::string_view value, Catalogue& catalogue);
absl::Status CheckCatalogue(const Catalogue& catalogue);
// Of a damaged catalogue what can be read.
absl::StatusOr<Catalogue> ReadWholeCatalogueRows(const Snapshot& tree);

void AddTreeRow(std::string_view name, TreeId id, WriteBatch& catalogue);
void DeleteTreeRow(std::string_view name, WriteBatch& catalogue);

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_STORE_CATALOGUE_H_
