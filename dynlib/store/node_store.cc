#include "dynlib/store/node_store.h"

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/store/leaf_tail.h"
#include "dynlib/store/page_change.h"

namespace dynlib::store {

Node* NodeStore::MakeNode(NodeContent* content) {
  counters_.dirty_bytes.fetch_add(DirtyBytes(*content), std::memory_order_relaxed);
  Node* node = memory_.NewNode(content);
  KeepToBudget();
  return node;
}

Node* NodeStore::MakeNode(const PageRef& address) {
  Node* node;
  const PageMemory::OnDisk page{address, 0};
  memory_.NewNodes(std::span(&page, 1), &node);
  return node;
}

void NodeStore::Unmake(Node* node) {
  NodeContent* content = node->content();
  counters_.dirty_bytes.fetch_sub(DirtyBytes(*content), std::memory_order_relaxed);
  memory_.Free(content);
  memory_.Free(node);
}

void NodeStore::WrittenToDisk(Node& node) {
  std::lock_guard lock(dirty_mutex_);
  const uint64_t bytes = DirtyBytes(*node.content());
  node.SetOnDisk();
  counters_.dirty_bytes.fetch_sub(bytes, std::memory_order_relaxed);
  evict_above_.store(memory_bytes_, std::memory_order_relaxed);
}

NodeContent* NodeStore::NewFlat(const NodeContent& content) {
  std::vector<LeafChange> changes;
  const PageView leaf = content.view();
  TailAsChanges(leaf, content.tail(), content.tail_rows(), changes);
  NodeContent* flat = NewContent(ChangedLeafLength(leaf, changes), /*children=*/0);
  ChangeLeafAt(flat->data(), leaf.tree(), leaf, changes);
  return flat;
}

PageBytes NodeStore::FlatBytes(const NodeContent& content) {
  std::vector<LeafChange> changes;
  const PageView leaf = content.view();
  TailAsChanges(leaf, content.tail(), content.tail_rows(), changes);
  PageBytes page = PageBytes::Allocate(ChangedLeafLength(leaf, changes));
  ChangeLeafAt(page.data.get(), leaf.tree(), leaf, changes);
  return page;
}

OpenPage NodeStore::Opened(ContentRef content) {
  if (content->tail_rows() == 0) return OpenPage(std::move(content));
  return OpenPage(FlatBytes(*content));
}

OpenPage NodeStore::OpenSettled(Node& node) {
  std::vector<NodeContent*> replaced;
  OpenPage page = [&] {
    Epochs::Guard guard(epochs_);
    while (true) {
      NodeContent* content = node.content();
      if (content->tail_rows() == 0) {
        if (content->TryPin()) return OpenPage(ContentRef(content));
        WaitForReplacement();
        continue;
      }
      NodeContent* flat = NewFlat(*content);
      if (ReplaceContent(node, *content, flat, /*pinned=*/true)) {
        replaced.push_back(content);
        return OpenPage(ContentRef(flat));
      }
      FreeUnused(flat);
      return OpenPage(FlatBytes(*content));
    }
  }();
  if (!replaced.empty()) DropLater(std::move(replaced));
  return page;
}

bool NodeStore::ReplaceContent(Node& node, NodeContent& old, NodeContent* content, bool pinned) {
  content->node = &node;
  content->made = true;
  std::lock_guard lock(dirty_mutex_);
  if (!Claim(old)) return false;
  // One more until it is in its place, so that the evictor does not take it from there before.
  content->pins.store(pinned ? 3 : 2, std::memory_order_release);
  node.ReplaceContent(content);
  if (!node.on_disk()) {
    counters_.dirty_bytes.fetch_add(DirtyBytes(*content) - DirtyBytes(old),
                                    std::memory_order_relaxed);
  }
  content->pins.fetch_sub(1, std::memory_order_release);
  return true;
}

uint32_t NodeStore::Length(Node& node) {
  if (node.on_disk()) return node.address().length;
  Epochs::Guard guard(epochs_);
  const NodeContent* content = node.content();
  return content != nullptr ? content->length : node.address().length;
}

uint32_t NodeStore::ChildLength(const OpenPage& parent, uint32_t index) {
  if (parent.content() == nullptr) return parent.view().child(index).length;
  return Length(*parent.content()->child(index));
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
  if (!remembers_damage_.load(std::memory_order_relaxed)) return ReadPageOnce(ref);
  const std::pair<uint64_t, uint64_t> page = {ref.unit, ref.checksum};
  {
    std::lock_guard lock(damage_mutex_);
    const auto known = damage_.find(page);
    if (known != damage_.end()) return known->second;
  }
  absl::StatusOr<PageBytes> read = ReadPageOnce(ref);
  if (absl::IsDataLoss(read.status())) {
    std::lock_guard lock(damage_mutex_);
    damage_.emplace(page, read.status());
  }
  return read;
}

absl::StatusOr<PageBytes> NodeStore::ReadPageOnce(const PageRef& ref) {
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
  if (PageCompressor::IsCompressed(page.view())) {
    absl::StatusOr<PageBytes> expanded = compressor_.Expand(page.view());
    if (!expanded.ok()) return Damaged(ref, ToStd(expanded.status().message()));
    page = *std::move(expanded);
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

ContentRef NodeStore::PinContent(Node& node) {
  Epochs::Guard guard(epochs_);
  while (NodeContent* content = node.content()) {
    if (content->TryPin()) {
      content->Touch();
      return ContentRef(content);
    }
    if (node.on_disk()) break;  // it is being evicted
    WaitForReplacement();
  }
  return ContentRef();
}

void NodeStore::WaitForReplacement() { std::lock_guard until_done(dirty_mutex_); }

absl::StatusOr<ContentRef> NodeStore::LoadFromDisk(Node& node, Expect expect, ReadMode mode) {
  if (mode == ReadMode::kMemoryOnly) return absl::UnavailableError("page not in memory");
  DYNLIB_ASSIGN_OR_RETURN(PageBytes page, ReadPageOf(node.address(), expect));
  NodeContent* content = MakeContent(node, page);
  content->pins.store(2, std::memory_order_release);  // the node's, and what is returned
  while (!node.Install(content)) {
    // Another thread was faster; or the evictor is about to take away what is there.
    ContentRef there = PinContent(node);
    if (!there) continue;
    FreeContent(content, 0);
    return there;
  }
  ContentRef loaded(content);
  KeepToBudget();
  return loaded;
}

NodeContent* NodeStore::MakeContent(Node& node, const PageBytes& page) {
  PageView view(page.data.get());
  NodeContent* content = memory_.NewContent(page.length, view.child_count());
  content->node = &node;
  std::copy_n(page.data.get(), page.length, content->data());
  if (view.child_count() == 0) return content;
  std::vector<PageMemory::OnDisk> children;
  children.reserve(view.child_count());
  uint32_t generation = 0;
  uint64_t birth = 0;
  for (uint32_t i = 0; i < view.child_count(); ++i) {
    const PageRef ref = view.child(i);
    if (ref.generation != generation) {
      generation = ref.generation;
      birth = versions_.BirthOf(generation);
    }
    children.push_back({ref, birth});
  }
  memory_.NewNodes(children, content->children());
  return content;
}

// A level that did not fall by one could lead round in a circle.
absl::Status NodeStore::CheckLevel(const PageView& parent, const PageView& child,
                                   const PageRef& ref) {
  if (parent.level() == 0 || child.level() == parent.level() - 1) return absl::OkStatus();
  return Damaged(ref, Cat("at level ", child.level(), " below level ", parent.level()));
}

absl::StatusOr<ContentRef> NodeStore::LoadChild(const NodeContent& parent, uint32_t index,
                                                ReadMode mode) {
  Node& child = *parent.child(index);
  PageView view = parent.view();
  Expect expect = view.level() > 0 ? Expect::kTreePage : Expect::kOverflow;
  DYNLIB_ASSIGN_OR_RETURN(ContentRef content, Load(child, expect, mode));
  DYNLIB_RETURN_IF_ERROR(CheckLevel(view, content->view(), child.address()));
  return content;
}

absl::StatusOr<OpenPage> NodeStore::Open(Node& node, Expect expect, ReadMode mode) {
  if (mode == ReadMode::kFromDisk && node.on_disk()) {
    DYNLIB_ASSIGN_OR_RETURN(PageBytes page, ReadPageOf(node.address(), expect));
    return OpenPage(std::move(page));
  }
  ContentRef content = PinContent(node);
  if (content) return Opened(std::move(content));
  if (mode == ReadMode::kNotKept || mode == ReadMode::kFromDisk) {
    DYNLIB_ASSIGN_OR_RETURN(PageBytes page, ReadPageOf(node.address(), expect));
    return OpenPage(std::move(page));
  }
  DYNLIB_ASSIGN_OR_RETURN(content, LoadFromDisk(node, expect, mode));
  return Opened(std::move(content));
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
  Node& child = *parent.content()->child(index);
  DYNLIB_ASSIGN_OR_RETURN(OpenPage page, Open(child, expect, mode));
  // A page that was never written, and has no address, was not read either: its level is right.
  DYNLIB_RETURN_IF_ERROR(CheckLevel(view, page.view(), child.address()));
  return page;
}

std::optional<OpenPage> NodeStore::OpenChildInMemory(const OpenPage& parent, uint32_t index,
                                                     ReadMode mode) {
  if (parent.content() == nullptr || mode == ReadMode::kFromDisk) return std::nullopt;
  ContentRef content = PinContent(*parent.content()->child(index));
  // One at a level where it cannot be is OpenChild's to report.
  const uint32_t level = parent.view().level();
  if (!content || (level > 0 && content->view().level() != level - 1)) return std::nullopt;
  return Opened(std::move(content));
}

absl::StatusOr<Extent> NodeStore::Allocate(uint64_t units) {
  while (true) {
    std::optional<Extent> extent = allocator_.Allocate(units);
    if (extent.has_value()) return *extent;
    DYNLIB_RETURN_IF_ERROR(Grow(units));
  }
}

// Discarded space within the file first; short runs of it, which take a call of the file system and
// a write of their own for a page or two, once they are half of the file.
absl::Status NodeStore::Grow(uint64_t units) {
  uint64_t step = std::clamp(allocator_.file_units() / 8, growth_.bytes_min / kUnitBytes,
                             growth_.bytes_max / kUnitBytes);
  step = std::max(step, units);
  const bool mostly_holes = allocator_.discarded_units() > allocator_.file_units() / 2;
  const uint64_t least = mostly_holes ? units : std::max(units, kLongRunUnits);
  std::optional<Extent> run = allocator_.DiscardedRun(least, step);
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
