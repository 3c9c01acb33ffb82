#!/bin/bash
# The answers are right: the small grid, every kind of case of tests/grid/run at a few thousand rows.
# only: release
# long
source "$(dirname "$0")/lib.bash"
# several scripts at a time: threads that spin for each other are in their way
OPENBLAS_NUM_THREADS=1 SKALD=$skald "$root/tests/grid/run" --small --out "$work"
check "grid" test $? -eq 0
finish
