#!/bin/bash
# Runs that are ended, killed, and gone on with, as processes: SIGTERM, SIGKILL, other numbers of workers, damaged files,
# full and read-only disks. All arrive at the same optimum. Seen to fail: with SIGTERM exiting 130; with a
# manifest that is finished a second time; without the term raised; with a failed write ending the run.
# only: release asan
# long
source "$(dirname "$0")/lib.bash"
cd "$work" || exit 1

objective() { # LOG
    python3 -c 'import json, sys
for line in open(sys.argv[1]):
    e = json.loads(line)
    if e["event"] == "end": print(repr(e["last"]["objective"]))' "$1"
}
same() { # A B: within 1e-8 of each other
    python3 -c 'import sys
a, b = map(float, sys.argv[1:])
sys.exit(abs(a - b) > 1e-8 * abs(b))' "${1:-nan}" "$2"
}
header() { # FILE FIELD
    head -c 200 "$1" | tr -d '\0' | sed -n "s/^$2 //p"
}
newer() { [ "$1" -nt "$2" ]; }

"$skald" generate rcv1 --rows 3000 --seed 4 --output train.svm >/dev/null
"$skald" generate rcv1 --rows 3000 --seed 5 --output other.svm >/dev/null
problem=(--loss logistic --l2 1e-4 --progress line)
target=(--target-gap 1e-9 --max-time 300s)
slow=(--pace 10 --target-gap 1e-15 --max-time 300s) # long enough to be caught
"$skald" train "${problem[@]}" --target-gap 1e-10 --workers 2 --log want.jsonl train.svm >want.out 2>&1
want=$(objective want.jsonl)

# --- SIGTERM, to the whole group as a supervisor does; gone on with by fewer, as many and more workers ---
for workers in 1 2 5; do
    rm -f a.ck a.ck.1
    setsid "$skald" train "${problem[@]}" "${slow[@]}" --workers 2 --checkpoint a.ck --checkpoint-every 0.3s train.svm \
        >a.out 2>a.err &
    run=$!
    wait_for 60 test -e a.ck.1
    kill -TERM -- -$run
    wait $run
    check "SIGTERM: exit code 0" test $? -eq 0
    check "the summary says so" grep -q interrupted a.out
    passes=$(header a.ck passes)
    "$skald" train "${problem[@]}" "${target[@]}" --workers $workers --resume a.ck --log b.jsonl train.svm >b.out 2>b.err
    check "on $workers workers: goes on to the target" test $? -eq 0
    resumed=$(sed -n "s/.*going on with run $(header a.ck run) after \([0-9.]*\) passes.*/\1/p" b.err)
    check "from where it was, pass $passes" awk "BEGIN { d = ${resumed:-0} - $passes; exit !(d * d < 0.01) }"
    check "arrives at the optimum" same "$(objective b.jsonl)" "$want"
    check "the second start has a term of its own" test "$(header a.ck term)" -eq 2
done
expect "no work is lost to a run that forgets --resume" 1 "a.ck: holds run" \
    "$skald" train "${problem[@]}" --checkpoint a.ck train.svm

# --- alone ---
"$skald" train "${problem[@]}" --target-gap 1e-15 --max-time 300s --eval-every end --workers 0 --checkpoint l.ck \
    --checkpoint-every 2passes train.svm >l.out 2>l.err &
run=$!
wait_for 60 test -e l.ck.1
kill -TERM $run
wait $run
check "alone: SIGTERM, exit code 0" test $? -eq 0
expect "alone: goes on" 0 "target gap reached" "$skald" train "${problem[@]}" "${target[@]}" --workers 0 --resume l.ck \
    --log l.jsonl train.svm
check "alone: the optimum" same "$(objective l.jsonl)" "$want"

# --- solvers without tables ---
for algo in sgd svrg synthesis; do
    for mode in async sync; do
        rm -f s.ck s.ck.1
        "$skald" train "${problem[@]}" --algo $algo --mode $mode --max-passes 6 --workers 2 --checkpoint s.ck train.svm \
            >s.out 2>&1
        expect "$algo $mode goes on" 0 "maximum passes done after" "$skald" train "${problem[@]}" --algo $algo \
            --mode $mode --max-passes 9 --workers 3 --resume s.ck train.svm
    done
