#!/bin/bash
# only: release
# Workers on cards: the real plugin where there is no card, and whole runs on the emulated device: async and sync, on
# one card and two, beside CPU workers. The optimum is that of CPU workers.
source "$(dirname "$0")/lib.bash"
cd "$work" || exit 1
build=$(dirname "$(readlink -f "$skald")")
emulated=$build/libskald_cuda_emulated.so
real=$build/libskald_cuda.so

# dense local steps on the emulated device cost milliseconds: few columns, and steps of 16 rows
python3 - >dense.svm <<'END'
import random
random.seed(3)
truth = [random.gauss(0, 1) for _ in range(20)]
for _ in range(900):
    x = [random.gauss(0, 1) for _ in truth]
    y = 1 if sum(a * b for a, b in zip(x, truth)) + random.gauss(0, 2) > 0 else -1
    print(y, " ".join(f"{j + 1}:{v:.5f}" for j, v in enumerate(x)))
END
"$skald" generate rcv1 --rows 900 --seed 4 --output sparse.svm >/dev/null
settings=(--loss logistic --no-intercept --l2 1e-3 --target-gap 1e-9 --max-passes 300 --max-time 100s --progress line --seed 5 --batch 16)

# --- no plugin: the CPU, without a word ---
default=(env -u SKALD_CUDA_PLUGIN "$skald")
if [ ! -e "$real" ]; then
    echo "SKIP the real plugin: it was not built (no nvcc, or under a sanitizer)"
    expect "no plugin: devices says so" 0 "there is no CUDA plugin" "${default[@]}" devices
    expect "no plugin: cuda is an error" 1 "there is no CUDA plugin" "${default[@]}" train --device cuda dense.svm
elif "${default[@]}" devices --json | grep -q '"cuda:0"'; then
    echo "SKIP the real plugin without a driver: this machine has a card"
else
    # --- the real plugin, no card ---
    expect "no driver: devices says why" 0 "no card: " "${default[@]}" devices
    expect "no driver: by its name" 0 "cudaError" "${default[@]}" devices --json
    expect "no driver: cuda is an error" 1 "device 'cuda': CUDA: looking for cards: cudaError" \
        "${default[@]}" train --device cuda dense.svm
    expect "no driver: auto is the CPU, with a line why" 0 "computing on the CPU: CUDA: looking for cards: cudaError" \
        "${default[@]}" train --workers 1 --target-gap 1e-3 --log auto.jsonl dense.svm
    check "in the log too" grep -q '"notice".*computing on the CPU' auto.jsonl
    symbols=$(nm -D --defined-only "$real" | awk '{print $3}' | tr '\n' ' ')
    check "the plugin exports one function: $symbols" test "$symbols" = "skald_cuda_plugin "
fi
expect "a plugin that is none" 1 "cannot be opened" env SKALD_CUDA_PLUGIN="$work/dense.svm" "$skald" train --device cuda dense.svm

if [ ! -e "$emulated" ]; then
    fail "$emulated is not there"
    finish
fi
export SKALD_CUDA_PLUGIN=$emulated

# --- devices ---
expect "devices lists the card" 0 "cuda:0" "$skald" devices
expect "two cards" 0 "cuda:1" env SKALD_EMULATED_DEVICES=2 "$skald" devices
expect "no card" 0 "no card: " env SKALD_EMULATED_DEVICES=0 "$skald" devices
check "as JSON" bash -c "'$skald' devices --json | python3 -c 'import json,sys; d=json.load(sys.stdin); c=d[\"cards\"][0]; sys.exit(not (c[\"device\"]==\"cuda:0\" and c[\"memory_bytes\"]>0 and d[\"cpu\"][\"threads\"]>0))'"
expect "a card that is not there" 1 "there is no such card" "$skald" train --device cuda:7 dense.svm
old=(env SKALD_EMULATED_CAPABILITY=75 "$skald")
expect "an old card: devices says why not" 0 "no card: cuda:0 (Skald emulated device 0) has compute capability 7.5" "${old[@]}" devices
expect "an old card: auto is the CPU, with a line why" 0 "computing on the CPU: cuda:0 (Skald emulated device 0) has compute" \
    "${old[@]}" train --workers 1 --target-gap 1e-3 dense.svm
expect "an old card: cuda is an error" 1 "has compute capability 7.5" "${old[@]}" train --device cuda dense.svm

# --- runs ---
objective() { # LOG
    python3 -c 'import json,sys
for line in open(sys.argv[1]):
    e = json.loads(line)
    if e["event"] == "end": print(repr(e["last"]["objective"]))' "$1"
}
same() { # A B: relative difference of objectives
    python3 -c 'import sys
a, b = float(sys.argv[1]), float(sys.argv[2]); sys.exit(not abs(a - b) <= 1e-6 * abs(b))' "$1" "$2"
}
trained() { # NAME LOG REFERENCE EXPECTED-IN-OUTPUT COMMAND...
    local name=$1 log=$2 reference=$3 text=$4
    shift 4
    expect "$name" 0 "$text" "$@" --log "$log"
    check "$name: the optimum of CPU workers ($(objective "$log"))" same "$(objective "$log")" "$reference"
}
for data in dense sparse; do
    expect "$data: CPU workers" 0 "target gap reached" \
        "$skald" train "${settings[@]}" --device cpu --workers 3 --log "$data.cpu" $data.svm
    want=$(objective $data.cpu)
    for mode in async sync; do
        trained "$data, $mode: three workers on a card" $data.$mode "$want" "cuda:0 (" \
            "$skald" train "${settings[@]}" --device cuda --workers 3 --mode $mode $data.svm
    done
