#!/bin/bash
# Every mistake a user can make has a message that names it, and an exit code; nothing hangs or crashes.
# only: release asan
source "$(dirname "$0")/lib.bash"
cd "$work" || exit 1

printf '+1 1:0.5 3:1\n-1 2:1\n+1 1:1 2:0.5\n-1 3:0.25\n' >four.svm
awk 'BEGIN { srand(1); for (i = 0; i < 400; i++) { a = rand(); b = rand(); print (a > b ? "+1" : "-1"), "1:" a, "2:" b, "3:1" } }' >good.svm
train=("$skald" train --workers 1 --l2 1e-2 --max-passes 20 --progress none)

expect "no command" 2 "command is missing" "$skald"
expect "unknown command" 2 "did you mean train?" "$skald" trian
expect "unknown option" 2 "did you mean --max-passes?" "$skald" train --max-pases 3 good.svm
expect "ambiguous option" 2 "unknown option '--ma'" "$skald" train --ma 3 good.svm
expect "option without value" 2 "--loss needs a value" "$skald" train good.svm --loss
expect "out of range" 2 "--workers -3: is out of range; may be auto|cores or 0 to 4096" "$skald" train --workers -3 good.svm
expect "not a number" 2 "--l2 much: is not a number" "$skald" train --l2 much good.svm
expect "unknown choice" 2 "--mode ssp: must be async, sync, ssp:S or partial:B" "$skald" train --mode ssp good.svm
expect "bad environment" 2 "SKALD_SEED x: is not a number" env SKALD_SEED=x "$skald" train good.svm
expect "unknown variable" 0 "SKALD_SEDE" env SKALD_SEDE=1 "$skald" version
expect "no data" 2 "DATA is missing" "$skald" train
expect "two data" 2 "unexpected argument 'b.svm'" "$skald" train a.svm b.svm
expect "gap without a regulariser" 2 "--l1 above 0: without either no gap can be certified; use --target-gradient" \
    "$skald" train --l2 0 --target-gap 1e-6 good.svm
expect "bad class weights" 2 "--class-weight 1:2" "$skald" train --class-weight 1:2 good.svm
expect "unsafe address" 2 "--insecure" "$skald" coordinator --listen 0.0.0.0:0 good.svm
expect "an address that looks safe" 2 "--insecure" "$skald" coordinator --listen 127.0.0.1.example.org:0 good.svm
expect "address without port" 2 "--listen nowhere: an address is HOST:PORT" "$skald" coordinator --listen nowhere good.svm
expect "unknown device" 1 "unknown device 'tpu': use auto, cpu" "$skald" train --workers 1 --device tpu good.svm
expect "unknown export" 2 "liblinear:FILE" "$skald" train --export onnx:x good.svm

for workers in 0 1; do
    train[3]=$workers
    expect "missing file, $workers" 1 "nothere.svm" "${train[@]}" nothere.svm
    : >empty.svm
    expect "empty file, $workers" 1 "empty.svm" "${train[@]}" empty.svm
    printf '# only\n\n# comments\n' >comments.svm
    expect "no rows, $workers" 1 "comments.svm" "${train[@]}" comments.svm
    { cat good.svm; printf '+1 1:0.5 x:3\n'; } >malformed.svm
    expect "malformed line, $workers" 1 "malformed.svm:401" "${train[@]}" malformed.svm
    { printf '+1 1:nan\n'; cat good.svm; } >nan.svm
    expect "NaN, $workers" 1 "nan.svm:1" "${train[@]}" nan.svm
    { cat good.svm; printf -- '-1 1:1 2:inf\n'; } >inf.svm
    expect "infinity, $workers" 1 "inf.svm:401" "${train[@]}" inf.svm
    { cat good.svm; printf -- '-1 2:1 2:3\n'; } >duplicate.svm
    expect "duplicate index, $workers" 1 "duplicate.svm:401" "${train[@]}" duplicate.svm
    expect "a folder, $workers" 1 "$work" "${train[@]}" "$work"
    { cat good.svm; printf '5 1:1\n'; } >three.svm
    expect "three labels, $workers" 1 "two" "${train[@]}" --loss logistic three.svm
    grep '^+1' good.svm >one.svm
    expect "one label, $workers" 1 "every row has the label 1" "${train[@]}" one.svm
    expect "too few columns, $workers" 1 "good.svm" "${train[@]}" --dim 2 good.svm
    expect "weights missing, $workers" 1 "w.txt" "${train[@]}" --sample-weights w.txt good.svm
