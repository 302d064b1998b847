#include "dynlib/cluster/tree_copier.h"

#include <algorithm>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "dynlib/base/check.h"
#include "dynlib/base/checksum.h"
#include "dynlib/base/coding.h"
#include "dynlib/base/strings.h"
#include "dynlib/cluster/cluster.pb.h"
#include "dynlib/cluster/service.h"
#include "dynlib/cluster/tree_chunk.h"

namespace dynlib::cluster {
namespace {

constexpr Duration kTimeMin = std::chrono::milliseconds(1);
constexpr Duration kTimeMax = std::chrono::hours(1);
constexpr int kTriesLimit = 1000;

absl::Status ToStatus(const wire::Outcome& outcome) {
  return absl::Status(static_cast<absl::StatusCode>(outcome.code()), ToAbsl(outcome.message()));
}

}  // namespace

// Shared with work on files, which outlives the copier, and known weakly to calls and timers.
class TreeCopier::Impl : public std::enable_shared_from_this<Impl> {
 public:
  Impl(Options options, Rpc* rpc, Executor* executor, Executor* file_executor, const Clock* clock,
       MetricsSink* metrics)
      : options_(options),
        rpc_(rpc),
        executor_(executor),
        file_executor_(file_executor),
        clock_(clock),
        metrics_(metrics) {}

  CopyId Begin(PartitionId partition, std::vector<NodeId> sources, store::Tree* into, Done done);
  void Cancel(CopyId id, absl::AnyInvocable<void()> done);
  void Stop(absl::AnyInvocable<void()> done);
  void Abandon();
  void OnWritten(absl::AnyInvocable<void(size_t)> written) { written_ = std::move(written); }
  size_t copies() const { return copies_.size(); }

 private:
  struct Copying {
    PartitionId partition;
    std::vector<NodeId> sources;
    store::Tree* into;
    Done done;

    int starts = 0;    // given up so far; says which source it is
    int failures = 0;  // in a row
    uint64_t pin = 0;  // 0: none yet
    uint64_t position = 0;
    uint64_t digest_seed = 0;  // of this pass
    bool all_new = false;      // the tree has nothing behind `after`
    std::string after;
    std::shared_ptr<wire::CopyTreeRequest> request;  // the last; never changed, but for the pin

    // One of these is awaited at any time; `turn` tells it from what was awaited before.
    uint64_t turn = 0;
    Executor::TimerId timer = Executor::kNoTimer;
    bool working = false;  // on files

    bool cancelled = false;
    std::vector<absl::AnyInvocable<void()>> cancellers;

    NodeId source() const { return sources[static_cast<size_t>(starts) % sources.size()]; }
  };
  using CopyMap = std::map<CopyId, Copying>;
  // What came of work on files.
  struct Merged {
    absl::Status chunk;  // what is wrong with it
    absl::Status tree;   // why it could not be written
    bool more = false;
  };

  uint64_t DrawSeed(CopyId id) const;
  // From `after` on: what is held there, then the request.
  void Next(CopyId id, Copying& copy);
  void OnHeld(CopyId id, std::shared_ptr<wire::CopyTreeRequest> request, const absl::Status& read);
  void Ask(CopyId id, Copying& copy);
  void AskIn(Duration delay, CopyId id, Copying& copy);
  void OnReply(CopyId id, Copying& copy, absl::StatusOr<std::string> reply);
  void OnChunk(CopyId id, Copying& copy, wire::CopyTreeReply chunk);
  void MergeMore(CopyId id, Copying& copy, std::shared_ptr<TreeChunkMerge> merge);
  static void TakeStep(TreeChunkMerge& merge, Merged& merged);
  static void PostMerged(std::shared_ptr<Impl> self, CopyId id,
                         std::shared_ptr<TreeChunkMerge> merge, const Merged& merged);
  void OnMerged(CopyId id, std::shared_ptr<TreeChunkMerge> merge, const Merged& merged);
  // An attempt came to nothing.
  void Fail(CopyId id, Copying& copy, const absl::Status& why);
  void GoToNextSource(CopyId id, Copying& copy, const absl::Status& why);
  void Unpin(Copying& copy);
  void Finish(CopyId id, absl::StatusOr<uint64_t> result);

  const Options options_;
  Rpc* const rpc_;
  Executor* const executor_;
  Executor* const file_executor_;
  const Clock* const clock_;
  MetricsSink* const metrics_;

