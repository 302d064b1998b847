#!/usr/bin/env bash
# end_to_end_test.sh BINARY   whole runs on small inputs: new, found again, repeated; CSV, JSON lines, Unicode data.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh" "$1"

make_csv 3000 >items.csv
common=(--nodes=3 --stages=power "${keys[@]}")

run --dir=csv --input=items.csv "${common[@]}" --mixed-seconds=2
expect_ok
[[ $last == "OK: 3000 written, 3000 verified, 0 lost" ]] || fail "the last line is '$last'"
grep -q '^power cut .* unavailable for ' out || fail "it does not tell how long writes were unavailable"
grep -q '^load .*3,000 items written in .*p50 .*p99 .*p99.9' out || fail "it does not tell how the load went"
grep -q '^verified .*in 12 replicas; [1-9][0-9]* counters' out || fail "it does not tell what was verified"
(($(grep -c '^query ' out) == 3)) || fail "it does not show three queries"

# Again on the same directory: what is there is found, and nothing is written anew.
run --dir=csv --input=items.csv "${common[@]}" --mixed-seconds=0
expect_ok
grep -q '^load .*all 3,000 items are there from an earlier run' out || fail "it did not find the data"

# Each row several times.
run --dir=repeated --input=items.csv "${common[@]}" --repeat 3 --mixed-seconds=0
[[ $status == 0 && $last == "OK: 9000 written, 9000 verified, 0 lost" ]] || fail "the last line is '$last'"

# JSON lines, with numbers, lists and maps; keys that are numbers; no sort key.
for i in {1..500}; do echo "{\"id\": $i, \"name\": \"n$i\", \"tags\": [1, true, null, {\"a\": \"$i\"}]}"; done >items.jsonl
run --dir=json --input=items.jsonl --nodes=3 --partition-key=id --mixed-seconds=0
[[ $status == 0 && $last == "OK: 500 written, 500 verified, 0 lost" ]] || fail "the last line is '$last'"

# Unicode data needs no keys.
for i in {0..199}; do printf '%04X;NAME %d;L%s;0;L;;;;;N;;;;;\n' "$i" "$i" "$((i % 2))"; done >UnicodeData.txt
run --dir=unicode --input=UnicodeData.txt --nodes=6 --mixed-seconds=0
[[ $status == 0 && $last == "OK: 200 written, 200 verified, 0 lost" ]] || fail "the last line is '$last'"

# A check of a journal can tell when something acknowledged is missing or older than it was.
run --dir=journaled --input=items.csv "${common[@]}" --mixed-seconds=1 --noverify --journal=journal --generation=5
expect_ok
run --dir=journaled --input=items.csv "${common[@]}" --verify-journal=journal
[[ $status == 0 && $last == "OK: 3000 acknowledged, 3000 verified, 0 lost; 3000 present" ]] || fail "the last line is '$last'"
{ cat journal; echo "row 17 6"; } >newer
run --dir=journaled --input=items.csv "${common[@]}" --verify-journal=newer
expect_failure "2999 verified, 1 lost"
{ cat journal; echo "counter counter-0 1000000"; } >newer
run --dir=journaled --input=items.csv "${common[@]}" --verify-journal=newer
expect_failure "1 counters wrong"

# The verification can tell when the directory holds something else: each of these is passed off as the other's.
data_of() { sed -n '/^data /p' "$1/CLUSTER"; }
pass_off() { sed -i "s/^data .*/$(data_of "$2")/" "$1/CLUSTER"; }
sed 's/name 17,/name 18,/' items.csv >other.csv
make_csv 2999 >less.csv
for name in other less; do
  run --dir=$name --input=$name.csv "${common[@]}" --mixed-seconds=0 --noverify
  expect_ok
done
cp -r less less.true
pass_off other csv
run --dir=other --input=items.csv "${common[@]}" --verify-only
expect_failure "1 different"
pass_off less csv
run --dir=less --input=items.csv "${common[@]}" --verify-only
expect_failure "1 lost"
pass_off csv less.true
run --dir=csv --input=less.csv "${common[@]}" --verify-only
expect_failure "3 unexpected"
echo passed
