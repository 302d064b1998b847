#include "dynlib/store/cursor.h"

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "dynlib/base/check.h"
#include "dynlib/store/key_range.h"
#include "dynlib/store/node_store.h"
#include "dynlib/store/page.h"

namespace dynlib::store {
namespace {

// So far ahead the next cells are asked for.
constexpr int64_t kCellsAhead = 4;

}  // namespace

class Cursor::Impl {
 public:
  Impl(Snapshot snapshot, const CursorOptions& options)
      : snapshot_(std::move(snapshot)),
        range_(WithPrefix({options.start, options.end}, options.prefix)),
        mode_(options.mode) {}

  bool SeekToLast() { return range_.end.empty() ? Backward(GoTo(Edge::kLast)) : Below(range_.end); }
  // `key` may be of this cursor's own row, which is let go on the way.
  bool Seek(std::string_view key) {
    target_.assign(key < range_.start ? range_.start : key);
    return Forward(GoTo(target_));
  }
  bool SeekBack(std::string_view key) {
    if (!range_.below_end(key)) return SeekToLast();
    target_.assign(key);
    if (!GoTo(target_)) return false;
    Step& leaf = path_.back();
    if (!leaf.page.view().Find(target_).found) --leaf.index;
    return Backward(true);
  }
  bool SeekToFirst() { return Seek(range_.start); }
  bool Next() {
    if (!valid_) return false;
    ++path_.back().index;
    return Forward(true);
  }
  bool Prev() {
    if (!valid_) return false;
    --path_.back().index;
    return Backward(true);
  }

  bool valid() const { return valid_; }
  const absl::Status& status() const { return status_; }
  std::string_view key() const {
    DYNLIB_CHECK(valid_);
    return key_;
  }
  std::string_view value() const {
    DYNLIB_CHECK(valid_);
    return value_;
  }
  const Snapshot& snapshot() const { return snapshot_; }

 private:
  enum class Edge { kFirst, kLast };
  // A page on the way down, and the child taken there; of the leaf the slot, which may be one
  // before the first or behind the last.
  struct Step {
    OpenPage page;
    int64_t index;
  };

  bool Below(const std::string& key) {
    if (!GoTo(key)) return false;
    --path_.back().index;
    return Backward(true);
  }

  // From the root to a leaf. False: there is none, or it cannot be read.
  bool GoTo(std::string_view key) {
    return Start() && Descend([key](const PageView& page) {
             return page.level() > 0 ? page.ChildFor(key) : page.Find(key).index;
           });
  }
  bool GoTo(Edge edge) { return Start() && Descend(edge); }
  bool Descend(Edge edge) {
    return Descend([edge](const PageView& page) -> int64_t {
      return edge == Edge::kFirst ? 0 : int64_t{page.count()} - (page.level() > 0 ? 0 : 1);
    });
  }

  bool Start() {
    Stop();
    status_ = absl::OkStatus();
    if (snapshot_.empty() || range_.empty()) return false;
    absl::StatusOr<OpenPage> root =
        snapshot_.nodes().Open(*snapshot_.root(), NodeStore::Expect::kTreePage, mode_);
    return Take(std::move(root));
  }

  // `choose`: what to take in each page, from the last of the path on.
  template <typename Choose>
  bool Descend(Choose choose) {
    while (true) {
      Step& step = path_.back();
      const PageView page = step.page.view();
      step.index = choose(page);
      if (page.level() == 0) return true;
      if (!TakeChild()) return false;
    }
  }

  bool TakeChild() {
    const Step& step = path_.back();
    return Take(snapshot_.nodes().OpenChild(step.page, static_cast<uint32_t>(step.index), mode_));
  }
  bool Take(absl::StatusOr<OpenPage> page) {
    if (!page.ok()) return Fail(page.status());
    path_.push_back({*std::move(page), 0});
    return true;
  }

  // The leaf beside this one. False: there is none, or it cannot be read.
  bool StepAside(Edge from) {
    const int64_t step = from == Edge::kFirst ? 1 : -1;
    for (path_.pop_back(); !path_.empty(); path_.pop_back()) {
      Step& branch = path_.back();
      branch.index += step;
      if (branch.index < 0 || branch.index >= branch.page.view().child_count()) continue;
      return TakeChild() && Descend(from);
    }
    return false;
  }

  // To the next row from where the path stands, if `there` is such a place.
  bool Forward(bool there) {
    while (there && path_.back().index >= path_.back().page.view().count()) {
      there = StepAside(Edge::kFirst);
    }
    return there ? Arrive(+1) : Stop();
  }
  bool Backward(bool there) {
    while (there && path_.back().index < 0) there = StepAside(Edge::kLast);
    return there ? Arrive(-1) : Stop();
  }

  bool Arrive(int direction) {
    const Step& leaf = path_.back();
    const PageView view = leaf.page.view();
    const auto index = static_cast<uint32_t>(leaf.index);
    const int64_t ahead = leaf.index + direction * kCellsAhead;
    if (ahead >= 0 && ahead < view.count()) LeafRows(view).Ask(static_cast<uint32_t>(ahead));
    key_.assign(view.prefix());
    key_.append(view.suffix(index));
    if (!range_.below_end(key_) || key_ < range_.start) return Stop();
    const LeafValue value = view.value(index);
    if (value.overflow) {
      absl::StatusOr<OpenPage> page = snapshot_.nodes().OpenChild(leaf.page, value.child, mode_);
      if (!page.ok()) return Fail(page.status());
      overflow_ = *std::move(page);
      value_ = overflow_->view().payload();
    } else {
      overflow_.reset();
      value_ = value.inlined;
    }
    valid_ = true;
    return true;
  }

  // At no key.
  bool Stop() {
    valid_ = false;
    overflow_.reset();
    path_.clear();
    return false;
  }
  bool Fail(const absl::Status& status) {
    Stop();
    status_ = status;
    return false;
  }

  // Last to go: what the pages below are part of.
  const Snapshot snapshot_;
  const KeyRange range_;
  const ReadMode mode_;
  std::vector<Step> path_;  // the leaf is the last; empty: at no key
  std::optional<OpenPage> overflow_;
  bool valid_ = false;
  absl::Status status_;
  std::string key_;
  std::string target_;
  std::string_view value_;
};

Cursor::Cursor(Snapshot snapshot, const CursorOptions& options)
    : impl_(std::make_unique<Impl>(std::move(snapshot), options)) {}
Cursor::~Cursor() = default;
Cursor::Cursor(Cursor&& other) noexcept = default;
Cursor& Cursor::operator=(Cursor&& other) noexcept = default;

bool Cursor::SeekToFirst() { return impl_->SeekToFirst(); }
bool Cursor::SeekToLast() { return impl_->SeekToLast(); }
bool Cursor::Seek(std::string_view key) { return impl_->Seek(key); }
bool Cursor::SeekBack(std::string_view key) { return impl_->SeekBack(key); }
bool Cursor::Next() { return impl_->Next(); }
bool Cursor::Prev() { return impl_->Prev(); }
bool Cursor::valid() const { return impl_->valid(); }
const absl::Status& Cursor::status() const { return impl_->status(); }
std::string_view Cursor::key() const { return impl_->key(); }
std::string_view Cursor::value() const { return impl_->value(); }
const Snapshot& Cursor::snapshot() const { return impl_->snapshot(); }

}  // namespace dynlib::store
