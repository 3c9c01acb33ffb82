#!/bin/bash
# Record and replay through the command line: eight processes with PCS delays, ASGD and ASAGA, interrupted and killed.
# only: release
source "$(dirname "$0")/lib.bash"
cd "$work" || exit 1
"$skald" generate rcv1 --rows 3000 --seed 4 --output train.svm >/dev/null

for algo in sgd saga svrg synthesis version; do
    how=(--algo $algo)
    [ $algo = version ] && how=(--history version --history-versions 6)
    [ $algo = synthesis ] && how+=(--target-gradient 1e-9)
    "$skald" train --workers 8 --straggler pcs --pace 2 "${how[@]}" --l2 1e-3 --max-passes 8 --record $algo.record \
        --model $algo.h5 --quiet train.svm
    expect "$algo: the same bits" 0 "bit for bit" "$skald" replay --model $algo-again.h5 $algo.record
    "$skald" predict --model $algo.h5 --type decision train.svm >a.txt
    "$skald" predict --model $algo-again.h5 --type decision train.svm >b.txt
    check "$algo: the same predictions" cmp -s a.txt b.txt
done
"$skald" train --workers 0 --l2 1e-3 --max-passes 4 --record alone.record --quiet train.svm
expect "a run without workers" 0 "bit for bit" "$skald" replay alone.record

merges() { [ "$(wc -l <killed.record)" -gt "$1" ]; } # lines, of which two a merge
"$skald" train --workers 2 --pace 5 --l2 1e-6 --target-gap 1e-14 --max-time 60s --record killed.record --quiet \
    train.svm >/dev/null 2>&1 &
run=$!
wait_for 60 merges 100
kill -INT $run
wait $run
expect "interrupted, replayed" 0 "bit for bit" "$skald" replay --model i.h5 killed.record
rm killed.record
"$skald" train --workers 2 --pace 5 --l2 1e-6 --target-gap 1e-14 --max-time 60s --record killed.record --quiet \
    train.svm >/dev/null 2>&1 &
run=$!
wait_for 60 merges 100
kill -KILL $run
wait $run 2>/dev/null
lines=$(wc -l <killed.record)
expect "killed: a line is named" 1 "killed.record:$((lines + 1)):" "$skald" replay killed.record
expect "killed: as far as it goes" 3 "as far as the record goes" "$skald" replay --partial --model k.h5 killed.record

sed 's/avx512\|avx2/avx999/' saga.record >other.record
if ! cmp -s other.record saga.record; then
    expect "another instruction set" 1 "recorded with avx999" "$skald" replay other.record
fi
"$skald" generate rcv1 --rows 3000 --seed 5 --output other.svm >/dev/null
expect "other data" 1 "recorded in saga.record" "$skald" replay saga.record other.svm
expect "no record" 1 "not a record" "$skald" replay train.svm

# --- workers lost in the middle, and started again ---
for how in "async saga" "sync saga" "async svrg"; do
    set -- $how
    "$skald" train --workers 3 --pace 5 --mode "$1" --algo "$2" --l2 1e-3 --target-gap 1e-9 --max-time 60s \
        --straggler kill:1@0.2,kill:2@0.5 --record lost.record --quiet train.svm >/dev/null 2>&1
    check "$how, lost: the run goes on" test $? -eq 0
    check "$how, lost: on record" grep -q '"do":"lost"' lost.record
    expect "$how, lost: the same bits" 0 "bit for bit" "$skald" replay lost.record
done
line=$(grep -n -m 1 '"do":"leased"' lost.record | cut -d: -f1)
head -n $((line - 1)) lost.record >cut.record
expect "killed while rows are nobody's: as far as that" 3 "as far as the record goes" \
    "$skald" replay --partial cut.record
"$skald" simulate --workers 6 --pace 5 --straggler kill:1@0.2,kill:4@0.5 --l2 1e-3 --max-passes 20 \
    --record simulated.record --quiet train.svm >/dev/null 2>&1
check "simulated, lost: on record" grep -q '"do":"lost"' simulated.record
expect "simulated, lost: the same bits" 0 "bit for bit" "$skald" replay simulated.record
finish
