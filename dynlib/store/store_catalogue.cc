#include "dynlib/store/store_catalogue.h"

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

absl::StatusOr<Catalogue> ReadCatalogue(const Snapshot& tree) {
  Catalogue catalogue;
  absl::Status wrong;
  DYNLIB_RETURN_IF_ERROR(
      tree.Scan("", "", ScanOrder::kForward, [&](std::string_view name, std::string_view value) {
        ByteReader in(value);
        const uint64_t id = in.Fixed64();
        if (!in.done() || id < kFirstNamedTree || name.size() > kMaxTreeNameBytes) {
          wrong = absl::DataLossError(Cat("the catalogue's row ", Escape(name), " is no tree"));
          return false;
        }
        if (name.empty()) {
          catalogue.next_id = id;
        } else {
          catalogue.trees.emplace(name, TreeId{id});
        }
        return true;
      }));
  DYNLIB_RETURN_IF_ERROR(wrong);
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
