// Plain maps as oracle for all trees of a page file, and random steps that change which trees there
// are: splits, joins, renames, drops.
#ifndef TESTS_STORE_FOREST_MODEL_H_
#define TESTS_STORE_FOREST_MODEL_H_

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "dynlib/base/random.h"
#include "dynlib/store/page.h"
#include "dynlib/store/page_file.h"
#include "dynlib/store/tree.h"
#include "gtest/gtest.h"
#include "tests/store/tree_model.h"

namespace dynlib::store {

struct TreeState {
  uint64_t position = 0;
  Model model;
  friend bool operator==(const TreeState&, const TreeState&) = default;
};
using Forest = std::map<TreeId, TreeState>;

inline Forest ForestIn(const PageFile& file) {
  Forest forest;
  for (TreeId id : file.Trees()) {
    Snapshot snapshot = file.FindTree(id)->snapshot();
    forest[id] = {snapshot.position(), Contents(snapshot)};
  }
  return forest;
}

// Moves the keys [from, at) (without `at`: all from `from` on) from one map to another.
inline void MoveKeys(Model& source, Model& target, const std::string& from,
                     const std::optional<std::string>& at = std::nullopt) {
  auto begin = source.lower_bound(from);
  auto end = at.has_value() ? source.lower_bound(*at) : source.end();
  target.insert(begin, end);
  source.erase(begin, end);
}

// Does random steps to a file and to the model alike.
class ForestSteps {
 public:
  ForestSteps(Random& random, uint64_t key_space) : random_(random), key_space_(key_space) {}

  // OK, and nothing done, when there is no tree that a step could be done to. On another error of
  // the file the model is as it was.
  absl::Status Any(PageFile& file, Forest& forest) {
    if (forest.empty()) return absl::OkStatus();
    switch (random_.Below(8)) {
      case 0:
        return Rename(file, forest);
      case 1:
        return Drop(file, forest);
      case 2:
      case 3:
      case 4:
        return Join(file, forest);
      default:
        return Split(file, forest);
    }
  }

  absl::Status Split(PageFile& file, Forest& forest) {
    std::vector<TreeId> free = FreeIds(forest, 2);
    TreeId source = AnyOf(forest);
    std::string from = random_.Chance(0.3) ? "" : ModelKey(random_, key_space_);
    std::string at = ModelKey(random_, key_space_);
    if (from > at) std::swap(from, at);
    Forest next = forest;
    PageFile::SplitSpec spec{.from = from, .at = at};
    MoveKeys(next[source].model, next[free[0]].model, from, at);
    MoveKeys(next[source].model, next[free[1]].model, at);
    spec.source = FinishPart(source, next);
    spec.left = FinishPart(free[0], next);
    spec.right = FinishPart(free[1], next);
    absl::Status status = file.Split(spec);
    if (!status.ok()) return status;
    forest = std::move(next);
    last_split_ = {free[0], free[1], from};
    ++splits_;
    return status;
  }

  // Rather of the two trees of the last split, but of any two.
  absl::Status Join(PageFile& file, Forest& forest) {
    if (forest.size() < 2) return absl::OkStatus();
    auto [left, right, from] = last_split_;
    if (!forest.contains(left) || !forest.contains(right) || random_.Chance(0.3)) {
      left = AnyOf(forest);
      do right = AnyOf(forest);
      while (right == left);
      from = ModelKey(random_, key_space_);
    }
    TreeId target = FreeIds(forest, 1)[0];
    Forest next = forest;
    Model moved;
    PageFile::JoinSpec spec{.from = from};
    MoveKeys(next[left].model, moved, from);
    const bool apart = moved.empty() ||
                       next[right].model.lower_bound(from) == next[right].model.end() ||
                       moved.rbegin()->first < next[right].model.lower_bound(from)->first;
    MoveKeys(next[right].model, moved, from);
    next[target].model = std::move(moved);
    spec.left = FinishPart(left, next);
    spec.right = FinishPart(right, next);
    spec.target = FinishPart(target, next);
    absl::Status status = file.Join(spec);
    EXPECT_FALSE(status.ok() && !apart);
    if (absl::IsInvalidArgument(status) && !apart) return absl::OkStatus();
    if (!status.ok()) return status;
    forest = std::move(next);
    ++joins_;
    return status;
  }

  absl::Status Rename(PageFile& file, Forest& forest) {
    TreeId from = AnyOf(forest);
    TreeId to = random_.Chance(0.5) ? FreeIds(forest, 1)[0] : AnyOf(forest);
    if (from == to) return absl::OkStatus();
    absl::StatusOr<Tree*> renamed = file.RenameTree(from, to);
    if (!renamed.ok()) return renamed.status();
    EXPECT_EQ((*renamed)->id(), to);
    forest[to] = std::move(forest[from]);
    forest.erase(from);
    return absl::OkStatus();
  }

  absl::Status Drop(PageFile& file, Forest& forest) {
    TreeId id = AnyOf(forest);
    absl::Status status = file.DropTree(id);
    if (status.ok()) forest.erase(id);
    return status;
  }

  int splits() const { return splits_; }
  int joins() const { return joins_; }

 private:
  TreeId AnyOf(const Forest& forest) {
    return std::next(forest.begin(), random_.Below(forest.size()))->first;
  }
  std::vector<TreeId> FreeIds(const Forest& forest, size_t count) {
    std::vector<TreeId> free;
    for (uint64_t id = 1; free.size() < count; ++id) {
      if (!forest.contains(TreeId{id})) free.push_back(TreeId{id});
    }
    if (random_.Chance(0.5)) std::reverse(free.begin(), free.end());
    return free;
  }
  PageFile::Part FinishPart(TreeId id, Forest& next) {
    PageFile::Part part{.tree = id};
    if (random_.Chance(0.7)) {
      AddRandomOperations(random_, key_space_, random_.Below(4), part.batch, next[id].model);
    }
    part.position = next[id].position += random_.Below(3);
    return part;
  }

  struct LastSplit {
    TreeId left{};
    TreeId right{};
    std::string from;
  };

  Random& random_;
  const uint64_t key_space_;
  LastSplit last_split_;
  int splits_ = 0;
  int joins_ = 0;
};

}  // namespace dynlib::store

#endif  // TESTS_STORE_FOREST_MODEL_H_
