#include "dynlib/store/page.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "dynlib/base/check.h"
#include "dynlib/base/checksum.h"
#include "dynlib/base/strings.h"

namespace dynlib::store {
namespace {

constexpr uint16_t kInlined = 0xffff;  // in a leaf cell, for "no overflow child"

// The first four bytes as a big-endian number, so that numbers compare as the bytes do.
uint32_t Head(std::string_view suffix) {
  uint32_t head = 0;
  if (!suffix.empty()) std::memcpy(&head, suffix.data(), std::min<size_t>(4, suffix.size()));
  return __builtin_bswap32(head);
}

std::string_view CommonPrefix(std::string_view a, std::string_view b) {
  size_t n = std::min(a.size(), b.size());
  return a.substr(0, std::mismatch(a.begin(), a.begin() + n, b.begin()).first - a.begin());
}

void PutHeader(char* page, PageKind kind, uint32_t level, TreeId tree, uint32_t length,
               uint32_t count, uint32_t children, uint16_t prefix) {
  StoreFixed<uint32_t>(page, kPageMagic);
  StoreFixed<uint16_t>(page + 4, kPageVersion);
  StoreFixed<uint8_t>(page + 6, static_cast<uint8_t>(kind));
  StoreFixed<uint8_t>(page + 7, static_cast<uint8_t>(level));
  StoreFixed<uint64_t>(page + 8, static_cast<uint64_t>(tree));
  StoreFixed<uint32_t>(page + 16, length);
  StoreFixed<uint32_t>(page + 20, count);
  StoreFixed<uint32_t>(page + 24, children);
  StoreFixed<uint16_t>(page + 28, prefix);
  StoreFixed<uint16_t>(page + 30, 0);
}

// Fills a page front to back: slots, prefix, cells.
class CellWriter {
 public:
  CellWriter(char* page, uint32_t count, uint32_t children, std::string_view prefix)
      : page_(page),
        slot_(page + kPageHeaderBytes + kPageRefBytes * children),
        cell_(slot_ + kSlotBytes * count) {
    std::memset(page + kPageHeaderBytes, 0, kPageRefBytes * children);
    Append(prefix);
  }

  void StartCell(std::string_view suffix) {
    StoreFixed<uint32_t>(slot_, Head(suffix));
    StoreFixed<uint32_t>(slot_ + 4, static_cast<uint32_t>(cell_ - page_));
    slot_ += kSlotBytes;
    Number<uint16_t>(static_cast<uint16_t>(suffix.size()));
  }
  template <typename T>
  void Number(T number) {
    StoreFixed<T>(cell_, number);
    cell_ += sizeof(T);
  }
  void Append(std::string_view bytes) { cell_ = std::copy(bytes.begin(), bytes.end(), cell_); }
  uint32_t length() const { return static_cast<uint32_t>(cell_ - page_); }

