# Shared by the tests of this folder; sourced, not run. $1: the mini-cluster's binary.
set -euo pipefail

mini_cluster="$PWD/$1"
[[ -x "$mini_cluster" ]] || mini_cluster="$1"
shift
work="$(mktemp -d "${TEST_TMPDIR:-/tmp}/mini_cluster.XXXXXX")"
trap 'rm -rf "$work"' EXIT
cd "$work"

fail() {
  printf 'FAIL: %s\n' "$*" >&2
  for file in out err; do
    if [[ -e $file ]]; then printf -- '--- %s\n' "$file" >&2; tail -30 "$file" >&2; fi
  done
  exit 1
}

# run ARGUMENT...: runs the program; its status in $status, what it printed in out and err, its last line in $last.
run() {
  status=0
  "$mini_cluster" "$@" >out 2>err || status=$?
  last="$(tail -n 1 out)"
}

expect_ok() {
  [[ $status == 0 ]] || fail "status is $status"
  [[ $last == OK:* ]] || fail "the last line is '$last'"
}

# expect_failure TEXT: it failed, and says TEXT on stdout's last line.
expect_failure() {
  [[ $status != 0 ]] || fail "status is 0"
  [[ $last == "FAILED: "* ]] || fail "the last line is '$last'"
  [[ $last == *"$1"* ]] || fail "the last line does not say '$1': $last"
}

# make_csv ROWS >FILE: category, code and three attributes; one of them with commas, quotes and line ends.
make_csv() {
  awk -v rows="$1" 'BEGIN {
    print "category,code,name,size,note"
    for (i = 0; i < rows; i++)
      printf "c%d,%06d,name %d,%d,\"a \"\"note\"\", of\ntwo lines %d\"\n", i % 7, i, i, i * i, i
  }'
}
# A load that a machine bears that has other tests to run.
keys=(--partition-key=category --sort-key=code --clients=64)
