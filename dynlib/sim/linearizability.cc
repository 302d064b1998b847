#include "dynlib/sim/linearizability.h"

#include <algorithm>
#include <map>
#include <utility>

#include "dynlib/base/strings.h"
#include "dynlib/sim/register_search.h"

namespace dynlib::sim {
namespace {

using Kind = Operation::Kind;
using Outcome = Operation::Outcome;
using Answer = RegisterSearch::Answer;

// Bounds on the work of shrinking one explanation: operations given to searches, and configurations
// visited in one of them.
constexpr size_t kShrinkOperationsMax = 1'000'000;
constexpr uint64_t kShrinkStepsMax = 20'000;

// Numbers for values; absent, with which a key begins, is 0.
class ValueNumbers {
 public:
  int operator()(const Register& value) {
    return numbers_.emplace(value, static_cast<int>(numbers_.size())).first->second;
  }
  int count() const { return static_cast<int>(numbers_.size()); }

 private:
  std::map<Register, int> numbers_ = {{std::nullopt, 0}};
};

// False when the operation restricts nothing and can have no effect.
bool Translate(const Operation& op, ValueNumbers& numbers, RegisterStep* step) {
  if (op.outcome == Outcome::kNotDone) return false;
  const bool unknown = op.outcome == Outcome::kUnknown;
  step->invoked = op.invoked;
  step->required = !unknown;
  step->returned = unknown ? UINT64_MAX : op.returned;
  if (op.kind == Kind::kRead) {
    step->demand = RegisterStep::Demand::kEquals;
    step->demanded = numbers(op.value);
    return !unknown;
  }
  if (op.kind == Kind::kConditionalWrite) {
    const bool failed = op.outcome == Outcome::kConditionFailed;
    step->demand = failed ? RegisterStep::Demand::kDiffers : RegisterStep::Demand::kEquals;
    step->demanded = numbers(op.expected);
    if (failed) return true;
  }
  step->written = numbers(op.value);
  return true;
}

// Decides about operations on one key, and remembers the work done.
class KeyChecker {
 public:
  explicit KeyChecker(uint64_t steps_max) : steps_max_(steps_max) {}

  Answer Decide(const std::vector<Operation>& operations) {
    ValueNumbers numbers;
    std::vector<RegisterStep> steps;
    for (const Operation& op : operations) {
      RegisterStep step;
      if (Translate(op, numbers, &step)) steps.push_back(step);
    }
    RegisterSearch search(std::move(steps), numbers.count());
    Answer answer = search.Run(steps_max_);
    steps_ += search.visits();
    return answer;
  }
  uint64_t steps() const { return steps_; }

 private:
  uint64_t steps_max_;
  uint64_t steps_ = 0;
};

// The operations as known just after the event at `position`: what returned later is unknown.
std::vector<Operation> Prefix(const std::vector<Operation>& operations, uint64_t position) {
  std::vector<Operation> prefix;
  for (const Operation& op : operations) {
    if (op.invoked > position) continue;
    prefix.push_back(op);
    // Known in hindsight not to have happened: still so.
    if (op.returned > position && op.outcome != Outcome::kNotDone) {
      prefix.back().outcome = Outcome::kUnknown;
    }
  }
  return prefix;
}

// Finds few operations that cannot be reconciled. Every step keeps the sub-history illegal and only
// takes restrictions away, so that what remains is a reason why the whole is illegal.
class Explainer {
 public:
  // `operations` is known to be illegal.
  std::vector<Operation> Explain(std::vector<Operation> operations) {
    operations = ShortestIllegalPrefix(operations);
    for (size_t width = operations.size(); width > 0; width /= 2) {
      for (size_t at = 0; at < operations.size() && work_ <= kShrinkOperationsMax; at += width) {
        TryRelax(operations, at, width);
      }
      std::erase_if(operations,
                    [](const Operation& op) { return op.outcome == Outcome::kNotDone; });
    }
    return Concerned(operations);
  }

 private:
  bool Illegal(const std::vector<Operation>& operations) {
    work_ += operations.size();
    if (work_ > kShrinkOperationsMax) return false;
    return checker_.Decide(operations) == Answer::kIllegal;
  }

