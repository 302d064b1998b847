/* The owner of a ballot: phase 1, proposals, counting. As group_core_election.cc and group_core_leader.cc. Part of group.pml. */

/* ---- Elections. ---- */

#ifdef NO_EPOCH
#define EPOCH_OK(b, r) 1
#else
#define EPOCH_OK(b, r) (epo[r] <= epo[owner[b]])
#endif

inline StartElection(b, r) {
  d_step {
    state[b] == NONE && HAS(conf[r], r) && prom[r] < b && MAY_PROMISE(r, r) ->
#ifdef LEASE
    EndSupport(r, r);
    heard_in[r] = epo[r];
#endif
    Retire(r);
    prom[r] = b;
    owner[b] = r;
    state[b] = CANDIDATE;
    base[b] = cho[r] + 1;
    AskForPromises(b);
    Check()
  }
}

#ifdef UNREADABLE
/* GroupCore::Decide: which slots phase 1 has an answer for. Sets ok and, below, takes BEST or a no-op. */
inline Decidable(b, s) {
  m = 0;
  x = 0;
  do
  :: x >= REPLICAS -> break
  :: else ->
     if
     :: HAS(granted[b], x) && DOUBT(b, s, x) <= BEST(b, s) -> m = m | BIT(x)
     :: else
     fi;
     x++
  od;
  ok = QUORUM(m, conf[owner[b]]) || (vouched[b] >= s && BEST(b, s) != 0) ||
       (granted[b] & conf[owner[b]]) == conf[owner[b]]
}
#define CLEAR_DOUBT(b, s) DOUBT(b, s, 0) = 0; DOUBT(b, s, 1) = 0; DOUBT(b, s, 2) = 0
#define DOUBTED(b, s) (DOUBT(b, s, 0) != 0 || DOUBT(b, s, 1) != 0 || DOUBT(b, s, 2) != 0)
#else
#define CLEAR_DOUBT(b, s) skip
#define DOUBTED(b, s) 0
#endif

/* Proposes again what phase 1 told, up to a change and no further, if enough was told. */
inline Win(b) {
  v = from[b] - 1; /* The last slot that anything was told of. */
  i = from[b];
  do
  :: i > SLOTS -> break
  :: else ->
     if
     :: BEST(b, i) != 0 || DOUBTED(b, i) -> v = i
     :: else
     fi;
     i++
  od;
  ok = QUORUM(granted[b], conf[owner[b]]);
#ifdef UNREADABLE
  i = from[b];
  do
  :: i > v || !ok -> break
  :: else -> Decidable(b, i); i++
  od;
#endif
  if
  :: ok ->
     state[b] = LEADER;
     led[b] = 1;
     barrier[b] = 0;
     granted[b] = conf[owner[b]]; /* A quorum of these. */
     i = from[b];
     do
     :: i > v || barrier[b] != 0 -> break
     :: else ->
        if
        :: VAL(b, i) != 0 -> skip /* Only under a claimed epoch: nothing else is proposed at a ballot twice. */
        :: VAL(b, i) == 0 && BEST(b, i) != 0 -> VAL(b, i) = VAL(BEST(b, i), i)
        :: else -> VAL(b, i) = NO_OP
        fi;
        last[b] = (i > last[b] -> i : last[b]);
        if
        :: SUCCEEDS(VAL(b, i), epo[owner[b]]) -> barrier[b] = i
        :: else
        fi;
        i++
     od;
     if
     :: last[b] < from[b] -> last[b] = from[b] - 1
     :: else
     fi;
     told[b] = from[b] - 1;
     i = 1; /* What is chosen is proposed again to those that lack it. */
     do
     :: i >= base[b] -> break
     :: else -> VAL(b, i) = VAL(ENT(owner[b], i), i); i++
     od;
#ifdef READ_POINTS
     inherited[b] = (barrier[b] != 0);
     first[b] = last[b];
#endif
     from[b] = 0;
     i = 1;
     do
     :: i > SLOTS -> break
     :: else -> BEST(b, i) = 0; CLEAR_DOUBT(b, i); i++
     od
  :: else
  fi
}

