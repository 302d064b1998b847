#include "dynlib/scrub/scrub_session.h"

#include <algorithm>
#include <set>
#include <string_view>
#include <utility>

#include "dynlib/base/check.h"
#include "dynlib/base/strings.h"

namespace dynlib::scrub {
namespace {

// So many stretches may be compared ahead of one that is held up.
constexpr size_t kAheadMax = 256;
constexpr size_t kMembersMax = 16;

TaskContext MakeContext(const ScrubOptions& options, const ScrubSubject& subject) {
  return {.members = subject.members,
          .lost = std::vector<bool>(subject.members.size()),
          .reference = subject.reference,
          .step_bytes = options.step_bytes,
          .fan_out = options.fan_out,
          .leaf_items = options.leaf_items};
}

Duration TimeFor(uint64_t bytes, double bytes_per_second) {
  const double nanos = static_cast<double>(bytes) / bytes_per_second * 1e9;
  return nanos < 9e18 ? Duration(static_cast<int64_t>(nanos)) : Duration::max();
}

}  // namespace

absl::Status Validate(const ScrubSubject& subject) {
  const std::set<ReplicaId> distinct(subject.members.begin(), subject.members.end());
  if (distinct.size() != subject.members.size() || distinct.contains(ReplicaId{}))
    return absl::InvalidArgumentError("scrub.members: allowed: different ones, not 0");
  if (distinct.size() < 2 || distinct.size() > kMembersMax) {
    return absl::InvalidArgumentError(
        Cat("scrub.members has ", distinct.size(), "; allowed: 2 to ", kMembersMax));
  }
  if (subject.reference != ReplicaId{} && !distinct.contains(subject.reference)) {
    return absl::InvalidArgumentError(
        Cat("scrub.reference is ", subject.reference, "; allowed: 0, or one of the members"));
  }
  if (!IsBefore(subject.first, subject.end))
    return absl::InvalidArgumentError("scrub.end is not behind scrub.first; allowed: a range");
  return absl::OkStatus();
}

ScrubSession::ScrubSession(const ScrubOptions& options, const ScrubSubject& subject,
                           const ScrubCursor& resume, Instant now)
    : options_(options),
      subject_(subject),
      began_(now),
      began_bytes_(resume.bytes),
      context_(MakeContext(options, subject)),
      cursor_(resume) {
  DYNLIB_CHECK(Validate(options).ok());
  DYNLIB_CHECK(Validate(subject).ok());
  for (size_t i = 0; i < subject.members.size(); ++i)
    members_.push_back({Throttle(options.bytes_per_second), {}, {}});
  cursor_.next = std::max(cursor_.next, subject.first);
  if (!cursor_.done && IsBefore(cursor_.next, subject.end)) {
    tasks_.emplace(cursor_.next,
                   ScrubTask::Digests(&context_, cursor_.next, subject.end, /*chooser=*/0));
  }
  Advance(now);
}

void ScrubSession::OnAnswer(uint64_t request, absl::StatusOr<Answer> answer, Instant now) {
  const auto found = in_flight_.find(request);
  if (found == in_flight_.end() || finished()) {
    ++counts_.unexpected_answers;
    return;
  }
  const InFlight asked = Forget(found);
  ScrubTask& task = tasks_.at(asked.task);
  if (absl::IsDataLoss(answer.status())) {
    task.TakeUnreadable(asked.member);
  } else if (!answer.ok()) {
    Fail(asked, answer.status().ToString(), now);
  } else {
    members_[asked.member].throttle.Settle(asked.bytes, answer->bytes_read);
    const absl::Status status = task.Take(asked.member, *std::move(answer));
    if (!status.ok()) {
      ++counts_.malformed_answers;
      Fail(asked, status.ToString(), now);
    }
  }
  Advance(now);
}

void ScrubSession::OnTimer(Instant now) {
  if (finished()) return;
  std::vector<InFlight> expired;
  for (auto it = in_flight_.begin(); it != in_flight_.end();) {
    const auto next = std::next(it);
    if (it->second.deadline <= now) expired.push_back(Forget(it));
    it = next;
  }
  for (const InFlight& request : expired) {
    if (!context_.lost[request.member]) Fail(request, "no answer within request_timeout", now);
  }
  Advance(now);
}

ScrubSession::InFlight ScrubSession::Forget(std::map<uint64_t, InFlight>::iterator request) {
  in_flight_bytes_ -= request->second.bytes;
  InFlight asked = std::move(request->second);
  in_flight_.erase(request);
  return asked;
}

void ScrubSession::Fail(const InFlight& request, const std::string& why, Instant now) {
  ++counts_.failed_requests;
  ScrubTask& task = tasks_.at(request.task);
  if (task.Failed(request.member, now + options_.retry_delay) >= options_.attempts)
    Lose(request.member, why);
}

void ScrubSession::Lose(size_t member, const std::string& why) {
  context_.lost[member] = true;
  members_[member].why = why;
  members_[member].compared_through = cursor_.next;
  for (auto it = in_flight_.begin(); it != in_flight_.end();) {
    const auto next = std::next(it);
    if (it->second.member == member) Forget(it);
    it = next;
  }
}

void ScrubSession::Advance(Instant now) {
  if (finished()) return;
  if (std::count(context_.lost.begin(), context_.lost.end(), false) < 2) {
    std::string why = "scrub: fewer than two replicas are left";
    for (size_t i = 0; i < members_.size(); ++i) {
      if (context_.lost[i]) why += Cat("; replica ", context_.members[i], ": ", members_[i].why);
    }
    return Finish(absl::UnavailableError(why), now);
  }
  for (auto it = tasks_.begin(); it != tasks_.end();) {
    ScrubTask::Step step = it->second.Advance();
    counts_.vanished_differences += step.vanished;
    it = step.done ? tasks_.erase(it) : std::next(it);
    for (ScrubTask& task : step.tasks) {
      std::string first = task.first();
      tasks_.emplace(std::move(first), std::move(task));
    }
    for (Compared& compared : step.compared) {
      std::string first = compared.first;
      credits_.emplace(std::move(first), std::move(compared));
    }
  }
  MoveCursor();
  if (tasks_.empty()) return Finish(absl::OkStatus(), now);
  if (cursor_.findings >= options_.max_findings) {
    return Finish(absl::ResourceExhaustedError(Cat("scrub: max_findings, ", options_.max_findings,
                                                   ", reached; the rest is not compared")),
                  now);
  }
  Send(now);
}

void ScrubSession::MoveCursor() {
  cursor_.done = tasks_.empty();
  cursor_.next = tasks_.empty() ? subject_.end : tasks_.begin()->first;
  while (!credits_.empty() && (cursor_.done || credits_.begin()->first < cursor_.next)) {
    Compared& compared = credits_.begin()->second;
    cursor_.items += compared.items;
    cursor_.bytes += compared.bytes;
    cursor_.findings += compared.findings.size();
    std::move(compared.findings.begin(), compared.findings.end(),
              std::back_inserter(effects_.findings));
    credits_.erase(credits_.begin());
  }
}

// In the order of the keys, and few at a time: so the ranges that wait stay few, and findings come
// in order soon.
void ScrubSession::Send(Instant now) {
  next_send_ = Instant::Infinite();
  const size_t members = context_.members.size();
  size_t active_max = credits_.size() < kAheadMax ? 1 + options_.max_in_flight / members : 1;
  for (auto& [first, task] : tasks_) {
    if (active_max-- == 0) return;
    for (size_t member = 0; member < members; ++member) {
      std::optional<Request> request = task.Wanted(member);
      if (request.has_value() && !SendOne(task, member, *std::move(request), now)) return;
    }
  }
}

bool ScrubSession::SendOne(ScrubTask& task, size_t member, Request request, Instant now) {
  if (in_flight_.size() >= options_.max_in_flight ||
      in_flight_bytes_ + request.bytes_max > options_.max_in_flight_bytes) {
    return false;
  }
  Throttle& throttle = members_[member].throttle;
  const Instant when = std::max(throttle.ready_at(), task.not_before(member));
  if (when > now) {
    next_send_ = std::min(next_send_, when);
    return true;
  }
  throttle.Charge(request.bytes_max, now);
  request.id = ++last_request_;
  request.marker = subject_.marker;
  task.Sent(member);
  in_flight_bytes_ += request.bytes_max;
  in_flight_.emplace(request.id, InFlight{task.first(), member, request.bytes_max,
                                          now + options_.request_timeout});
  effects_.requests.push_back(std::move(request));
  return true;
}

void ScrubSession::Finish(absl::Status result, Instant now) {
  result_ = std::move(result);
  finished_at_ = now;
  in_flight_.clear();
  in_flight_bytes_ = 0;
  effects_.requests.clear();
}

Instant ScrubSession::next_timer() const {
  if (finished()) return Instant::Infinite();
  Instant next = next_send_;
  for (const auto& [id, request] : in_flight_) next = std::min(next, request.deadline);
  return next;
}

ScrubSession::Effects ScrubSession::TakeEffects() { return std::exchange(effects_, {}); }

ScrubProgress ScrubSession::Progress(Instant now) const {
  ScrubProgress progress{.cursor = cursor_, .counts = counts_};
  for (size_t i = 0; i < members_.size(); ++i) {
    const bool lost = context_.lost[i];
    progress.members.push_back({context_.members[i], lost, members_[i].why,
                                lost ? members_[i].compared_through : cursor_.next});
  }
  if (cursor_.done) {
    progress.fraction = 1;
    progress.estimated_end = finished_at_;
    progress.late = finished_at_ > options_.deadline;
    return progress;
  }
  progress.late = now > options_.deadline;
  if (options_.expected_bytes == 0) return progress;
  const double expected = static_cast<double>(options_.expected_bytes);
  progress.fraction = std::min(static_cast<double>(cursor_.bytes) / expected, 0.999);
  const uint64_t left = options_.expected_bytes - std::min(options_.expected_bytes, cursor_.bytes);
  double pace = static_cast<double>(options_.bytes_per_second);
  const Duration elapsed = now - began_;
  // Until a request may have timed out, silence is no sign.
  if (elapsed > options_.request_timeout) {
    const double seconds = static_cast<double>(elapsed.count()) / 1e9;
    pace = std::min(pace, static_cast<double>(cursor_.bytes - began_bytes_) / seconds);
  }
  progress.estimated_end = pace > 0 ? now + TimeFor(left, pace) : Instant::Infinite();
  progress.late |= progress.estimated_end > options_.deadline;
  return progress;
}

}  // namespace dynlib::scrub
