#!/bin/bash
# simulate, what-if and bench through the command line, on a small problem with delays.
# only: release
source "$(dirname "$0")/lib.bash"
cd "$work" || exit 1
"$skald" generate epsilon --rows 2000 --output train.h5 >/dev/null
common=(--l2 1e-2 --progress none)

expect "simulate" 0 "simulated 16 workers" "$skald" simulate --workers 16 --straggler pcs --pace 50 --target-gap 1e-3 \
    --record s.record --model s.h5 "${common[@]}" train.h5
expect "a simulation is replayed" 0 "bit for bit" "$skald" replay s.record
expect "simulate nobody" 2 "--workers" "$skald" simulate --workers 0 train.h5

"$skald" train --workers 4 --mode sync --straggler cds:1.0 --pace 10 --target-gap 1e-3 --log run.jsonl "${common[@]}" \
    train.h5 >/dev/null 2>&1
expect "what-if names the slow one" 0 "times as long for a task as the median worker" "$skald" what-if run.jsonl
"$skald" what-if run.jsonl >what.txt
actual=$(grep -o '"train_seconds":[0-9.e-]*' run.jsonl | tail -n 1 | cut -d: -f2)
predicted=$(awk '$1 == "sync" {print $3 == "ms" ? $2 / 1000 : $2}' what.txt)
check "sync was predicted: $predicted s, it took $actual s" \
    awk -v a="$actual" -v p="$predicted" 'BEGIN { exit !(p > 0.7 * a && p < 1.3 * a) }'
check "async would have been faster" \
    awk -v s="$predicted" '$1 == "async" { a = $3 == "ms" ? $2 / 1000 : $2; exit !(a < s) }' what.txt
# every task 10 ms, in a log of workers of two threads: a synchronous round is 10 ms and a little for messages, and its
# rounds are those of the run
for how in "" "--shards 8"; do
    "$skald" train --workers 2 --threads 2 $how --mode sync --target-gap 1e-2 --log two.jsonl "${common[@]}" train.h5 \
        >/dev/null 2>&1
    ten=$(printf '10,%.0s' {1..21})
    sed "s/\"occupied_ms\":\[[^]]*\]/\"occupied_ms\":[${ten%,}]/g" two.jsonl >ten.jsonl
    rounds=$(grep '"event":"end"' ten.jsonl | grep -o '"updates":[0-9]*' | head -n 1 | cut -d: -f2)
    predicted=$("$skald" what-if --modes sync ten.jsonl | awk '$1 == "sync" {print $2}')
    check "two threads${how:+, $how}: $rounds rounds of 10 ms predicted to take $predicted s" \
        awk -v r="$rounds" -v p="$predicted" 'BEGIN { exit !(r > 10 && p >= 0.0099 * r && p < 0.0115 * r) }'
done
expect "what-if of no log" 1 "not a line of a run's log" "$skald" what-if s.h5
"$skald" train --workers 2 --max-passes 2 --log short.jsonl "${common[@]}" train.h5 >/dev/null 2>&1
expect "what-if of a run to no target" 1 "the run had no target" "$skald" what-if short.jsonl
sed 's/"occupied_ms":\[[^]]*\]/"occupied_ms":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]/g' run.jsonl >none.jsonl
expect "what-if of a worker without times" 1 "took no time" "$skald" what-if none.jsonl
head -n 1 run.jsonl >half.jsonl
expect "what-if of half a log" 1 "no 'end'" "$skald" what-if half.jsonl

expect "bench" 0 "report: report/index.html" "$skald" bench --workers 8 --pace 10 --repeats 2 --stragglers "none pcs" \
    --modes sync,ssp:2,async --l2 1e-3 --gap 1e-3 --baseline sklearn,liblinear --output report train.h5
check "a page" grep -q '</html>' report/index.html
check "with lanes and curves" test "$(grep -c 'what each worker did when' report/index.html)" -eq 6
if command -v python3 >/dev/null; then
    check "results add up" python3 - <<'PYTHON'
import glob, json, xml.dom.minidom
r = json.load(open("report/results.json"))
assert len(r["cells"]) == 6 and len(r["runs"]) == 12, "cells"
assert all(c["reached"] == 2 and c["seconds"] > 0 for c in r["cells"]), "reached"
pcs = {c["mode"]: c for c in r["cells"] if c["straggler"] == "pcs"}
assert pcs["async"]["speedup"] > 1.3 and abs(pcs["sync"]["speedup"] - 1) < 1e-12, pcs
assert pcs["async"]["wait_ms"] < pcs["sync"]["wait_ms"], "waiting"
assert r["baselines"] and all(b["skipped"] for b in r["baselines"]), "no baseline reads HDF5, and each says so"
page = open("report/index.html").read()
plots = glob.glob("report/*.svg")
assert len(plots) == 2 + 6 + 6, plots
for path in plots:
    text = open(path).read()
    xml.dom.minidom.parseString(text)
    assert text in page, path
PYTHON
fi
# every algorithm by what it takes; a peer that can be installed; what never got there is no speed-up
"$skald" generate rcv1 --rows 2000 --seed 3 --output text.svm >/dev/null
expect "bench, svrg beside saga" 0 "report: r3/index.html" "$skald" bench --workers 3 --pace 5 --repeats 1 --stragglers none \
    --modes async --algos saga,svrg --epoch 2 --no-intercept --l2 1e-2 --baseline liblinear --output r3 text.svm
check "svrg's tasks are in its lanes" test "$(grep -o '<rect' r3/lanes-svrg-none-async.svg | wc -l)" -gt 12
if command -v liblinear-train >/dev/null; then
    check "liblinear has a time and a gap" python3 -c '
import json
assert any(b["name"].startswith("liblinear") and b["seconds"] > 0 and b["gap"] < 1e-2
           for b in json.load(open("r3/results.json"))["baselines"])'
fi
expect "bench, not convex" 0 "report: r4/index.html" "$skald" bench --workers 3 --pace 5 --repeats 1 --stragglers none \
    --modes async --algos synthesis --nonconvex 1e-2 --l2 1e-3 --output r4 text.svm
expect "bench, too short" 0 " -  " "$skald" bench --workers 3 --pace 200 --repeats 1 --stragglers none --timeout 1s \
    --modes sync,async --gap 1e-9 --l2 1e-3 --output r5 text.svm
expect "bench without what it compares" 2 "--modes" "$skald" bench --mode sync train.h5
for bad in "--modes=sync,sideways" "--algos=saga,sideways" "--stragglers=none sideways" "--baseline=sideways"; do
    expect "bench: $bad is refused before anything runs" 2 sideways "$skald" bench "$bad" --output r2 --l2 1e-2 train.h5
done
check "bench: nothing was written for them" test ! -e r2
finish
