# Shared by the commands in this folder; sourced, not run.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

say() { printf '%s\n' "$*" >&2; }
die() { say "$(basename "$0"): $*"; exit 1; }
usage_error() { say "$(basename "$0"): $*"; say "Try: tools/$(basename "$0") --help"; exit 2; }

# The comment block at the top of the command that was started is its manual.
print_help() { sed -n '2,/^[^#]/{/^#/!d;s/^# \{0,1\}//;p}' "$0"; }

# Bazel in this workspace and in the consumer's. DYNLIB_OUTPUT_BASE, when set, keeps the builds apart from others of this tree.
bazel_main() {
  (cd "$root" && bazel ${DYNLIB_OUTPUT_BASE:+"--output_base=$DYNLIB_OUTPUT_BASE"} "$@")
}
bazel_consumer() {
  (cd "$root/examples/consumer" &&
    bazel ${DYNLIB_OUTPUT_BASE:+"--output_base=$DYNLIB_OUTPUT_BASE-consumer"} --max_idle_secs=20 "$@")
}

# Builds one binary optimised, quietly, and sets `binary` to its path. The path is asked of Bazel, since the bazel-bin link
# belongs to whoever built last.
build_optimised() {
  local label="$1" log status=0
  log="$(mktemp)"
  bazel_main build --config=opt --symlink_prefix=/ --noshow_loading_progress --show_result=0 --ui_event_filters=-info "$label" 2>"$log" || status=$?
  if ((status != 0)); then
    cat "$log" >&2
    rm -f "$log"
    die "$label does not build"
  fi
  rm -f "$log"
  local bin path
  bin="$(bazel_main info --config=opt --ui_event_filters=-info bazel-bin 2>/dev/null)"
  path="${label#//}"
  binary="$bin/${path/://}"
}
