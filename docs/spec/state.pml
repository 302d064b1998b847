/* What a replica holds, what the owner of a ballot does, and the truth, which nobody sees. Part of group.pml. */

/* ---- Replicas and configurations. A configuration is the set of its members; all have three. ---- */

#define A 0
#define B 1
#define C 2
#define L 3 /* The log replica: votes, never leads (R9). */
#define D 4
#define BIT(r) (1 << (r))
#define ABC 7
#define ABL 11
#define BCL 14
#define BCD 22
#define ABD 19
#define HAS(set, r) (((set) & BIT(r)) != 0)
/* At least two of the three. */
#define QUORUM(set, conf) ((((set) & (conf)) & (((set) & (conf)) - 1)) != 0)

/* ---- Values. A client's value is the ballot that proposed it, so that no two are equal. ---- */

#define NO_OP 8
#define CHANGE(epoch, conf) (128 + ((epoch) << 5) + (conf)) /* The epoch that it was proposed under, and the members. */
#define MEMBERS(v) ((v) & 31)
#define SUCCEEDS(v, epoch) ((v) >= 128 && (((v) >> 5) & 3) == (epoch)) /* Else it is void (R2). */

/* ---- What a replica holds. All of it is durable but `cho`, of which a restart keeps any part. ---- */

byte prom[REPLICAS];        /* The promised ballot; 0: none. */
byte ent[REPLICAS * SLOTS]; /* The ballot at which the entry of a slot was accepted; 0: none. */
byte cho[REPLICAS];         /* Every slot up to here is known to be chosen. */
byte conf[REPLICAS];        /* The configuration in force after `cho`, and its epoch: */
byte epo[REPLICAS];
#define ENT(r, s) ent[(r) * SLOTS + (s) - 1]
#ifdef UNREADABLE
byte unk[REPLICAS * SLOTS]; /* The ballot of an unreadable frame (R4). */
#define UNK(r, s) unk[(r) * SLOTS + (s) - 1]
#else
#define UNK(r, s) 0
#endif

/* ---- What a ballot's owner does. ---- */

#define NONE 0
#define CANDIDATE 1
#define LEADER 2
#define RENEWING 3 /* Phase 1 again, at the same ballot, after a change. */
#define OVER 4     /* Not led, and never again. */
byte state[BALLOTS + 1];
byte owner[BALLOTS + 1];
bit led[BALLOTS + 1];              /* It led: its proposals and probes may arrive at any time. */
byte from[BALLOTS + 1];            /* Phase 1 is about the slots from here; */
byte base[BALLOTS + 1];            /* at the election, from here. */
byte granted[BALLOTS + 1];         /* Whose promises were counted. */
byte best[(BALLOTS + 1) * SLOTS];  /* The highest ballot that they told, for each slot. */
byte val[(BALLOTS + 1) * SLOTS];   /* Proposed at this ballot; 0: nothing. */
byte last[BALLOTS + 1];            /* The last slot proposed. */
byte barrier[BALLOTS + 1];         /* A change that is proposed and not chosen. */
byte told[BALLOTS + 1];            /* Chosen, as the leader told its followers. */
byte ack[(BALLOTS + 1) * SLOTS];   /* Whose stable prefix at this ballot ever reached this slot. */
#define BEST(b, s) best[(b) * SLOTS + (s) - 1]
#define VAL(b, s) val[(b) * SLOTS + (s) - 1]
#define ACK(b, s) ack[(b) * SLOTS + (s) - 1]
#define ASKING(b) (state[b] == CANDIDATE || state[b] == RENEWING)
#define ACTIVE(b) (state[b] == CANDIDATE || state[b] == LEADER || state[b] == RENEWING)
#ifdef UNREADABLE
byte doubt[(BALLOTS + 1) * SLOTS * REPLICAS]; /* The unreadable ballot that each told for each slot. */
byte vouched[BALLOTS + 1];                    /* The highest `cho` that was told. */
#define DOUBT(b, s, r) doubt[((b) * SLOTS + (s) - 1) * REPLICAS + (r)]
#endif

/* ---- The truth, which nobody in the model sees. ---- */

byte chosen[SLOTS + 1];      /* The value that some leader first called chosen. */
byte chosen_by[SLOTS + 1];   /* The members that chose it. */
#ifdef UNREADABLE
byte chosen_at[SLOTS + 1];   /* The ballot. */
#endif
bit agreement = 1;           /* All call the same value chosen. */
bit chosen_is_kept = 1;      /* A quorum that it was chosen by keeps it, and one copy can be read. */
bit quorums_meet = 1;        /* Phases 1 and 2 of a slot are both of the members that the chosen prefix says. */
bit lease_reads_current = 1; /* A lease read sees all that is chosen. */
bit quorum_reads_current = 1; /* A read that a quorum confirmed sees all that was chosen before it arrived. */

