#!/usr/bin/env bash
# tool_test.sh TOOL KV: runs the command-line tool as a person would, right and wrong.
set -u
tool="$PWD/$1"
holder="$PWD/$2"
work="$(mktemp -d "${TEST_TMPDIR:-/tmp}/tool.XXXXXX")"
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failures=0

# expect CODE WORDS COMMAND...: its exit code, and that what it prints has the words.
expect() {
  local code="$1" words="$2" out got
  shift 2
  out="$("$tool" "$@" 2>&1)"
  got=$?
  if [[ $got -ne $code || "$out" != *"$words"* ]]; then
    printf 'FAILED: %s\n  exit code %s, expected %s; expected to read: %s\n  printed: %s\n' \
      "$*" "$got" "$code" "$words" "$out"
    failures=$((failures + 1))
  fi
}
same() {
  if ! cmp -s "$1" "$2"; then
    echo "FAILED: $1 and $2 differ"
    diff "$1" "$2" | head -5
    failures=$((failures + 1))
  fi
}

# Help, and what is not understood.
expect 0 "usage: dynlib-store" --help
expect 2 "usage: dynlib-store"
expect 2 "unknown command fly" fly
for command in info stats get put delete scan load dump verify backup backups restore; do
  expect 0 "usage: dynlib-store $command" "$command" --help
done
expect 2 "1 arguments; get takes 2" get db
expect 2 "unknown option --loud" info db --loud
expect 2 "--limit needs a value" scan db --limit
expect 2 "--limit = many is not a whole number" scan db --limit many
expect 2 "neither csv nor jsonl" scan db --format xml

# No store, no folder made.
expect 1 "db: no store" info db
expect 1 "no store" put db k v
[[ ! -e db ]] || { echo "FAILED: a refused command made the folder"; failures=$((failures + 1)); }
mkdir other && touch other/file
expect 1 "no store" get other k
expect 3 "not a store" put other k v --create
[[ "$(ls other)" == file ]] || { echo "FAILED: other was touched"; failures=$((failures + 1)); }

# Rows go in and come out.
expect 0 "" put db k v --create
expect 0 "v" get db k
expect 1 "no key none" get db none
expect 1 "no tree cities" get db k --tree cities
expect 0 "" delete db k
expect 1 "no key k" get db k
printf 'lima,Peru\n"a ""quoted"", key","two\nlines"\noslo,Norway\n' > rows.csv
expect 0 "3 rows" load db rows.csv --tree cities
expect 0 "Peru" get db lima --tree cities
expect 0 '{"key": "a \"quoted\", key", "value": "two\u000alines"}' scan db --tree cities --limit 1
expect 0 "oslo" scan db --tree cities --reverse --limit 1 --keys
expect 0 "lima,Peru" scan db --tree cities --prefix li --format csv
for format in csv jsonl; do
  "$tool" dump db --tree cities --format $format > "dump.$format"
  expect 0 "" load "copy.$format" "dump.$format" --create --quiet
  "$tool" dump "copy.$format" --format csv > again.csv
  "$tool" dump db --tree cities --format csv > want.csv
  same want.csv again.csv
done
printf '{"key": "a", "value": "\\u00ff\\u20ac\\n"}\n' > odd.jsonl
expect 0 "" load db odd.jsonl --quiet
expect 0 '"\u00ff\u00e2\u0082\u00ac\u000a"' scan db
# Bytes that no command line holds, as JSON strings.
expect 0 "" put db '"\u0000\u00ff\n"' '"\u0001 \"v\""' --json --tree bytes
expect 0 '"\u0001 \"v\""' get db '"\u0000\u00ff\u000a"' --json --tree bytes
expect 0 '"\u0000\u00ff\u000a"' scan db --tree bytes --keys --json --prefix '"\u0000"'
expect 0 '{"key": "\u0000\u00ff\u000a", "value": "\u0001 \"v\""}' dump db --tree bytes
expect 2 'is no JSON string: a string in quotes was expected' get db plain --json
expect 2 'there is more behind the string' scan db --start '"a" b' --json
expect 1 'no key' get db '"\u0000"' --json --tree bytes
expect 0 "" delete db '"\u0000\u00ff\n"' --json --tree bytes
[[ -z "$("$tool" dump db --tree bytes)" ]] ||
  { echo "FAILED: the deleted key is there"; failures=$((failures + 1)); }
