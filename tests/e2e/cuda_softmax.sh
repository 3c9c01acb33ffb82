#!/bin/bash
# only: release
# Several classes on cards: workers on emulated cards in processes of their own, asynchronous and synchronous (through
# the coordinator, and as ranks over emulated NCCL), come to the optimum of CPU workers; a card that fails is named, and
# missed by nobody.
source "$(dirname "$0")/lib.bash"
cd "$work" || exit 1
build=$(dirname "$(readlink -f "$skald")")
export SKALD_CUDA_PLUGIN=$build/libskald_cuda_emulated.so SKALD_EMULATED_DEVICES=2
export SKALD_CUBLAS=$build/tests/emulated/libcublas_emulated.so
nccl=$build/tests/emulated/libnccl_emulated.so
for file in "$SKALD_CUDA_PLUGIN" "$SKALD_CUBLAS" "$nccl"; do
    [ -e "$file" ] || { fail "$file is not there"; finish; }
done

# Three classes, which a linear model does not part cleanly: dense rows, and sparse ones.
python3 - <<'END'
import random
random.seed(6)
with open("dense.svm", "w") as dense, open("sparse.svm", "w") as sparse:
    for _ in range(300):
        x = [random.gauss(0, 1) for _ in range(6)]
        k = max(range(3), key=lambda c: x[c] + 0.5 * x[c + 3] + random.gauss(0, 1))
        print(k, " ".join(f"{j + 1}:{v:.4f}" for j, v in enumerate(x)), file=dense)
        few = sorted(random.sample(range(200), 3))
        k = k if random.random() < 0.8 else random.randrange(3)
        print(k, f"{max(range(3), key=lambda c: x[c]) + 1}:1", " ".join(f"{j + 4}:{x[j % 6]:.4f}" for j in few), file=sparse)
END
settings=(--loss softmax --l2 1e-2 --intercept --target-gap 1e-8 --max-passes 400 --max-time 100s --progress line --seed 5 --batch 16)

objective() { # LOG
    python3 -c 'import json,sys
for line in open(sys.argv[1]):
    e = json.loads(line)
    if e["event"] == "end": print(repr(e["last"]["objective"]))' "$1"
}
at_optimum() { # NAME LOG
    check "$1: the optimum of CPU workers ($(objective "$2"))" python3 -c 'import sys
a, b = float(sys.argv[1]), float(sys.argv[2]); sys.exit(not abs(a - b) <= 1e-6 * abs(b))' "$(objective "$2")" "$want"
}

for data in dense sparse; do
    expect "$data: CPU workers" 0 "target gap reached" \
        "$skald" train "${settings[@]}" --device cpu --workers 2 --log $data.cpu $data.svm
    want=$(objective $data.cpu)
    expect "$data: async" 0 "cuda:1 (" \
        "$skald" train "${settings[@]}" --device cuda --workers 2 --log async.jsonl $data.svm
    at_optimum "$data: async" async.jsonl
    expect "$data: sync, no NCCL" 0 "through the coordinator" env SKALD_NCCL=/nonexistent \
        "$skald" train "${settings[@]}" --device cuda --workers 2 --mode sync --log sync.jsonl $data.svm
    at_optimum "$data: sync, no NCCL" sync.jsonl
    expect "$data: ranks" 0 "synchronous over nccl" env SKALD_NCCL="$nccl" \
        "$skald" train "${settings[@]}" --device cuda --workers 2 --mode sync --log ranks.jsonl $data.svm
    at_optimum "$data: ranks" ranks.jsonl
    for mode in async sync; do
        expect "$data: newton, $mode" 0 "$([ $mode = sync ] && echo "synchronous over nccl" || echo "cuda:1 (")" env SKALD_NCCL="$nccl" \
            "$skald" train "${settings[@]}" --device cuda --workers 2 --algo newton --mode $mode --log newton.jsonl $data.svm
        at_optimum "$data: newton, $mode" newton.jsonl
    done
done

# A worker whose runtime fails, for ever from some call on or once: it is sent away and told why, and so is the log; the
# other has its rows then, and comes to the optimum. Or it was a call that is tried again, and nobody is.
want=$(objective dense.cpu)
for calls in 400+ 380 400 420; do
    "$skald" coordinator --listen "unix:$work/c" --workers 2 --linger 0 --log fails.jsonl "${settings[@]}" dense.svm >fails.out 2>&1 &
    coordinator=$!
    SKALD_EMULATED_FAIL=$calls "$skald" worker --connect "unix:$work/c" --name bad --device cuda:0 >bad.out 2>&1 &
    bad=$!
    "$skald" worker --connect "unix:$work/c" --name good --device cpu >good.out 2>&1 &
    good=$!
    wait $coordinator
    check "call $calls fails: the run ends in order" test $? -eq 0
    at_optimum "call $calls fails" fails.jsonl
    wait $good
    status=$?
    check "call $calls fails: the other worker has not failed: $(tail -n 1 good.out)" test $status -eq 0
    if wait $bad; then
        pass "call $calls fails: tried again, or not reached"
    else
        check "call $calls fails: the worker says why: $(tail -n 1 bad.out)" grep -qE 'task: .*(cudaError|cuBLAS: )' bad.out
        check "call $calls fails: so does the coordinator" grep -qE '\(bad\) is gone: .*(cudaError|cuBLAS: )' fails.out
    fi
done
# Nobody is left: an error, with the reason.
"$skald" coordinator --listen "unix:$work/c" --workers 1 --wait 3s --linger 0 "${settings[@]}" dense.svm >fails.out 2>&1 &
coordinator=$!
SKALD_EMULATED_FAIL=400+ "$skald" worker --connect "unix:$work/c" --name bad --device cuda:0 >bad.out 2>&1
wait $coordinator
check "the only worker fails: an error" test $? -eq 1
check "the only worker fails: said so: $(tail -n 1 fails.out)" grep -q 'workers are gone; the last one: .*cudaError' fails.out
finish
