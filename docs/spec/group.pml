/* One replication group as dynlib/replication/group_core*.cc runs it: Multi-Paxos over slots, members that change by
 * chosen entries, leases from support between nodes, restarts, unreadable slots. README.md says what is left out and why,
 * and how to run it; tests/spec checks it, and that the known-bad variants fail.
 *
 * Every step of a replica is one atomic transition. A message is never an object: what was said once stays true, so a
 * receiver looks at what was ever said (a proposal in `val`, an answer in `ack`), now, later or never. That is a
 * network that loses, delays, repeats and reorders. What a message speaks of is durable in the same step (R1).
 *
 * Bounds, set with -D:
 *   SLOTS, BALLOTS   slots of the log; ballots, each led at most once, by a fixed owner or by anybody (FREE_OWNERS)
 *   REPLICAS         3 (A, B, C), 4 (and the log replica L), 5 (and the storage replica D)
 *   CHANGES          which changes of members are proposed: see Target()
 *   DEAD             the set of replicas that never say a word
 *   RESTARTS         how many restarts there are, in all
 *   LEASE            support between nodes, and leases
 *   READS            reads by the word of a quorum
 *   DAMAGE           how many acknowledged frames become unreadable; TORN, how many frames that were never acknowledged
 *   ONLY_AGREEMENT   does not stop at quorums_meet or chosen_is_kept, to see what comes of it
 *
 * Known-bad variants: NO_EPOCH, CLAIMED_EPOCH, AMNESIAC_VOTE, LEASE_NOT_BOUND, DAMAGE_READ_AS_EMPTY,
 * NO_SECOND_PHASE_ONE, LEASE_FORGOTTEN_AT_RESTART, NO_WAIT_FOR_LEASE, INHERITED_LEASE, READ_UNCONFIRMED, READ_ANSWERS_KEPT,
 * INHERITED_READ.
 */

#ifndef SLOTS
#define SLOTS 2
#endif
#ifndef BALLOTS
#define BALLOTS 2
#endif
#ifndef REPLICAS
#define REPLICAS 3
#endif
#ifndef CHANGES
#define CHANGES 0
#endif
#ifndef DEAD
#define DEAD 0
#endif
#ifndef RESTARTS
#define RESTARTS 0
#endif
#ifndef DAMAGE
#define DAMAGE 0
#endif
#ifndef TORN
#define TORN 0
#endif
#if DAMAGE + TORN > 0
#define UNREADABLE
#endif

#include "state.pml"
#include "properties.pml"
#include "proposer.pml"
#include "acceptor.pml"

/* ---- All that may happen. ---- */

#ifdef LEASE
proctype Grants(byte g; byte h) {
  do
  :: Support(g, h)
  :: Expire(g, h)
  :: Lapse(g, h)
  od
}
#endif

/* What ballot b's owner says, and how replica r takes it. */
proctype Link(byte b; byte r) {
  do
  :: Promise(b, r)
  :: Accept(b, r, 1)
#if SLOTS > 1
  :: Accept(b, r, 2)
#endif
#if SLOTS > 2
  :: Accept(b, r, 3)
#endif
  :: Follow(b, r)
#ifdef READS
  :: Confirm(b, r)
#endif
#if TORN > 0
  :: Tear(b, r, 1)
  :: Tear(b, r, 2)
#endif
  od
}

/* The owners of ballots 1, 2 and 3, unless anybody may own any. */
#ifndef OWNERS
#define OWNERS A, B, C
#endif
#define NTH(b, one, two, three) (b == 1 -> one : (b == 2 -> two : three))
#define OWNER(b, owners) NTH(b, owners)

proctype Proposer(byte b) {
  do
#ifdef FREE_OWNERS
  :: StartElection(b, A)
  :: StartElection(b, B)
  :: StartElection(b, C)
#else
  :: StartElection(b, OWNER(b, OWNERS))
#endif
  :: ProposeValue(b)
/* Which changes are tried: 1, one; 2, two that compete; 3, two that follow one another; 4, one that removes A. */
#if CHANGES == 1
  :: ProposeMembers(b, epo[owner[b]] == 0, ABL)
#elif CHANGES == 2
  :: ProposeMembers(b, epo[owner[b]] == 0, (b == 1 -> ABL : BCL))
#elif CHANGES == 3
  :: ProposeMembers(b, b == 1 && conf[owner[b]] == ABC, ABL)
  :: ProposeMembers(b, conf[owner[b]] == ABL, ABD)
#elif CHANGES == 4
  :: ProposeMembers(b, epo[owner[b]] == 0, BCL)
#endif
  :: Advance(b)
#ifdef READS
  :: BeginRead(b)
  :: EndRead(b)
#endif
  od
}

proctype Node(byte r) {
  do
  :: false -> skip
#if CHANGES > 0
  :: Outdated(A, r)
  :: Outdated(B, r)
  :: Outdated(C, r)
  :: Outdated(L, r)
#if REPLICAS > 4
  :: Outdated(D, r)
#endif
#endif
#if RESTARTS > 0
  :: Restart(r, 0)
  :: Restart(r, 1)
  :: Restart(r, 2)
#endif
#ifdef NO_EPOCH
  /* Somebody tells r that L is a member instead of C. */
  :: d_step { conf[r] == ABC && !ACTIVE(prom[r]) -> conf[r] = ABL }
#endif
#if DAMAGE > 0
  :: Damage(r, 1)
  :: Damage(r, 2)
#endif
#ifdef LEASE
  :: BootWaitOver(r)
#endif
  od
}

init {
  atomic {
    i = 0;
    do
    :: i >= REPLICAS -> break
    :: else -> conf[i] = ABC; i++
    od;
#ifdef LEASE
    i = 0;
    do
    :: i >= REPLICAS * REPLICAS -> break
    :: else -> epoch[i] = 1; i++
    od;
    /* Only A is supported: the one whose lease is watched. */
    run Grants(B, A);
    run Grants(C, A);
#if CHANGES > 0 && CHANGES < 4
    run Grants(L, A);
#endif
#endif
    v = 1;
    do
    :: v > BALLOTS -> break
    :: else ->
       run Proposer(v);
       w = 0;
       do
       :: w >= REPLICAS -> break
       :: w < REPLICAS && HAS(DEAD, w) -> w++
       :: w < REPLICAS && !HAS(DEAD, w) -> run Link(v, w); w++
       od;
       v++
    od;
    w = 0;
    do
    :: w >= REPLICAS -> break
    :: w < REPLICAS && HAS(DEAD, w) -> w++
    :: w < REPLICAS && !HAS(DEAD, w) -> run Node(w); w++
    od;
    i = 0;
    v = 0;
    w = 0
  }
}