/* Whoever knows a newer configuration gives a candidate of an older one no promise (R2). */
inline Promise(b, r) {
  d_step {
    ASKING(b) && owner[b] != r && prom[r] <= b && EPOCH_OK(b, r) &&
        !HAS(granted[b], r) && (prom[r] == b || MAY_PROMISE(r, owner[b])) ->
    if
    :: prom[r] < b ->
#ifdef LEASE
       EndSupport(r, owner[b]);
#endif
       Retire(r);
       prom[r] = b
    :: else
    fi;
#ifdef LEASE
    heard_in[r] = epo[owner[b]];
#endif
    Tell(r, b);
    Win(b);
    Check()
  }
}

/* ---- Proposals. ---- */

#define CAN_PROPOSE(b) (state[b] == LEADER && barrier[b] == 0 && last[b] < SLOTS)

/* In the larger searches clients write after the change only. */
inline ProposeValue(b) {
  d_step {
    CAN_PROPOSE(b) && (CHANGES < 3 || last[b] > 0) ->
    last[b]++;
    VAL(b, last[b]) = b;
    Check()
  }
}

inline ProposeMembers(b, allowed, members) {
  d_step {
    CAN_PROPOSE(b) && (allowed) ->
    last[b]++;
    v = CHANGE(epo[owner[b]], members);
    VAL(b, last[b]) = v;
#ifdef CLAIMED_EPOCH
    /* In force as soon as it is said, under the next number; phase 1 again among the new members. */
    conf[owner[b]] = members;
    epo[owner[b]]++;
    if
    :: HAS(members, owner[b]) -> state[b] = RENEWING; AskForPromises(b)
    :: else -> GiveUp(b)
    fi;
#else
    barrier[b] = last[b];
#endif
#ifdef READ_POINTS
    inherited[b] = 0;
#endif
    Check()
  }
}

/* ---- Reads by the word of a quorum: read_rounds.h. ---- */

#ifdef READS
inline BeginRead(b) {
  d_step {
    MAY_CONFIRM(b) && reading[b] == 0 ->
    reading[b] = 1;
    i = 1;
    do
    :: i > SLOTS -> break
    :: else ->
       if
       :: chosen[i] != 0 -> reading[b] = i + 1
       :: else
       fi;
       i++
    od
#ifndef READ_ANSWERS_KEPT
    ;
    confirmed[b] = 0
#endif
    ;
    Check()
  }
}

/* Counted whenever the leader comes to look. */
inline Confirm(b, r) {
  d_step {
    reading[b] != 0 && owner[b] != r && prom[r] == b && !HAS(confirmed[b], r) ->
    confirmed[b] = confirmed[b] | BIT(r);
    Check()
  }
}

inline EndRead(b) {
  d_step {
    reading[b] != 0 && MAY_CONFIRM(b) && CONFIRMED(b) ->
    quorum_reads_current = (reading[b] - 1 <= first[b] || reading[b] - 1 <= told[b]);
    assert(quorum_reads_current);
    reading[b] = 0
#ifndef READ_ANSWERS_KEPT
    ;
    confirmed[b] = 0
#endif
    ;
    Check()
  }
}
#endif

/* ---- The leader counts. ---- */

inline Advance(b) {
  d_step {
    state[b] == LEADER && told[b] < last[b] && QUORUM(ACK(b, told[b] + 1), conf[owner[b]]) ->
    told[b]++;
    ACK(b, told[b]) = 0;
    if
    :: chosen[told[b]] == 0 ->
       chosen[told[b]] = VAL(b, told[b]);
#ifdef UNREADABLE
       chosen_at[told[b]] = b;
#endif
       chosen_by[told[b]] = conf[owner[b]]
    :: else
    fi;
    w = ABC; /* The members that decide this slot. */
    x = 0;
    i = 1;
    do
    :: i >= told[b] -> break
    :: else ->
       if
       :: SUCCEEDS(chosen[i], x) -> w = MEMBERS(chosen[i]); x = i
       :: else
       fi;
       i++
    od;
    quorums_meet = (conf[owner[b]] == w && granted[b] == w);
#ifndef ONLY_AGREEMENT
    assert(quorums_meet);
#endif
    NoteChosen(owner[b], told[b], VAL(b, told[b]));
    if
    :: barrier[b] == told[b] ->
       barrier[b] = 0;
       if
       :: !HAS(conf[owner[b]], owner[b]) -> GiveUp(b)
#ifndef NO_SECOND_PHASE_ONE
       :: HAS(conf[owner[b]], owner[b]) && epo[owner[b]] == told[b] -> state[b] = RENEWING; AskForPromises(b)
#endif
       :: else
       fi
    :: else
    fi;
    Check()
  }
}
