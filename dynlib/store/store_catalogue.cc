#include "dynlib/store/store_catalogue.h"

#include <set>

#include "absl/status/status.h"
#include "dynlib/base/coding.h"
#include "dynlib/base/ids.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::store {
namespace {

std::string EncodeId(uint64_t id) {
  std::string bytes;
  PutFixed64(bytes, id);
  return bytes;
}

}  // namespace

absl::Status AddCatalogueRow(std::string_view name, std::string_view value, Catalogue& catalogue) {
  ByteReader in(value);
  const uint64_t id = in.Fixed64();
  if (!in.done() || id < kFirstNamedTree || name.size() > kMaxTreeNameBytes) {
    return absl::DataLossError(Cat("the catalogue's row ", Escape(name), " is no tree"));
  }
  if (name.empty()) {
    catalogue.next_id = id;
  } else {
    catalogue.trees.emplace(name, TreeId{id});
  }
  return absl::OkStatus();
}

absl::Status CheckCatalogue(const Catalogue& catalogue) {
  std::set<TreeId> ids;
  for (const auto& [name, id] : catalogue.trees) {
    if (ToUint(id) >= catalogue.next_id || !ids.insert(id).second) {
      return absl::DataLossError(Cat("the catalogue gives the tree ", Escape(name), " the id ", id,
                                     ", which is another's; the next is ", catalogue.next_id));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Catalogue> ReadCatalogue(const Snapshot& tree) {
  Catalogue catalogue;
  absl::Status wrong;
  DYNLIB_RETURN_IF_ERROR(
      tree.Scan("", "", ScanOrder::kForward, [&](std::string_view name, std::string_view value) {
        wrong = AddCatalogueRow(name, value, catalogue);
        return wrong.ok();
      }));
  DYNLIB_RETURN_IF_ERROR(wrong);
  DYNLIB_RETURN_IF_ERROR(CheckCatalogue(catalogue));
  return catalogue;
}

absl::StatusOr<Catalogue> ReadWholeCatalogueRows(const Snapshot& tree) {
  Catalogue catalogue;
  const auto add = [&](std::string_view name, std::string_view value) {
    AddCatalogueRow(name, value, catalogue).IgnoreError();
    return true;
  };
  const auto pass_over = [](std::string_view, std::string_view, const absl::Status&) {
    return true;
  };
  DYNLIB_RETURN_IF_ERROR(tree.ScanReadable("", "", add, pass_over));
  return catalogue;
}

void AddTreeRow(std::string_view name, TreeId id, WriteBatch& catalogue) {
  catalogue.Put(std::string(name), EncodeId(ToUint(id)));
  catalogue.Put("", EncodeId(ToUint(id) + 1));
}

void DeleteTreeRow(std::string_view name, WriteBatch& catalogue) {
  catalogue.Delete(std::string(name));
}

}  // namespace dynlib::store
