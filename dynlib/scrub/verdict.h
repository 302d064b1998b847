// Which copy of an item is bad.
//
// Pure.
#ifndef DYNLIB_SCRUB_VERDICT_H_
#define DYNLIB_SCRUB_VERDICT_H_

#include "dynlib/base/ids.h"
#include "dynlib/scrub/types.h"

namespace dynlib::scrub {

// Fills in verdict, good and bad from the copies. `reference` is 0 if there is none. Two copies
// agree if both are present with equal digests, or both absent.
void Judge(ReplicaId reference, Finding* finding);

}  // namespace dynlib::scrub

#endif  // DYNLIB_SCRUB_VERDICT_H_
