// The way of a write from the queue: log, trees, answer. All of it is done by whoever leads.

#include <algorithm>
#include <utility>

#include "dynlib/base/shared_bytes.h"
#include "dynlib/base/status_macros.h"
#include "dynlib/base/strings.h"
#include "dynlib/store/node_log_record.h"
#include "dynlib/store/store_impl.h"

namespace dynlib::store {

// Moves things along until there is nothing to do but wait. `own`: the group of a thread that
// waits; it is led to its answer, and no further.
void Store::Impl::Drive(const Group* own) {
  bool own_done = false;
  while (true) {
    GroupPtr next;
    std::optional<absl::Status> logged;
    bool wait_for_pages = false;
    if (TakeRetry()) PumpLog();
    {
      std::lock_guard lock(mutex_);
      logged = std::exchange(logged_, std::nullopt);
      if (logged.has_value()) {
        // The next step.
      } else if (CanTakeLocked()) {
        if ((own_done || own == nullptr) && CallSuccessorLocked()) return;
        if (own_done) return PostDrive();
        wait_for_pages = !pages_->HasRoom() && refused_.ok() && damaged_.ok() && !pages_full_;
        if (wait_for_pages) {
          waiting_for_pages_ = true;
          leading_ = false;
        } else {
          next = std::move(queue_.front());
          queue_.pop_front();
        }
      } else {
        if (CloseIfIdleLocked()) return;
        leading_ = false;
        return;
      }
    }
    if (wait_for_pages) return WaitForPages();
    if (logged.has_value()) {
      HandleLogged(*logged, /*own=*/false);
    } else {
      own_done = own != nullptr;
      const bool mine = next.get() == own;
      Start(std::move(next), mine);
    }
  }
}

bool Store::Impl::TakeRetry() {
  std::lock_guard lock(mutex_);
  return std::exchange(retry_log_, false);
}

// Dirty pages are at their bound: nothing is applied until a checkpoint has written some.
void Store::Impl::WaitForPages() {
  pages_->WhenRoom([self = shared_from_this()] {
    std::lock_guard lock(self->mutex_);
    self->waiting_for_pages_ = false;
    self->pages_full_ = !self->pages_->HasRoom();  // The checkpoint has failed.
    if (self->TakeLeadLocked()) self->PostDrive();
  });
  CheckpointIfDue(false);
}

void Store::Impl::Start(GroupPtr group, bool own) {
  absl::Status refused;
  std::shared_ptr<NodeLog> log;
  {
    std::lock_guard lock(mutex_);
    refused = refused_.ok() && !group->requests.front()->repairs ? damaged_ : refused_;
    log = log_;
    if (std::exchange(pages_full_, false) && refused.ok()) {
      refused = absl::ResourceExhaustedError(
          Cat("too many pages wait for a checkpoint, and that failed: ",
              ToStd(last_checkpoint_.message())));
    }
  }
  if (!refused.ok()) return Refuse(group, refused, own);
  if (!Prepare(*group)) return AnswerAll({group}, own);
  LogRecord record = {kStoreStream, RecordKind::kEntry, group->last_sequence, 0, encoder_.Take()};
  if (!group->durable) {
    // Kept here until it is logged: the log may refuse it.
    record.rest = SharedBytes(std::exchange(record.payload, {}));
    const uint64_t bytes = std::exchange(group->bytes, 0);
    Apply(*group);
    AnswerAll({group}, own);
    to_log_.push_back({std::move(record), bytes, nullptr});
    return PumpLog();
  }
  {
    std::lock_guard lock(mutex_);
    durable_in_log_ = true;
  }
  const uint64_t bytes = std::exchange(group->bytes, 0);
  const bool alone = to_log_.empty() && log != nullptr;
  to_log_.push_back({std::move(record), bytes, group});
  if (!alone || !(own || executors_.answer != nullptr)) return PumpLog();
  logging_ = 1;
  std::vector<LogRecord> records;
  records.push_back(std::move(to_log_.front().record));
  // Who leads for others leaves the processor to them while the disk is at it.
  const absl::Status logged = log->AppendAndWait(
      std::move(records), [&] { PreparePages(*group); }, own ? DiskWait::kPoll : DiskWait::kSleep);
  HandleLogged(logged, own);
}

// The log has answered. Whoever leads sees to it; if nobody does, this thread leads.
void Store::Impl::Logged(absl::Status status) {
  {
    std::lock_guard lock(mutex_);
    logged_ = std::move(status);
    if (leading_) return;
    leading_ = true;
  }
  Drive(nullptr);
}

// Of each request: do its conditions hold, and its place in the order. True if there is something
// to log.
bool Store::Impl::Prepare(Group& group) {
  bool any = false;
  for (size_t i = 0; i < group.requests.size(); ++i) {
    Request& request = *group.requests[i];
    bool nothing_to_do = false;
    absl::Status& status = request.result.status;
    if (request.task != nullptr) {
      status = request.task();
      nothing_to_do = true;
    } else if (request.change.has_value()) {
      status = PrepareChange(*request.change, &nothing_to_do);
    } else {
      status = PrepareRequest(group, i);
    }
    if (!status.ok() || nothing_to_do) continue;
    request.result.sequence = group.last_sequence = ++last_sequence_;
    if (!recent_.empty()) NoteWritten(request);
    for (const StoreBatch::Part& part : request.batch.parts()) {
      encoder_.Add(part.tree.is_default() ? kDefaultTree : part.tree.entry_->id, part.batch);
    }
    encoder_.EndWrite();
    any = true;
  }
  return any;
}

absl::Status Store::Impl::PrepareRequest(Group& group, size_t index) {
  const Request& request = *group.requests[index];
  for (const StoreBatch::Part& part : request.batch.parts()) {
    if (TreeOf(part.tree) == nullptr) {
      return absl::FailedPreconditionError(Cat("tree ", Escape(part.tree.name()), " was dropped"));
    }
  }
  if (request.batch.conditions().empty()) return absl::OkStatus();
  return CheckConditions(group, index);
}

void Store::Impl::PumpLog() {
  if (logging_ > 0 || to_log_.empty()) return;
  const std::shared_ptr<NodeLog> log = Log();
  if (log == nullptr) {
    logging_ = to_log_.size();
    return HandleLogged(absl::CancelledError("the store was destroyed first"), /*own=*/false);
  }
  std::vector<LogRecord> records;
  uint64_t bytes = 0;
  for (ToLog& next : to_log_) {
    bytes += next.record.payload_bytes() + NodeLog::kRecordOverheadBytes;
    if (!records.empty() && bytes > max_group_bytes_) break;
    // What was answered before may have to be logged again.
    records.push_back(next.group == nullptr ? next.record : std::move(next.record));
  }
  logging_ = records.size();
  log->Append(
      std::move(records), executors_.apply,
      [self = shared_from_this()](absl::Status status) { self->Logged(std::move(status)); });
}

void Store::Impl::HandleLogged(const absl::Status& status, bool own) {
  const bool full = status.code() == absl::StatusCode::kResourceExhausted;
  std::vector<GroupPtr> ready;
  uint64_t bytes = 0;
  // A log that refuses is not asked about what waits behind: it is refused, too.
  std::deque<ToLog> kept;
  for (size_t left = status.ok() ? logging_ : to_log_.size(); left > 0; --left) {
    ToLog logged = std::move(to_log_.front());
    to_log_.pop_front();
    if (full && logged.group == nullptr) {
      kept.push_back(std::move(logged));
      continue;
    }
    bytes += logged.bytes;
    if (logged.group != nullptr) ready.push_back(std::move(logged.group));
  }
  logging_ = 0;
  if (full) to_log_ = std::move(kept);
  {
    std::lock_guard lock(mutex_);
    log_full_ = full;
    if (!ready.empty()) durable_in_log_ = false;
    GiveBackLocked(bytes);
    if (status.ok()) bytes_since_checkpoint_ += bytes;
    if (!status.ok() && !full) {
      FailLocked(status);
      refused_ = health_;
    }
  }
  if (!status.ok()) {
    for (const GroupPtr& group : ready) Refuse(group, status, own);
    // Not for what is merely owed: that is tried again by each checkpoint.
    if (full && !ready.empty()) CheckpointIfDue(true);
    return;
  }
  // The log goes on with the next group while this one is applied.
  if (to_log_.empty() && executors_.answer == nullptr) {
    if (GroupPtr next = TakeBehind()) Start(std::move(next), /*own=*/false);
  } else {
    PumpLog();
  }
  for (const GroupPtr& group : ready) Apply(*group);
  AnswerAll(std::move(ready), own);
  CheckpointIfDue(false);
}

// In their order. What one's own thread waits for needs nobody else, if no callbacks are among it,
// which would overtake others.
void Store::Impl::AnswerAll(std::vector<GroupPtr> groups, bool own) {
  const bool here = executors_.answer == nullptr ||
                    (own && std::all_of(groups.begin(), groups.end(), [](const GroupPtr& group) {
                       return group->owned.empty();
                     }));
  if (here) {
    for (const GroupPtr& group : groups) Answer(*group);
    return;
  }
  executors_.answer->Post([self = shared_from_this(), groups = std::move(groups)] {
    for (const GroupPtr& group : groups) self->Answer(*group);
  });
}

// A group that may be logged before what was logged is applied.
Store::Impl::GroupPtr Store::Impl::TakeBehind() {
  std::lock_guard lock(mutex_);
  if (!CanTakeLocked() || queue_.front()->ordered || !queue_.front()->durable) return nullptr;
  if (!damaged_.ok()) return nullptr;
  if (!pages_->HasRoom()) return nullptr;
  GroupPtr next = std::move(queue_.front());
  queue_.pop_front();
  return next;
}

void Store::Impl::Apply(Group& group) {
  absl::Status status = owed_.why;
  if (status.ok()) status = ApplyToTrees(group);
  if (status.ok()) return;
  // Durable, but a page that it needs cannot be read; nothing may overtake it.
  group.prepared = {};
  const std::string why = Cat("logged but not applied: ", ToStd(status.message()));
  if (absl::IsDataLoss(status)) {
    Owe(group, status);
    status = absl::DataLossError(why);
  } else {
    std::lock_guard lock(mutex_);
    FailLocked(status);
    refused_ = health_;
    status = absl::UnknownError(why);
  }
  for (Request* request : group.requests) {
    if (request->result.status.ok()) request->result = {.status = status};
  }
}

// Its batches are its requests': they stay, since one that the log refuses may be tried again.
absl::StatusOr<PageFile::Prepared> Store::Impl::PrepareTrees(const Group& group) {
  std::vector<PageFile::TreeBatch> batches = {{catalogue_, &group.catalogue}};
  for (const Request* request : group.requests) {
    if (request->result.sequence == 0) continue;
    for (const StoreBatch::Part& part : request->batch.parts()) {
      Tree* tree = part.tree.is_default() ? default_tree_ : part.tree.entry_->tree.get();
      batches.push_back({tree, &part.batch});
    }
  }
  return pages_->Prepare(batches, group.last_sequence);
}

// While its record is on its way. What goes wrong goes wrong again when it is applied.
void Store::Impl::PreparePages(Group& group) {
  if (group.ordered) return;
  if (auto prepared = PrepareTrees(group); prepared.ok()) group.prepared = *std::move(prepared);
}

absl::Status Store::Impl::ApplyToTrees(Group& group) {
  for (Request* request : group.requests) {
    if (request->result.sequence == 0 || !request->change.has_value()) continue;
    DYNLIB_RETURN_IF_ERROR(ApplyChange(*request->change, group.catalogue));
  }
  if (group.prepared.empty()) {
    absl::StatusOr<PageFile::Prepared> prepared = PrepareTrees(group);
    if (absl::IsDataLoss(prepared.status()) && options_.fetch_rows != nullptr) {
      DYNLIB_RETURN_IF_ERROR(RepairFor(group));
      prepared = PrepareTrees(group);
    }
    DYNLIB_ASSIGN_OR_RETURN(group.prepared, std::move(prepared));
  }
  pages_->Publish(std::exchange(group.prepared, {}));
  MakeMemoryIfDue();
  return absl::OkStatus();
}

void Store::Impl::Refuse(const GroupPtr& group, const absl::Status& why, bool own) {
  group->prepared = {};  // At once: who waits for the group may keep it for a while.
  for (Request* request : group->requests) {
    if (request->result.status.ok()) request->result = {.status = why};
  }
  AnswerAll({group}, own);
}

void Store::Impl::Count(const Group& group) {
  uint64_t writes = 0;
  uint64_t conditions_failed = 0;
  for (const Request* request : group.requests) {
    writes += request->result.ok() && request->task == nullptr;
    conditions_failed += request->result.failed_condition.has_value();
  }
  bool watch = false;
  {
    std::lock_guard lock(mutex_);
    writes_ += writes;
    groups_ += writes > 0;
    conditions_failed_ += conditions_failed;
    if (group.bytes > 0) GiveBackLocked(group.bytes);
    watch = writes > 0 && !rest_.watching;
  }
  if (watch) WatchForRest();
}

// One wake-up for all threads that wait for the group, one task for each executor.
void Store::Impl::Answer(Group& group) {
  Count(group);
  struct Answered {
    WriteDone done;
    WriteResult result;
  };
  std::vector<std::pair<Executor*, std::vector<Answered>>> by_executor;
  for (const std::unique_ptr<Request>& request : group.owned) {
    auto at = std::find_if(by_executor.begin(), by_executor.end(),
                           [&](const auto& other) { return other.first == request->executor; });
    if (at == by_executor.end()) {
      by_executor.emplace_back(request->executor, std::vector<Answered>());
      at = std::prev(by_executor.end());
    }
    at->second.push_back({std::move(request->done), std::move(request->result)});
  }
  for (auto& [executor, answers] : by_executor) {
    executor->Post([answers = std::move(answers)]() mutable {
      for (Answered& answer : answers) std::move(answer.done)(std::move(answer.result));
    });
  }
  group.owned.clear();
  group.requests.clear();
  if (group.has_successor) group.successor.Answer();
  group.answered.Set();
}

}  // namespace dynlib::store
