// Known-bad variants of a split, so that the checkers can be checked (rule S3).
//
// Threads: a value.
#ifndef DYNLIB_CLUSTER_SPLIT_FAULTS_FOR_TEST_H_
#define DYNLIB_CLUSTER_SPLIT_FAULTS_FOR_TEST_H_

namespace dynlib::cluster {

struct SplitFaultsForTest {
  bool sessions_forgotten = false;   // R11: children begin with an empty exactly-once table.
  bool last_step_goes_left = false;  // R11: what is applied with the end goes to one child,
                                     // whatever its key.
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_SPLIT_FAULTS_FOR_TEST_H_