  absl::AnyInvocable<void(size_t)> written_;
  CopyMap copies_;
  uint64_t last_id_ = 0;
  bool stopped_ = false;
};

TreeCopier::CopyId TreeCopier::Impl::Begin(PartitionId partition, std::vector<NodeId> sources,
                                           store::Tree* into, Done done) {
  const CopyId id{++last_id_};
  absl::Status refused;
  if (stopped_) refused = absl::CancelledError("shut down");
  if (sources.empty())
    refused = absl::InvalidArgumentError(Cat("partition ", partition, ": no source to copy from"));
  if (!refused.ok()) {
    executor_->Post([done = std::move(done), refused]() mutable { done(refused); });
    return id;
  }
  Copying& copy = copies_[id];
  copy.partition = partition;
  copy.sources = std::move(sources);
  copy.into = into;
  copy.done = std::move(done);
  copy.digest_seed = DrawSeed(id);
  Next(id, copy);
  return id;
}

// Rows that have the digest of others under one seed are told from them under the next.
uint64_t TreeCopier::Impl::DrawSeed(CopyId id) const {
  std::string seed;
  PutFixed64(seed, ToUint(id));
  PutFixed64(seed, static_cast<uint64_t>(clock_->WallNow().nanos()));
  PutFixed64(seed, static_cast<uint64_t>(clock_->Now().nanos()));
  return Checksum(seed);
}

void TreeCopier::Impl::Next(CopyId id, Copying& copy) {
  auto request = std::make_shared<wire::CopyTreeRequest>();
  request->set_partition(ToUint(copy.partition));
  request->set_after(copy.after);
  request->set_bytes_max(options_.chunk_bytes);
  request->set_digest_seed(copy.digest_seed);
  if (copy.all_new) {
    copy.request = std::move(request);
    return Ask(id, copy);
  }
  ++copy.turn;
  copy.working = true;
  file_executor_->Post([self = shared_from_this(), id, tree = copy.into,
                        request = std::move(request)]() mutable {
    const absl::Status read = ReadHeldParts(tree->snapshot(), self->options_.chunk_bytes, *request);
    Executor* const executor = self->executor_;
    executor->Post([self = std::move(self), id, request = std::move(request), read]() mutable {
      self->OnHeld(id, std::move(request), read);
    });
  });
}

void TreeCopier::Impl::OnHeld(CopyId id, std::shared_ptr<wire::CopyTreeRequest> request,
                              const absl::Status& read) {
  const auto found = copies_.find(id);
  if (found == copies_.end()) return;
  Copying& copy = found->second;
  copy.working = false;
  if (copy.cancelled) return Finish(id, absl::CancelledError("the copy was cancelled"));
  if (!read.ok()) return Finish(id, read);
  // Nobody else writes, and the copy does up to `after` alone.
  copy.all_new = request->held().empty();
  copy.request = std::move(request);
  Ask(id, copy);
}

void TreeCopier::Impl::Ask(CopyId id, Copying& copy) {
  copy.request->set_pin(copy.pin);
  rpc_->Call(copy.source(), kCopyTree, copy.request->SerializeAsString(), options_.attempt_timeout,
             [weak = weak_from_this(), id, turn = ++copy.turn](absl::StatusOr<std::string> reply) {
               const std::shared_ptr<Impl> self = weak.lock();
               if (self == nullptr) return;
               const auto found = self->copies_.find(id);
               if (found == self->copies_.end() || found->second.turn != turn) return;
               self->OnReply(id, found->second, std::move(reply));
             });
}

void TreeCopier::Impl::AskIn(Duration delay, CopyId id, Copying& copy) {
  ++copy.turn;
  copy.timer = executor_->RunAt(clock_->Now() + delay, [weak = weak_from_this(), id] {
    const std::shared_ptr<Impl> self = weak.lock();
    if (self == nullptr) return;
    const auto found = self->copies_.find(id);
    if (found == self->copies_.end()) return;
    found->second.timer = Executor::kNoTimer;
    if (found->second.request == nullptr) return self->Next(id, found->second);
    self->Ask(id, found->second);
  });
}

void TreeCopier::Impl::OnReply(CopyId id, Copying& copy, absl::StatusOr<std::string> reply) {
  if (!reply.ok()) return Fail(id, copy, reply.status());
  wire::CopyTreeReply chunk;
  if (!chunk.ParseFromString(*reply))
    return Fail(id, copy, absl::DataLossError("the source's reply does not parse"));
  const wire::Outcome& outcome = chunk.outcome();
  if (outcome.retry_after_us() > 0) {
    // The source is busy with other copies, and well; it has pinned the version.
    if (copy.pin == 0) {
      copy.pin = chunk.pin();
      copy.position = chunk.position();
    }
    const auto wait = static_cast<uint64_t>(ToMicros(options_.attempt_timeout));
    return AskIn(std::chrono::microseconds(std::min(outcome.retry_after_us(), wait)), id, copy);
  }
  if (outcome.code() != 0) return GoToNextSource(id, copy, ToStatus(outcome));
  OnChunk(id, copy, std::move(chunk));
}

void TreeCopier::Impl::OnChunk(CopyId id, Copying& copy, wire::CopyTreeReply chunk) {
  const bool first = copy.pin == 0;
  const bool same_version = options_.unpinned_for_test || chunk.position() == copy.position;
  if (chunk.pin() == 0 || (!first && (chunk.pin() != copy.pin || !same_version))) {
    return Fail(id, copy, absl::DataLossError("the source answered with another version"));
  }
  copy.pin = chunk.pin();
  copy.position = chunk.position();
  ++copy.turn;
  copy.working = true;
  file_executor_->Post([self = shared_from_this(), id, tree = copy.into, request = copy.request,
                        chunk = std::move(chunk)]() mutable {
    Merged merged;
    merged.chunk = CheckTreeChunk(*request, chunk);
    std::shared_ptr<TreeChunkMerge> merge;
    if (merged.chunk.ok()) {
      merge = std::make_shared<TreeChunkMerge>(*request, std::move(chunk), tree);
      TakeStep(*merge, merged);
    }
    PostMerged(std::move(self), id, std::move(merge), merged);
  });
}

void TreeCopier::Impl::TakeStep(TreeChunkMerge& merge, Merged& merged) {
  const absl::StatusOr<bool> more = merge.Step();
  merged.tree = more.status();
  merged.more = more.ok() && *more;
}

// On the file executor.
void TreeCopier::Impl::PostMerged(std::shared_ptr<Impl> self, CopyId id,
                                  std::shared_ptr<TreeChunkMerge> merge, const Merged& merged) {
  Executor* const executor = self->executor_;
  executor->Post([self = std::move(self), id, merge = std::move(merge), merged]() mutable {
    self->OnMerged(id, std::move(merge), merged);
  });
}

void TreeCopier::Impl::MergeMore(CopyId id, Copying& copy, std::shared_ptr<TreeChunkMerge> merge) {
  ++copy.turn;
  copy.working = true;
  file_executor_->Post([self = shared_from_this(), id, merge = std::move(merge)]() mutable {
    Merged merged;
    TakeStep(*merge, merged);
    PostMerged(std::move(self), id, std::move(merge), merged);
  });
}

void TreeCopier::Impl::OnMerged(CopyId id, std::shared_ptr<TreeChunkMerge> merge,
                                const Merged& merged) {
  const auto found = copies_.find(id);
  if (found == copies_.end()) return;
  Copying& copy = found->second;
  copy.working = false;
  if (copy.cancelled) return Finish(id, absl::CancelledError("the copy was cancelled"));
  if (!merged.chunk.ok()) return Fail(id, copy, merged.chunk);
  if (!merged.tree.ok()) return Finish(id, merged.tree);
  if (merged.more) return MergeMore(id, copy, std::move(merge));
  copy.failures = 0;
  copy.after = merge->last();
  metrics_->Count("copy.chunks", 1);
  metrics_->Count("copy.bytes", static_cast<int64_t>(merge->bytes()));
  metrics_->Count("copy.bytes_same",
                  static_cast<int64_t>(BytesSame(*copy.request, merge->chunk())));
  metrics_->Count("copy.rows_changed", static_cast<int64_t>(merge->changed()));
  if (written_ != nullptr && merge->changed() > 0) written_(merge->bytes());
  if (merge->chunk().done()) return Finish(id, copy.position);
  Next(id, copy);
}

void TreeCopier::Impl::Fail(CopyId id, Copying& copy, const absl::Status& why) {
  if (++copy.failures >= options_.attempts_max) return GoToNextSource(id, copy, why);
  AskIn(options_.retry_delay, id, copy);
}

void TreeCopier::Impl::GoToNextSource(CopyId id, Copying& copy, const absl::Status& why) {
  Unpin(copy);
  const EventField fields[] = {{"partition", Cat(copy.partition)},
                               {"source", Cat(copy.source())},
                               {"why", std::string(ToStd(why.message()))}};
  ++copy.starts;
  if (static_cast<size_t>(copy.starts) / static_cast<size_t>(options_.rounds_max) >=
      copy.sources.size()) {
    return Finish(id, why);
  }
  metrics_->Count("copy.restarts", 1);
  metrics_->Event("copy.restart", fields);
  copy.failures = 0;
  copy.position = 0;
  copy.after.clear();
  copy.digest_seed = DrawSeed(id);
  copy.all_new = false;
  copy.request = nullptr;
  AskIn(options_.retry_delay, id, copy);
}

// A source that does not hear it lets go by itself.
void TreeCopier::Impl::Unpin(Copying& copy) {
  if (copy.pin == 0) return;
  wire::UnpinRequest request;
  request.set_pin(std::exchange(copy.pin, 0));
  rpc_->Call(copy.source(), kUnpin, request.SerializeAsString(), options_.attempt_timeout,
             [](const absl::StatusOr<std::string>&) {});
}

void TreeCopier::Impl::Finish(CopyId id, absl::StatusOr<uint64_t> result) {
  const auto found = copies_.find(id);
  Copying copy = std::move(found->second);
  copies_.erase(found);
  executor_->Cancel(copy.timer);
  Unpin(copy);
  copy.done(std::move(result));
  for (absl::AnyInvocable<void()>& canceller : copy.cancellers) canceller();
}

void TreeCopier::Impl::Cancel(CopyId id, absl::AnyInvocable<void()> done) {
  const auto found = copies_.find(id);
  if (found == copies_.end()) return executor_->Post(std::move(done));
  Copying& copy = found->second;
  copy.cancellers.push_back(std::move(done));
  if (std::exchange(copy.cancelled, true) || copy.working) return;
  ++copy.turn;
  executor_->Cancel(std::exchange(copy.timer, Executor::kNoTimer));
  executor_->Post([self = shared_from_this(), id] {
    if (self->copies_.contains(id))
      self->Finish(id, absl::CancelledError("the copy was cancelled"));
  });
}

void TreeCopier::Impl::Stop(absl::AnyInvocable<void()> done) {
  stopped_ = true;
  std::vector<CopyId> ids;
  for (const auto& [id, copy] : copies_) ids.push_back(id);
  if (ids.empty()) return executor_->Post(std::move(done));
  // Runs behind the last of them.
  auto left =
      std::make_shared<std::pair<size_t, absl::AnyInvocable<void()>>>(ids.size(), std::move(done));
  for (const CopyId id : ids) {
    Cancel(id, [left] {
      if (--left->first == 0) left->second();
    });
  }
}

void TreeCopier::Impl::Abandon() {
  written_ = nullptr;
  for (auto& [id, copy] : copies_) executor_->Cancel(copy.timer);
  copies_.clear();
}

absl::Status TreeCopier::Validate(const Options& options) {
  auto time = [](std::string_view field, Duration value) {
    if (value >= kTimeMin && value <= kTimeMax) return absl::OkStatus();
    return absl::InvalidArgumentError(Cat(field, " is ", ToMicros(value), " us; allowed: ",
                                          ToMicros(kTimeMin), " to ", ToMicros(kTimeMax)));
  };
  auto tries = [](std::string_view field, int value) {
    if (value >= 1 && value <= kTriesLimit) return absl::OkStatus();
    return absl::InvalidArgumentError(Cat(field, " is ", value, "; allowed: 1 to ", kTriesLimit));
  };
  absl::Status status = time("attempt_timeout", options.attempt_timeout);
  status.Update(time("retry_delay", options.retry_delay));
  status.Update(tries("attempts_max", options.attempts_max));
  status.Update(tries("rounds_max", options.rounds_max));
  if (options.chunk_bytes < kTreeChunkBytesMin || options.chunk_bytes > kTreeChunkBytesMax) {
    status.Update(absl::InvalidArgumentError(Cat("chunk_bytes is ", options.chunk_bytes,
                                                 "; allowed: ", kTreeChunkBytesMin, " to ",
                                                 kTreeChunkBytesMax)));
  }
  return status;
}

TreeCopier::TreeCopier(Options options, Rpc* rpc, Executor* executor, Executor* file_executor,
                       const Clock* clock, MetricsSink* metrics)
    : impl_(std::make_shared<Impl>(options, rpc, executor, file_executor, clock, metrics)) {
  DYNLIB_CHECK(Validate(options).ok());
}

TreeCopier::~TreeCopier() { impl_->Abandon(); }

TreeCopier::CopyId TreeCopier::Copy(PartitionId partition, std::vector<NodeId> sources,
                                    store::Tree* into, Done done) {
  return impl_->Begin(partition, std::move(sources), into, std::move(done));
}
void TreeCopier::OnWritten(absl::AnyInvocable<void(size_t)> written) {
  impl_->OnWritten(std::move(written));
}
void TreeCopier::Cancel(CopyId copy, absl::AnyInvocable<void()> done) {
  impl_->Cancel(copy, std::move(done));
}
void TreeCopier::Stop(absl::AnyInvocable<void()> done) { impl_->Stop(std::move(done)); }
size_t TreeCopier::copies() const { return impl_->copies(); }

}  // namespace dynlib::cluster
