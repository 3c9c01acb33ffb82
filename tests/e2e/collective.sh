#!/bin/bash
# only: release
# Synchronous runs whose workers are ranks: emulated cards, each in a process of its own, over emulated NCCL. The
# optimum is that of CPU workers, also when a rank is killed on the way; without NCCL or cards of their own the sums go
# through the coordinator, and the output says why.
source "$(dirname "$0")/lib.bash"
cd "$work" || exit 1
build=$(dirname "$(readlink -f "$skald")")
export SKALD_CUDA_PLUGIN=$build/libskald_cuda_emulated.so SKALD_NCCL=$build/tests/emulated/libnccl_emulated.so
export SKALD_EMULATED_DEVICES=3
for file in "$SKALD_CUDA_PLUGIN" "$SKALD_NCCL"; do
    [ -e "$file" ] || { fail "$file is not there"; finish; }
done

"$skald" generate rcv1 --rows 1500 --seed 4 --output data.svm >/dev/null
settings=(--loss logistic --l2 1e-3 --target-gap 1e-8 --max-passes 300 --max-time 100s --progress line --seed 5)

field() { # JSON-LINES-FILE EVENT PYTHON-EXPRESSION-OF-e: of the last such event
    python3 -c 'import json,sys
for line in open(sys.argv[1]):
    e = json.loads(line)
    if e["event"] == sys.argv[2]: found = eval(sys.argv[3])
print(found)' "$@"
}
same() { # A B: relative difference
    python3 -c 'import sys
a, b = float(sys.argv[1]), float(sys.argv[2]); sys.exit(not abs(a - b) <= 1e-6 * abs(b))' "$1" "$2"
}
at_optimum() { # NAME LOG
    local got
    got=$(field "$2" end 'e["last"]["objective"]')
    check "$1: the optimum of CPU workers ($got)" same "$got" "$want"
}

expect "CPU workers" 0 "synchronous through the coordinator: worker 0 (worker-" \
    "$skald" train "${settings[@]}" --mode sync --device cpu --workers 3 --log cpu.jsonl data.svm
want=$(field cpu.jsonl end 'e["last"]["objective"]')

# --- which way the sums go ---
expect "three cards are ranks" 0 "synchronous over nccl 2." \
    "$skald" train "${settings[@]}" --mode sync --device cuda --workers 3 --model m.h5 --log ranks.jsonl data.svm
at_optimum "three cards" ranks.jsonl
check "the log says so" grep -q '"notice".*synchronous over nccl .*: 3 ranks' ranks.jsonl
check "the log has L" test "$(field ranks.jsonl start 'e["L"] > 0')" = True
check "the model is that of the run" same "$want" \
    "$("$skald" evaluate --json --model m.h5 data.svm | python3 -c 'import json,sys; print(json.load(sys.stdin)["objective"])')"
expect "three cards, svrg: through the coordinator" 0 "coordinator: ranks take no full gradients" \
    "$skald" train "${settings[@]}" --mode sync --device cuda --workers 3 --algo svrg --target-gap 1e-2 data.svm
expect "three cards, newton" 0 "synchronous over nccl 2." \
    "$skald" train "${settings[@]}" --mode sync --device cuda --workers 3 --algo newton --log newton.jsonl data.svm
at_optimum "three cards, newton" newton.jsonl
expect "two workers on a card: through the coordinator" 0 "share a card" env SKALD_EMULATED_DEVICES=1 \
    "$skald" train "${settings[@]}" --mode sync --device cuda --workers 2 --target-gap 1e-3 data.svm
expect "no NCCL: through the coordinator" 0 "has no NCCL" env SKALD_NCCL=/nonexistent/libnccl.so \
    "$skald" train "${settings[@]}" --mode sync --device cuda --workers 3 --target-gap 1e-3 data.svm
expect "async is not for ranks" 0 "target gap reached" \
    "$skald" train "${settings[@]}" --mode async --device cuda --workers 3 --target-gap 1e-3 --log async.jsonl data.svm
check "async does not speak of it" bash -c '! grep -q synchronous async.jsonl'
expect "sgd" 3 "synchronous over nccl" \
    "$skald" train "${settings[@]}" --mode sync --algo sgd --device cuda --workers 3 --max-passes 2 data.svm
expect "a limit of time" 3 "time is up" \
    "$skald" train "${settings[@]}" --mode sync --device cuda --workers 3 --target-gap 1e-14 --max-time 1s data.svm
expect "one rank" 0 "synchronous over nccl 2" \
    "$skald" train "${settings[@]}" --mode sync --device cuda --workers 1 --log one.jsonl data.svm
at_optimum "one rank" one.jsonl

# --- a slow rank is named, its time split as any worker's; the others wait for it ---
expect "a slow rank: named" 0 "slow: worker 0 (worker-" "$skald" train "${settings[@]}" --mode sync --device cuda --workers 3 \
    --pace 40 --straggler cds:5 --target-gap 1e-2 --log slow.jsonl data.svm