byte restarts;
byte damaged;
byte torn;

/* Scratch: no part of the state. */
hidden byte i;
hidden byte n;
hidden byte v;
hidden byte w;
hidden byte x;
hidden byte m;
hidden byte ok;

#if defined(LEASE) || defined(READS)
#define READ_POINTS
bit inherited[BALLOTS + 1]; /* The barrier is a change that an earlier leader proposed. */
byte first[BALLOTS + 1];    /* The last slot that the leader proposed when it was elected. */
#endif

/* ---- Reads by the word of a quorum (R7), one at a time of each ballot. ---- */

#ifdef READS
byte reading[BALLOTS + 1];   /* One more than the slots that were chosen when the read arrived; 0: there is none. */
byte confirmed[BALLOTS + 1]; /* Who said since that this ballot is its highest. */
#ifdef INHERITED_READ
#define MAY_CONFIRM(b) (state[b] == LEADER)
#else
#define MAY_CONFIRM(b) (state[b] == LEADER && (barrier[b] == 0 || !inherited[b]))
#endif
#ifdef READ_UNCONFIRMED
#define CONFIRMED(b) 1
#else
#define CONFIRMED(b) QUORUM(confirmed[b] | BIT(owner[b]), conf[owner[b]])
#endif
#endif

/* ---- Support between nodes (R5). ----
 * Time is left out; what the drift bound guarantees is put in: the holder of a grant stops counting on it before the
 * grantor is free of it. A grant in flight gives its holder less than one that arrived, so grants arrive at once.
 */
#ifdef LEASE
byte epoch[REPLICAS * REPLICAS];      /* Of the grantor's support for the holder. */
bit owed[REPLICAS * REPLICAS];        /* The grantor's view. */
byte held[REPLICAS * REPLICAS];       /* The holder's: in which epoch it is supported; 0: it is not. */
byte named[(BALLOTS + 1) * REPLICAS]; /* The epoch that an acceptor named last at this ballot. */
bit waiting[REPLICAS];                /* Booted, and may owe what it does not know of. */
byte heard_in[REPLICAS];              /* The epoch of the configuration in which the owner of `prom` spoke. */
#define PAIR(g, h) ((g) * REPLICAS + (h))
#define NAMED(b, g) named[(b) * REPLICAS + (g)]
#ifndef LAPSES
#define LAPSES 2 /* Support lapses by itself only in epochs before this one. */
#endif
#ifdef LEASE_NOT_BOUND
#define BACKS(g, b) (held[PAIR(owner[b], g)] != 0)
#else
#define BACKS(g, b) (held[PAIR(owner[b], g)] != 0 && held[PAIR(owner[b], g)] == NAMED(b, g))
#endif
#if REPLICAS == 3
#define BACKERS(b) (BIT(owner[b]) | BACKS(0, b) | BACKS(1, b) << 1 | BACKS(2, b) << 2)
#else
#define BACKERS(b) (BIT(owner[b]) | BACKS(0, b) | BACKS(1, b) << 1 | BACKS(2, b) << 2 | BACKS(3, b) << 3)
#endif
#ifdef INHERITED_LEASE
#define MAY_LEASE(b) 1
#else
#define MAY_LEASE(b) (barrier[b] == 0 || !inherited[b])
#endif
#define HOLDS_LEASE(b) (state[b] == LEADER && MAY_LEASE(b) && QUORUM(BACKERS(b), conf[owner[b]]))
#define OWNER_LEFT(r) (heard_in[r] <= epo[r] && !HAS(conf[r], owner[prom[r]]))
#ifdef NO_WAIT_FOR_LEASE
#define OWES_NOTHING(r) 1
#else
#define OWES_NOTHING(r) (!owed[PAIR(r, owner[prom[r]])])
#endif
/* As GroupCore::MayPromise. That a ballot is over is known only when its owner says so; here, as soon as it is true. */
#define UNHEARD 255 /* Nothing was heard from the owner of `prom`, so it was named no epoch. */
#define UNDATED 254 /* In which configuration it spoke was forgotten. */
#define FREED(r, b) (prom[r] == 0 || heard_in[r] == UNHEARD || owner[prom[r]] == (b) || state[prom[r]] == OVER || OWNER_LEFT(r))
#define MAY_PROMISE(r, by) \
  (!waiting[r] && \
   (prom[r] != 0 && owner[prom[r]] == r -> !HOLDS_LEASE(prom[r]) : (FREED(r, by) || OWES_NOTHING(r))))
inline EndSupport(r, by) {
  if
  :: prom[r] != 0 && owner[prom[r]] == A && owner[prom[r]] != r && !FREED(r, by) ->
     epoch[PAIR(r, owner[prom[r]])]++
  :: else
  fi
}
#else
#define MAY_PROMISE(r, by) 1
#endif
