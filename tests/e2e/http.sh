# The live page's server beside a real run: /status.json is what `skald status` says, /metrics is Prometheus' format and
# says the same, readers of all kinds cost the run nothing but their answers, and the end is told. The page itself: page.sh.
. "$(dirname "$0")/lib.bash"
cd "$work" || exit 1
"$skald" generate epsilon --rows 2000 --output data.h5 >/dev/null || exit 1
common=(--loss logistic --l2 1e-3 --seed 1)

# --- what is wrong is pointed at ---
expect "beyond this machine only if asked for" 2 "say --http-insecure" "$skald" train "${common[@]}" --http 0.0.0.0:0 data.h5
expect "no address" 2 "must be PORT, HOST:PORT" "$skald" train "${common[@]}" --http nowhere data.h5
expect "a follower has nothing to serve" 2 "goes with the coordinator" "$skald" train --connect unix:/none --http 0
expect "no such host" 1 "--http no.such.host.invalid:1" "$skald" train "${common[@]}" --http-insecure \
    --http no.such.host.invalid:1 data.h5

# --- a run to look at ---
"$skald" train "${common[@]}" --workers 3 --pace 20 --straggler cds:8 --max-time 600s --listen "unix:$work/s" --http 0 \
    --log run.jsonl data.h5 >run.out 2>run.err &
run=$!
url=""
for _ in $(seq 300); do
    url=$(sed -n 's/.*the live page: //p' run.err 2>/dev/null)
    [ -n "$url" ] && curl -sf "${url}status.json" 2>/dev/null | grep -q 'on purpose' && break
    sleep 0.2
done
check "it says where ($url)" test -n "$url"
expect "the port is taken" 1 "cannot listen there: Address already in use" "$skald" train "${common[@]}" \
    --http "$(grep -o '[0-9]*/$' <<<"$url" | tr -d /)" data.h5
curl -s "${url}metrics" >before.txt
curl -s "${url}status.json" >page.json
"$skald" status --connect "unix:$work/s" --json >status.json
sleep 1.2
curl -s "${url}metrics" >after.txt
check "/status.json is what status says, a little earlier" python3 - <<'P'
import json
page, status = (json.load(open(f)) for f in ("page.json", "status.json"))
assert set(page) ^ set(status) <= {"slowest"}, set(page) ^ set(status)  # that one comes and goes
assert len(page["workers"]) == 3 and page["state"] == "training" and page["problem"] == status["problem"]
for a, b in zip(page["workers"], status["workers"]):
    assert set(a) == set(b) and a["name"] == b["name"] and a["tasks"] <= b["tasks"]
assert page["updates"] <= status["updates"] and page["workers"][0]["cause"] == "delayed on purpose"
P
check "/metrics is in the format" python3 "$root/tests/tools/prometheus.py" after.txt
if command -v promtool >/dev/null; then
    check "promtool accepts it" bash -c 'promtool check metrics <after.txt'
else
    echo "SKIP promtool is not installed"
fi
check "and says the same as the status" python3 - "$root/tests/tools" <<'P'
import json, sys
sys.path.insert(0, sys.argv[1])
import prometheus
status = json.load(open("status.json"))
def of(path):
    return {(n, l.get("worker"), l.get("state") or l.get("part") or l.get("outcome") or l.get("le")): v
            for n, l, v in prometheus.read(open(path).read())[0]}
before, after = of("before.txt"), of("after.txt")
for name, key in (("skald_updates_total", "updates"), ("skald_passes_total", "passes"), ("skald_run_seconds", "seconds")):
    assert before[name, None, None] <= status[key] <= after[name, None, None], (name, before[name, None, None], status[key])
assert before["skald_updates_total", None, None] < after["skald_updates_total", None, None]
for w in status["workers"]:
    for name, key in (("tasks", "tasks"), ("rows", "rows"), ("sent_bytes", "bytes_sent"), ("received_bytes", "bytes_received")):
        k = "skald_worker_%s_total" % name, w["name"], None
        assert before[k] <= w[key] <= after[k], (k, before[k], w[key], after[k])
    parts = [after["skald_worker_task_seconds_total", w["name"], p] for p in ("compute", "delay", "send", "receive", "queue", "held")]
    assert sum(parts) > 0
