#!/bin/bash
# Workers that come and go while a run goes on, real processes: killed and started again, stopped for longer than the
# heartbeat allows, drained, late. The run ends at the optimum of an undisturbed one, and its history is exact.
# Done again from its record, it ends with the same bits.
# only: release
# long
source "$(dirname "$0")/lib.bash"
cd "$work" || exit 1

"$skald" generate rcv1 --rows 2000 --seed 11 --output train.svm >/dev/null
problem=(--loss logistic --l2 1e-3 --seed 1 --progress none)
here="unix:$work/s"
declare -A pid

field() { # FILE EXPRESSION over e, the last line of the log
    python3 -c 'import json, sys; e = [json.loads(l) for l in open(sys.argv[1])][-1]; print(eval(sys.argv[2]))' "$@"
}
status() { "$skald" status --connect "$here" --wait 5s --json "$@"; }
ask() { # EXPRESSION over s, the status
    status | python3 -c 'import json, sys; s = json.load(sys.stdin); print(eval(sys.argv[1]))' "$1"
}
is() { [ "$(ask "$1")" = True ]; }
start() { # NAME [OPTION...]
    "$skald" worker --connect "$here" --name "$1" --wait 60s "${@:2}" >>"$1.err" 2>&1 &
    pid[$1]=$!
}
audit() { # NAME: the history is what the workers hold, to rounding
    local drift
    drift=$(status --audit | python3 -c 'import json, sys; print(json.load(sys.stdin)["audit"]["drift"])')
    check "$1: audit drift $drift" python3 -c "assert 0 <= $drift <= 1e-12"
}
whole='sum(x["rows"] for x in s["shards"]) == 2000' # every row is somebody's

"$skald" train "${problem[@]}" --workers 4 --target-gap 1e-11 --log calm.jsonl train.svm >calm.out 2>&1
check "undisturbed" test $? -eq 0
best=$(field calm.jsonl 'e["last"]["objective"]')

at_optimum() { # NAME LOG
    local f gap
    f=$(field "$2" 'e["last"]["objective"]')
    gap=$(field "$2" 'e["last"]["gap"]')
    check "$1: objective $f, gap $gap" python3 -c "assert abs($f - $best) <= 1e-8 * $best and $gap <= 1e-8 * $best"
}

for how in "async saga" "sync saga" "async svrg"; do
    set -- $how
    "$skald" coordinator --listen "$here" --workers 4 "${problem[@]}" --pace 5 --mode "$1" --algo "$2" --max-time 5m \
        --heartbeat-timeout 2s --linger 0 --log run.jsonl --record run.record train.svm >run.out 2>&1 &
    coordinator=$!
    for w in a b c d; do start $w; done
    check "$how: begins" wait_for 60 is 's["state"] == "training"'

    # one after the other is killed, and started again
    for w in a b c d a; do
        sleep 0.7
        kill -KILL "${pid[$w]}"
        wait "${pid[$w]}" 2>/dev/null
        start $w
    done
    check "$how: all rows are back" wait_for 30 is "$whole"
    check "$how: and all workers" wait_for 30 is 'sum(w["alive"] and w["shards"] > 0 for w in s["workers"]) == 4'
    [ "$2" = saga ] && audit "$how, after the kills"

    # one stands still for longer than the heartbeat allows, and wakes up
    kill -STOP "${pid[b]}"
    check "$how: silence is noticed" wait_for 30 grep -q '(b) is gone: no sign of life' run.out
    kill -CONT "${pid[b]}"
    check "$how: it starts anew" wait_for 30 grep -q 'it starts anew' b.err
    check "$how: and has rows again" wait_for 30 is \
        'any(w["name"] == "b" and w["alive"] and w["shards"] for w in s["workers"])'

    # one comes late, one is asked to leave
    start late
    check "$how: who is late is let in" wait_for 30 is 'any(w["name"] == "late" and w["alive"] for w in s["workers"])'
    expect "$how: drain" 0 "worker c has left" "$skald" drain --connect "$here" c
    wait "${pid[c]}"
    check "$how: who was drained ends in order" test $? -eq 0
    check "$how: its rows are with others" is "$whole"
    check "$how: with who was late" is 'any(w["name"] == "late" and w["shards"] == 1 for w in s["workers"])'
    expect "$how: who is not there cannot be drained" 1 "there is no worker 'c'" "$skald" drain --connect "$here" c
    # one is told to end, as a pod that is evicted: it goes when others have its rows
    kill -TERM "${pid[d]}"
    wait "${pid[d]}"
    check "$how: who is told to end says so" test $? -eq 130
    check "$how: and leaves in order" grep -q '(d) is to leave: its [0-9]* rows go to others' run.out
    check "$how: nothing of it is lost" bash -c "grep -q '(d) is gone: drained; 0 rows' run.out"
    check "$how: its rows are with others, too" is "$whole"
    [ "$2" = saga ] && audit "$how, at the end"

    check "$how: it converges" wait_for 60 is 's["gap"] is not None and s["gap"] <= 1e-10'
    kill -INT $coordinator
    wait $coordinator
    check "$how: ends in order" test $? -eq 130
    at_optimum "$how" run.jsonl
    expect "$how: done again, the same bits" 0 "bit for bit" "$skald" replay run.record
    for w in a b late; do
        wait "${pid[$w]}"
        check "$how: $w ends in order" test $? -eq 0
    done
    rm -f ./*.err
done

# --- the rows of the lost wait for a worker, if asked for; and who is left alone can wait, too ---
"$skald" coordinator --listen "$here" --workers 2 "${problem[@]}" --pace 5 --on-loss wait --max-time 5m --linger 0 \
    --log wait.jsonl train.svm >wait.out 2>&1 &
coordinator=$!
start a
start b
check "wait: begins" wait_for 60 is 's["state"] == "training"'
kill -KILL "${pid[a]}" || finish
check "wait: a's rows are nobody's" wait_for 30 is 'sum(x["rows"] for x in s["shards"]) < 2000'
kill -KILL "${pid[b]}"
check "wait: nor b's" wait_for 30 is 's["shards"] == []'
start a
start b
check "wait: until they are back" wait_for 60 is "$whole"
check "wait: it converges" wait_for 60 is 's["gap"] is not None and s["gap"] <= 1e-10'
kill -INT $coordinator
wait $coordinator
at_optimum wait wait.jsonl

# --- without anybody left, and nobody to come, the run says what became of them ---
"$skald" train "${problem[@]}" --workers 2 --pace 5 --max-time 5m --listen "$here" train.svm >none.out 2>&1 &
run=$!
check "none: begins" wait_for 60 is 's["state"] == "training"'
pkill -KILL -P $run # its workers
wait $run
check "none: the run ends" test $? -eq 1
check "none: says why ($(tail -n 1 none.out))" grep -q 'was killed by signal 9' none.out
finish
