// The next version of a page that changes little: what stays is copied in runs, several times as
// fast as a page is built anew from its entries.
//
// Pure functions; pages that are made are marked with `tree`. Internal to the store.
#ifndef DYNLIB_STORE_PAGE_CHANGE_H_
#define DYNLIB_STORE_PAGE_CHANGE_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "dynlib/store/page.h"

namespace dynlib::store {

// A put (or a delete, without a value) of one key of a leaf, and where it belongs, as Find says.
struct LeafChange {
  PageView::Position at;
  std::string_view key;
  std::optional<std::string_view> value;  // inlined
};
// The leaf with these changes, in key order, each to another key. None of its values, old or new,
// is an overflow value; each key starts with its prefix.
uint32_t ChangedLeafLength(const PageView& leaf, std::span<const LeafChange> changes);
void ChangeLeafAt(char* page, TreeId tree, const PageView& leaf,
                  std::span<const LeafChange> changes);

// A separator that comes into a branch, before its separator `before`, or at the end.
struct NewSeparator {
  uint32_t before;
  std::string_view key;
};
// The branch with these separators too, in key order, each of which starts with its prefix. The
// table of references is not written: that of a page in memory does not count.
uint32_t ChangedBranchLength(const PageView& branch, std::span<const NewSeparator> added);
void ChangeBranchAt(char* page, TreeId tree, const PageView& branch,
                    std::span<const NewSeparator> added);

}  // namespace dynlib::store

#endif  // DYNLIB_STORE_PAGE_CHANGE_H_
