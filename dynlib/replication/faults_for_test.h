// Known-bad variants of the protocol, so that the checkers can be checked (PROTOCOL rule S3).
//
// Every flag breaks one rule on purpose; a simulation with one of them set must fail within its
// seeds. All are off unless a test sets them.
#ifndef DYNLIB_REPLICATION_FAULTS_FOR_TEST_H_
#define DYNLIB_REPLICATION_FAULTS_FOR_TEST_H_

namespace dynlib::replication {

struct FaultsForTest {
  bool acknowledge_before_sync = false;  // R1: accepted and promised leave before they are durable.
  bool no_wait_for_lease = false;  // R5, R6: a higher ballot is promised while support is owed.
  bool lease_forgotten_at_restart = false;  // R5: no wait after boot.
  bool epoch_reused = false;                // R5: a lapse or restart does not end the epoch.
  bool amnesiac_vote = false;               // R3: the promised ballot is not recovered.
  bool damage_read_as_empty = false;        // R4: unknown slots are reported as empty.
  bool replay_past_chosen = false;          // L4: at restart every logged entry is applied.
  bool reply_before_apply = false;          // R7: lease reads do not wait for the read point.
  bool read_unconfirmed = false;            // R7: reads without a lease do not ask a quorum.
  bool clock_drift_ignored = false;         // R5: grants are counted without the drift bound.
  bool no_second_phase_one =
      false;  // R2: a leader goes on under its ballot in a new configuration.
  bool configuration_before_chosen = false;  // R2: a configuration counts once it is accepted.
  bool learner_counted = false;              // R2: what a learner holds counts toward the quorum.
  bool no_deduplication = false;             // R10: a repeated (client, sequence) is applied again.
};

}  // namespace dynlib::replication

#endif  // DYNLIB_REPLICATION_FAULTS_FOR_TEST_H_
