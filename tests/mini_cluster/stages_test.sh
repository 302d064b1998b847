#!/usr/bin/env bash
# stages_test.sh BINARY   all stages on nine nodes, and what shows when a block is switched off.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh" "$1"

make_csv 3000 >items.csv

run --dir=all --input=items.csv "${keys[@]}" --mixed-seconds=3
[[ $status == 0 && $last == "OK: 3000 written, 3000 verified, 0 lost" ]] || fail "the last line is '$last'"
# Warm or cold, metadata nodes see two look-ups a request.
for temperature in cold warm; do
  share="$(sed -n "s/.*$temperature caches: .* \([0-9.]*\) of the fan-out of 2/\1/p" out)"
  awk -v share="$share" 'BEGIN { exit !(share >= 0.99 && share <= 1.01) }' ||
    fail "look-ups with $temperature caches are '$share' of the fan-out"
done
grep -q 'metadata nodes off for .* requests went on from the caches, 0 failed' out || fail "it does not go on without metadata nodes"
grep -q "^admission .* served, [1-9][0-9,]*/s throttled" out || fail "nothing was throttled"
grep -q ' split for its heat after .* routers followed' out || fail "the hot partition was not split"
grep -q '^power cut .* unavailable for ' out || fail "it does not tell how long writes were unavailable"
grep -q '^healing .* declared dead after ' out || fail "no node died"
grep -q ' storage replicas rebuilt on ' out || fail "it does not tell that replicas were rebuilt"
grep -q '^scrub .* one bit of item .* changed in all/node-' out || fail "nothing was damaged"
grep -q ' damage on node .* checksum ' out || fail "the damaged page is not named"
grep -q ' found: the copy on node [0-9]* of item' out || fail "the bad copy is not named"
grep -q ' and again: .*: 0 differences' out || fail "a second scrub is not clean"
grep -q '^scrubbed .*: 0 differences' out || fail "the last scrub is not clean"

run --dir=less --input=items.csv "${keys[@]}" --mixed-seconds=3 --stages=routing,admission --without=cache,split
[[ $status == 0 && $last == "OK: 3000 written, 3000 verified, 0 lost" ]] || fail "the last line is '$last'"
grep -q 'warm caches: .* 0.0[0-9]* a request' out || fail "a conventional cache asks although it is warm"
grep -q 'without splits it stays' out || fail "it is not said what splits are for"

# Damage that nobody looked for is found when somebody reads the copy.
run --dir=damaged --input=items.csv "${keys[@]}" --nodes=3 --mixed-seconds=1 --stages=scrub --without=scrub
expect_failure ""
grep -q 'page at offset .* checksum ' out || fail "the damaged page is not named"
echo passed