slow = status["workers"][0]["name"]
assert after["skald_worker_slow", slow, None] == 1 and after["skald_worker_slowdown_ratio", slow, None] > 1.5
assert after["skald_worker_task_seconds_total", slow, "delay"] > after["skald_worker_task_seconds_total", slow, "compute"]
assert after["skald_state", None, "training"] == 1 and after["skald_state", None, "ended"] == 0
done = sum(w["tasks"] for w in status["workers"])
seen = before["skald_task_seconds_count", None, None], after["skald_task_seconds_count", None, None]
assert seen[0] <= done <= seen[1], (seen, done)
P

# --- a hundred readers that say nothing hold up neither the run nor those who ask ---
check "silent readers" python3 - "$url" "$work/s" <<'P'
import json, socket, sys, time, urllib.request
port = int(sys.argv[1].rstrip("/").rsplit(":", 1)[1])
def updates():
    return json.load(urllib.request.urlopen(sys.argv[1] + "status.json", timeout=60))["updates"]
first = updates()
silent = []
for k in range(40):
    s = socket.create_connection(("127.0.0.1", port))
    s.send(b"GET /live.json HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
    silent.append(s)
end = time.time() + 60
while updates() <= first + 50:
    assert time.time() < end, "the run stands still"
    time.sleep(0.2)
P
headers=$(curl -sI "$url")
for one in "Content-Security-Policy: default-src 'none'" "X-Content-Type-Options: nosniff" "Referrer-Policy: no-referrer" \
    "Cache-Control: no-store" "frame-ancestors 'none'"; do
    check "header: $one" grep -qF "$one" <<<"$headers"
done
check "the page is whole: no other host, no other file" bash -c \
    "curl -s '$url' | tee page.html | grep -q '<title>Skald' && ! grep -qE '(src|href)=\"?(https?:|//|/)' page.html"

# --- the end is told, to who is there ---
kill -INT $run
wait $run
check "the run ended as asked" grep -q 'interrupted' run.out
"$skald" coordinator "${common[@]}" --listen "unix:$work/c" --workers 1 --target-gap 1e-6 --linger 100s --http 0 data.h5 \
    >c.out 2>c.err &
coordinator=$!
for _ in $(seq 300); do grep -qs 'the live page' c.err && break; sleep 0.1; done
url=$(sed -n 's/.*the live page: //p' c.err)
check "while it gathers" bash -c "curl -s '${url}status.json' | grep -q gathering"
"$skald" worker --connect "unix:$work/c" --quiet 2>worker.err &
for _ in $(seq 300); do
    curl -s "${url}status.json" >end.json
    grep -q '"ended"' end.json && break
    sleep 0.2
done
check "and how it ended" python3 -c '
import json
s = json.load(open("end.json"))
assert s["state"] == "ended" and s["stop"] == "target gap reached" and s["reached"] and s["gap"] <= 1e-6, s
'
curl -s "${url}live.json" >live.json
check "one who comes late sees what was" python3 -c '
import json
s = json.load(open("live.json"))
assert s["final"] and s["evaluations"] and s["cells"] and sum(s["staleness"]) > 0, s["status"]
assert sum(s["staleness"]) == sum(s["status"][k] for k in ("applied", "scaled", "folded", "rejected")), s["status"]
assert s["evaluations"][-1][3] <= 1e-6 and s["notices"]
'
kill -INT $coordinator
wait $coordinator
wait
for _ in 1 2 3; do # it is told for a second, which a loaded machine may miss
    "$skald" train "${common[@]}" --workers 2 --pace 5 --straggler kill:1@1 --on-loss stop --max-time 60s --http 0 data.h5 >f.out 2>f.err &
    run=$!
    for _ in $(seq 300); do grep -qs 'the live page' f.err && break; sleep 0.1; done
    url=$(sed -n 's/.*the live page: //p' f.err)
    for _ in $(seq 600); do # as a page does
        curl -s -m 5 "${url}live.json" >now.json || break
        [ -s now.json ] && mv now.json f.json
        sleep 0.2
    done
    wait $run
    grep -q "killed by signal 9" f.json && break
done
check "a failure is told, with its reason" bash -c "grep -q '\"failed\"' f.json && grep -q 'killed by signal 9' f.json"
finish