 private:
  char* page_;
  char* slot_;
  char* cell_;
};

absl::Status Bad(std::string_view what, uint64_t value) {
  return absl::DataLossError(Cat("malformed page: ", what, " ", value));
}

absl::Status CheckHeader(std::string_view page) {
  if (page.size() < kPageHeaderBytes) return Bad("length", page.size());
  if (LoadFixed<uint32_t>(page.data()) != kPageMagic) {
    return Bad("magic", LoadFixed<uint32_t>(page.data()));
  }
  uint16_t version = LoadFixed<uint16_t>(page.data() + 4);
  if (version != kPageVersion) return Bad("version", version);
  PageView view(page.data());
  if (view.length() != page.size()) return Bad("length field", view.length());
  uint8_t kind = static_cast<uint8_t>(view.kind());
  if (kind < 1 || kind > 5) return Bad("kind", kind);
  bool branch = view.kind() == PageKind::kBranch;
  if (branch != (view.level() > 0)) return Bad("level", view.level());
  return absl::OkStatus();
}

// The suffix of cell i, when the cell and its value lie within the page; moves `child` on past an
// overflow value's.
std::optional<std::string_view> CheckCell(std::string_view page, size_t slots, size_t cells,
                                          uint32_t i, bool leaf, uint32_t& child) {
  size_t fixed = leaf ? kLeafCellBytes : kBranchCellBytes;
  size_t at = LoadFixed<uint32_t>(page.data() + slots + kSlotBytes * i + 4);
  if (at < cells || at > page.size() || page.size() - at < fixed) return std::nullopt;
  const char* cell = page.data() + at;
  size_t suffix = LoadFixed<uint16_t>(cell);
  size_t rest = page.size() - at - fixed;
  if (suffix > rest) return std::nullopt;
  if (leaf) {
    uint16_t value_child = LoadFixed<uint16_t>(cell + 2);
    uint32_t value = LoadFixed<uint32_t>(cell + 4);
    if (value_child == kInlined) {
      if (value > rest - suffix) return std::nullopt;
    } else if (value_child != child++ || value > kMaxValueBytes) {
      return std::nullopt;
    }
  }
  return std::string_view(cell + fixed, suffix);
}

absl::Status CheckCells(std::string_view page) {
  PageView view(page.data());
  bool leaf = view.kind() == PageKind::kLeaf;
  uint64_t children = view.child_count();
  if (!leaf && children != uint64_t{view.count()} + 1) return Bad("child count", children);
  uint64_t slots = kPageHeaderBytes + kPageRefBytes * children;
  uint64_t prefix_at = slots + kSlotBytes * uint64_t{view.count()};
  if (prefix_at > page.size()) return Bad("count", view.count());
  uint64_t prefix = LoadFixed<uint16_t>(page.data() + 28);
  if (prefix > page.size() - prefix_at) return Bad("prefix length", prefix);

  uint32_t child = 0;
  std::string_view last;
  for (uint32_t i = 0; i < view.count(); ++i) {
    auto suffix = CheckCell(page, slots, prefix_at + prefix, i, leaf, child);
    if (!suffix.has_value()) return Bad("cell", i);
    if (i > 0 && *suffix <= last) return Bad("order of key", i);
    if (prefix + suffix->size() > kMaxKeyBytes) return Bad("length of key", i);
    if (LoadFixed<uint32_t>(page.data() + slots + kSlotBytes * i) != Head(*suffix)) {
      return Bad("head of key", i);
    }
    last = *suffix;
  }
  if (leaf && child != children) return Bad("child count", children);
  return absl::OkStatus();
}

}  // namespace

void PutPageRef(char* to, const PageRef& ref) {
  StoreFixed<uint64_t>(to, ref.unit);
  StoreFixed<uint32_t>(to + 8, ref.length);
  StoreFixed<uint32_t>(to + 12, 0);
  StoreFixed<uint64_t>(to + 16, ref.checksum);
}

PageRef LoadPageRef(const char* from) {
  return {LoadFixed<uint64_t>(from), LoadFixed<uint32_t>(from + 8), LoadFixed<uint64_t>(from + 16)};
}

uint64_t PageChecksum(std::string_view page, uint64_t unit) { return Checksum(page, unit); }

PageBytes PageBytes::Allocate(uint32_t length) {
  return {std::make_shared_for_overwrite<char[]>(length), length};
}

LeafValue PageView::value(uint32_t i) const {
  const char* at = cell(i);
  uint16_t suffix = LoadFixed<uint16_t>(at);
  uint16_t child = LoadFixed<uint16_t>(at + 2);
  uint32_t length = LoadFixed<uint32_t>(at + 4);
  if (child == kInlined) return {{at + kLeafCellBytes + suffix, length}, length, false, 0};
  return {{}, length, true, child};
}

PageView::Position PageView::Find(std::string_view key) const {
  std::string_view shared = prefix();
  if (shared.empty()) return FindSuffix(key);
  int order = key.substr(0, shared.size()).compare(shared);
  if (order < 0) return {0, false};
  if (order > 0) return {count(), false};
  return FindSuffix(key.substr(shared.size()));
}

PageView::Position PageView::FindSuffix(std::string_view suffix_searched) const {
  const uint32_t head = Head(suffix_searched);
  const char* slot = slots();
  uint32_t low = 0;
  uint32_t high = count();
  while (low < high) {
    uint32_t middle = (low + high) / 2;
    uint32_t there = LoadFixed<uint32_t>(slot + kSlotBytes * middle);
    int order = there != head ? (there < head ? -1 : 1) : suffix(middle).compare(suffix_searched);
    if (order == 0) return {middle, true};
    if (order < 0) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return {low, false};
}

uint32_t PageView::ChildFor(std::string_view key) const {
  Position position = Find(key);
  return position.index + (position.found ? 1 : 0);
}

absl::Status CheckPage(std::string_view page) {
  absl::Status header = CheckHeader(page);
  if (!header.ok()) return header;
  PageKind kind = PageView(page.data()).kind();
  if (kind == PageKind::kLeaf || kind == PageKind::kBranch) return CheckCells(page);
  uint32_t children = PageView(page.data()).child_count();
  return children == 0 ? absl::OkStatus() : Bad("child count", children);
}

void PageSizer::Add(std::string_view key, size_t value_bytes, size_t children) {
  prefix_ = count_ == 0 ? key : CommonPrefix(prefix_, key);
  ++count_;
  key_bytes_ += key.size();
  value_bytes_ += value_bytes;
  children_ += children;
}

size_t PageSizer::length() const {
  return kPageHeaderBytes + kPageRefBytes * children_ + count_ * (kSlotBytes + cell_bytes_) +
         prefix_.size() + (key_bytes_ - count_ * prefix_.size()) + value_bytes_;
}

PageBytes BuildLeaf(TreeId tree, std::span<const LeafEntry> entries) {
  PageSizer sizer = PageSizer::Leaf();
  uint32_t children = 0;
  for (const LeafEntry& entry : entries) {
    sizer.Add(entry.key, entry.value.size(), entry.overflow ? 1 : 0);
    children += entry.overflow ? 1 : 0;
  }
  DYNLIB_CHECK(children < kInlined);
  PageBytes page = PageBytes::Allocate(static_cast<uint32_t>(sizer.length()));
  std::string_view prefix =
      entries.empty() ? "" : CommonPrefix(entries.front().key, entries.back().key);
  uint32_t count = static_cast<uint32_t>(entries.size());
  PutHeader(page.data.get(), PageKind::kLeaf, 0, tree, page.length, count, children,
            static_cast<uint16_t>(prefix.size()));
  CellWriter cells(page.data.get(), count, children, prefix);
  uint16_t child = 0;
  for (const LeafEntry& entry : entries) {
    std::string_view suffix = entry.key.substr(prefix.size());
    cells.StartCell(suffix);
    cells.Number<uint16_t>(entry.overflow ? child++ : kInlined);
    cells.Number<uint32_t>(entry.overflow ? entry.value_length
                                          : static_cast<uint32_t>(entry.value.size()));
    cells.Append(suffix);
    cells.Append(entry.value);
  }
  DYNLIB_CHECK(cells.length() == page.length);
  return page;
}

PageBytes BuildBranch(TreeId tree, uint32_t level, std::span<const std::string_view> separators) {
  PageSizer sizer = PageSizer::Branch();
  for (std::string_view separator : separators) sizer.Add(separator, 0, 1);
  PageBytes page = PageBytes::Allocate(static_cast<uint32_t>(sizer.length()));
  std::string_view prefix =
      separators.empty() ? "" : CommonPrefix(separators.front(), separators.back());
  uint32_t count = static_cast<uint32_t>(separators.size());
  PutHeader(page.data.get(), PageKind::kBranch, level, tree, page.length, count, count + 1,
            static_cast<uint16_t>(prefix.size()));
  CellWriter cells(page.data.get(), count, count + 1, prefix);
  for (std::string_view separator : separators) {
    std::string_view suffix = separator.substr(prefix.size());
    cells.StartCell(suffix);
    cells.Append(suffix);
  }
  DYNLIB_CHECK(cells.length() == page.length);
  return page;
}

PageBytes BuildBlob(PageKind kind, TreeId tree, uint32_t count, std::string_view payload) {
  PageBytes page = PageBytes::Allocate(static_cast<uint32_t>(kPageHeaderBytes + payload.size()));
  PutHeader(page.data.get(), kind, 0, tree, page.length, count, 0, 0);
  std::copy(payload.begin(), payload.end(), page.data.get() + kPageHeaderBytes);
  return page;
}

}  // namespace dynlib::store
