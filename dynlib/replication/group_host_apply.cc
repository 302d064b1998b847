// How chosen entries are applied: the steps that the groups of a flush are to take go to their
// apply executors, and come back, many in a task.
#include <algorithm>
#include <utility>
#include <vector>

#include "dynlib/replication/group_host_impl.h"

namespace dynlib::replication {
namespace {

// A task takes steps of at most about so much, so that reads of other groups get their turn, and of
// so many groups, so that who waits for the first does not wait for the last.
constexpr size_t kBatchBytesMax = 4 << 20;
constexpr size_t kBatchGroupsMax = 32;

size_t BytesOf(const ApplyStep& step) {
  size_t bytes = 0;
  for (const auto& [slot, payload] : step.entries) bytes += payload->size();
  return bytes;
}

}  // namespace

void GroupHost::Impl::AddToBatch(HostedGroup& group, ApplyStep step) {
  Executor* const executor = group.apply_executor();
  auto batch = std::find_if(batches_.begin(), batches_.end(),
                            [&](const ApplyBatch& other) { return other.executor == executor; });
  if (batch == batches_.end()) batch = batches_.insert(batch, ApplyBatch{executor, {}, 0});
  batch->bytes += BytesOf(step);
  if (batch->applies.empty()) batch->applies.reserve(std::min(flushing_, kBatchGroupsMax));
  batch->applies.push_back({group.shared_from_this(), std::move(step), {}});
  if (batch->bytes >= kBatchBytesMax || batch->applies.size() >= kBatchGroupsMax) PostBatch(*batch);
}

void GroupHost::Impl::PostBatch(ApplyBatch& batch) {
  if (batch.applies.empty()) return;
  batch.bytes = 0;
  batch.executor->Post([host = weak_from_this(), home = executor_,
                        applies = std::exchange(batch.applies, {})]() mutable {
    RunBatch(std::move(host), home, std::move(applies));
  });
}

// On the apply executor.
void GroupHost::Impl::RunBatch(std::weak_ptr<Impl> host, Executor* home,
                               std::vector<Apply> applies) {
  Applier::Scratch scratch;
  for (Apply& apply : applies) {
    apply.outcome = apply.group->applier().Run(apply.step, scratch);
    apply.step = {};
  }
  home->Post([host = std::move(host), applies = std::move(applies)]() mutable {
    if (auto self = host.lock()) self->FinishApplies(std::move(applies));
  });
}

void GroupHost::Impl::FinishApplies(std::vector<Apply> applies) {
  HostedGroup::Answers answers;
  size_t results = 0;
  for (const Apply& apply : applies) results += apply.outcome.results.size();
  answers.reserve(results);
  for (Apply& apply : applies) {
    const bool again = apply.group->FinishApply(std::move(apply.outcome), answers);
    AwakeGroup* const awake = FindAwake(apply.group->core().group());
    // One that was removed may have a successor.
    if (awake == nullptr || awake->hosted != apply.group) continue;
    if (again || options_.rest_after == Duration(0)) MarkDirty(*awake);
  }
  applies.clear();
  // Last, since a callback may do anything, also destroy the host. They are called from here: a
  // task each would be a tenth of what a commit costs its leader.
  for (auto& [done, answer] : answers) done(std::move(answer));
}

}  // namespace dynlib::replication
