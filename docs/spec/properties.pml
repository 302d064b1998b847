/* What must hold after every step, and the pieces that steps are made of. Part of group.pml. */

/* ---- Properties. ---- */

/* What a search has to come by, so that what holds does not hold of nothing. With WITNESS it is demanded never to be. */
#ifdef WITNESS
#if WITNESS == 1 /* All slots are chosen, at the last ballot. */
#define WITNESSED (chosen[SLOTS] == BALLOTS && chosen[1] != 0)
#elif WITNESS == 2 /* After a restart, too. */
#define WITNESSED (chosen[SLOTS] != 0 && chosen[1] != 0 && restarts == RESTARTS && prom[0] == 2)
#elif WITNESS == 3 /* Of two competing changes one counts, and the other is chosen and void. */
#define WITNESSED (chosen[1] >= 128 && chosen[2] >= 128 && cho[B] == 2 && epo[B] == 1)
#elif WITNESS == 4 /* Two changes follow one another; the log replica has left. */
#define WITNESSED (conf[A] == ABD && cho[A] == 2 && conf[D] == ABD)
#elif WITNESS == 5 /* A lease is held, and something was written under it. */
#define WITNESSED (HOLDS_LEASE(1) && chosen[1] == 1)
#elif WITNESS == 6 /* So after a restart of a grantor. */
#define WITNESSED (HOLDS_LEASE(1) && chosen[1] == 1 && restarts == 1 && epoch[PAIR(B, A)] == 2 && held[PAIR(A, B)] == 2)
#elif WITNESS == 7 /* A change of an earlier leader is led on, and the new members write while supporting A. */
#define WITNESSED (chosen[1] >= 128 && chosen[2] == 1 && state[2] == LEADER && held[PAIR(A, C)] != 0)
#elif WITNESS == 8 /* One frame is lost and one torn, and another leader writes. */
#define WITNESSED (damaged == 1 && torn == 1 && chosen[1] == 1 && chosen[2] == 2)
#elif WITNESS == 9 /* A read is confirmed, and another leader was elected since the answers. */
#define WITNESSED (reading[1] == 2 && MAY_CONFIRM(1) && CONFIRMED(1) && state[2] == LEADER)
#elif WITNESS == 10 /* The new members confirm B, and one that found the change believes that it leads those of before. */
#define WITNESSED (chosen[1] >= 128 && chosen[2] == 1 && reading[1] == 3 && CONFIRMED(1) && state[2] == LEADER)
#endif
#endif
bit unreached = 1;

inline Check() {
#ifdef WITNESS
  unreached = !(WITNESSED);
  assert(unreached);
#endif
  n = 1;
  do
  :: n > SLOTS -> break
  :: else ->
     if
     :: chosen[n] != 0 ->
        m = 0;
        ok = 0;
        x = 0;
        do
        :: x >= REPLICAS -> break
        :: else ->
           if
           :: ENT(x, n) != 0 && VAL(ENT(x, n), n) == chosen[n] -> m = m | BIT(x); ok = 1
#ifdef UNREADABLE
           :: (ENT(x, n) == 0 || VAL(ENT(x, n), n) != chosen[n]) && UNK(x, n) >= chosen_at[n] -> m = m | BIT(x)
#endif
           :: else
           fi;
           x++
        od;
        chosen_is_kept = ok && QUORUM(m, chosen_by[n]);
#ifndef ONLY_AGREEMENT
        assert(chosen_is_kept)
#endif
     :: else
     fi;
     n++
  od;
#ifdef LEASE
  n = 1;
  do
  :: n > BALLOTS -> break
  :: else ->
     if
     :: HOLDS_LEASE(n) ->
        x = 1;
        do
        :: x > SLOTS -> break
        :: else ->
           lease_reads_current = chosen[x] == 0 || x <= first[n] || x <= told[n];
           assert(lease_reads_current);
           x++
        od
     :: else
     fi;
     n++
  od;
  n = 0;
  x = 0;
#endif
  skip
}

/* ---- Steps that others are made of. ---- */

/* Replica r learns that slot s is chosen, and takes on the configuration that it may be. */
inline NoteChosen(r, s, value) {
  agreement = (chosen[s] == (value));
  assert(agreement);
  cho[r] = s;
  if
#ifndef CLAIMED_EPOCH
  :: SUCCEEDS(value, epo[r]) -> conf[r] = MEMBERS(value); epo[r] = s
#endif
  :: else
  fi
}

/* Ballot b is given up. What nobody asks for again is cleared, so that states that differ in nothing else are one. */
inline GiveUp(b) {
  state[b] = OVER;
  from[b] = 0;
  base[b] = 0;
  granted[b] = 0;
  last[b] = 0;
  barrier[b] = 0;
  i = 1;
  do
  :: i > SLOTS -> break
  :: else -> BEST(b, i) = 0; ACK(b, i) = 0; i++
  od;
#ifdef READS
  reading[b] = 0;
  confirmed[b] = 0;
#endif
#ifdef READ_POINTS
  first[b] = 0;
  inherited[b] = 0;
#endif
#ifdef LEASE
  i = 0;
  do
  :: i >= REPLICAS -> break
  :: else -> NAMED(b, i) = 0; i++
  od;
#endif
  skip
}

/* Replica r leaves the ballot that it owns, if it does, for another. What it proposed is written before what it says next. */
inline Retire(r) {
  x = prom[r];
  if
  :: x != 0 && owner[x] == r && ACTIVE(x) ->
     i = base[x];
     do
     :: i > SLOTS -> break
     :: else ->
        if
        :: VAL(x, i) != 0 -> ENT(r, i) = x
        :: else
        fi;
        i++
     od;
     GiveUp(x)
  :: else
  fi
}

/* What r tells, or its owner reads in its own log, in phase 1 of ballot b. */
inline Tell(r, b) {
  granted[b] = granted[b] | BIT(r);
  i = from[b];
  do
  :: i > SLOTS -> break
  :: else ->
     if
     :: ENT(r, i) > BEST(b, i) -> BEST(b, i) = ENT(r, i)
     :: else
     fi;
#ifdef UNREADABLE
     DOUBT(b, i, r) = UNK(r, i);
#endif
     i++
  od;
#ifdef UNREADABLE
  if
  :: cho[r] > vouched[b] -> vouched[b] = cho[r]
  :: else
  fi;
#endif
#ifdef LEASE
  NAMED(b, r) = (owner[b] == A && r != A -> epoch[PAIR(r, A)] : 0);
#endif
  skip
}

inline AskForPromises(b) {
  granted[b] = 0;
  from[b] = cho[owner[b]] + 1;
  i = 1;
  do
  :: i > SLOTS -> break
  :: else -> BEST(b, i) = 0; i++
  od;
  Tell(owner[b], b)
}

/* The stable prefix of r at ballot b, which it promised: durable, and known to be chosen or accepted at b. */
inline Answer(r, b) {
  i = told[b] + 1;
  do
  :: i > last[b] -> break
  :: else ->
     if
     :: UNK(r, i) == 0 && ((i <= cho[r] && ENT(r, i) != 0) || ENT(r, i) == b) -> ACK(b, i) = ACK(b, i) | BIT(r)
     :: else -> break
     fi;
     i++
  od;
#ifdef LEASE
  NAMED(b, r) = (ACTIVE(b) && owner[b] == A && r != A -> epoch[PAIR(r, A)] : 0);
#endif
  skip
}
