#!/bin/bash
# only: release
# Stragglers with real processes: delays, a pause, a death; every mode reaches its target; who is slow is named; status
# and top show it; bad options are refused with a caret.
source "$(dirname "$0")/lib.bash"
cd "$work" || exit 1

"$skald" generate rcv1 --rows 1500 --seed 6 --output train.svm >/dev/null
common=(--loss logistic --l2 1e-2 --seed 1 --progress none)
slack=1
[ "${TEST_PRESET:-release}" = release ] || slack=4

# --- every mode, with a production cluster's stragglers: the target, and a bound that holds ---
for mode in async sync ssp:4 partial:0.7; do
    expect "mode $mode" 0 "target gap reached" "$skald" train "${common[@]}" --workers 4 --pace 20 --straggler pcs \
        --mode $mode --target-gap 1e-8 --max-time 60s --log "$mode.jsonl" train.svm
done
check "ssp:4 bounds the lead" python3 -c '
import json
tasks = lambda name: [w["tasks"] for w in json.loads(open(name).readlines()[-1])["workers"]]
ssp, free = tasks("ssp:4.jsonl"), tasks("async.jsonl")
assert max(ssp) - min(ssp) <= 4, ssp
assert max(free) - min(free) > 4, free
'
expect "barrier by expression" 0 "target gap reached" "$skald" train "${common[@]}" --workers 4 --pace 5 \
    --straggler cds:2 --barrier 'avail >= 0.5*workers && max_stale < 6' --target-gap 1e-6 --log barrier.jsonl train.svm
check "its bound was not exceeded" python3 -c '
import json
end = json.loads(open("barrier.jsonl").readlines()[-1])
assert 0 < end["staleness_max"] < 6, end["staleness_max"]
assert end["applied"] + end["scaled"] == end["updates"]
'
expect "a bound that lets fewer run says so" 0 "lets 2 tasks run at a time where 4 could" "$skald" train "${common[@]}" \
    --workers 4 --barrier 'in_flight < 2' --target-gap 1e-2 train.svm
expect "a barrier that would hang ends the run" 1 "admits nobody while nothing is in flight" "$skald" train \
    "${common[@]}" --workers 2 --barrier 'avail > workers' train.svm
expect "late results folded" 0 "folded" "$skald" train "${common[@]}" --workers 3 --pace 5 --straggler cds:3 \
    --stale 'fold if staleness > 4' --target-gap 1e-6 train.svm

# --- delays wait and do not burn: sixteen workers, hardly any processor time ---
TIMEFORMAT='%R %U %S'
{ time "$skald" train "${common[@]}" --workers 16 --pace 60 --straggler pcs --max-time 3s train.svm >many.out 2>&1; } 2>many.txt
check "sixteen workers" grep -q 'time is up' many.out
check "their delays are waits (seconds in all, of the processor: $(tail -n 1 many.txt))" \
    awk -v cores="$(nproc)" -v slack=$slack 'END { exit !($2 + $3 < 0.5 * slack * cores * $1) }' many.txt

# --- pause: the run goes on without the worker, its heart beats, and it comes back ---
expect "pause" 0 "time is up" "$skald" train "${common[@]}" --workers 2 --pace 5 --straggler pause:0@0.2+1 \
    --max-time 2s --log pause.jsonl train.svm
check "a pause costs the paused worker only" python3 -c '
import json
tasks = [w["tasks"] for w in json.loads(open("pause.jsonl").readlines()[-1])["workers"]]
assert tasks[0] > 20 and tasks[1] > 1.4 * tasks[0], tasks
'

# --- kill: as if it had been killed ---
expect "kill" 1 "was killed by signal 9" "$skald" train "${common[@]}" --workers 2 --pace 5 --straggler kill:1@0.3 --on-loss stop \
    --max-time 20s train.svm

# --- a slow worker is named while it runs; status and top show it (its delay is more than a busy machine adds) ---
"$skald" train "${common[@]}" --workers 3 --pace 20 --straggler cds:8 --max-time 120s \
    --listen "unix:$work/s" --log slow.jsonl train.svm >slow.out 2>slow.err &
run=$!
for _ in $(seq 100); do
    grep -q 'slow: worker 0' slow.err && break
    sleep 0.1
done
check "named while it runs ($(grep -m 1 slow: slow.err))" \
    grep -qE 'slow: worker 0 \(worker-[123], cpu.*\): [0-9.]+x the median, delayed on purpose' slow.err
