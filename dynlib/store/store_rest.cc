// What a store does when nobody writes for a while: makes a checkpoint and gives the log's space
// back, packs the pages that random insertions and deletes left sparse, a portion at a time and in
// the order of the writes, makes another checkpoint, and gives the space that came free back to the
// file system: long runs at once, short ones a portion at a time. The next write ends it.

#include <chrono>
#include <utility>

#include "dynlib/store/store_impl.h"

namespace dynlib::store {
namespace {

// Packed at once; a write that comes meanwhile waits for it, about a millisecond.
constexpr uint64_t kPortionBytes = 512 << 10;
// Made at once, and what each counts as: a hole costs the file system about what such a write does.
constexpr size_t kHolesAtOnce = 64;
constexpr uint64_t kBytesAHole = 16 << 10;

}  // namespace

void Store::Impl::WatchForRest() {
  if (options_.rest_after == Duration::max()) return;
  {
    std::lock_guard lock(mutex_);
    if (rest_.watching || !HealthLocked().ok()) return;
    rest_.watching = true;
    rest_.writes = writes_;
  }
  RunAtRest(options_.rest_after, &Impl::LookForRest);
}

void Store::Impl::RunAtRest(Duration delay, void (Impl::*step)()) {
  const Executor::TimerId timer =
      executors_.checkpoint->RunAt(clock_->Now() + delay, [weak = weak_from_this(), step] {
        if (const std::shared_ptr<Impl> self = weak.lock()) (self.get()->*step)();
      });
  std::lock_guard lock(mutex_);
  rest_.timer = timer;
}

// True while nothing was written since the rest was looked for; ends it otherwise.
bool Store::Impl::StillAtRest() {
  std::lock_guard lock(mutex_);
  rest_.watching = HealthLocked().ok();
  return rest_.watching && rest_.writes == writes_;
}

void Store::Impl::EndRest() {
  std::lock_guard lock(mutex_);
  rest_.watching = false;
}

void Store::Impl::LookForRest() {
  if (StillAtRest()) {
    rest_trees_.assign(1, NamedTree());
    {
      std::lock_guard lock(trees_mutex_);
      for (const auto& [name, entry] : trees_) rest_trees_.push_back(NamedTree(entry));
    }
    rest_from_.clear();
    rest_rewritten_ = 0;
    ReleaseLog();
    return CompactPortion();
  }
  {
    std::lock_guard lock(mutex_);
    if (!rest_.watching) return;
    rest_.writes = writes_;
  }
  RunAtRest(options_.rest_after, &Impl::LookForRest);
}

void Store::Impl::CompactPortion() {
  if (!StillAtRest()) return LookForRest();
  if (rest_trees_.empty()) return FinishRest();
  auto request = std::make_unique<Request>();
  auto step = std::make_shared<Tree::CompactStep>();
  request->executor = executors_.checkpoint;
  request->task = [this, step] {
    const NamedTree& named = rest_trees_.back();
    Tree* tree = named.is_default() ? default_tree_ : named.entry_->tree.get();
    if (TreeOf(named) == nullptr) return absl::OkStatus();
    absl::StatusOr<Tree::CompactStep> made = tree->Compact(rest_from_, kPortionBytes);
    if (made.ok()) *step = *std::move(made);
    return made.status();
  };
  request->done = [self = shared_from_this(), step](WriteResult result) {
    self->PortionCompacted(*step, result.status);
  };
  Submit(std::move(request));
}

void Store::Impl::PortionCompacted(const Tree::CompactStep& step, const absl::Status& status) {
  if (absl::IsUnavailable(status) || absl::IsCancelled(status)) return EndRest();
  rest_rewritten_ += step.rewritten_bytes;
  rest_from_ = step.next;
  // What cannot be read is not for this to repair: on to the next tree.
  if (!status.ok() || step.next.empty()) {
    rest_trees_.pop_back();
    rest_from_.clear();
  }
  if (rest_rewritten_ >= options_.checkpoint_after_bytes) {
    rest_rewritten_ = 0;
    if (!RunCheckpoint(false).ok()) return EndRest();
  }
  RunAtRest(PauseAfter(step.read_bytes + step.rewritten_bytes), &Impl::CompactPortion);
}

Duration Store::Impl::PauseAfter(uint64_t bytes) const {
  return std::chrono::nanoseconds(bytes * 1'000'000'000 / options_.rest_bytes_per_second);
}

// True if the checkpoint before it was made.
bool Store::Impl::ReleaseLog() {
  // Twice: what only the older checkpoint holds comes free too.
  if (!RunCheckpoint(true).ok()) return false;
  if (const std::shared_ptr<NodeLog> log = Log()) log->ReleaseSpace();
  return true;
}

void Store::Impl::FinishRest() {
  rest_release_ = {};
  rest_release_.done = !ReleaseLog() || !pages_->ReleaseSpace().ok();
  ReleaseShortRuns();
}

void Store::Impl::ReleaseShortRuns() {
  const uint64_t before = rest_release_.holes;
  if (!rest_release_.done && StillAtRest() &&
      pages_->ReleaseShortRuns(kHolesAtOnce, &rest_release_).ok() && !rest_release_.done) {
    const uint64_t bytes = (rest_release_.holes - before) * kBytesAHole;
    return RunAtRest(PauseAfter(bytes), &Impl::ReleaseShortRuns);
  }
  EndRest();
  std::unique_lock lock(mutex_);
  const bool written = rest_.writes != writes_;
  lock.unlock();
  if (written) WatchForRest();
}

}  // namespace dynlib::store
