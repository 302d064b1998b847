#include "dynlib/store/page.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "dynlib/base/check.h"
#include "dynlib/base/checksum.h"
#include "dynlib/base/prefetch.h"
#include "dynlib/base/strings.h"

namespace dynlib::store {
namespace {

constexpr uint32_t kChildless = uint32_t{1} << 31;  // in a reference, beside the generation

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
    StoreFixed<uint32_t>(slot_, SuffixHead(suffix));
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
  // A compressed page is expanded before anybody looks at what it says.
  if (kind < 1 || kind > 5) return Bad("kind", kind);
  bool branch = view.kind() == PageKind::kBranch;
  if (branch != (view.level() > 0)) return Bad("level", view.level());
  return absl::OkStatus();
}

// The suffix of cell i, when the cell begins at `next` and lies, with its value, within the page;
// moves `next` on behind it, and `child` past an overflow value's.
std::optional<std::string_view> CheckCell(std::string_view page, size_t slots, size_t& next,
                                          uint32_t i, bool leaf, uint32_t& child) {
  size_t fixed = leaf ? kLeafCellBytes : kBranchCellBytes;
  size_t at = LoadFixed<uint32_t>(page.data() + slots + kSlotBytes * i + 4);
  if (at != next || at > page.size() || page.size() - at < fixed) return std::nullopt;
  const char* cell = page.data() + at;
  size_t suffix = LoadFixed<uint16_t>(cell);
  size_t rest = page.size() - at - fixed;
  if (suffix > rest) return std::nullopt;
  next = at + fixed + suffix;
  if (leaf) {
    uint16_t value_child = LoadFixed<uint16_t>(cell + 2);
    uint32_t value = LoadFixed<uint32_t>(cell + 4);
    if (value_child == kInlinedValue) {
      if (value > rest - suffix) return std::nullopt;
      next += value;
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
  size_t next = prefix_at + prefix;
  std::string_view last;
  for (uint32_t i = 0; i < view.count(); ++i) {
    auto suffix = CheckCell(page, slots, next, i, leaf, child);
    if (!suffix.has_value()) return Bad("cell", i);
    if (i > 0 && *suffix <= last) return Bad("order of key", i);
    if (prefix + suffix->size() > kMaxKeyBytes) return Bad("length of key", i);
    if (LoadFixed<uint32_t>(page.data() + slots + kSlotBytes * i) != SuffixHead(*suffix)) {
      return Bad("head of key", i);
    }
    last = *suffix;
  }
  if (next != page.size()) return Bad("bytes behind the last cell", page.size() - next);
  if (leaf && child != children) return Bad("child count", children);
  return absl::OkStatus();
}

}  // namespace

void PutPageRef(char* to, const PageRef& ref) {
  StoreFixed<uint64_t>(to, ref.unit);
  StoreFixed<uint32_t>(to + 8, ref.length);
  StoreFixed<uint32_t>(to + 12, ref.generation | (ref.childless ? kChildless : 0));
  StoreFixed<uint64_t>(to + 16, ref.checksum);
}

PageRef LoadPageRef(const char* from) {
  const uint32_t hints = LoadFixed<uint32_t>(from + 12);
  return {LoadFixed<uint64_t>(from), LoadFixed<uint32_t>(from + 8), LoadFixed<uint64_t>(from + 16),
          PageRef::Generation(hints), (hints & kChildless) != 0};
}

uint64_t PageChecksum(std::string_view page, uint64_t unit) { return Checksum(page, unit); }

PageBytes PageBytes::Allocate(uint32_t length) {
  return {std::make_unique_for_overwrite<char[]>(length), length};
}

PageView::Position PageView::Find(std::string_view key, Ask ask) const {
  std::string_view shared = prefix();
  if (shared.empty()) return FindSuffix(key, ask);
  int order = key.substr(0, shared.size()).compare(shared);
  if (order < 0) return {0, false};
  if (order > 0) return {count(), false};
  return FindSuffix(key.substr(shared.size()), ask);
}

// Cells lie one behind the other: where the next begins is in the next slot.
void PageView::AskForCell(uint32_t i, Ask ask) const {
  constexpr ptrdiff_t kLine = 64;
  constexpr ptrdiff_t kAtMost = 1024;
  const char* at = cell(i);
  const char* end = i + 1 < count() ? cell(i + 1) : page_ + length();
  Prefetch(end - 1);
  if (ask == Ask::kEnds) return Prefetch(at);
  for (end = std::min(end, at + kAtMost); at < end; at += kLine) Prefetch(at);
}

PageView::Position PageView::FindSuffix(std::string_view suffix_searched, Ask ask) const {
  const uint32_t head = SuffixHead(suffix_searched);
  const char* first = slots();
  const uint32_t keys = count();
  // The first slot whose head is not below. Without branches, which the processor could not guess.
  const char* slot = first;
  for (uint32_t left = keys; left > 0;) {
    const uint32_t half = left - left / 2;
    const bool below = LoadFixed<uint32_t>(slot + kSlotBytes * (half - 1)) < head;
    slot += kSlotBytes * half * static_cast<uint32_t>(below);
    left -= half;
  }
  uint32_t low = static_cast<uint32_t>((slot - first) / kSlotBytes);
  if (ask != Ask::kNothing && low < keys) AskForCell(low, ask);
  // Heads that tie are told apart by the whole suffixes: few, as a rule.
  uint32_t high = low;
  for (uint32_t step = 1; high < keys && LoadFixed<uint32_t>(first + kSlotBytes * high) == head;
       step *= 2) {
    const int order = suffix(high).compare(suffix_searched);
    if (order == 0) return {high, true};
    if (order > 0) break;
    low = high + 1;
    high = std::min(high + step, keys);
  }
  while (low < high) {
    const uint32_t middle = (low + high) / 2;
    const uint32_t there = LoadFixed<uint32_t>(first + kSlotBytes * middle);
    const int order = there != head ? 1 : suffix(middle).compare(suffix_searched);
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
  if (count_ == 0) {
    prefix_ = key;
  } else if (!key.starts_with(prefix_)) {
    prefix_ = CommonPrefix(prefix_, key);
  }
  ++count_;
  key_bytes_ += key.size();
  value_bytes_ += value_bytes;
  children_ += children;
}

size_t PageSizer::length() const {
  return kPageHeaderBytes + kPageRefBytes * children_ + count_ * (kSlotBytes + cell_bytes_) +
         prefix_.size() + (key_bytes_ - count_ * prefix_.size()) + value_bytes_;
}

uint32_t LeafLength(std::span<const LeafEntry> entries) {
  if (entries.empty()) return kPageHeaderBytes;
  const size_t prefix = CommonPrefix(entries.front().key, entries.back().key).size();
  size_t length = kPageHeaderBytes + prefix;
  for (const LeafEntry& entry : entries) {
    length += kSlotBytes + kLeafCellBytes + entry.key.size() - prefix +
              (entry.overflow ? kPageRefBytes : entry.value.size());
  }
  return static_cast<uint32_t>(length);
}

void BuildLeafAt(char* page, TreeId tree, std::span<const LeafEntry> entries) {
  const size_t children = static_cast<size_t>(std::count_if(
      entries.begin(), entries.end(), [](const LeafEntry& entry) { return entry.overflow; }));
  DYNLIB_CHECK(children < kInlinedValue);
  std::string_view prefix =
      entries.empty() ? "" : CommonPrefix(entries.front().key, entries.back().key);
  const uint32_t count = static_cast<uint32_t>(entries.size());
  const uint32_t length = LeafLength(entries);
  PutHeader(page, PageKind::kLeaf, 0, tree, length, count, static_cast<uint32_t>(children),
            static_cast<uint16_t>(prefix.size()));
  CellWriter cells(page, count, static_cast<uint32_t>(children), prefix);
  uint16_t child = 0;
  for (const LeafEntry& entry : entries) {
    std::string_view suffix = entry.key.substr(prefix.size());
    cells.StartCell(suffix);
    cells.Number<uint16_t>(entry.overflow ? child++ : kInlinedValue);
    cells.Number<uint32_t>(entry.overflow ? entry.value_length
                                          : static_cast<uint32_t>(entry.value.size()));
    cells.Append(suffix);
    cells.Append(entry.value);
  }
  DYNLIB_CHECK(cells.length() == length);
}

PageBytes BuildLeaf(TreeId tree, std::span<const LeafEntry> entries) {
  PageBytes page = PageBytes::Allocate(LeafLength(entries));
  BuildLeafAt(page.data.get(), tree, entries);
  return page;
}

uint32_t BranchLength(std::span<const std::string_view> separators) {
  if (separators.empty()) return kPageHeaderBytes + kPageRefBytes;
  const size_t prefix = CommonPrefix(separators.front(), separators.back()).size();
  size_t length = kPageHeaderBytes + kPageRefBytes + prefix;
  for (std::string_view separator : separators) {
    length += kPageRefBytes + kSlotBytes + kBranchCellBytes + separator.size() - prefix;
  }
  return static_cast<uint32_t>(length);
}

void BuildBranchAt(char* page, TreeId tree, uint32_t level,
                   std::span<const std::string_view> separators) {
  std::string_view prefix =
      separators.empty() ? "" : CommonPrefix(separators.front(), separators.back());
  const uint32_t count = static_cast<uint32_t>(separators.size());
  const uint32_t length = BranchLength(separators);
  PutHeader(page, PageKind::kBranch, level, tree, length, count, count + 1,
            static_cast<uint16_t>(prefix.size()));
  CellWriter cells(page, count, count + 1, prefix);
  for (std::string_view separator : separators) {
    std::string_view suffix = separator.substr(prefix.size());
    cells.StartCell(suffix);
    cells.Append(suffix);
  }
  DYNLIB_CHECK(cells.length() == length);
}

PageBytes BuildBranch(TreeId tree, uint32_t level, std::span<const std::string_view> separators) {
  PageBytes page = PageBytes::Allocate(BranchLength(separators));
  BuildBranchAt(page.data.get(), tree, level, separators);
  return page;
}

void PutBlobHeader(char* page, PageKind kind, TreeId tree, uint32_t count, uint32_t length) {
  PutHeader(page, kind, /*level=*/0, tree, length, count, /*children=*/0, /*prefix=*/0);
}

void BuildBlobAt(char* page, PageKind kind, TreeId tree, uint32_t count, std::string_view payload) {
  PutBlobHeader(page, kind, tree, count, static_cast<uint32_t>(kPageHeaderBytes + payload.size()));
  std::copy(payload.begin(), payload.end(), page + kPageHeaderBytes);
}

PageBytes BuildBlob(PageKind kind, TreeId tree, uint32_t count, std::string_view payload) {
  PageBytes page = PageBytes::Allocate(static_cast<uint32_t>(kPageHeaderBytes + payload.size()));
  BuildBlobAt(page.data.get(), kind, tree, count, payload);
  return page;
}

}  // namespace dynlib::store