printf 'a,b\nc\n' > bad.csv
expect 2 "bad.csv: line 2: a row has two fields" load db bad.csv
printf '{"key": "a"}\n' > bad.jsonl
expect 2 "line 1: field value is missing" load db bad.jsonl
expect 1 "cannot be opened" load db none.csv
seq 1 5000 | sed 's/.*/key&,value&/' | "$tool" load db - --format csv --tree many --quiet ||
  { echo "FAILED: load from standard input"; failures=$((failures + 1)); }
[[ "$("$tool" scan db --tree many --keys | wc -l)" == 5000 ]] ||
  { echo "FAILED: 5000 rows were loaded"; failures=$((failures + 1)); }
expect 0 "cities" info db
expect 0 "to read the log" info db
expect 0 "log_bytes" stats db
expect 0 "damaged 0" verify db --quiet

# Backups.
expect 0 "rows 5004" backup db objects monday --quiet
expect 3 "there is a backup monday" backup db objects monday --quiet
"$tool" put db new row
expect 0 "uploaded_chunks 1" backup db objects tuesday --quiet
expect 0 "rows_read 0" backup db objects wednesday --quiet
expect 0 "rows_read 5005" backup db objects x-all --quiet --read-all
expect 0 "unread_chunks" backup db objects x-previous --quiet --previous monday
expect 1 "store/backups/never" backup db objects x-never --quiet --previous never
expect 0 "tuesday" backups objects
expect 0 "rows 5005" restore objects tuesday back --quiet
expect 0 "row" get back new
expect 0 "Peru" get back lima --tree cities
expect 0 "rows 5005" restore objects tuesday smaller --quiet --compress
expect 0 "Peru" get smaller lima --tree cities
expect 0 "damaged 0" verify smaller --quiet
used() { "$tool" stats "$1" | sed -n 's/^used_bytes //p'; }
(($(used smaller) < $(used back))) ||
  { echo "FAILED: --compress saved nothing"; failures=$((failures + 1)); }
expect 3 "empty folder" restore objects tuesday back --quiet
expect 1 "store/backups/none" restore objects none back2 --quiet
expect 1 "no such folder" backups nowhere

# Damage, a newer format, a folder in use.
page="$(grep -obUa 'value4321' back/pages | head -1 | cut -d: -f1)"
printf 'X' | dd of=back/pages bs=1 seek="$page" conv=notrunc status=none
expect 4 "checksum" verify back --quiet
expect 4 "back/pages" get back key4321 --tree many
expect 4 "back/pages" dump back --tree many
expect 4 "cannot be read: back/pages" dump back --tree many --damaged
"$tool" dump back --tree many --damaged 2> /dev/null > whole.jsonl
grep -q '"key1"' whole.jsonl && grep -q '"key999"' whole.jsonl && ! grep -q '"key4321"' whole.jsonl ||
  { echo "FAILED: --damaged dumps what is whole, and no more"; failures=$((failures + 1)); }
"$tool" load log /dev/null --create --format csv --quiet
"$tool" put log before 1 && "$tool" put log lost valueoflost && "$tool" put log behind 3
segment="$(grep -l valueoflost log/log/*.seg)"
page="$(grep -obUa valueoflost "$segment" | head -1 | cut -d: -f1)"
printf 'X' | dd of="$segment" bs=1 seek="$page" conv=notrunc status=none
expect 4 "$segment" get log before
expect 4 "for reading alone" get log before --damaged
[[ "$("$tool" get log before --damaged 2> /dev/null)" == 1 ]] ||
  { echo "FAILED: get --damaged"; failures=$((failures + 1)); }
expect 4 "before" scan log --damaged
expect 1 "no key behind" get log behind --damaged
cp -r db newer
printf '\002' | dd of=newer/STORE bs=1 seek=8 conv=notrunc status=none
expect 4 "newer/STORE" info newer
# A whole STORE of version 77: its checksum is right (store_open_test has the bytes).
printf 'DLSTORE\0\115\0\0\0\003\0\0\0%40s\230\136\141\243\034\230\241\270' '' | tr ' ' '\0' > newer/STORE
expect 3 "newer/STORE: a store of format version 77; this program knows versions up to 1" info newer
cp -r db gone && rm gone/pages
expect 4 "gone/pages: missing" info gone
"$holder" "$work/db" > held.out &
pid=$!
until grep -q open held.out; do kill -0 $pid || break; done
expect 3 "in use" info db
kill -9 $pid
wait $pid 2> /dev/null
expect 0 "Peru" get db lima --tree cities

[[ $failures -eq 0 ]] && echo "all as expected"
exit $((failures > 0))
