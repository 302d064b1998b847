#include "benchmarks/group_load.h"

#include <algorithm>
#include <chrono>
#include <future>
#include <utility>

#include "dynlib/base/check.h"

namespace dynlib::bench {

PutLoad::PutLoad(Executor* executor, const Clock* clock, Options options, Put put)
    : executor_(executor),
      clock_(clock),
      put_(std::move(put)),
      stream_(static_cast<int>(options.first_client), options.value_bytes) {
  DYNLIB_CHECK(!options.groups.empty());
  for (size_t i = 0; i < static_cast<size_t>(options.callers); ++i) {
    callers_.push_back({.group = options.groups[i % options.groups.size()],
                        .client = ClientId{options.first_client + i}});
  }
}

absl::Status PutLoad::PutOne() {
  return Run(0, [this] { Begin(0, NowNs()); }).status();
}

absl::StatusOr<RunResult> PutLoad::Closed(double seconds) {
  return Run(seconds, [this] {
    for (size_t i = 0; i < callers_.size(); ++i) Begin(i, NowNs());
  });
}

absl::StatusOr<RunResult> PutLoad::Open(double seconds, double rate) {
  return Run(seconds, [this, rate] {
    open_ = true;
    interval_ns_ = 1e9 / rate;
    first_due_ns_ = NowNs();
    for (size_t i = 0; i < callers_.size(); ++i) resting_.push_back(i);
    BeginDue();
  });
}

absl::StatusOr<RunResult> PutLoad::Run(double seconds, std::function<void()> begin) {
  std::promise<absl::Status> over;
  executor_->Post([&] {
    over_ = [&](absl::Status status) { over.set_value(std::move(status)); };
    begin_ns_ = NowNs() + static_cast<uint64_t>(WarmUpSeconds(seconds) * 1e9);
    end_ns_ = seconds == 0 ? 0 : begin_ns_ + static_cast<uint64_t>(seconds * 1e9);
    begin();
  });
  if (absl::Status status = over.get_future().get(); !status.ok()) return status;
  RunResult result;
  result.latencies_ns = std::move(latencies_ns_);
  result.seconds = seconds;
  result.operations = result.latencies_ns.size();
  return result;
}

void PutLoad::Begin(size_t caller, uint64_t due_ns) {
  Caller& by = callers_[caller];
  ++in_flight_;
  ProposeRequest request{.group = by.group, .command = {}};
  request.command.client = by.client;
  request.command.acknowledged = by.sequence++;
  request.command.sequence = by.sequence;
  request.command.issued = clock_->WallNow();
  const std::string_view key = stream_.NextKey();
  ReplicatedMap::PutCommand(request.command.command, key, stream_.NextValue());
  put_(std::move(request),
       [this, caller, due_ns](absl::Status status) { OnPut(caller, due_ns, std::move(status)); });
}

void PutLoad::OnPut(size_t caller, uint64_t due_ns, absl::Status status) {
  const uint64_t now_ns = NowNs();
  --in_flight_;
  if (!status.ok()) error_ = std::move(status);
  const uint64_t counts_ns = open_ ? due_ns : now_ns;
  if (counts_ns >= begin_ns_ && counts_ns < end_ns_) latencies_ns_.push_back(now_ns - due_ns);
  if (!open_) {
    if (!Over(now_ns)) return Begin(caller, now_ns);
  } else if (!due_.empty() && error_.ok()) {
    const uint64_t next_ns = due_.front();
    due_.pop_front();
    return Begin(caller, next_ns);
  } else {
    resting_.push_back(caller);
  }
  EndIfIdle();
}

// Those that fell due since the last time, and a timer for the next.
void PutLoad::BeginDue() {
  const uint64_t now_ns = NowNs();
  const auto next_due = [&] {
    return first_due_ns_ + static_cast<uint64_t>(static_cast<double>(due_count_) * interval_ns_);
  };
  for (uint64_t due_ns = next_due(); due_ns <= now_ns && !Over(due_ns); due_ns = next_due()) {
    ++due_count_;
    if (resting_.empty()) {
      due_.push_back(due_ns);
      continue;
    }
    const size_t caller = resting_.back();
    resting_.pop_back();
    Begin(caller, due_ns);
  }
  if (Over(now_ns)) return EndIfIdle();
  executor_->RunAt(clock_->Now() + std::chrono::nanoseconds(next_due() - now_ns),
                   [this] { BeginDue(); });
}

void PutLoad::EndIfIdle() {
  const bool waits = open_ && error_.ok() && (!due_.empty() || !Over(NowNs()));
  if (in_flight_ > 0 || waits || over_ == nullptr) return;
  open_ = false;
  resting_.clear();
  std::exchange(over_, nullptr)(error_);
}

}  // namespace dynlib::bench
