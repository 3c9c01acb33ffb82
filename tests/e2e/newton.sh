#!/bin/bash
# History Newton (--algo newton) in real processes, in its flow (logistic) and in rounds (softmax, whose steps wait for
# all of the history): modes and stragglers; workers killed, late, drained and told to end; a coordinator that is killed
# and goes on with what its workers have. Each ends at a certified optimum, the one of an undisturbed run; the history,
# and the models that it is taken at, are what the workers hold; a record is done again to the same bits. Seen to fail
# (waits for ever): a table rebuilt as the last of a round; ssp while others are done with the round.
# only: release
# long
source "$(dirname "$0")/lib.bash"
cd "$work" || exit 1

"$skald" generate rcv1 --rows 2000 --seed 11 --output logistic.svm >/dev/null
"$skald" generate rcv1 --rows 5000 --seed 12 --output wide.svm >/dev/null
python3 - >softmax.svm <<'END'
import random
random.seed(5)
W = [[random.gauss(0, 1) for _ in range(12)] for _ in range(3)]
for _ in range(2000):
    x = [random.gauss(0, 1) for _ in range(12)]
    z = [sum(a * b for a, b in zip(w, x)) + random.gauss(0, 1) for w in W]
    print(z.index(max(z)), " ".join(f"{j + 1}:{v:.5f}" for j, v in enumerate(x)))
END
newton=(--algo newton --l2 1e-3 --seed 1 --progress none)
here="unix:$work/s"
declare -A pid best

field() { # FILE EXPRESSION over e, the last line of the log
    python3 -c 'import json, sys; e = [json.loads(l) for l in open(sys.argv[1])][-1]; print(eval(sys.argv[2]))' "$@"
}
status() { "$skald" status --connect "$here" --wait 5s --json "$@"; }
ask() { # EXPRESSION over s, the status
    status | python3 -c 'import json, sys; s = json.load(sys.stdin); print(eval(sys.argv[1]))' "$1"
}
is() { [ "$(ask "$1")" = True ]; }
start() { # NAME
    "$skald" worker --connect "$here" --name "$1" --wait 60s >>"$1.err" 2>&1 &
    pid[$1]=$!
}
audited() { status --audit >audit.json; } # not while another one is under way
audit() { # NAME
    local drift
    wait_for 60 audited
    drift=$(<audit.json python3 -c 'import json, sys; print(json.load(sys.stdin)["audit"]["drift"])')
    check "$1: audit drift $drift" python3 -c "assert 0 <= $drift <= 1e-12"
}
at_optimum() { # NAME LOG LOSS
    local f gap
    f=$(field "$2" 'e["last"]["objective"]')
    gap=$(field "$2" 'e["last"]["gap"]')
    check "$1: objective $f, certified gap $gap" \
        python3 -c "assert abs($f - ${best[$3]}) <= 1e-8 * ${best[$3]} and $gap <= 1e-8 * ${best[$3]}"
}
whole='sum(x["rows"] for x in s["shards"]) == 2000' # every row is somebody's
converged='s["gap"] is not None and s["gap"] <= 1e-10'

for loss in logistic softmax wide; do
    "$skald" train --loss ${loss/wide/logistic} --l2 1e-3 --seed 1 --progress none --algo saga --workers 1 --target-gap 1e-11 \
        --max-passes 3000 --log calm.jsonl $loss.svm >calm.out 2>&1
    check "$loss: saga, for comparison" test $? -eq 0
    best[$loss]=$(field calm.jsonl 'e["last"]["objective"]')
done

# --- modes; five shards of three workers: some have more to do in a round ---
for loss in logistic softmax; do
    for mode in async sync ssp:4 partial:0.75 "async --straggler pcs --pace 5"; do
        expect "$loss, $mode" 0 "target gap reached" "$skald" train --loss $loss "${newton[@]}" --workers 3 --shards 5 \
            --target-gap 1e-8 --max-time 100s --mode $mode --record mode.record --log mode.jsonl $loss.svm
        at_optimum "$loss, $mode" mode.jsonl $loss
        expect "$loss, $mode: done again, the same bits" 0 "bit for bit" "$skald" replay mode.record
    done
