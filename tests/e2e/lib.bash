# What the e2e scripts share. Each prints PASS/FAIL lines and, through `finish`, exits nonzero if any failed.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
skald=${SKALD:-$root/build/skald}
work=$(mktemp -d)
[ -n "${TEST_KEEP:-}" ] || trap 'rm -rf "$work"' EXIT
failures=0

pass() { echo "PASS $*"; }
fail() { echo "FAIL $*"; failures=$((failures + 1)); }
finish() {
    [ "$failures" -eq 0 ] || echo "$failures failed"
    [ "$failures" -eq 0 ]
    exit
}

# expect NAME CODE TEXT COMMAND...: the exit code, and that the output (both streams) contains TEXT.
expect() {
    local name=$1 code=$2 text=$3 output status
    shift 3
    output=$(timeout 120 "$@" 2>&1 </dev/null)
    status=$?
    if [ $status -ne "$code" ]; then
        fail "$name: exit code $status, not $code: $output"
    elif [[ "$output" != *"$text"* ]]; then
        fail "$name: no '$text' in: $output"
    else
        pass "$name"
    fi
}

# check NAME COMMAND...: the command succeeds.
check() {
    local name=$1
    shift
    if "$@"; then pass "$name"; else fail "$name"; fi
}

# wait_for SECONDS COMMAND...: until the command succeeds; fails when it has not by then.
wait_for() {
    local until=$((SECONDS + $1))
    shift
    while ! "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $until ] || return 1
        sleep 0.05
    done
}
