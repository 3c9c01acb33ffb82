#!/bin/bash
# svrg, synthesis and saga by version through the command line, with real processes: where they arrive, what they say and write, and what
# they refuse.
# only: release asan
source "$(dirname "$0")/lib.bash"
cd "$work" || exit 1

# 10 columns, two classes; the same rows, three classes
awk 'BEGIN {
    srand(7)
    for (i = 0; i < 2000; i++) {
        row = ""; a = b = 0
        for (j = 1; j <= 10; j++) { x = rand() - 0.5; row = row " " j ":" x; a += x * (j - 4); b += x * (j % 3) }
        print (a + rand() > 0.5 ? "+1" : "-1") row >"data.svm"
        print (a > 0.3 ? 1 : b > 0 ? 2 : 3) row >"many.svm"
    }
}'
train=("$skald" train --workers 2 --l2 1e-3 --progress none --max-passes 300)

# field NAME LOG: a number of the log's last line
field() { tail -n 1 "$2" | grep -oE "\"$1\": ?[0-9.e+-]+" | head -n 1 | grep -oE '[0-9.e+-]+$'; }

for mode in async sync; do
    expect "svrg, $mode" 0 "target gap reached" "${train[@]}" --algo svrg --mode "$mode" --target-gap 1e-8 \
        --log "$mode.jsonl" --model "$mode.h5" data.svm
    check "svrg, $mode: several full gradients in the log" test "$(field full_gradients "$mode.jsonl")" -gt 2
    check "svrg, $mode: versions counted" test "$(field bytes_saved "$mode.jsonl")" -gt 0
done
# Weights that differ a thousandfold. Seen to circle at a gap of 1e-2 for ever (--workers 0) with steps that never shorten.
"$skald" generate rcv1 --rows 3000 --output uneven.svm >/dev/null
awk 'BEGIN { srand(3); for (i = 0; i < 3000; i++) print exp(2.5 * sqrt(-2 * log(1 - rand())) * cos(6.2831853 * rand())) }' >weights.txt
for workers in 0 2; do
    expect "saga, uneven weights, $workers workers" 0 "target gap reached" "$skald" train --algo saga --loss logistic \
        --workers $workers --sample-weights weights.txt --target-gap 1e-6 --max-passes 400 --progress none uneven.svm
done
expect "the same optimum as saga's" 0 "target gap reached" "${train[@]}" --algo saga --target-gap 1e-8 --log saga.jsonl data.svm
check "objectives agree" awk -v a="$(field objective async.jsonl)" -v b="$(field objective saga.jsonl)" \
    'BEGIN { exit !(a / b - 1 < 2e-8 && b / a - 1 < 2e-8) }'
expect "svrg, next to nothing kept" 0 "target gap reached" "${train[@]}" --algo svrg --version-budget 1 --target-gap 1e-6 data.svm
expect "svrg, softmax" 0 "target gap reached" "${train[@]}" --algo svrg --loss softmax --target-gap 1e-7 many.svm

expect "synthesis" 0 "target gradient reached" "${train[@]}" --algo synthesis --nonconvex 1e-2 \
    --target-gradient 1e-5 --model bent.h5 --log bent.jsonl data.svm
check "synthesis: pieces are whole, however late" test "$(field scaled bent.jsonl)" = 0 -a "$(field applied bent.jsonl)" -gt 0
expect "synthesis, its objective again from the model" 0 "$(printf '%.6f' "$(field objective bent.jsonl)")" \
    "$skald" evaluate --model bent.h5 data.svm

for mode in async sync; do
    expect "by version, $mode" 0 "target gap reached" "${train[@]}" --history version --history-versions 5 --mode "$mode" \
        --target-gap 1e-8 --log "version-$mode.jsonl" data.svm
    check "by version, $mode: evictions, and no more versions than asked for" \
        test "$(field evictions "version-$mode.jsonl")" -gt 5 -a "$(field history_versions "version-$mode.jsonl")" -le 5
done
check "by version: the same objective" awk -v a="$(field objective version-async.jsonl)" \
    -v b="$(field objective saga.jsonl)" 'BEGIN { exit !(a / b - 1 < 2e-8 && b / a - 1 < 2e-8) }'
expect "by version, softmax" 0 "versions a worker" "${train[@]}" --history version --loss softmax --target-gap 1e-7 many.svm
expect "by version, svrg" 2 "use --algo saga" "${train[@]}" --algo svrg --history version data.svm
expect "by version, local" 2 "leave --local on out" "${train[@]}" --local on --history version data.svm
expect "versions of a scalar history" 2 "is for --history version" "${train[@]}" --history-versions 9 data.svm

expect "a lasso, certified without l2" 0 "target gap reached" "${train[@]}" --loss squared --l2 0 --l1 1e-2 --target-gap 1e-6 data.svm
printf '0 1:1 2:2\n0 1:3\n0 2:1\n' >zeros.svm
expect "a target of zeros" 0 "gap at most    0.000e+00  (relative 0.000e+00)" "$skald" train --loss squared --workers 0 \
    --progress none --target-gap 1e-6 zeros.svm
expect "a bound that says next to nothing" 3 "before the target" "$skald" train --algo saga --workers 0 --progress none --intercept --l2 1e-12 \
    --target-gap 1.1 --max-passes 1 data.svm

expect "nonconvex with saga" 2 "use --algo synthesis" "${train[@]}" --algo saga --nonconvex 0.1 data.svm
expect "nonconvex with a certificate" 2 "use --target-gradient" "${train[@]}" --algo synthesis --nonconvex 0.1 --target-gap 1e-3 data.svm
expect "local svrg" 2 "svrg has no local steps" "${train[@]}" --algo svrg --local on data.svm
expect "a policy for synthesis" 2 "leave --stale out" "${train[@]}" --algo synthesis --target-gradient 1e-3 --stale fold data.svm
expect "an epoch of saga" 2 "use --algo svrg" "${train[@]}" --algo saga --epoch 3 data.svm
finish
