#!/bin/sh
# must_not_be_empty.sh TARGET FOLDER LIST: fails when LIST names nothing.
if [ ! -s "$3" ]; then
  echo "the query does not see that $1 depends on $2"
  exit 1
fi
