/* What a replica does besides: accept, learn, restart, lose a frame, support a node. As group_core_follower.cc,
 * group_core_membership.cc and liveness.cc. Part of group.pml. */

/* ---- Acceptors and followers. ---- */

/* A leader feeds the members, those that were, and learners: here, those that a change names that it proposes. */
#define NAMES(v, r) ((v) >= 128 && HAS(MEMBERS(v), r))
#if SLOTS == 1
#define FED(b, r) ((r) < L || HAS(conf[owner[b]], r))
#elif SLOTS == 2
#define FED(b, r) ((r) < L || HAS(conf[owner[b]], r) || NAMES(VAL(b, 1), r) || NAMES(VAL(b, 2), r))
#else
#define FED(b, r) ((r) < L || HAS(conf[owner[b]], r) || NAMES(VAL(b, 1), r) || NAMES(VAL(b, 2), r) || NAMES(VAL(b, 3), r))
#endif

/* A proposal needs no promise: that it is made shows that no earlier lease holds. */
inline Accept(b, r, s) {
  d_step {
    led[b] && VAL(b, s) != 0 && prom[r] <= b && FED(b, r) && (owner[b] != r || state[b] == LEADER || state[b] == RENEWING) ->
    if
    :: prom[r] < b -> Retire(r); prom[r] = b
    :: else
    fi;
#ifdef LEASE
    heard_in[r] = epo[owner[b]];
#endif
    if
    :: s > cho[r] && !(owner[b] == r && s < base[b]) ->
       ENT(r, s) = b;
#ifdef UNREADABLE
       UNK(r, s) = 0;
#endif
#ifdef CLAIMED_EPOCH
       if
       :: owner[b] != r && SUCCEEDS(VAL(b, s), epo[r]) -> conf[r] = MEMBERS(VAL(b, s)); epo[r]++
       :: else
       fi
#endif
    :: else
    fi;
    Answer(r, b);
    Check()
  }
}

/* A follower learns that a slot is chosen only if it holds the leader's own entry there. */
inline Follow(b, r) {
  d_step {
    prom[r] == b && owner[b] != r && cho[r] < told[b] && ENT(r, cho[r] + 1) == b && UNK(r, cho[r] + 1) == 0 ->
    v = cho[r] + 1;
    w = VAL(b, v);
    NoteChosen(r, v, w);
    Answer(r, b);
    Check()
  }
}

/* ---- Those that were away. ---- */

/* Replica t tells r, which knows an older configuration, what is chosen, and at which ballot it holds it. */
inline Outdated(t, r) {
  d_step {
    t < REPLICAS && t != r && epo[t] > epo[r] && cho[t] > cho[r] && ENT(t, cho[r] + 1) != 0 && UNK(t, cho[r] + 1) == 0 &&
        !(prom[r] != 0 && owner[prom[r]] == r && state[prom[r]] == LEADER) ->
    v = cho[r] + 1;
    w = ENT(t, v);
    Retire(r);
    if
    :: w > prom[r] ->
       prom[r] = w;
#ifdef LEASE
       heard_in[r] = UNHEARD;
#endif
    :: else
    fi;
    if
    :: ENT(r, v) < w || UNK(r, v) != 0 ->
       ENT(r, v) = (UNK(r, v) > w -> UNK(r, v) : w);
#ifdef UNREADABLE
       UNK(r, v) = 0;
#endif
    :: else
    fi;
    w = VAL(w, v);
    NoteChosen(r, v, w);
    Check()
  }
}

/* ---- Restarts and damage. ---- */

/* What r knew to be chosen may be forgotten beyond slot k. What its ballot proposed may not have been written. */
inline Boot(r, k) {
  x = prom[r];
  m = 0; /* What r proposed may not have been written: so it did not call that chosen. */
  if
  :: x != 0 && owner[x] == r && ACTIVE(x) ->
     n = base[x];
     do
     :: n > k || (VAL(x, n) != 0 && ENT(r, n) != x) -> break
     :: else -> n++
     od;
     m = n;
     GiveUp(x)
  :: else -> m = SLOTS + 1
  fi;
  conf[r] = ABC;
  epo[r] = 0;
  cho[r] = 0;
  do
  :: cho[r] < k && cho[r] + 1 < m && ENT(r, cho[r] + 1) != 0 && UNK(r, cho[r] + 1) == 0 ->
     n = cho[r] + 1;
     w = VAL(ENT(r, n), n);
     NoteChosen(r, n, w)
  :: else -> break
  od;
#ifdef AMNESIAC_VOTE
  prom[r] = 0;
#endif
#ifdef LEASE
  i = 0;
  do
  :: i >= REPLICAS -> break
  :: else ->
     if
     :: i != r ->
        owed[PAIR(r, i)] = 0;
        held[PAIR(r, i)] = 0;
        epoch[PAIR(r, i)]++
     :: else
     fi;
     i++
  od;
#ifndef LEASE_FORGOTTEN_AT_RESTART
  waiting[r] = 1;
#endif
  heard_in[r] = (prom[r] != 0 && HAS(conf[r], owner[prom[r]]) -> UNDATED : UNHEARD);
#endif
  skip
}

inline Restart(r, k) {
  d_step {
    restarts < RESTARTS && k <= cho[r] ->
    restarts++;
    Boot(r, k);
    Check()
  }
}

#ifdef UNREADABLE
/* A frame that was acknowledged cannot be read any more. */
inline Damage(r, s) {
  d_step {
    damaged < DAMAGE && ENT(r, s) != 0 ->
    damaged++;
#ifndef DAMAGE_READ_AS_EMPTY
    UNK(r, s) = ENT(r, s);
#endif
    ENT(r, s) = 0;
    v = cho[r];
    Boot(r, v);
    Check()
  }
}

/* A proposal was being written, and never acknowledged, when the power went. An older entry may lie there. */
inline Tear(b, r, s) {
  d_step {
    torn < TORN && led[b] && VAL(b, s) != 0 && s > cho[r] && prom[r] <= b && ENT(r, s) != b ->
    torn++;
    if
    :: prom[r] < b -> Retire(r); prom[r] = b
    :: else
    fi;
#ifndef DAMAGE_READ_AS_EMPTY
    UNK(r, s) = b;
#endif
    v = cho[r];
    Boot(r, v);
    Check()
  }
}
#endif

/* ---- Support between nodes. ---- */

#ifdef LEASE
/* Node g supports node h, asked by it or anew. */
inline Support(g, h) {
  d_step {
    !waiting[g] && held[PAIR(h, g)] != epoch[PAIR(g, h)] ->
    held[PAIR(h, g)] = epoch[PAIR(g, h)];
    owed[PAIR(g, h)] = 1;
    Check()
  }
}

/* It runs out for its holder first, and then for its grantor. */
inline Expire(g, h) {
  d_step { held[PAIR(h, g)] != 0 -> held[PAIR(h, g)] = 0 }
}

inline Lapse(g, h) {
  d_step {
    owed[PAIR(g, h)] && held[PAIR(h, g)] == 0 && epoch[PAIR(g, h)] < LAPSES ->
    owed[PAIR(g, h)] = 0;
    epoch[PAIR(g, h)]++
  }
}

/* The longest grant of an earlier boot has run out for every holder. */
inline BootWaitOver(g) {
  d_step {
    waiting[g] && held[PAIR(0, g)] == 0 && held[PAIR(1, g)] == 0 && held[PAIR(2, g)] == 0 -> waiting[g] = 0
  }
}
#endif