expect "status names it" 0 "x the median, delayed on purpose" "$skald" status --connect "unix:$work/s"
"$skald" status --connect "unix:$work/s" --json >status.json
check "every field is there and adds up" python3 -c '
import json
s = json.load(open("status.json"))
for w in s["workers"]:
    parts = sum(w[p + "_ms_mean"] for p in ("receive", "held", "compute", "delay", "send", "queue"))
    assert abs(parts - w["task_ms_mean"]) <= 0.05 * w["task_ms_mean"], (parts, w)
    assert 0 < w["task_ms_p50"] <= w["task_ms_p95"] and w["bytes_sent"] > 0 and w["bytes_received"] > 0
    assert w["state"] in ("busy", "waiting") and w["rows"] > 0 and w["staleness_max"] > 0
slow = s["workers"][0]
assert slow["slowdown"] > 1.5 and slow["cause"] == "delayed on purpose" and slow["delay_ms_mean"] > 20, slow
assert len(s["shards"]) == 3 and all(x["visits"] > 0 and 0 < x["coverage"] <= 1 for x in s["shards"])
assert s["coverage"] == 1 and s["applied"] > 0 and s["available"] <= 3
'
seen=$failures
check "top on a terminal, resized, left by q" bash -c \
    "python3 '$root/tests/tools/terminal.py' 80 24 130 6 '$skald' top 'unix:$work/s' --every 0.2s >top.txt"
check "top names the slow worker and fits 80 columns" grep -qE '^worker-. .* delayed' top.txt
check "the screen is given back" grep -q 'screen given back' top.txt
check "top by keys: sorted, reversed, filtered, helped, in 80 columns" bash -c \
    "python3 '$root/tests/tools/terminal.py' 80 24 80 24 --keys=x --keys=x --keys='/PURP\\r' --keys='\\x1b' --keys=n --keys=h \
    '$skald' top 'unix:$work/s' --every 0.2s >keys.txt"
check "what they did" python3 -c '
import re
pictures = open("keys.txt").read().split("=== after ")[1:]
def workers(text):
    return re.findall(r"^(worker-\d) ", text, re.M)
down, up, some, every, names, helped = pictures
slow = [l.split()[0] for l in down.splitlines() if l.startswith("worker-") and "delayed" in l]
assert len(slow) == 1 and workers(down)[0] == slow[0] and "sort: xMED down" in down, down
assert workers(up)[-1] == slow[0] and len(workers(up)) == 3 and "sort: xMED up" in up, up
assert workers(some) == slow and "1 of 3" in some, some
assert len(workers(every)) == 3 and "1 of 3" not in every, every
assert workers(names) == ["worker-1", "worker-2", "worker-3"], names
assert not workers(helped) and "sort by name" in helped and "q quit" in helped, helped
'
[ "$failures" -eq "$seen" ] || cat top.txt
check "top elsewhere prints lines" bash -c \
    "timeout 5 '$skald' top 'unix:$work/s' --every 0.2s | head -n 4 | grep -q 'rows/s'"
kill -INT $run # it has been seen
wait $run
check "named in the summary" grep -q '^slow  *worker 0' slow.out

# --- what is wrong is pointed at ---
caret=$'avail >= 0.7*wokers\n'
expect "a bad barrier" 2 "$caret" "$skald" train "${common[@]}" --barrier 'avail >= 0.7*wokers' train.svm
expect "has a caret" 2 "             ^" "$skald" train "${common[@]}" --barrier 'avail >= 0.7*wokers' train.svm
expect "a bad policy" 2 "^" "$skald" train "${common[@]}" --stale 'fold if stale > 3' train.svm
expect "a bad mode" 2 "must be async, sync, ssp:S or partial:B" "$skald" train "${common[@]}" --mode fast train.svm
expect "a bad straggler" 2 "cds:C" "$skald" train "${common[@]}" --straggler cds:x train.svm
printf '0 1 2\n1 x\n' >trace.txt
expect "a bad trace" 2 "trace.txt:2:" "$skald" train "${common[@]}" --straggler trace:trace.txt train.svm
expect "no such worker" 2 "there is no worker 4" "$skald" train "${common[@]}" --workers 2 --straggler pause:4@1 train.svm
printf '0 1 2\n* 0.5\n' >trace.txt
expect "a trace" 0 "target gap reached" "$skald" train "${common[@]}" --workers 2 --pace 1 --straggler trace:trace.txt \
    --target-gap 1e-4 train.svm
finish
