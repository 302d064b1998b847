#include "dynlib/scrub/scrub_task.h"

#include <algorithm>
#include <set>
#include <string_view>

#include "dynlib/scrub/verdict.h"

namespace dynlib::scrub {

ScrubTask ScrubTask::Digests(const TaskContext* context, std::string first, std::string end,
                             size_t chooser, uint64_t part_items) {
  ScrubTask task(context, Phase::kChoosing, std::move(first), std::move(end));
  task.chooser_ = chooser;
  task.part_items_ = std::max<uint64_t>(part_items, 1);
  return task;
}

ScrubTask ScrubTask::Items(const TaskContext* context, std::string first, std::string end) {
  return ScrubTask(context, Phase::kListing, std::move(first), std::move(end));
}

std::optional<Request> ScrubTask::Wanted(size_t member) const {
  const CopyOfRange& copy = copies_[member];
  if (Lost(member) || copy.asked || copy.answer.has_value()) return std::nullopt;
  if (phase_ == Phase::kChoosing && member != chooser_) return std::nullopt;
  Request request{.replica = context_->members[member], .first = first_, .end = end_};
  // Others than the chooser may have more to read than it has.
  request.bytes_max = 2 * context_->step_bytes;
  switch (phase_) {
    case Phase::kChoosing:
      request.kind = RequestKind::kSplit;
      request.part_items = part_items_;
      request.part_bytes = std::max<uint64_t>(context_->step_bytes / context_->fan_out, 1);
      request.parts_max = context_->fan_out;
      request.bytes_max = context_->step_bytes;
      break;
    case Phase::kComparing:
      request.kind = RequestKind::kExact;
      for (size_t i = 0; i + 1 < parts_.size(); ++i) request.boundaries.push_back(parts_[i].end);
      break;
    case Phase::kListing:
      request.kind = RequestKind::kItems;
      request.items_max = 4 * context_->leaf_items;
      break;
  }
  return request;
}

absl::Status ScrubTask::Take(size_t member, Answer answer) {
  absl::Status status = phase_ == Phase::kListing ? CheckItems(answer) : CheckParts(answer);
  if (status.ok()) copies_[member].answer = std::move(answer);
  return status;
}

absl::Status ScrubTask::CheckParts(const Answer& answer) const {
  if (answer.parts.empty()) return absl::InvalidArgumentError("no parts");
  const bool exact = phase_ == Phase::kComparing;
  const size_t parts_max = exact ? parts_.size() : context_->fan_out + size_t{1};
  if (answer.parts.size() > parts_max) return absl::InvalidArgumentError("too many parts");
  std::string_view before = first_;
  for (size_t i = 0; i < answer.parts.size(); ++i) {
    const std::string& end = answer.parts[i].end;
    const bool last = i + 1 == answer.parts.size();
    if ((!end.empty() && end <= before) || (end.empty() && !last) || EndBefore(end_, end))
      return absl::InvalidArgumentError("parts out of order, or out of the range");
    if (exact && end != parts_[i].end && !(last && EndBefore(end, parts_[i].end)))
      return absl::InvalidArgumentError("other parts than were asked for");
    before = end;
  }
  if (answer.end != answer.parts.back().end)
    return absl::InvalidArgumentError("it ends elsewhere than its parts");
  return absl::OkStatus();
}

absl::Status ScrubTask::CheckItems(const Answer& answer) const {
  if ((!answer.end.empty() && answer.end <= first_) || EndBefore(end_, answer.end))
    return absl::InvalidArgumentError("it covers nothing, or more than was asked for");
  const size_t items_max = 4 * context_->leaf_items;
  if (answer.items.size() > items_max || answer.unreadable.size() > items_max)
    return absl::InvalidArgumentError("too many items");
  const ItemDigest* before = nullptr;
  for (const ItemDigest& item : answer.items) {
    if (item.key < first_ || !IsBefore(item.key, answer.end) ||
        (before != nullptr && item.key <= before->key)) {
      return absl::InvalidArgumentError("items out of order, or out of the range");
    }
    before = &item;
  }
  std::string_view from = first_;
  for (const UnreadableRange& range : answer.unreadable) {
    if (range.first < from || !IsBefore(range.first, range.end) ||
        EndBefore(answer.end, range.end)) {
      return absl::InvalidArgumentError("unreadable ranges out of order, or out of the range");
    }
    if (range.end.empty() && &range != &answer.unreadable.back())
      return absl::InvalidArgumentError("unreadable ranges out of order");
    from = range.end;
  }
  return absl::OkStatus();
}

void ScrubTask::TakeUnreadable(size_t member) {
  Answer answer;
  answer.end = end_;
  if (phase_ == Phase::kListing) {
    answer.unreadable.push_back({first_, end_, /*exact=*/false});
  } else if (phase_ == Phase::kChoosing) {
    answer.parts.push_back({.end = end_, .unreadable = true});
  } else {
    for (const Part& part : parts_) answer.parts.push_back({.end = part.end, .unreadable = true});
  }
  copies_[member].answer = std::move(answer);
}

uint32_t ScrubTask::Failed(size_t member, Instant not_before) {
  copies_[member].asked = false;
  copies_[member].not_before = not_before;
  return ++copies_[member].failures;
}

bool ScrubTask::AllAnswered() const {
  for (size_t i = 0; i < copies_.size(); ++i) {
    if (!Lost(i) && !copies_[i].answer.has_value()) return false;
  }
  return true;
}

ScrubTask::Step ScrubTask::Advance() {
  Step step;
  while (phase_ == Phase::kChoosing && !step.done && Choose(&step)) {
  }
  if (step.done || phase_ == Phase::kChoosing || !AllAnswered()) return step;
  step.done = true;
  phase_ == Phase::kComparing ? Compare(&step) : CompareItems(&step);
  return step;
}

bool ScrubTask::Choose(Step* step) {
  CopyOfRange& chooser = copies_[chooser_];
  if (!Lost(chooser_) && !chooser.answer.has_value()) return false;
  if (!Lost(chooser_) && !chooser.answer->parts.front().unreadable) {
    for (const Part& part : chooser.answer->parts) {
      if (part.unreadable) break;
      parts_.push_back(part);
    }
    // The rest need not wait for this.
    const bool unreadable_next = parts_.size() < chooser.answer->parts.size();
    const size_t next_chooser = unreadable_next ? (chooser_ + 1) % copies_.size() : chooser_;
    const std::string end = parts_.back().end;
    if (end != end_) step->tasks.push_back(Digests(context_, end, end_, next_chooser, part_items_));
    end_ = end;
    phase_ = Phase::kComparing;
    return true;
  }
  if (!Lost(chooser_)) chooser.unreadable_end = chooser.answer->parts.front().end;
  chooser.answer.reset();
  chooser.asked = false;
  for (size_t i = 1; i <= copies_.size(); ++i) {
    const size_t next = (chooser_ + i) % copies_.size();
    if (Lost(next) || copies_[next].unreadable_end.has_value()) continue;
    chooser_ = next;
    return true;
  }
  NobodyReads(step);
  return false;
}

// Up to the first key from which somebody may be able to read.
void ScrubTask::NobodyReads(Step* step) {
  step->done = true;
  Finding finding{.key = first_, .is_range = true, .end = end_};
  for (size_t i = 0; i < copies_.size(); ++i) {
    if (Lost(i)) continue;
    finding.end = EarlierEnd(finding.end, *copies_[i].unreadable_end);
    finding.copies.push_back({context_->members[i], CopyState::kUnreadable});
  }
  Judge(context_->reference, &finding);
  if (finding.end != end_)
    step->tasks.push_back(Digests(context_, finding.end, end_, chooser_, part_items_));
  step->compared.push_back({.first = first_, .findings = {std::move(finding)}});
}

bool ScrubTask::Equal(size_t part) const {
  const Part* one = nullptr;
  for (size_t i = 0; i < copies_.size(); ++i) {
    if (Lost(i)) continue;
    const Part& its = copies_[i].answer->parts[part];
    if (its.unreadable) return false;
    if (one != nullptr && (its.digest != one->digest || its.items != one->items)) return false;
    one = &its;
  }
  return true;
}

void ScrubTask::Compare(Step* step) {
  std::string through = end_;
  for (size_t i = 0; i < copies_.size(); ++i) {
    if (!Lost(i)) through = EarlierEnd(copies_[i].answer->end, through);
  }
  std::string first = first_;
  for (size_t part = 0; part < parts_.size(); ++part) {
    const std::string& end = parts_[part].end;
    if (EndBefore(through, end)) {
      // Somebody has more here than fits into a request. Where it stopped, all are cut.
      const bool cut = part == 0;
      if (cut) step->tasks.push_back(Digests(context_, first, through, chooser_, part_items_));
      step->tasks.push_back(Digests(context_, cut ? through : first, end_, chooser_, part_items_));
      return;
    }
    if (Equal(part)) {
      step->compared.push_back({first, parts_[part].items, parts_[part].bytes, {}});
    } else {
      step->tasks.push_back(Narrow(part, first));
    }
    first = end;
  }
}

ScrubTask ScrubTask::Narrow(size_t part, const std::string& first) const {
  size_t largest = copies_.size();
  uint64_t items = 0;
  for (size_t i = 0; i < copies_.size(); ++i) {
    if (Lost(i)) continue;
    const Part& its = copies_[i].answer->parts[part];
    if (its.unreadable || (largest != copies_.size() && its.items <= items)) continue;
    largest = i;
    items = its.items;
  }
  const std::string& end = parts_[part].end;
  if (largest == copies_.size() || items <= context_->leaf_items)
    return Items(context_, first, end);
  return Digests(context_, first, end, largest,
                 (items + context_->fan_out - 1) / context_->fan_out);
}

std::vector<std::string> ScrubTask::UnionOfKeys(const std::string& through) const {
  std::set<std::string> keys;
  for (size_t i = 0; i < copies_.size(); ++i) {
    if (Lost(i)) continue;
    for (const ItemDigest& item : copies_[i].answer->items) {
      if (IsBefore(item.key, through)) keys.insert(item.key);
    }
  }
  return {keys.begin(), keys.end()};
}

Copy ScrubTask::CopyOf(size_t member, const std::string& key, uint64_t* bytes) const {
  const Answer& answer = *copies_[member].answer;
  Copy copy{context_->members[member], CopyState::kAbsent};
  const auto item = std::lower_bound(
      answer.items.begin(), answer.items.end(), key,
      [](const ItemDigest& a, const std::string& sought) { return a.key < sought; });
  if (item != answer.items.end() && item->key == key) {
    copy.state = CopyState::kPresent;
    copy.digest = item->digest;
    *bytes = std::max(*bytes, item->bytes);
    return copy;
  }
  for (const UnreadableRange& range : answer.unreadable) {
    if (range.first <= key && IsBefore(key, range.end)) copy.state = CopyState::kUnreadable;
  }
  return copy;
}

std::optional<Finding> ScrubTask::CompareItem(const std::string& key, uint64_t* bytes) const {
  Finding finding{.key = key};
  for (size_t i = 0; i < copies_.size(); ++i) {
    if (!Lost(i)) finding.copies.push_back(CopyOf(i, key, bytes));
  }
  const Copy& one = finding.copies.front();
  const bool equal = std::all_of(
      finding.copies.begin(), finding.copies.end(),
      [&](const Copy& copy) { return copy.state == one.state && copy.digest == one.digest; });
  if (equal && one.state != CopyState::kUnreadable) return std::nullopt;
  Judge(context_->reference, &finding);
  return finding;
}

// A replica that knows no more than that it cannot read from some key on is asked again for less,
// down to one key, so that no item is called unreadable because of what is beside it.
bool ScrubTask::SplitListing(const std::vector<std::string>& keys, const std::string& through,
                             Step* step) {
  bool vague = false;
  for (size_t i = 0; i < copies_.size(); ++i) {
    if (Lost(i)) continue;
    for (const UnreadableRange& range : copies_[i].answer->unreadable) {
      const auto key = std::lower_bound(keys.begin(), keys.end(), range.first);
      vague |= !range.exact && key != keys.end() && IsBefore(*key, range.end);
    }
  }
  if (!vague) return false;
  std::vector<std::string> cuts = {keys[keys.size() / 2]};
  if (keys.size() == 1) cuts.push_back(After(cuts.front()));
  std::string first = first_;
  for (const std::string& cut : cuts) {
    if (cut == first || cut == through) continue;
    step->tasks.push_back(Items(context_, first, cut));
    first = cut;
  }
  if (first == first_) return false;  // a single key
  step->tasks.push_back(Items(context_, first, through));
  return true;
}

// Unreadable ranges without any key that somebody has: no item tells of them.
void ScrubTask::FindEmptyUnreadable(const std::vector<std::string>& keys,
                                    const std::string& through,
                                    std::vector<Finding>* findings) const {
  std::set<std::pair<std::string, std::string>> ranges;
  for (size_t i = 0; i < copies_.size(); ++i) {
    if (Lost(i)) continue;
    for (const UnreadableRange& range : copies_[i].answer->unreadable) {
      const auto key = std::lower_bound(keys.begin(), keys.end(), range.first);
      const bool has_key = key != keys.end() && IsBefore(*key, range.end);
      if (!has_key && IsBefore(range.first, through))
        ranges.emplace(range.first, EarlierEnd(range.end, through));
    }
  }
  for (const auto& [first, end] : ranges) {
    Finding finding{.key = first, .is_range = true, .end = end};
    for (size_t i = 0; i < copies_.size(); ++i) {
      if (Lost(i)) continue;
      uint64_t bytes = 0;
      finding.copies.push_back(CopyOf(i, first, &bytes));
    }
    Judge(context_->reference, &finding);
    findings->push_back(std::move(finding));
  }
}

void ScrubTask::CompareItems(Step* step) {
  std::string through = end_;
  for (size_t i = 0; i < copies_.size(); ++i) {
    if (!Lost(i)) through = EarlierEnd(copies_[i].answer->end, through);
  }
  if (through != end_) step->tasks.push_back(Items(context_, through, end_));
  const std::vector<std::string> keys = UnionOfKeys(through);
  if (SplitListing(keys, through, step)) return;
  Compared compared{.first = first_, .items = keys.size()};
  for (const std::string& key : keys) {
    uint64_t bytes = 0;
    if (auto finding = CompareItem(key, &bytes)) compared.findings.push_back(*std::move(finding));
    compared.bytes += bytes;
  }
  FindEmptyUnreadable(keys, through, &compared.findings);
  std::sort(compared.findings.begin(), compared.findings.end(),
            [](const Finding& a, const Finding& b) { return a.key < b.key; });
  step->vanished = compared.findings.empty();
  step->compared.push_back(std::move(compared));
}

}  // namespace dynlib::scrub
