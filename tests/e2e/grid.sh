#!/bin/bash
# The answers are right: the small grid, every kind of case of tests/grid/run at a few thousand rows.
# only: release
# long
source "$(dirname "$0")/lib.bash"
SKALD=$skald "$root/tests/grid/run" --small --out "$work"
check "grid" test $? -eq 0
finish