done

# --- the coordinator is killed; another one goes on with new workers ---
begin() { # NAME WORKERS OPTION...: coordinator and workers
    local name=$1 count=$2
    shift 2
    "$skald" coordinator --listen "unix:$work/$name" --workers "$count" "${problem[@]}" "$@" --log "$name.jsonl" train.svm \
        >"$name.out" 2>"$name.err" &
    coordinator=$!
    workers=()
    for k in $(seq "$count"); do
        "$skald" worker --connect "unix:$work/$name" --name "w$k" >"$name-$k.err" 2>&1 &
        workers+=($!)
    done
}
begin c 2 "${slow[@]}" --checkpoint c.ck --checkpoint-every 0.3s
check "checkpoints are made" wait_for 60 test -e c.ck.1
kill -KILL $coordinator
wait $coordinator 2>/dev/null
kill "${workers[@]}" 2>/dev/null
wait
begin d 3 "${slow[@]}" --checkpoint c.ck --resume auto --checkpoint-every 0.3s
check "it goes on" wait_for 60 grep -q "going on with run $(header c.ck run)" d.err
"$skald" status --connect "unix:$work/d" --audit --json >audit.json
drift=$(grep -o '"audit":{[^}]*}' audit.json | grep -o '"drift":[-0-9.e+]*' | cut -d: -f2)
check "every A_k is its table's: drift $drift" awk -v d="${drift:-1}" 'BEGIN { exit !(d >= 0 && d < 1e-12) }'
kill -TERM $coordinator
wait $coordinator
check "SIGTERM to the coordinator: exit code 0" test $? -eq 0
for k in 0 1 2; do
    wait "${workers[k]}"
    check "its workers are told" test $? -eq 0
done
check "each start has its term" test "$(header c.ck term)" -eq 2
begin e 2 "${target[@]}" --resume c.ck
wait $coordinator
check "a third start arrives" test $? -eq 0
check "at the optimum" same "$(objective e.jsonl)" "$want"
wait

# --- waiting for workers when SIGTERM comes: nothing is lost ---
"$skald" coordinator --listen "unix:$work/w" --resume c.ck "${problem[@]}" train.svm >w.out 2>w.err &
coordinator=$!
wait_for 20 grep -q 'listening on' w.err
kill -TERM $coordinator
wait $coordinator
check "SIGTERM while waiting: exit code 0" test $? -eq 0

# --- auto: anew, and then not ---
again=("$skald" train "${problem[@]}" --workers 2 --checkpoint n.ck --resume auto --task-rows 100)
expect "auto: anew" 0 "maximum passes done after 3." "${again[@]}" --max-passes 3 train.svm
expect "auto: goes on" 0 "going on with run" "${again[@]}" --max-passes 5 train.svm

# --- what is refused ---
cp a.ck whole.ck
resume=("$skald" train "${problem[@]}" "${target[@]}" --workers 1)
truncate -s -1 a.ck
expect "cut short: refused, the one before offered" 1 "--resume a.ck.1 --checkpoint a.ck" "${resume[@]}" --resume a.ck train.svm
printf 'x' | dd of=a.ck bs=1 seek=3000 conv=notrunc 2>/dev/null
expect "damaged: refused by name" 1 "a.ck: the checkpoint is damaged" "${resume[@]}" --resume a.ck train.svm
expect "the one before goes on" 0 "target gap reached" "${resume[@]}" --resume a.ck.1 --checkpoint a.ck train.svm
cp a.ck b.ck && cp a.ck b.ck.1 # as auto finds them
printf 'x' | dd of=b.ck bs=1 seek=3000 conv=notrunc 2>/dev/null
expect "auto: goes on from the one before" 0 "b.ck: is damaged, and is b.ck.damaged now; going on from b.ck.1" \
    "$skald" train "${problem[@]}" "${target[@]}" --workers 1 --checkpoint b.ck --resume auto train.svm
