#!/usr/bin/env bash
# check_model.sh MODEL model_holds|model_reaches|known_bad_fails|NAME   searches docs/spec/group.pml with spin.
#
# Each line of the tables below is one search: a name, the property that must be violated (none: all must hold), and the
# bounds. With a NAME only that one is done. `both` searches once
# more for a state that shows that the bounds let happen what they are there for. A search is exhaustive within its bounds and therefore the same each time; it
# may use 1 GB.
set -euo pipefail

model="$(cd "$(dirname "$1")" && pwd)/$(basename "$1")"
selected="$2"
work="$(mktemp -d "${TEST_TMPDIR:-/tmp}/spec.XXXXXX")"
trap 'rm -rf "$work"' EXIT
checked=0
failed=0

# search KIND NAME PROPERTY FLAG...
search() {
  local kind="$1" name="$2" property="$3"
  shift 3
  if [[ "$selected" != "$kind" && "$selected" != "$name" ]]; then return; fi
  local folder="$work/$name" optimise=-O1 start="$SECONDS"
  if [[ -n "$property" ]]; then optimise=-O0; fi
  mkdir "$folder"
  (
    cd "$folder"
    spin "$@" -a "$model" >spin.log 2>&1 || { cat spin.log; exit 1; }
    gcc -w "$optimise" -DSAFETY -DNOREDUCE -DMEMLIM=1000 -o pan pan.c
    ./pan -E -m10000 -w22 >pan.log 2>&1 || true
  )
  local log="$folder/pan.log" states verdict
  states="$(sed -n 's/^ *\([0-9]*\) states, stored.*/\1/p' "$log" | head -n 1)"
  if [[ -n "$property" ]]; then
    verdict="$(grep -q "assertion violated $property " "$log" && echo ok || echo "FAILED: $property was not violated")"
  elif grep -q 'errors: 0' "$log" && ! grep -qE 'Search not completed|max search depth|out of memory' "$log"; then
    verdict=ok
  else
    verdict=FAILED
  fi
  echo "$name: $verdict (${states:-no} states, $((SECONDS - start)) s, $*)"
  if [[ "$verdict" != ok ]]; then
    grep -E 'violated|depth|memory|errors:' "$log" || true
    failed=$((failed + 1))
  fi
  checked=$((checked + 1))
}

holds() { local name="$1"; shift; search model_holds "$name" "" "$@"; }
fails() { search known_bad_fails "$@"; }

reaches() { local name="$1" witness="$2"; shift 2; search model_reaches "$name.reached" unreached -DWITNESS="$witness" "$@"; }
# both NAME WITNESS FLAG...: all holds, and not because nothing happens.
both() { local name="$1" witness="$2"; shift 2; holds "$name" "$@"; reaches "$name" "$witness" "$@"; }

both agreement 1 -DBALLOTS=3 -DOWNERS="A,B,A"
both restart 2 -DRESTARTS=1
both competing_changes 3 -DREPLICAS=4 -DCHANGES=2
both successive_changes 4 -DREPLICAS=5 -DCHANGES=3 -DDEAD=4
both lease 5 -DLEASE
both lease_restart 6 -DLEASE -DRESTARTS=1 -DSLOTS=1
both lease_change 7 -DLEASE -DREPLICAS=4 -DCHANGES=4 -DLAPSES=1 -DOWNERS="B,A,A"
both damage 8 -DDAMAGE=1 -DTORN=1
both reads 9 -DREADS
both reads_change 10 -DREADS -DREPLICAS=4 -DCHANGES=4 -DOWNERS="B,A,A"

# What comes first in some of these is a quorum of the wrong members; that it costs agreement is what is to be seen.
fails no_epoch agreement -DONLY_AGREEMENT -DNO_EPOCH -DREPLICAS=4 -DSLOTS=1
fails claimed_epoch agreement -DONLY_AGREEMENT -DCLAIMED_EPOCH -DREPLICAS=4 -DCHANGES=2
fails amnesiac_vote agreement -DAMNESIAC_VOTE -DRESTARTS=1
fails lease_not_bound lease_reads_current -DLEASE_NOT_BOUND -DLEASE
fails damage_read_as_empty agreement -DONLY_AGREEMENT -DDAMAGE_READ_AS_EMPTY -DDAMAGE=1
fails no_second_phase_one agreement -DONLY_AGREEMENT -DNO_SECOND_PHASE_ONE -DREPLICAS=4 -DCHANGES=2
fails no_second_phase_one.quorums quorums_meet -DNO_SECOND_PHASE_ONE -DREPLICAS=4 -DCHANGES=2
fails lease_forgotten_at_restart lease_reads_current -DLEASE_FORGOTTEN_AT_RESTART -DLEASE -DRESTARTS=1 -DSLOTS=1
fails no_wait_for_lease lease_reads_current -DNO_WAIT_FOR_LEASE -DLEASE -DSLOTS=1
fails inherited_lease lease_reads_current -DINHERITED_LEASE -DLEASE -DREPLICAS=4 -DCHANGES=4 -DLAPSES=1 -DOWNERS="B,A,A"
fails read_unconfirmed quorum_reads_current -DREAD_UNCONFIRMED -DREADS
fails read_answers_kept quorum_reads_current -DREAD_ANSWERS_KEPT -DREADS
fails inherited_read quorum_reads_current -DINHERITED_READ -DREADS -DREPLICAS=4 -DCHANGES=4 -DOWNERS="B,A,A"

((checked > 0)) || { echo "there is no search named $selected"; exit 2; }
((failed == 0))
