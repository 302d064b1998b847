#include "dynlib/store/range_estimate.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/store/page.h"

namespace dynlib::store {
namespace {

// So many leaves are counted, and so many are looked at when there are more. A larger number makes
// a better guess and reads more.
constexpr size_t kLeaves = 64;

struct Sums {
  double items = 0;
  double bytes = 0;
};

// A page that was opened, and the lower bound of what is below it.
struct Opened {
  OpenPage page;
  std::string low;
};

// A page that was not: child `index` of pages[parent].
struct Subtree {
  size_t parent;
  uint32_t index;
  double length;  // of its page
  std::string low;
};

std::string KeyAt(const PageView& view, uint32_t index) {
  return Cat(view.prefix(), view.suffix(index));
}

class Estimator {
 public:
  Estimator(NodeStore& nodes, std::string_view first, std::string_view end)
      : nodes_(nodes), first_(first), end_(end) {}

  absl::StatusOr<RangeStats> Run(Node& root) {
    DYNLIB_ASSIGN_OR_RETURN(OpenPage top,
                            nodes_.Open(root, NodeStore::Expect::kTreePage, ReadMode::kNotKept));
    pages_.push_back({std::move(top), {}});
    // Down, until a level has enough subtrees in the range, or is that of the leaves.
    while (!pages_.empty() && Level() > 0) {
      FindSubtrees();
      if (subtrees_.size() > kLeaves) return Sample();
      DYNLIB_RETURN_IF_ERROR(OpenSubtrees());
    }
    return Count();
  }

 private:
  uint32_t Level() const { return pages_[0].page.view().level(); }

  void FindSubtrees() {
    subtrees_.clear();
    for (size_t parent = 0; parent < pages_.size(); ++parent) {
      const OpenPage& page = pages_[parent].page;
      PageView view = page.view();
      uint32_t from = first_.empty() ? 0 : view.ChildFor(first_);
      uint32_t to = end_.empty() ? view.count() : view.Find(end_).index;
      for (uint32_t i = from; i <= to; ++i) {
        subtrees_.push_back({parent, i, static_cast<double>(nodes_.ChildLength(page, i)),
                             i == 0 ? pages_[parent].low : KeyAt(view, i - 1)});
      }
    }
  }

  absl::Status OpenSubtrees() {
    std::vector<Opened> below;
    for (Subtree& subtree : subtrees_) {
      auto page = nodes_.OpenChild(pages_[subtree.parent].page, subtree.index, ReadMode::kNotKept);
      if (page.ok()) {
        below.push_back({*std::move(page), std::move(subtree.low)});
      } else if (absl::IsDataLoss(page.status())) {
        damaged_ = true;
      } else {
        return page.status();
      }
    }
    pages_ = std::move(below);
    return absl::OkStatus();
  }

  // All leaves of the range are open.
  RangeStats Count() const {
    RangeStats stats{.exact = !damaged_};
    std::vector<uint64_t> before;  // bytes before the item
    std::vector<std::pair<const Opened*, uint32_t>> items;
    for (const Opened& leaf : pages_) {
      PageView view = leaf.page.view();
      uint32_t to = end_.empty() ? view.count() : view.Find(end_).index;
      for (uint32_t i = view.Find(first_).index; i < to; ++i) {
        before.push_back(stats.bytes);
        items.push_back({&leaf, i});
        stats.bytes += view.prefix().size() + view.suffix(i).size() + view.value(i).length;
      }
    }
    stats.items = items.size();
    if (items.size() < 2) return stats;
    size_t middle =
        std::lower_bound(before.begin() + 1, before.end() - 1, stats.bytes / 2) - before.begin();
    if (middle > 1 && before[middle] - stats.bytes / 2 > stats.bytes / 2 - before[middle - 1]) {
      --middle;
    }
    stats.middle_key = KeyAt(items[middle].first->page.view(), items[middle].second);
    return stats;
  }

  // What is below the page of a subtree, by one leaf under it.
  absl::StatusOr<Sums> LookInto(const Subtree& subtree) {
    DYNLIB_ASSIGN_OR_RETURN(OpenPage page, nodes_.OpenChild(pages_[subtree.parent].page,
                                                            subtree.index, ReadMode::kNotKept));
    double leaves = 1;
    while (page.view().level() > 0) {
      uint32_t children = page.view().child_count();
      double length = 0;
      for (uint32_t i = 0; i < children; ++i) length += nodes_.ChildLength(page, i);
      leaves *= length / nodes_.ChildLength(page, children / 2);
      DYNLIB_ASSIGN_OR_RETURN(page, nodes_.OpenChild(page, children / 2, ReadMode::kNotKept));
    }
    PageView leaf = page.view();
    double bytes = 0;
    for (uint32_t i = 0; i < leaf.count(); ++i) {
      bytes += leaf.prefix().size() + leaf.suffix(i).size() + leaf.value(i).length;
    }
    return Sums{leaves * leaf.count(), leaves * bytes};
  }

  absl::StatusOr<RangeStats> Sample() {
    const size_t count = subtrees_.size();
    // One in the middle of each stretch of subtrees stands for them, or, when it is damaged, that
    // of the stretch before; per byte of page.
    std::vector<std::optional<Sums>> samples(kLeaves);
    absl::Status damage;
    for (size_t s = 0; s < kLeaves; ++s) {
      const Subtree& subtree = subtrees_[(2 * s + 1) * count / (2 * kLeaves)];
      absl::StatusOr<Sums> sums = LookInto(subtree);
      if (sums.ok()) {
        samples[s] = Sums{sums->items / subtree.length, sums->bytes / subtree.length};
      } else if (absl::IsDataLoss(sums.status())) {
        damage = sums.status();
        if (s > 0) samples[s] = samples[s - 1];
      } else {
        return sums.status();
      }
    }
    auto good = std::find_if(samples.begin(), samples.end(), [](auto& s) { return s.has_value(); });
    if (good == samples.end()) return damage;
    std::fill(samples.begin(), good, *good);
    return Summed(samples);
  }

  RangeStats Summed(const std::vector<std::optional<Sums>>& samples) const {
    const size_t count = subtrees_.size();
    Sums all;
    std::vector<double> before(count);
    for (size_t i = 0; i < count; ++i) {
      before[i] = all.bytes;
      const Sums& sample = *samples[i * kLeaves / count];
      double length = subtrees_[i].length;
      // A bound lies somewhere in the subtree at that end.
      if ((i == 0 && !first_.empty()) || (i + 1 == count && !end_.empty())) length /= 2;
      all.items += sample.items * length;
      all.bytes += sample.bytes * length;
    }
    // The first and the last may have nothing in the range: one more is left on either side.
    size_t middle = 2;
    for (size_t i = middle; i + 1 < count; ++i) {
      if (std::abs(before[i] - all.bytes / 2) < std::abs(before[middle] - all.bytes / 2)) {
        middle = i;
      }
    }
    return {.items = static_cast<uint64_t>(all.items),
            .bytes = static_cast<uint64_t>(all.bytes),
            .middle_key = subtrees_[middle].low};
  }

  NodeStore& nodes_;
  const std::string_view first_;
  const std::string_view end_;
  std::vector<Opened> pages_;  // of one level, in key order
  std::vector<Subtree> subtrees_;
  bool damaged_ = false;
};

}  // namespace

absl::StatusOr<RangeStats> EstimateRange(NodeStore& nodes, Node& root, std::string_view first,
                                         std::string_view end) {
  if (!end.empty() && first >= end) return RangeStats{.exact = true};
  return Estimator(nodes, first, end).Run(root);
}

}  // namespace dynlib::store