done
cp good.svm secret.svm && chmod 0 secret.svm
plain=() # root reads everything, unless it is told not to
[ "$(id -u)" -eq 0 ] && plain=(setpriv --bounding-set -dac_override,-dac_read_search)
expect "unreadable file" 1 "secret.svm: cannot open: Permission denied" "${plain[@]}" "${train[@]}" secret.svm

expect "no folder for the model" 1 "no/such/model.h5" "${train[@]}" --model no/such/model.h5 good.svm
expect "model is a folder" 1 "is a directory" "${train[@]}" --model "$work" good.svm
expect "no folder for the log" 1 "no/run.jsonl" "${train[@]}" --log no/run.jsonl good.svm
expect "full disk under the log" 0 "cannot write the log" "$skald" train --workers 1 --l2 1 --log /dev/full good.svm

expect "a model" 0 "" "${train[@]}" --quiet --model model.h5 good.svm
for command in predict evaluate; do
    expect "$command without model" 2 "--model" "$skald" $command good.svm
    expect "$command, model missing" 1 "none.h5" "$skald" $command --model none.h5 good.svm
    expect "$command, not a model" 1 "good.svm" "$skald" $command --model good.svm good.svm
    expect "$command, data missing" 1 "nothere.svm" "$skald" $command --model model.h5 nothere.svm
    { cat good.svm; printf -- '-1 9:1\n'; } >wide.svm
    expect "$command, wrong dimension" 1 "9" "$skald" $command --model model.h5 wide.svm
done
sed 's/^+1/2/' good.svm >labels.svm
expect "evaluate, other labels" 1 "label" "$skald" evaluate --model model.h5 labels.svm
expect "predict does not mind labels" 0 "" "$skald" predict --model model.h5 --output p.txt labels.svm
expect "squared model" 0 "" "$skald" train --workers 1 --loss squared --l2 1e-2 --quiet --model squared.h5 good.svm
expect "no probabilities" 1 "logistic" "$skald" predict --model squared.h5 --type probability good.svm
expect "output into a full disk" 1 "" "$skald" predict --model model.h5 --output /dev/full good.svm

expect "generate what" 2 "may be epsilon, mnist8m or rcv1" "$skald" generate mnist --output x
expect "generate where" 2 "--output" "$skald" generate rcv1
expect "convert missing" 1 "nothere.svm" "$skald" convert nothere.svm x.h5

# Nobody there: says so, gives up after --wait.
expect "status of nobody" 1 "no coordinator at unix:$work/nobody within 0.2 s: is it running there? --wait" "$skald" status --connect "unix:$work/nobody" --wait 200ms
expect "follow nobody, says that it waits" 1 "no coordinator at unix:$work/nobody yet; waiting for it up to 1.5 s" "$skald" train --connect "unix:$work/nobody" --wait 1500ms
expect "join nobody, says that it waits" 1 "joining unix:$work/nobody (waiting for it up to 0.3 s)" \
    "$skald" worker --connect "unix:$work/nobody" --wait 300ms
expect "join nobody, gives up" 1 "no coordinator at unix:$work/nobody within 0.3 s: is it running there? --wait" \
    "$skald" worker --connect "unix:$work/nobody" --wait 300ms
expect "workers that never come" 1 "0 of 2 workers came to unix:$work/c within 0.3 s (--workers, --wait)" \
    "$skald" coordinator --listen "unix:$work/c" --wait 300ms --workers 2 good.svm

# A model that does not fit on the disk: the old one stays.
if [ "$(id -u)" -eq 0 ] && mkdir small && mount -t tmpfs -o size=64k tmpfs small 2>/dev/null; then
    awk 'BEGIN { srand(2); for (i = 0; i < 300; i++) print (i % 2 ? "+1" : "-1"), (i * 100 + 1) ":" rand(), "30000:1" }' >broad.svm
    cp model.h5 small/model.h5
    expect "full disk under the model" 1 "small/model.h5" "${train[@]}" --model small/model.h5 broad.svm
    check "the old model is intact" cmp -s model.h5 small/model.h5
    check "nothing half-written is left" test "$(ls small)" = model.h5
    umount small
fi
finish
