#!/bin/sh
# must_be_empty.sh TARGET LIST: fails when LIST names anything.
if [ -s "$2" ]; then
  echo "$1 must not depend on:"
  cat "$2"
  exit 1
fi