done

# --- workers come and go ---
for how in "logistic async" "softmax async" "logistic sync" "softmax ssp:4"; do
    set -- $how
    "$skald" coordinator --listen "$here" --workers 4 --loss "$1" "${newton[@]}" --pace 5 --mode "$2" --max-time 5m \
        --shards 6 --linger 0 --log run.jsonl --record run.record "$1.svm" >run.out 2>&1 &
    coordinator=$!
    for w in a b c d; do start $w; done
    check "$how: begins" wait_for 60 is 's["state"] == "training"'
    for w in a b c d a; do # one after the other is killed, and started again; the first before the first pass is over
        kill -KILL "${pid[$w]}"
        wait "${pid[$w]}" 2>/dev/null
        start $w
        check "$how: $w is back" wait_for 60 is "$whole and sum(w['alive'] and w['shards'] > 0 for w in s['workers']) == 4"
    done
    audit "$how, after the kills"
    start late
    check "$how: who is late is let in" wait_for 60 is 'any(w["name"] == "late" and w["alive"] for w in s["workers"])'
    expect "$how: drain" 0 "worker c has left" "$skald" drain --connect "$here" c
    wait "${pid[c]}"
    kill -TERM "${pid[d]}"
    wait "${pid[d]}"
    check "$how: who is told to end leaves in order" bash -c "grep -q '(d) is gone: drained; 0 rows' run.out"
    check "$how: all rows are with others" wait_for 60 is "$whole"
    check "$how: with who was late, too" wait_for 60 is 'any(w["name"] == "late" and w["shards"] > 0 for w in s["workers"])'
    before=$(ask 's["version"]')
    check "$how: it goes on" wait_for 60 is "s['version'] > $before + 2"
    audit "$how, at the end"
    check "$how: it converges" wait_for 60 is "$converged"
    kill -INT $coordinator
    wait $coordinator
    check "$how: ends in order" test $? -eq 130
    at_optimum "$how" run.jsonl "$1"
    expect "$how: done again, the same bits" 0 "bit for bit" "$skald" replay run.record
    wait
    rm -f ./*.err
done

# --- the coordinator is killed between two checkpoints: what has moved since is taken anew, the rest of the history goes
# on with the models that it was taken at. Once with too many rows for all to be sampled: there newton is in its flow ---
for how in "wide async" "softmax async" "softmax sync"; do
    set -- $how
    rm -f run.ck run.ck.1 2.out # what is looked for in it is of this start
    head=("$skald" coordinator --listen "$here" --workers 3 --shards 6 --loss "${1/wide/logistic}" "${newton[@]}" --mode "$2"
        --pace 20 --max-time 5m --linger 0 --checkpoint run.ck --resume auto --checkpoint-every 0.05s)
    "${head[@]}" "$1.svm" >1.out 2>&1 &
    coordinator=$!
    for w in a b c; do start $w; done
    check "$how: a first start" wait_for 60 is 's["state"] == "training" and s["passes"] > 2.3'
    touch now
    check "$how: a checkpoint" wait_for 60 test run.ck -nt now
    kill -KILL $coordinator
    wait $coordinator 2>/dev/null
    "${head[@]}" --log run.jsonl "$1.svm" >2.out 2>&1 &
    coordinator=$!
    parts='of 48 parts of the history were at models that nobody has any more'
    check "$how: a second one goes on" wait_for 60 grep -q "$parts" 2.out
    check "$how: with the workers' tables" grep -q "the history is the workers'" 2.out
    audit "$how, the points"
    lost=$(grep -o "[0-9]* $parts" 2.out | cut -d' ' -f1)
    check "$how: $lost parts are taken anew, not all" test "${lost:-48}" -lt 48
    check "$how: with the points it converges" wait_for 60 is "$converged"
    audit "$how, the points, at the end"
    kill -INT $coordinator
    wait $coordinator
    at_optimum "$how, the points" run.jsonl "$1"
    wait
    rm -f ./*.err
done

# --- the coordinator is killed, and goes on with its workers' tables; is told to end, and goes on with new workers ---
for how in "logistic async" "softmax async" "softmax sync"; do
    set -- $how
    rm -f run.ck run.ck.1
    head=("$skald" coordinator --listen "$here" --workers 3 --loss "$1" "${newton[@]}" --mode "$2" --pace 5 --max-time 5m
        --linger 0 --checkpoint run.ck --resume auto --checkpoint-every 1h)
    "${head[@]}" "$1.svm" >1.out 2>&1 &
    coordinator=$!
    for w in a b c; do start $w; done
    check "$how: a first start" wait_for 60 is 's["state"] == "training" and s["passes"] > 2'
    kill -KILL $coordinator
    wait $coordinator 2>/dev/null
    "${head[@]}" "$1.svm" >2.out 2>&1 &
    coordinator=$!
    check "$how: a second one goes on" wait_for 60 is 's["state"] == "training" and s["term"] == 2'
    for w in a b c; do check "$how: $w keeps its rows" grep -q 'it keeps its rows and their history' $w.err; done
    check "$how: with the workers' tables" grep -q "the history is the workers'" 2.out
    audit "$how, resumed"
    kill -KILL "${pid[b]}" # and a table less
    start b
    check "$how: all rows are back" wait_for 60 is "$whole and sum(w['alive'] and w['shards'] > 0 for w in s['workers']) == 3"
    audit "$how, resumed, and one killed"
    kill -TERM $coordinator
    wait $coordinator
    check "$how: SIGTERM, in order" test $? -eq 0
    wait
    "${head[@]}" --target-gap 1e-8 --log run.jsonl "$1.svm" >3.out 2>&1 &
    coordinator=$!
    for w in x y z; do start $w; done
    wait $coordinator
    check "$how: a third start, new workers: to the target" test $? -eq 0
    at_optimum "$how, resumed" run.jsonl "$1"
    wait
    rm -f ./*.err
done

# Residuals far beyond huber's delta: next to no row has curvature, and a run that ends by its decrement is where it says.
# Seen to fail (5.7e-7 where 1e-7 was claimed) with rows that count as curved, and are not, taken at their word.
for seed in 1 2 3 4 5 6; do
    awk -v seed=$seed 'BEGIN { srand(seed); for (i = 0; i < 400; i++) {
        y = 0; row = ""
        for (j = 1; j <= 6; j++) {
            x = j == 1 ? rand() * 50000 : (rand() < 0.4) * 10 ^ (j % 3)
            row = row " " j ":" x; y += x * (j == 1 ? -0.17 : 3000 / 10 ^ (j % 3))
        }
        e = rand() - 0.5
        print 20000 + y + 40000 * e * e * e, row
    } }' >far.svm
    far=("$skald" train --loss huber --l2 1/n --no-intercept --progress none)
    expect "huber, far residuals, $seed" 0 "reached" "${far[@]}" --log far.jsonl far.svm
    expect "huber, far residuals, $seed, further" 0 "reached" "${far[@]}" --target-gap 1e-9 --max-passes 1000 --log further.jsonl far.svm
    check "huber, far residuals, $seed: where it says" python3 -c 'import sys
a, b, most = map(float, sys.argv[1:]); sys.exit(not a - b <= most * b)' \
        "$(field far.jsonl 'e["last"]["objective"]')" "$(field further.jsonl 'e["last"]["objective"]')" \
        "$(field far.jsonl '1.01e-7 if "decrement" in e["stop"] else 1.01e-6')"
done
finish
