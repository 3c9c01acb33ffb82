#!/bin/bash
# What train does unasked: that it is said, where it is written, that a flag wins, and what a limit says.
source "$(dirname "$0")/lib.bash"
cd "$work" || exit 1

printf '%s\n' '+1 1:1 2:0.5' '-1 1:-1 3:1' '+1 2:1 3:0.2' '-1 1:0.1 2:-1' '+1 1:0.8' '-1 2:-0.4 3:0.3' '+1 1:0.5 2:0.5' \
    '-1 1:-0.7' '+1 1:1.2 3:-1' '-1 3:0.9' '+1 2:0.6' '-1 1:-0.2 2:-0.9' >twelve.svm
# five columns, labels by $1 (an expression of awk's in i)
rows() { awk "BEGIN { srand(7); for (i = 0; i < $2; i++) { printf \"%g\", $1; for (j = 1; j <= 5; j++) printf \" %d:%.4f\", j, rand() - 0.5; print \"\" } }"; }
rows 'i % 3' 150 >three.svm
rows 'rand() * 10' 150 >real.svm
rows '1990 + i % 30' 300 >years.svm
rows '2 + i % 30' 300 >counts.svm
rows '0' 50 >zeros.svm

train=("$skald" train --progress none)
expect "two labels" 0 "chosen: loss logistic (two labels, -1 and 1), algo newton (well conditioned: " "${train[@]}" twelve.svm
expect "twelve rows are computed here" 0 "in this process (a pass takes about " "${train[@]}" twelve.svm
expect "and to the end" 0 "target gap reached" "${train[@]}" twelve.svm
expect "three labels" 0 "loss softmax (3 labels, 0 to 2; if they are amounts: --loss squared)" "${train[@]}" three.svm
expect "real targets" 0 "loss squared (150 different targets" "${train[@]}" real.svm
expect "years" 0 "loss squared (30 different targets, not all of them small whole numbers)" "${train[@]}" years.svm
expect "counts" 0 "loss squared (30 whole numbers, 2 to 31; if they are classes: --loss softmax)" "${train[@]}" counts.svm
expect "all zeros" 1 "zeros.svm: every row has the label 0" "${train[@]}" zeros.svm
expect "all zeros, if that is meant" 0 "objective      0" "${train[@]}" --loss squared --max-passes 3 zeros.svm
expect "class weights of real targets" 1 "not squared" "${train[@]}" --class-weight balanced real.svm

# A flag always wins, and what is given is not said to be chosen.
said() { "${train[@]}" "$@" 2>&1 >/dev/null | grep -o 'chosen: .*'; }
same() { [ "$2" = "$3" ] && pass "$1" || fail "$1: '$2', not '$3'"; }
same "all is given" "$(said --loss squared --algo svrg --workers 0 --max-passes 5 twelve.svm)" ""
same "only the loss is chosen" "$(said --algo svrg --workers 0 --max-passes 5 twelve.svm)" \
    "chosen: loss logistic (two labels, -1 and 1)"
same "the loss is given" "$(said --loss squared --algo saga --workers 0 --max-passes 5 three.svm)" ""
same "workers are given" "$(said --loss logistic --algo saga --workers 2 --max-passes 5 twelve.svm)" ""
said --loss logistic --max-passes 5 --workers 2 twelve.svm | grep -q 'process' && fail "2 workers are not this process" ||
    pass "2 workers are not this process"
expect "what is about workers has workers" 0 "(--pace)" "${train[@]}" --pace 1 --max-passes 5 --target-gap 1e-2 three.svm
expect "what is one solver's has that" 0 "algo svrg (--epoch is given)" "${train[@]}" --epoch 2 --max-passes 5 twelve.svm
expect "what is not convex" 0 "algo synthesis (--nonconvex is given)" "${train[@]}" --nonconvex 0.1 --max-passes 5 twelve.svm
expect "what only steps have" 0 "algo saga (takes the options given)" "${train[@]}" --batch 2 --max-passes 5 twelve.svm
expect "without a certificate" 0 "until a decrement of 1e-07, or 100000 passes" "${train[@]}" --l2 0 twelve.svm
expect "nor curvature" 0 "100 passes (no gap can be certified" "${train[@]}" --l2 0 --algo saga twelve.svm
expect "auto is auto in the settings" 0 "--loss                 auto " "$skald" train --dump-config
expect "an unknown loss names auto" 2 "auto|squared|logistic" "$skald" train --loss hinge twelve.svm

# A limit says which it was, how far it came, and what to do; exit code 3.
expect "passes" 3 "stopped by --max-passes, 2 passes: a gap of " "${train[@]}" --target-gap 1e-12 --max-passes 2 three.svm
expect "updates" 3 "a higher --max-updates" "${train[@]}" --target-gap 1e-12 --max-updates 3 three.svm
expect "time" 3 "stopped by --max-time, 0.05 s: |grad| is " "${train[@]}" --workers 0 --l2 0 --target-gradient 1e-300 \
    --max-time 50ms three.svm
expect "an objective" 3 "F is 0.4" "${train[@]}" --target-objective 0.1 --max-passes 2 twelve.svm

# It is in the log and in what a client is told.
"${train[@]}" --quiet --log run.jsonl three.svm
head -1 run.jsonl | grep -q '"loss":"softmax".*"chosen":"loss softmax (3 labels' && pass "the log's start" || fail "the log's start"
head -1 run.jsonl | grep -q '"algo":"auto"' && pass "the log's config is what was asked for" || fail "the log's config"
"$skald" coordinator --listen "unix:$work/c" --model c.h5 --linger forever three.svm >c.out 2>c.err &
coordinator=$!
"$skald" worker --connect "unix:$work/c" --quiet
for _ in $(seq 100); do
    "$skald" status --connect "unix:$work/c" --json >status.json 2>/dev/null && grep -q ended status.json && break
    sleep 0.1
done
grep -q '"chosen": *"loss softmax (3 labels' status.json && pass "the status" || fail "the status: $(cat status.json)"
grep -q 'chosen: loss softmax' c.err && pass "the coordinator says it" || fail "the coordinator: $(cat c.err)"
kill $coordinator && wait $coordinator 2>/dev/null

# Whoever goes on, looks back or tries it otherwise has the same loss.
"${train[@]}" --quiet --checkpoint a.ck --max-passes 5 --target-gap 1e-9 three.svm
expect "resumed" 0 "loss softmax (the checkpoint's), algo saga (the checkpoint's)" "${train[@]}" --resume a.ck three.svm
expect "resumed as something else" 1 "--loss softmax there, squared here" "${train[@]}" --resume a.ck --loss squared three.svm
"${train[@]}" --quiet --workers 2 --max-passes 5 --record a.record --log a.jsonl --target-gap 1e-2 three.svm
expect "replayed" 0 "bit for bit" "$skald" replay a.record
expect "what if" 0 "predicted time to target" "$skald" what-if a.jsonl
expect "simulated" 0 "loss softmax (3 labels" "$skald" simulate --workers 3 --max-passes 2 three.svm
"${train[@]}" --quiet --model m.h5 three.svm
expect "its model knows" 0 "accuracy" "$skald" evaluate --model m.h5 three.svm

# Data of some megabytes are read once: what was scanned to choose is what is computed from.
gzip -k three.svm
expect "compressed" 0 "in this process" "${train[@]}" three.svm.gz
finish
