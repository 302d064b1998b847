#include "dynlib/sim/register_search.h"

#include <algorithm>

#include "dynlib/base/check.h"
#include "dynlib/base/random.h"

namespace dynlib::sim {

using Demand = RegisterStep::Demand;

namespace {

// No effect, wherever its demand is met.
bool IsPure(const RegisterStep& step) {
  return step.written == RegisterStep::kNoWrite ||
         (step.demand == Demand::kEquals && step.demanded == step.written);
}

}  // namespace

RegisterSearch::RegisterSearch(std::vector<RegisterStep> steps, int value_count)
    : steps_(std::move(steps)),
      must_see_(static_cast<size_t>(value_count)),
      may_see_(static_cast<size_t>(value_count)),
      writers_(static_cast<size_t>(value_count)) {
  Random random(steps_.size());
  for (const RegisterStep& step : steps_) {
    DYNLIB_CHECK(step.required || step.written != RegisterStep::kNoWrite);
    hashes_.emplace_back(random.Next(), random.Next());
    Count(step, +1);
  }
  BuildList();
}

void RegisterSearch::BuildList() {
  std::vector<std::pair<uint64_t, size_t>> events;
  for (size_t i = 0; i < steps_.size(); ++i) {
    events.emplace_back(steps_[i].invoked, InvocationNode(i));
    if (steps_[i].required) events.emplace_back(steps_[i].returned, InvocationNode(i) + 1);
  }
  std::sort(events.begin(), events.end());
  next_.resize(2 * steps_.size() + 1);
  previous_.resize(2 * steps_.size() + 1);
  size_t last = 0;
  for (const auto& [position, node] : events) {
    next_[last] = node;
    previous_[node] = last;
    last = node;
  }
  next_[last] = 0;
  previous_[0] = last;
}

void RegisterSearch::Unlink(size_t node) {
  next_[previous_[node]] = next_[node];
  previous_[next_[node]] = previous_[node];
}

// Undoes the latest Unlink that was not undone.
void RegisterSearch::Relink(size_t node) {
  next_[previous_[node]] = node;
  previous_[next_[node]] = node;
}

void RegisterSearch::Count(const RegisterStep& step, int delta) {
  if (step.required) required_left_ += static_cast<size_t>(delta);
  if (step.demand == Demand::kDiffers) differing_ += delta;
  if (step.demand == Demand::kEquals) {
    may_see_[static_cast<size_t>(step.demanded)] += delta;
    if (step.required) must_see_[static_cast<size_t>(step.demanded)] += delta;
  }
  if (!IsPure(step)) writers_[static_cast<size_t>(step.written)] += delta;
}

void RegisterSearch::Lift(size_t step) {
  Unlink(InvocationNode(step));
  if (steps_[step].required) Unlink(InvocationNode(step) + 1);
  Count(steps_[step], -1);
  set_.first ^= hashes_[step].first;
  set_.second ^= hashes_[step].second;
}

void RegisterSearch::Unlift(size_t step) {
  if (steps_[step].required) Relink(InvocationNode(step) + 1);
  Relink(InvocationNode(step));
  Count(steps_[step], +1);
  set_.first ^= hashes_[step].first;
  set_.second ^= hashes_[step].second;
}

bool RegisterSearch::DemandMet(const RegisterStep& step) const {
  switch (step.demand) {
    case Demand::kNone:
      return true;
    case Demand::kEquals:
      return value_ == step.demanded;
    case Demand::kDiffers:
      return value_ != step.demanded;
  }
  return false;
}

// Whether ordering the step now loses no legal order. A step without effect whose demand is met may
// be moved to the front of any order. So may a write when no step that is left looks at what it
// writes nor at what it overwrites.
bool RegisterSearch::IsHarmless(const RegisterStep& step) const {
  if (!step.required || !DemandMet(step)) return false;
  if (IsPure(step)) return true;
  return step.demand == Demand::kNone && differing_ == 0 &&
         may_see_[static_cast<size_t>(step.written)] == 0 &&
         may_see_[static_cast<size_t>(value_)] == 0;
}

void RegisterSearch::Absorb() {
  for (bool again = true; again;) {
    again = false;
    for (size_t node = First(); IsInvocation(node); node = next_[node]) {
      const size_t step = StepOf(node);
      if (!IsHarmless(steps_[step])) continue;
      Lift(step);
      absorbed_.push_back(step);
      if (steps_[step].written != RegisterStep::kNoWrite) value_ = steps_[step].written;
      again = true;
    }
  }
}

// Whether a step that may come right after `step` looks at what it writes.
bool RegisterSearch::WouldBeSeen(size_t step) const {
  const int written = steps_[step].written;
  for (size_t node = First(); IsInvocation(node); node = next_[node]) {
    const RegisterStep& other = steps_[StepOf(node)];
    if (StepOf(node) == step) continue;
    if (other.demand == Demand::kEquals && other.demanded == written) return true;
    if (other.demand == Demand::kDiffers && other.demanded != written) return true;
  }
  return false;
}

bool RegisterSearch::MayChoose(size_t index) const {
  const RegisterStep& step = steps_[index];
  if (IsPure(step) || !DemandMet(step)) return false;
  if (step.written != value_) {
    // What is overwritten must not be needed again, unless someone can write it again.
    const auto value = static_cast<size_t>(value_);
    const int own = step.required && step.demand == Demand::kEquals ? 1 : 0;
    if (must_see_[value] > own && writers_[value] == 0) return false;
  }
  if (step.required) return true;
  // An optional write that nobody sees before the next write may as well be left out; and it can be
  // moved on to right before the step that sees it.
  return step.written != value_ && WouldBeSeen(index);
}

// The first invocation from `node` on whose step may be chosen, or 0.
size_t RegisterSearch::NextChoice(size_t node) const {
  for (; IsInvocation(node); node = next_[node]) {
    if (MayChoose(StepOf(node))) return node;
  }
  return 0;
}

void RegisterSearch::Choose(size_t step) {
  choices_.push_back({step, value_, absorbed_.size()});
  Lift(step);
  value_ = steps_[step].written;
  Absorb();
}

// Returns the node after the choice taken back: where to look for the next.
size_t RegisterSearch::TakeBack() {
  const Choice choice = choices_.back();
  choices_.pop_back();
  for (; absorbed_.size() > choice.absorbed_before; absorbed_.pop_back()) Unlift(absorbed_.back());
  Unlift(choice.step);
  value_ = choice.value_before;
  return next_[InvocationNode(choice.step)];
}

bool RegisterSearch::VisitNew() {
  const auto value = static_cast<uint64_t>(value_);
  return visited_.emplace(set_.first + value * 0x9e3779b97f4a7c15u, set_.second ^ value).second;
}

RegisterSearch::Answer RegisterSearch::Run(uint64_t visits_max) {
  for (size_t value = 1; value < must_see_.size(); ++value) {
    if (must_see_[value] > 0 && writers_[value] == 0) return Answer::kIllegal;
  }
  Absorb();
  size_t node = First();
  while (required_left_ > 0) {
    node = NextChoice(node);
    if (node == 0) {
      if (choices_.empty()) return Answer::kIllegal;
      node = TakeBack();
      continue;
    }
    if (visits_ == visits_max) return Answer::kUndecided;
    ++visits_;
    Choose(StepOf(node));
    node = VisitNew() ? First() : TakeBack();
  }
  return Answer::kLegal;
}

}  // namespace dynlib::sim