done
want=$(objective dense.cpu)
trained "sgd's plain tasks and saga's: --local off" off.jsonl "$want" "cuda:0 (" \
    "$skald" train "${settings[@]}" --device cuda --workers 2 --local off dense.svm
trained "computed here" here.jsonl "$want" "this process: cuda:0 (" \
    "$skald" train "${settings[@]}" --workers 0 dense.svm
trained "two threads, two shards on one card" threads.jsonl "$want" "cuda:0 (" \
    "$skald" train "${settings[@]}" --workers 1 --threads 2 dense.svm
trained "rows in host memory, deterministic" resident.jsonl "$(objective sparse.cpu)" "cuda:0 (" \
    "$skald" train "${settings[@]}" --workers 1 --resident host --deterministic sparse.svm

# so small data are computed in one process unless asked otherwise; --mode is about workers
SKALD_EMULATED_DEVICES=2 trained "a worker a card" cards.jsonl "$want" "worker 2 of 2 joined" \
    "$skald" train "${settings[@]}" --mode async dense.svm
check "on both" grep -q '"cuda:1 (' cards.jsonl

# --- an intercept: certified as on CPUs, though rows meet models as floats. Seen to end without a gap when it was one of
# the columns ---
for data in dense sparse; do
    expect "$data, intercept: CPU workers" 0 "target gap reached" \
        "$skald" train "${settings[@]}" --intercept --target-gap 1e-8 --device cpu --workers 1 --log $data.b.cpu $data.svm
    trained "$data, intercept: certified on a card" $data.b.cuda "$(objective $data.b.cpu)" "target gap reached" \
        "$skald" train "${settings[@]}" --intercept --target-gap 1e-8 --max-passes 60 --device cuda --workers 1 $data.svm
done

# --- one worker on a card, two on CPUs, started apart. The emulated card is a hundred times slower than a CPU: its
# results are thousands of rows old, so it takes many passes of the others ---
"$skald" coordinator --listen "unix:$work/mixed" --workers 3 --linger 0 "${settings[@]}" --max-passes 20000 \
    --log mixed.jsonl dense.svm \
    >mixed.out 2>&1 &
coordinator=$!
"$skald" worker --connect "unix:$work/mixed" --name card --device cuda 2>card.err &
"$skald" worker --connect "unix:$work/mixed" --name left --device cpu 2>left.err &
"$skald" worker --connect "unix:$work/mixed" --name right --device cpu 2>right.err &
wait $coordinator
check "mixed: the run ends in order" test $? -eq 0
wait
check "mixed: one worker has a card" bash -c "grep -q 'card: cuda:0 (' mixed.out && grep -q 'left: cpu (' mixed.out"
check "mixed: the optimum of CPU workers ($(objective mixed.jsonl))" same "$(objective mixed.jsonl)" "$want"

# --- history Newton: samples of rows come from cards too, as stored, and beside a CPU's ---
sharp=("${settings[@]}" --algo newton --target-gap 1e-9 --max-passes 100)
sharply() { # NAME LOG: to 1e-8
    check "$1: the optimum of the CPU ($(objective "$2"))" python3 -c 'import sys
a, b = float(sys.argv[1]), float(sys.argv[2]); sys.exit(not abs(a - b) <= 1e-8 * abs(b))' "$(objective "$2")" "$optimum"
}
for data in dense sparse; do
    expect "newton, $data: CPU" 0 "target gap reached" \
        "$skald" train "${sharp[@]}" --device cpu --workers 0 --log $data.newton $data.svm
    optimum=$(objective $data.newton)
    for mode in async sync; do
        expect "newton, $data, $mode: two workers on a card" 0 "target gap reached" \
            "$skald" train "${sharp[@]}" --device cuda --workers 2 --mode $mode --log newton.jsonl $data.svm
        sharply "newton, $data, $mode" newton.jsonl
    done
    expect "newton, $data, rows in host memory" 0 "target gap reached" \
        "$skald" train "${sharp[@]}" --device cuda --workers 1 --resident host --log newton.jsonl $data.svm
    sharply "newton, $data, rows in host memory" newton.jsonl
    "$skald" coordinator --listen "unix:$work/sharp" --workers 2 --linger 0 "${sharp[@]}" --log newton.jsonl $data.svm \
        >sharp.out 2>&1 &
    coordinator=$!
    "$skald" worker --connect "unix:$work/sharp" --name card --device cuda 2>card.err &
    "$skald" worker --connect "unix:$work/sharp" --name left --device cpu 2>left.err &
    wait $coordinator
    check "newton, $data, a card and a CPU: ends in order" test $? -eq 0
    wait
    check "newton, $data: one worker has a card" bash -c "grep -q 'card: cuda:0 (' sharp.out && grep -q 'left: cpu (' sharp.out"
    sharply "newton, $data, a card and a CPU" newton.jsonl
done

# --- a card too small ---
"$skald" generate epsilon --rows 4000 --seed 4 --output large.svm >/dev/null # 32 MB of rows; cards with 11 MB for them
for shards in 1 2 4; do
    expect "too small: how many cards, $shards shards" 1 "need 3 cards of this size" env SKALD_EMULATED_MEMORY=20000000 \
        "$skald" train --device cuda --workers 1 --resident device --shards $shards large.svm
done
expect "three do" 0 "3 shards" env SKALD_EMULATED_MEMORY=20000000 SKALD_EMULATED_DEVICES=3 \
    "$skald" train --device cuda --workers 3 --resident device --max-passes 1 large.svm
expect "bytes that are none" 1 "whole number from 0 to 255" "$skald" train --device cuda --storage u8 --workers 1 dense.svm
expect "storage without a card" 1 "--storage" "$skald" train --device cpu --storage bf16 dense.svm
finish
