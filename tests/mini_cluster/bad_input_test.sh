#!/usr/bin/env bash
# bad_input_test.sh BINARY   what is wrong is named, the status is not 0, and the data is as it was.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh" "$1"

make_csv 50 >items.csv
good=(--dir=data --input=items.csv "${keys[@]}" --nodes=3 --mixed-seconds=0)

# Options.
run --no-such-option
[[ $status != 0 && $last == FAILED:* ]] || fail "an unknown option: status $status, '$last'"
grep -q no_such_option err || fail "the unknown option is not named"
run --nodes=many
[[ $status != 0 ]] && grep -q "many" err || fail "a bad number is not named"
run "${good[@]}" stray
expect_failure "'stray'"
run "${good[@]}" --nodes=4
expect_failure "nodes is 4"
run "${good[@]}" --partitions=0
expect_failure "partitions is 0"
run "${good[@]}" --partitions=2001
expect_failure "partitions is 2001"
run "${good[@]}" --without=cache,coffee
expect_failure "'coffee'; allowed: cache, admission, log-replicas, scrub, split"
run "${good[@]}" --stages=power,rest
expect_failure "'rest'; allowed: routing, admission, power, healing, scrub"
run "${good[@]}" --repeat=0
expect_failure "repeat is 0"
run "${good[@]}" --clients=5000
expect_failure "5000"
run "${good[@]}" --format=xml
expect_failure "'xml'"
run "${good[@]}" --dir=
expect_failure "--dir"
run --dir=data --input=items.csv
expect_failure "--partition-key"
run --dir=data --input=items.csv --partition-key=code --sort-key=code
expect_failure "both 'code'"

# Input.
run --dir=data --input=none.csv "${keys[@]}"
expect_failure "none.csv"
printf 'category,code\na,1\nb,"2\n' >torn.csv
run --dir=data --input=torn.csv "${keys[@]}"
expect_failure "torn.csv:3:"
printf 'category,code\na,1\nb\n' >short.csv
run --dir=data --input=short.csv "${keys[@]}"
expect_failure "short.csv:3:1:"
printf 'category,code\na,1\na,1\n' >twice.csv
run --dir=data --input=twice.csv "${keys[@]}"
expect_failure "twice.csv:3: "
expect_failure "that of line 2 too"
printf 'category,code\na,\n' >empty.csv
run --dir=data --input=empty.csv "${keys[@]}"
expect_failure "empty.csv:2:"
printf '{"category": "a", "code": "1"}\n{"category": "a", "code": }\n' >bad.jsonl
run --dir=data --input=bad.jsonl "${keys[@]}"
expect_failure "bad.jsonl:2:27:"
printf '{"category": [1], "code": "1"}\n' >type.jsonl
run --dir=data --input=type.jsonl "${keys[@]}"
expect_failure "is a list"
{ printf 'category,code\na,'; head -c 2000 /dev/zero | tr '\0' x; printf '\n'; } >long.csv
run --dir=data --input=long.csv "${keys[@]}"
expect_failure "1024"
[[ ! -e data ]] || fail "a refused run left a directory"

# Directories.
touch file
run --dir=file --input=items.csv "${keys[@]}"
expect_failure "file: Not a directory"
mkdir other && touch other/precious
run --dir=other --input=items.csv "${keys[@]}"
expect_failure "other"
[[ "$(ls other)" == precious ]] || fail "it wrote into a directory that is not its own"
run --dir=none --input=items.csv "${keys[@]}" --verify-only
expect_failure "none"
if ((EUID != 0)); then
  mkdir closed && chmod 555 closed
  run --dir=closed/data --input=items.csv "${keys[@]}"
  expect_failure "closed/data"
fi

run "${good[@]}"
expect_ok
sums() { (cd data && find . -type f ! -name LOCK -exec cksum {} + | sort -k3); }
sums >before
run "${good[@]}" --nodes=6
expect_failure "--nodes 3"
run "${good[@]}" --partitions=5
expect_failure "--partitions 4"
run "${good[@]}" --repeat=2
expect_failure "another data set"
cp data/CLUSTER saved
sed -i 's/dynlib-mini-cluster 1/dynlib-mini-cluster 2/' data/CLUSTER
run "${good[@]}"
expect_failure "data/CLUSTER is of format version 2"
cp saved data/CLUSTER
sums | cmp - before || fail "a refused run changed the directory"

# A node's directory of another format version: the version is named, and nothing is touched.
cp -r data newer
version_at="$(grep -aboE '[0-9]' newer/node-2/FORMAT | head -1 | cut -d: -f1)"
cp newer/node-2/FORMAT format.saved
printf '9' | dd of=newer/node-2/FORMAT bs=1 seek="$version_at" conv=notrunc status=none
(cd newer && find . -type f ! -name LOCK -exec cksum {} + | sort -k3) >newer.before
run --dir=newer --input=items.csv "${keys[@]}" --nodes=3 --mixed-seconds=0
[[ $status != 0 && $last == FAILED:* ]] || fail "a directory of another format was taken"
[[ $last == *FORMAT* || $last == *format* || $last == *version* ]] || fail "the format is not named: $last"
(cd newer && find . -type f ! -name LOCK -exec cksum {} + | sort -k3) | cmp - newer.before ||
  fail "a directory of another format was changed"

# A node's directory in the place of another's.
cp -r data swapped
mv swapped/node-1 swapped/node-x && mv swapped/node-2 swapped/node-1 && mv swapped/node-x swapped/node-2
run --dir=swapped --input=items.csv "${keys[@]}" --nodes=3 --mixed-seconds=0
[[ $status != 0 && $last == FAILED:* ]] || fail "another node's directory was taken"

# Two processes on one directory.
"$mini_cluster" "${good[@]}" --reload --stages=power --mixed-seconds=20 --noverify >first.out 2>first.err &
first=$!
for ((i = 0; i < 200; ++i)); do
  if grep -q '^load' first.out; then break; fi
  sleep 0.1
done
run "${good[@]}"
kill -9 $first
wait $first 2>/dev/null || true
[[ $status != 0 && $last == FAILED:* ]] || fail "two processes had one directory"
[[ $last == *lock* || $last == *"in use"* || $last == *another* ]] || fail "it is not said why: $last"
run "${good[@]}"
expect_ok
echo passed
