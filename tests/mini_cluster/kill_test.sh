#!/usr/bin/env bash
# kill_test.sh BINARY kill|power NODES STAGES   ends the mini-cluster at random moments, and asks each time for what it had acknowledged.
#
# kill: SIGKILL from outside. power: the power of all nodes is cut, so that what was not synced is gone.
# DYNLIB_KILLS: how often (default 4). DYNLIB_KILL_SEED: of the moments (default: random, printed).
how="$2"
shape=(--nodes="$3" --stages="$4")
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh" "$1"

kills="${DYNLIB_KILLS:-4}"
seed="${DYNLIB_KILL_SEED:-$RANDOM}"
RANDOM="$seed"
longest_ms="${DYNLIB_KILL_LONGEST_MS:-6000}"
echo "seed $seed: DYNLIB_KILL_SEED=$seed repeats the choice of the moments"

make_csv 20000 >items.csv
touch journal
killed=0
for ((i = 1; i <= kills; ++i)); do
  # Some lives begin on nothing, most on what an earlier death left.
  if ((i % 7 == 0)); then rm -rf data journal; touch journal; fi
  moment=$((1 + (RANDOM * 32768 + RANDOM) % longest_ms))
  arguments=(--dir=data --input=items.csv "${keys[@]}" "${shape[@]}" --reload --journal=journal --mixed-seconds=3 --noverify --seed="$i" --generation="$i")
  status=0
  if [[ $how == power ]]; then
    "$mini_cluster" "${arguments[@]}" --power-off-after-ms="$moment" >out 2>err || status=$?
    ((status == 0 || status == 42)) || fail "life $i ended with status $status"
    if ((status == 42)); then killed=$((killed + 1)); fi
  else
    "$mini_cluster" "${arguments[@]}" >out 2>err &
    pid=$!
    sleep "$((moment / 1000)).$(printf '%03d' $((moment % 1000)))"
    kill -9 "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || status=$?
    ((status == 0 || status == 137)) || fail "life $i ended with status $status"
    if ((status == 137)); then killed=$((killed + 1)); fi
  fi
  acknowledged="$(grep -c . journal || true)"
  run --dir=data --input=items.csv "${keys[@]}" "${shape[@]}" --verify-journal=journal
  if ((acknowledged == 0)) && [[ $last == *"there is no mini-cluster in"* ]]; then
    echo "life $i: ended at $moment ms, before there was a directory"
    continue
  fi
  [[ $status == 0 && $last == OK:* ]] || fail "life $i, ended at $moment ms: $last"
  echo "life $i: ended at $moment ms with $acknowledged acknowledgements in the journal: $last"
done
((killed > 0)) || fail "every life came to its own end: nothing was tested"
echo "$killed of $kills lives were cut short; nothing acknowledged was lost"
