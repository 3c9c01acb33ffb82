# only: release
# The live page in headless Chromium: during a real run with a slow worker, which is killed at last; with 256 simulated
# workers; at the end of a run. PAGE_SHOTS=FOLDER keeps the screenshots (tests/page has those of the README).
# long
. "$(dirname "$0")/lib.bash"
if ! python3 "$root/tests/tools/browser.py"; then
    echo "SKIP the page in a browser: no chromium is installed"
    finish
fi
shots=$(realpath -m "${PAGE_SHOTS:-$work}")
mkdir -p "$shots"
cd "$work" || exit 1
page() { python3 "$root/tests/tools/page_check.py" "$@" || failures=$((failures + 1)); }
url_of() { # FILE: what was said on stderr
    for _ in $(seq 300); do grep -qs 'the live page' "$1" && break; sleep 0.1; done
    sed -n 's/.*the live page: //p' "$1"
}

"$skald" generate epsilon --rows 20000 --output data.h5 >/dev/null || exit 1
slow=("$skald" train --loss logistic --l2 1e-5 --seed 1 --workers 6 --pace 40 --straggler cds:4 --task-rows 4000
    --max-time 600s data.h5)
"${slow[@]}" --http 0 >run.out 2>run.err &
run=$!
page run "$(url_of run.err)" $run "$shots" "${slow[@]}"
kill -KILL $run 2>/dev/null # if it could not be seen to go
wait $run 2>/dev/null

"$skald" generate rcv1 --rows 20000 --output many.svm >/dev/null || exit 1
"$skald" simulate --loss logistic --l2 1e-6 --workers 256 --pace 200 --straggler pcs --target-gap 1e-14 --max-passes 1e6 \
    --http 0 many.svm >many.out 2>many.err &
run=$!
page many "$(url_of many.err)" "$shots"
kill -INT $run
wait $run 2>/dev/null

"$skald" train --loss logistic --l2 1e-3 --seed 1 --workers 2 --pace 100 --target-gap 1e-6 --http 0 data.h5 >end.out 2>end.err &
run=$!
page end "$(url_of end.err)" "$shots"
wait $run
finish
