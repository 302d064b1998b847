#include "dynlib/scrub/verdict.h"

#include <algorithm>
#include <cstddef>
#include <vector>

namespace dynlib::scrub {
namespace {

bool Readable(const Copy& copy) { return copy.state != CopyState::kUnreadable; }

bool Agree(const Copy& a, const Copy& b) {
  return Readable(a) && a.state == b.state &&
         (a.state == CopyState::kAbsent || a.digest == b.digest);
}

// The copy that the others are measured by; null: nobody can say.
const Copy* Truth(ReplicaId reference, const std::vector<Copy>& copies, Verdict* verdict) {
  *verdict = Verdict::kDecided;
  for (const Copy& copy : copies) {
    if (reference != ReplicaId{} && copy.replica == reference && Readable(copy)) return &copy;
  }
  const Copy* best = nullptr;
  ptrdiff_t most = 0;
  bool tie = false;
  for (const Copy& copy : copies) {
    const ptrdiff_t votes = std::count_if(copies.begin(), copies.end(),
                                          [&](const Copy& other) { return Agree(copy, other); });
    if (votes > most) {
      most = votes;
      best = &copy;
      tie = false;
    } else if (votes == most && votes > 0 && !Agree(copy, *best)) {
      tie = true;
    }
  }
  if (best != nullptr && !tie && most >= 2) return best;
  *verdict = best != nullptr && !tie ? Verdict::kSoleCopy : Verdict::kUndecided;
  return tie ? nullptr : best;
}

}  // namespace

void Judge(ReplicaId reference, Finding* finding) {
  const Copy* truth = Truth(reference, finding->copies, &finding->verdict);
  finding->good.clear();
  finding->bad.clear();
  for (const Copy& copy : finding->copies) {
    if (truth != nullptr && Agree(*truth, copy)) {
      finding->good.push_back(copy.replica);
    } else if (truth != nullptr || !Readable(copy)) {
      finding->bad.push_back(copy.replica);
    }
  }
}

}  // namespace dynlib::scrub
