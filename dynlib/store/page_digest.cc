#include "dynlib/store/page_digest.h"

#include <cstdint>
#include <string>

#include "dynlib/base/coding.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/store/page.h"

namespace dynlib::store {
namespace {

class Gatherer {
 public:
  Gatherer(NodeStore& nodes, std::string_view first, std::string_view end)
      : nodes_(nodes), first_(first), end_(end) {
    PutLengthPrefixed(refs_, first);
    PutLengthPrefixed(refs_, end);
  }

  // False: a leaf is not on disk.
  absl::StatusOr<bool> Run(Node& root) {
    DYNLIB_ASSIGN_OR_RETURN(const OpenPage page,
                            nodes_.Open(root, NodeStore::Expect::kTreePage, ReadMode::kNotKept));
    if (page.view().level() > 0) return Visit(page);
    if (!root.on_disk()) return false;
    Add(root.address());
    return true;
  }
  Digest128 digest() const { return Digest(refs_); }

 private:
  absl::StatusOr<bool> Visit(const OpenPage& branch) {
    const PageView view = branch.view();
    const uint32_t from = first_.empty() ? 0 : view.ChildFor(first_);
    const uint32_t to = end_.empty() ? view.count() : view.Find(end_).index;
    for (uint32_t i = from; i <= to; ++i) {
      if (view.level() > 1) {
        DYNLIB_ASSIGN_OR_RETURN(const OpenPage child,
                                nodes_.OpenChild(branch, i, ReadMode::kNotKept));
        DYNLIB_ASSIGN_OR_RETURN(const bool on_disk, Visit(child));
        if (!on_disk) return false;
      } else if (branch.content() == nullptr) {
        Add(view.child(i));
      } else if (const Node& leaf = *branch.content()->child(i); leaf.on_disk()) {
        Add(leaf.address());
      } else {
        return false;
      }
    }
    return true;
  }

  void Add(const PageRef& ref) {
    PutFixed64(refs_, ref.unit);
    PutFixed32(refs_, ref.length);
    PutFixed64(refs_, ref.checksum);
  }

  NodeStore& nodes_;
  const std::string_view first_;
  const std::string_view end_;
  std::string refs_;
};

}  // namespace

absl::StatusOr<std::optional<Digest128>> DigestOfPages(NodeStore& nodes, Node& root,
                                                       std::string_view first,
                                                       std::string_view end) {
  Gatherer gatherer(nodes, first, end);
  DYNLIB_ASSIGN_OR_RETURN(const bool on_disk, gatherer.Run(root));
  if (!on_disk) return std::nullopt;
  return gatherer.digest();
}

}  // namespace dynlib::store
