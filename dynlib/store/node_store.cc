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

NodeRef NodeStore::MakeNode(uint64_t epoch, PageBytes bytes, std::vector<NodeRef> children) {
  counters_.page_memory_bytes.fetch_add(bytes.length, std::memory_order_relaxed);
  auto* content = new NodeContent{std::move(bytes), std::move(children)};
  return NodeRef(new Node(this, epoch, content));
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

absl::StatusOr<PageBytes> NodeStore::ReadPage(const PageRef& ref) {
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
  return page;
}

absl::StatusOr<PageBytes> NodeStore::ReadPageOf(const PageRef& ref, Expect expect) {
  DYNLIB_ASSIGN_OR_RETURN(PageBytes page, ReadPage(ref));
  PageKind kind = PageView(page.data.get()).kind();
  bool is_tree_page = kind == PageKind::kLeaf || kind == PageKind::kBranch;
  if (expect == Expect::kTreePage ? !is_tree_page : kind != PageKind::kOverflow) {
    return Damaged(ref, Cat("unexpected kind ", static_cast<int>(kind)));
  }
  return page;
}

absl::StatusOr<const NodeContent*> NodeStore::LoadFromDisk(Node& node, Expect expect,
                                                           ReadMode mode) {
  if (mode == ReadMode::kMemoryOnly) return absl::UnavailableError("page not in memory");
  DYNLIB_ASSIGN_OR_RETURN(PageBytes page, ReadPageOf(node.address(), expect));
  PageView view(page.data.get());
  auto content = std::make_unique<NodeContent>();
  content->children.reserve(view.child_count());
  for (uint32_t i = 0; i < view.child_count(); ++i) {
    content->children.emplace_back(new Node(this, view.child(i)));
  }
  counters_.page_memory_bytes.fetch_add(page.length, std::memory_order_relaxed);
  content->bytes = std::move(page);
  return node.SetContent(content.release());
}

// A level that did not fall by one could lead round in a circle.
absl::Status NodeStore::CheckLevel(const PageView& parent, const PageView& child,
                                   const PageRef& ref) {
  if (parent.level() == 0 || child.level() == parent.level() - 1) return absl::OkStatus();
  return Damaged(ref, Cat("at level ", child.level(), " below level ", parent.level()));
}

absl::StatusOr<const NodeContent*> NodeStore::LoadChild(const NodeContent& parent, uint32_t index,
                                                        ReadMode mode) {
  Node& child = *parent.children[index];
  PageView view = parent.view();
  Expect expect = view.level() > 0 ? Expect::kTreePage : Expect::kOverflow;
  DYNLIB_ASSIGN_OR_RETURN(const NodeContent* content, Load(child, expect, mode));
  DYNLIB_RETURN_IF_ERROR(CheckLevel(view, content->view(), child.address()));
  return content;
}

absl::StatusOr<OpenPage> NodeStore::Open(Node& node, Expect expect, ReadMode mode) {
  const NodeContent* content = node.content();
  const bool read = mode == ReadMode::kFromDisk  ? node.on_disk()
                    : mode == ReadMode::kNotKept ? content == nullptr
                                                 : false;
  if (read) {
    DYNLIB_ASSIGN_OR_RETURN(PageBytes page, ReadPageOf(node.address(), expect));
    return OpenPage(std::move(page));
  }
  if (content == nullptr) {
    DYNLIB_ASSIGN_OR_RETURN(content, LoadFromDisk(node, expect, mode));
  }
  return OpenPage(content);
}

absl::StatusOr<OpenPage> NodeStore::OpenChild(const OpenPage& parent, uint32_t index,
                                              ReadMode mode) {
  PageView view = parent.view();
  Expect expect = view.level() > 0 ? Expect::kTreePage : Expect::kOverflow;
  if (parent.content() == nullptr) {
    PageRef ref = view.child(index);
    DYNLIB_ASSIGN_OR_RETURN(PageBytes page, ReadPageOf(ref, expect));
    DYNLIB_RETURN_IF_ERROR(CheckLevel(view, PageView(page.data.get()), ref));
    return OpenPage(std::move(page));
  }
  Node& child = *parent.content()->children[index];
  DYNLIB_ASSIGN_OR_RETURN(OpenPage page, Open(child, expect, mode));
  // A page that was never written was not read either: its level is right, and it has no address.
  if (child.on_disk()) DYNLIB_RETURN_IF_ERROR(CheckLevel(view, page.view(), child.address()));
  return page;
}

absl::StatusOr<Extent> NodeStore::Allocate(uint64_t units) {
  while (true) {
    std::optional<Extent> extent = allocator_.Allocate(units);
    if (extent.has_value()) return *extent;
    DYNLIB_RETURN_IF_ERROR(Grow(units));
  }
}

// Discarded space within the file first.
absl::Status NodeStore::Grow(uint64_t units) {
  uint64_t step = std::clamp(allocator_.file_units() / 8, growth_.bytes_min / kUnitBytes,
                             growth_.bytes_max / kUnitBytes);
  step = std::max(step, units);
  std::optional<Extent> run = allocator_.DiscardedRun(units, step);
  if (!run.has_value()) return GrowAtEnd(units, step);
  absl::Status filled = file_->Allocate(run->first * kUnitBytes, run->count * kUnitBytes);
  if (absl::IsResourceExhausted(filled) && run->count > units) {
    run->count = units;
    filled = file_->Allocate(run->first * kUnitBytes, run->count * kUnitBytes);
  }
  DYNLIB_RETURN_IF_ERROR(filled);
  allocator_.Fill(*run);
  return absl::OkStatus();
}

absl::Status NodeStore::GrowAtEnd(uint64_t units, uint64_t step) {
  uint64_t before = allocator_.file_units();
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