check "a slow rank: why, and who waits" python3 -c '
import json
slow, *others = json.loads(open("slow.jsonl").readlines()[-1])["workers"]
assert slow["cause"] == "delayed on purpose" and slow["slowdown"] > 1.5, slow
parts = sum(slow[p + "_ms_mean"] for p in ("receive", "held", "compute", "delay", "send", "queue"))
assert abs(parts - slow["task_ms_mean"]) <= 0.05 * slow["task_ms_mean"] and slow["task_ms_p95"] >= slow["task_ms_p50"] > 0
assert slow["delay_ms_mean"] > 100 and slow["state"] == "waiting", slow
for w in others:
    assert w["wait_ms_mean"] > 100 > w["delay_ms_mean"] and not w["cause"], w
'
"$skald" train "${settings[@]}" --mode sync --device cuda --workers 3 --pace 40 --straggler cds:5 --target-gap 1e-14 \
    --http 0 data.svm >page.out 2>&1 &
run=$!
page() { curl -sf "$(sed -n 's/.*the live page: //p' page.out)$1"; }
slow_there() { page status.json | grep -q 'delayed on purpose'; }
check "a slow rank: on the live page" wait_for 60 slow_there
check "a slow rank: the page has all" python3 - "$(page status.json)" "$(page metrics)" <<'P'
import json, re, sys
status = json.loads(sys.argv[1])
assert [w["state"] for w in status["workers"]] and len(status["workers"]) == len(status["shards"]) == 3
spent = {tuple(m): float(v) for *m, v in re.findall(
    r'skald_worker_task_seconds_total{worker="([^"]*)".*part="(\w*)"} (\S+)', sys.argv[2])}
slow = status["workers"][0]["name"]
assert len(spent) == 18 and spent[slow, "delay"] > spent[slow, "compute"] > 0, spent
assert sum(spent.values()) > 0.5 * status["seconds"], spent
P
kill -INT $run
wait $run
expect "a slow rank: what without it" 0 "without worker-" "$skald" what-if slow.jsonl

# --- one rank is killed in the middle ---
start() { # NAME ARGUMENT...: a coordinator and three workers; their pids in $coordinator and workers[]
    "$skald" coordinator --listen "unix:$work/$1" --workers 3 --mode sync "${settings[@]}" --log "$1.jsonl" \
        "${@:2}" >"$1.out" 2>&1 &
    coordinator=$!
    workers=()
    for k in 0 1 2; do
        # not all have the same BLAS
        OPENBLAS_CORETYPE=$([ $k = 1 ] && echo Nehalem) "$skald" worker --connect "unix:$work/$1" --device cuda:$k --name "$1-$k" >"$1-$k.out" 2>&1 &
        workers+=($!)
        # in this order: worker k is rank k
        for _ in {1..200}; do grep -q "worker $((k + 1)) of 3 joined" "$1.out" && break; sleep 0.05; done
    done
}
passes() { # NAME: as a running coordinator says
    "$skald" status --connect "unix:$work/$1" --json 2>/dev/null |
        python3 -c 'import json,sys; print(int(10 * json.load(sys.stdin).get("passes", 0)))' 2>/dev/null || echo 0
}
killed() { # NAME RANK TENTHS ROWS ARGUMENT...: the rank dies after so many tenths of a pass; the others have all rows
    local name=$1 rank=$2 tenths=$3 rows=$4 before=0
    start "$name" "${@:5}"
    for _ in {1..600}; do
        before=$(passes "$name")
        [ "${before:-0}" -ge "$tenths" ] && break
        sleep 0.05
    done
    check "$name: status of ranks tells passes ($before tenths)" test "${before:-0}" -ge "$tenths"
    kill -9 "${workers[$rank]}"
    disown "${workers[$rank]}" # bash need not speak of it
    for _ in {1..600}; do kill -0 $coordinator 2>/dev/null || break; sleep 0.1; done
    kill -9 $coordinator 2>/dev/null && fail "$name: the coordinator hangs"
    wait $coordinator
    check "$name: the others finish" test $? -eq 0
    for k in 0 1 2; do
        [ $k = "$rank" ] && continue
        for _ in {1..100}; do kill -0 "${workers[$k]}" 2>/dev/null || break; sleep 0.1; done
        kill -9 "${workers[$k]}" 2>/dev/null && fail "$name: worker $k hangs"
    done
    wait
    check "$name: by ranks" grep -q "synchronous over nccl .*: 3 ranks" "$name.out"
    check "$name: said so" grep -q "worker $rank ($name-$rank) is gone.*rows go to the others" "$name.out"
    check "$name: no row is missing" test "$(field "$name.jsonl" end 'sum(w["rows_held"] for w in e["workers"])')" = "$rows"
    at_optimum "$name" "$name.jsonl"
}
for rank in 0 2; do killed "kill$rank" $rank 5 1500 data.svm; done

# --- newton: too large to be its own sample, so that there are rounds; the first rank, which decides, is killed too ---
"$skald" generate rcv1 --rows 9000 --seed 4 --output large.svm >/dev/null
expect "newton, CPU workers" 0 "target gap reached" \
    "$skald" train "${settings[@]}" --algo newton --device cpu --workers 3 --log cpu.jsonl large.svm
want=$(field cpu.jsonl end 'e["last"]["objective"]')
for rank in 0 2; do killed "newton$rank" $rank 20 9000 --algo newton --pace 50 large.svm; done
finish