check "auto: in a higher term" test "$(header b.ck term)" -gt "$(header b.ck.damaged term)"
head -c 100 b.ck.1 >b.ck.1.cut && mv b.ck.1.cut b.ck.1
printf 'x' | dd of=b.ck bs=1 seek=3000 conv=notrunc 2>/dev/null
expect "auto: both damaged" 1 "b.ck: the checkpoint is damaged" \
    "$skald" train "${problem[@]}" "${target[@]}" --workers 1 --checkpoint b.ck --resume auto train.svm
check "and a newer one takes the damaged one's place" test "$(header a.ck term)" -gt "$(header whole.ck term)"
expect "of other data" 1 "whole.ck is a checkpoint of other data" "${resume[@]}" --resume whole.ck other.svm
expect "of another objective" 1 "whole.ck: a checkpoint of another problem: --l2 0.0001" "${resume[@]}" --resume whole.ck --l2 0.01 train.svm
expect "of another algorithm" 1 "--algo saga there, sgd here" "${resume[@]}" --resume whole.ck --algo sgd train.svm
expect "no checkpoint at all" 1 "train.svm: is not a Skald checkpoint" "${resume[@]}" --resume train.svm --checkpoint x.ck train.svm
expect "not there" 1 "nowhere.ck: cannot open" "${resume[@]}" --resume nowhere.ck train.svm
expect "a model is not overwritten" 1 "other.svm: is not a Skald checkpoint, and is not replaced" \
    "${resume[@]}" --checkpoint other.svm train.svm
expect "every what" 2 "--checkpoint-every 3x: must be a time" "${resume[@]}" --checkpoint y.ck --checkpoint-every 3x train.svm
expect "a folder that is not there" 1 "cannot write in" "${resume[@]}" --checkpoint nowhere/y.ck train.svm
expect "who only follows keeps nothing" 2 "--checkpoint and --resume are its" \
    "$skald" train --connect "unix:$work/none" --checkpoint y.ck
expect "a record begins at the beginning" 2 "--record" "${resume[@]}" --record r.rec --resume whole.ck train.svm

# --- a disk that fills up, and one that may only be read: training goes on, the last good one resumes ---
mkdir tiny
if mount -t tmpfs -o size=24m tmpfs tiny 2>/dev/null; then
    unmount() { umount "$work/tiny"; }
    trap 'unmount; [ -n "${TEST_KEEP:-}" ] || rm -rf "$work"' EXIT
    "$skald" train "${problem[@]}" "${slow[@]}" --workers 2 --checkpoint tiny/f.ck --checkpoint-every 0.2s train.svm \
        >f.out 2>f.err &
    run=$!
    check "checkpoints on a small disk" wait_for 60 test -e tiny/f.ck.1
    dd if=/dev/zero of=tiny/filler bs=64k 2>/dev/null # there is room for a moment only
    check "full: training goes on, and says so" \
        wait_for 60 grep -q "no checkpoint: tiny/f.ck: .*No space left on device.*training goes on" f.err
    check "full: said once" test "$(grep -c 'No space left' f.err)" -eq 1
    cp tiny/f.ck good.ck
    rm tiny/filler
    check "room again: that is said, too" wait_for 60 grep -q "checkpoints are written again" f.err
    check "room again: written" wait_for 60 newer tiny/f.ck good.ck
    mount -o remount,ro tiny
    check "read-only: training goes on, and says so" wait_for 60 grep -q "no checkpoint: .*Read-only file system" f.err
    kill -0 $run
    check "it still runs" test $? -eq 0
    kill -TERM $run
    wait $run
    check "SIGTERM, and no checkpoint: exit code 1" test $? -eq 1
    check "saying why" grep -q "Read-only file system" f.err
    cp tiny/f.ck last.ck
    expect "the last one goes on" 0 "target gap reached" "$skald" train "${problem[@]}" "${target[@]}" --workers 2 \
        --resume last.ck --log f.jsonl train.svm
    check "and so does the one before the disk was full" "${resume[@]}" --resume good.ck train.svm >/dev/null 2>&1
    check "to the optimum" same "$(objective f.jsonl)" "$want"
else
    pass "a full disk (skipped: cannot mount one here)"
fi
finish
