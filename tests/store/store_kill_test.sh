#!/usr/bin/env bash
# store_kill_test.sh TOOL WRITER: a process that writes is killed, again and again; what it said was
# written is there, the trees agree, and all of it verifies.
set -u
tool="$PWD/$1"
writer="$PWD/$2"
work="$(mktemp -d "${TEST_TMPDIR:-/tmp}/kill.XXXXXX")"
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
said=-1
for round in 1 2 3 4; do
  "$writer" db > out &
  pid=$!
  # Far enough for checkpoints to have run; how far does not matter.
  until (($(wc -l < out) > 80 * round)); do kill -0 $pid || { cat out; exit 1; }; done
  kill -9 $pid
  wait $pid 2> /dev/null
  # The last line may be cut short.
  said="$(sed '$d' out | tail -1)"
  last="$("$tool" get db last --tree written)" || exit 1
  mirror="$("$tool" get db mirror)" || exit 1
  if ((last < said)) || [[ $mirror != "$last" ]]; then
    echo "round $round: said $said, found $last, and $mirror in the other tree"
    exit 1
  fi
  row="$("$tool" get db "row$((last % 1000))" --tree written)" || exit 1
  [[ $row == "${last}x"* ]] || { echo "row of write $last is $row"; exit 1; }
  "$tool" verify db --quiet || exit 1
done
