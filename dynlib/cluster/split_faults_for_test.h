// Known-bad variants of how a tree comes of others, by a split, a merge or a copy, so that the
// checkers can be checked (rule S3).
//
// Threads: a value.
#ifndef DYNLIB_CLUSTER_SPLIT_FAULTS_FOR_TEST_H_
#define DYNLIB_CLUSTER_SPLIT_FAULTS_FOR_TEST_H_

namespace dynlib::cluster {

struct SplitFaultsForTest {
  bool sessions_forgotten = false;   // R11: children begin with an empty exactly-once table.
  bool sessions_not_merged = false;  // R11: so does a partition that comes of a merge.
  bool sessions_not_copied = false;  // R10: so does a copy.
  bool last_step_goes_left = false;  // R11: what is applied with the end goes to one child,
                                     // whatever its key.
};

}  // namespace dynlib::cluster

#endif  // DYNLIB_CLUSTER_SPLIT_FAULTS_FOR_TEST_H_
