// Decides whether a history is linearizable: whether each operation can be given an instant
// between its invocation and its return so that, in the order of those instants, each key behaves
// like one register.
//
// The search of Wing and Gong (1993) with Lowe's memory of visited configurations (2017), one key
// at a time, which is enough since linearizability is local (Herlihy and Wing 1990). An operation
// of unknown outcome may take effect at any time after its invocation, or never; one that was not
// done must have had no effect. The question is NP-complete: work is bounded, and a search that
// meets the bound says so.
//
//   CheckResult result = CheckLinearizable(history);
//   if (!result.ok()) Fail(result.explanation);
//
// Threads: a pure function.
#ifndef DYNLIB_SIM_LINEARIZABILITY_H_
#define DYNLIB_SIM_LINEARIZABILITY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "dynlib/sim/history.h"

namespace dynlib::sim {

struct CheckOptions {
  // Configurations visited for one key before its search gives up: about 100 bytes of memory each.
  uint64_t steps_per_key_max = 2'000'000;
};

struct CheckResult {
  enum class Verdict : uint8_t {
    kLinearizable,
    kViolation,
    kUndecided,  // The bound was met for at least one key, and no key is known to be violated.
  };
  Verdict verdict = Verdict::kLinearizable;
  // Of a violation or an undecided search: the key concerned, the first in byte order.
  std::string key;
  // Of a violation: operations that cannot be reconciled, in order of invocation, as few as could
  // be found. Writes among them that are listed as unknown may be anywhere without helping.
  std::vector<Operation> conflict;
  // For people: the verdict, the key, the conflict one operation a line.
  std::string explanation;
  uint64_t steps = 0;  // Configurations visited, over all keys.

  bool ok() const { return verdict == Verdict::kLinearizable; }
};

CheckResult CheckLinearizable(const History& history, const CheckOptions& options = {});

}  // namespace dynlib::sim

#endif  // DYNLIB_SIM_LINEARIZABILITY_H_