  std::vector<Operation> ShortestIllegalPrefix(const std::vector<Operation>& operations) {
    std::vector<uint64_t> returns;
    for (const Operation& op : operations) {
      if (op.returned != UINT64_MAX) returns.push_back(op.returned);
    }
    std::sort(returns.begin(), returns.end());
    // A prefix of a legal history is legal.
    auto shortest = std::partition_point(returns.begin(), returns.end(), [&](uint64_t position) {
      return !Illegal(Prefix(operations, position));
    });
    return shortest == returns.end() ? operations : Prefix(operations, *shortest);
  }

  // Takes an operation's restrictions away: a read is forgotten, a write may happen or not.
  void TryRelax(std::vector<Operation>& operations, size_t at, size_t width) {
    std::vector<Operation> relaxed = operations;
    bool changed = false;
    for (size_t i = at; i < std::min(at + width, operations.size()); ++i) {
      bool lasting =
          relaxed[i].outcome == Outcome::kUnknown || relaxed[i].outcome == Outcome::kNotDone;
      if (lasting) continue;
      bool effect =
          relaxed[i].kind != Kind::kRead && relaxed[i].outcome != Outcome::kConditionFailed;
      relaxed[i].outcome = effect ? Outcome::kUnknown : Outcome::kNotDone;
      changed = true;
    }
    if (changed && Illegal(relaxed)) operations = std::move(relaxed);
  }

  // Those that still restrict, and the writes of the values that they saw.
  static std::vector<Operation> Concerned(const std::vector<Operation>& operations) {
    std::vector<const Operation*> strict;
    for (const Operation& op : operations) {
      if (op.outcome == Outcome::kDone || op.outcome == Outcome::kConditionFailed) {
        strict.push_back(&op);
      }
    }
    auto is_seen = [&](const Register& value) {
      return std::any_of(strict.begin(), strict.end(), [&](const Operation* op) {
        return (op->kind == Kind::kRead && op->value == value) ||
               (op->kind == Kind::kConditionalWrite && op->expected == value);
      });
    };
    std::vector<Operation> concerned;
    for (const Operation& op : operations) {
      bool restricts = op.outcome == Outcome::kDone || op.outcome == Outcome::kConditionFailed;
      bool writes = op.kind != Kind::kRead && op.outcome != Outcome::kConditionFailed;
      if (restricts || (writes && is_seen(op.value))) concerned.push_back(op);
    }
    return concerned;
  }

  KeyChecker checker_{kShrinkStepsMax};
  size_t work_ = 0;
};

// As recorded: the relaxed outcomes are a device of the explanation.
std::vector<Operation> AsRecorded(const std::vector<Operation>& recorded,
                                  std::vector<Operation> shown) {
  for (Operation& op : shown) {
    auto same = [&](const Operation& r) { return r.invoked == op.invoked; };
    op = *std::find_if(recorded.begin(), recorded.end(), same);
  }
  return shown;
}

void ReportViolation(const std::vector<Operation>& operations, CheckResult& result) {
  result.verdict = CheckResult::Verdict::kViolation;
  result.key = operations.front().key;
  result.conflict = AsRecorded(operations, Explainer().Explain(operations));
  result.explanation = Cat("not linearizable: key \"", Escape(result.key), "\", ",
                           operations.size(), " operations; these have no legal order:\n");
  for (const Operation& op : result.conflict) {
    result.explanation += Cat("  ", op.ToString(), "\n");
  }
}

void ReportUndecided(const std::vector<Operation>& operations, const CheckOptions& options,
                     CheckResult& result) {
  if (result.verdict == CheckResult::Verdict::kUndecided) return;
  result.verdict = CheckResult::Verdict::kUndecided;
  result.key = operations.front().key;
  result.explanation =
      Cat("undecided: key \"", Escape(result.key), "\", ", operations.size(),
          " operations; no answer within ", options.steps_per_key_max, " configurations\n");
}

}  // namespace

CheckResult CheckLinearizable(const History& history, const CheckOptions& options) {
  std::map<std::string, std::vector<Operation>> by_key;
  for (const Operation& op : history.operations()) by_key[op.key].push_back(op);
  CheckResult result;
  for (const auto& [key, operations] : by_key) {
    KeyChecker checker(options.steps_per_key_max);
    Answer answer = checker.Decide(operations);
    result.steps += checker.steps();
    if (answer == Answer::kUndecided) ReportUndecided(operations, options, result);
    if (answer == Answer::kIllegal) {
      ReportViolation(operations, result);
      return result;
    }
  }
  return result;
}

}  // namespace dynlib::sim
