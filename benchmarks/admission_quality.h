// How good the decisions of admission are, in simulated time: what is admitted against what the
// limit is, who is throttled, and how even an advised split is.
#ifndef DYNLIB_BENCHMARKS_ADMISSION_QUALITY_H_
#define DYNLIB_BENCHMARKS_ADMISSION_QUALITY_H_

#include "benchmarks/harness.h"

namespace dynlib::bench {

// Each round is a simulation from another seed.
void MeasureAdmissionQuality(Harness& harness);

}  // namespace dynlib::bench

#endif  // DYNLIB_BENCHMARKS_ADMISSION_QUALITY_H_
