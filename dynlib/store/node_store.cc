#include "dynlib/store/node_store.h"

#include <algorithm>
#include <span>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"

namespace dynlib::store {

Node::~Node() {
  NodeContent* content = content_.load(std::memory_order_relaxed);
  bool release = retired_.load(std::memory_order_relaxed) && !address_.null();
  nodes_->Forget(content, release ? address_ : PageRef{});
  delete content;
}

const NodeContent* Node::SetContent(NodeContent* content) {
  NodeContent* there = nullptr;
  if (content_.compare_exchange_strong(there, content, std::memory_order_acq_rel)) return content;
  nodes_->Forget(content, PageRef{});
  delete content;
  return there;
}

NodeRef NodeStore::MakeNode(TreeId tree, uint64_t epoch, PageBytes bytes,
                            std::vector<NodeRef> children) {
  counters_.page_memory_bytes.fetch_add(bytes.length, std::memory_order_relaxed);
  auto* content = new NodeContent{std::move(bytes), std::move(children)};
  return NodeRef(new Node(this, tree, epoch, content));
}

void NodeStore::Forget(const NodeContent* content, const PageRef& retired_address) {
  if (content != nullptr) {
    counters_.page_memory_bytes.fetch_sub(content->bytes.length, std::memory_order_relaxed);
  }
  if (!retired_address.null()) allocator_.Release(retired_address.extent());
}

absl::Status NodeStore::Damaged(const PageRef& ref, std::string_view what) {
  std::string message =
      Cat(path_, ": page at offset ", ref.unit * kUnitBytes, ", ", ref.length, " bytes: ", what);
  metrics_->Count("store.page_damaged", 1);
  EventField field{"page", message};
  metrics_->Event("store.page_damaged", std::span(&field, 1));
  return absl::DataLossError(message);
}

absl::StatusOr<PageBytes> NodeStore::ReadPage(const PageRef& ref, TreeId tree) {
  if (ref.length < kPageHeaderBytes || ref.extent().end() > allocator_.file_units()) {
    return Damaged(ref, "the reference points outside the file");
  }
  PageBytes page = PageBytes::Allocate(ref.length);
  DYNLIB_RETURN_IF_ERROR(
      file_->ReadAt(ref.unit * kUnitBytes, std::span<char>(page.data.get(), page.length)));
  counters_.pages_read.fetch_add(1, std::memory_order_relaxed);
  metrics_->Count("store.pages_read", 1);
  uint64_t checksum = PageChecksum(page.view(), ref.unit);
  if (checksum != ref.checksum) {
    return Damaged(ref, Cat("checksum ", Hex(checksum), ", expected ", Hex(ref.checksum)));
  }
  absl::Status checked = CheckPage(page.view());
  if (!checked.ok()) return Damaged(ref, ToStd(checked.message()));
  TreeId found = PageView(page.data.get()).tree();
  if (found != tree) return Damaged(ref, Cat("of tree ", found, ", expected tree ", tree));
  return page;
}

absl::StatusOr<const NodeContent*> NodeStore::LoadFromDisk(Node& node, Expect expect,
                                                           ReadMode mode) {
  if (mode == ReadMode::kMemoryOnly) return absl::UnavailableError("page not in memory");
  DYNLIB_ASSIGN_OR_RETURN(PageBytes page, ReadPage(node.address(), node.tree()));
  PageView view(page.data.get());
  bool is_tree_page = view.kind() == PageKind::kLeaf || view.kind() == PageKind::kBranch;
  bool right_kind = expect == Expect::kTreePage ? is_tree_page : view.kind() == PageKind::kOverflow;
  if (!right_kind) {
    return Damaged(node.address(), Cat("unexpected kind ", static_cast<int>(view.kind())));
  }
  auto content = std::make_unique<NodeContent>();
  content->children.reserve(view.child_count());
  for (uint32_t i = 0; i < view.child_count(); ++i) {
    content->children.emplace_back(new Node(this, node.tree(), view.child(i)));
  }
  counters_.page_memory_bytes.fetch_add(page.length, std::memory_order_relaxed);
  content->bytes = std::move(page);
  return node.SetContent(content.release());
}

absl::StatusOr<const NodeContent*> NodeStore::LoadChild(const NodeContent& parent, uint32_t index,
                                                        ReadMode mode) {
  Node& child = *parent.children[index];
  uint32_t level = parent.view().level();
  Expect expect = level > 0 ? Expect::kTreePage : Expect::kOverflow;
  DYNLIB_ASSIGN_OR_RETURN(const NodeContent* content, Load(child, expect, mode));
  // A level that did not fall by one could lead round in a circle.
  if (level > 0 && content->view().level() != level - 1) {
    return Damaged(child.address(),
                   Cat("at level ", content->view().level(), " below level ", level));
  }
  return content;
}

absl::StatusOr<Extent> NodeStore::Allocate(uint64_t units) {
  while (true) {
    std::optional<Extent> extent = allocator_.Allocate(units);
    if (extent.has_value()) return *extent;
    DYNLIB_RETURN_IF_ERROR(Grow(units));
  }
}

absl::Status NodeStore::Grow(uint64_t units) {
  uint64_t before = allocator_.file_units();
  uint64_t step =
      std::clamp(before / 8, growth_.bytes_min / kUnitBytes, growth_.bytes_max / kUnitBytes);
  step = std::max(step, units);
  absl::Status grown = file_->Allocate(before * kUnitBytes, step * kUnitBytes);
  if (absl::IsResourceExhausted(grown) && step > units) {
    step = units;  // nearly full: what this page needs may still fit
    grown = file_->Allocate(before * kUnitBytes, step * kUnitBytes);
  }
  DYNLIB_RETURN_IF_ERROR(grown);
  metrics_->Count("store.file_growth_bytes", static_cast<int64_t>(step * kUnitBytes));
  allocator_.SetFileUnits(before + step);
  return absl::OkStatus();
}

}  // namespace dynlib::store
