#!/bin/bash
# only: release
# Several classes on cards: workers on emulated cards in processes of their own, asynchronous and synchronous (through
# the coordinator, and as ranks over emulated NCCL), come to the optimum of CPU workers, a call of the CUDA runtime that
# fails is an error that says so.
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
problem=(--loss softmax --l2 1e-2 --intercept --max-time 100s --progress line --seed 5 --batch 16)
settings=("${problem[@]}" --target-gap 1e-8 --max-passes 400)

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
done

# A worker whose runtime fails from some call on for ever: the run ends, and says which worker, where and of what. It has
# no other end in reach: the good worker alone would come to the optimum before. One call that fails once: the same, or
# it was a call that is tried again, and the run comes to the optimum.
run_failing() { # CALLS OPTION...
    local calls=$1
    shift
    "$skald" coordinator --listen "unix:$work/c" --workers 2 --linger 0 --log fails.jsonl "$@" dense.svm >fails.out 2>&1 &
    local coordinator=$!
    SKALD_EMULATED_FAIL=$calls "$skald" worker --connect "unix:$work/c" --name bad --device cuda:0 >bad.out 2>&1 &
    "$skald" worker --connect "unix:$work/c" --name good --device cpu >good.out 2>&1 &
    wait $coordinator
    status=$?
    wait
}
check_said() { # NAME
    check "$1: an error ($status)" test $status -eq 1
    check "$1: said so: $(tail -n 1 fails.out)" grep -q '(bad).*cudaError' fails.out
}
run_failing 400+ "${problem[@]}"
check_said "call 400 and all after it fail"
want=$(objective dense.cpu)
for call in 380 400 420; do
    run_failing $call "${settings[@]}"
    if [ $status -eq 0 ]; then
        at_optimum "call $call fails: gone over" fails.jsonl
    else
        check_said "call $call fails"
    fi
done
finish
