"""How long a run takes to be whole again, with real processes on one machine: from SIGKILL of a worker until its rows
are processed again by somebody, and from SIGKILL of the coordinator (started again at once) until the next merge.

    recovery.py SKALD OUT [--rounds 5]

Seconds and, beside them, the same in task times, since a machine's own speed is in both.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

parser = argparse.ArgumentParser()
parser.add_argument("skald")
parser.add_argument("out")
parser.add_argument("--rounds", type=int, default=5)
args = parser.parse_args()
skald, out = os.path.abspath(args.skald), os.path.abspath(args.out)
folder = tempfile.TemporaryDirectory()
os.chdir(folder.name)
address, PACE = f"unix:{folder.name}/s", 20
subprocess.run([skald, "generate", "epsilon", "--rows", "8000", "--output", "data.h5"], check=True,
               stdout=subprocess.DEVNULL)


def coordinator():
    return subprocess.Popen(
        [skald, "coordinator", "--listen", address, "--workers", "4", "--checkpoint", "run.ck", "--checkpoint-every", "1s",
         "--resume", "auto", "--l2", "1e-6", "--target-gap", "1e-15", "--max-passes", "1e9", "--progress", "none",
         "data.h5"], stdout=subprocess.DEVNULL, stderr=open("head.err", "a"))


def worker():
    return subprocess.Popen([skald, "worker", "--connect", address, "--threads", "1", "--pace", str(PACE), "--wait",
                             "60s"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def status():
    answer = subprocess.run([skald, "status", "--connect", address, "--json", "--wait", "5s"], capture_output=True,
                            text=True)
    try:
        return json.loads(answer.stdout)
    except ValueError:
        return {}


def until(condition, seconds=60):
    end = time.time() + seconds
    while time.time() < end:
        s = status()
        if s.get("state") == "training" and condition(s):
            return time.time()
        time.sleep(0.01)
    sys.exit(f"it does not recover: {status()}\n{open('head.err').read()[-800:]}")


head, workers = coordinator(), [worker() for _ in range(4)]
until(lambda s: s.get("updates", 0) > 50)
of_workers, of_coordinators = [], []
for _ in range(args.rounds):
    before = status()
    k = next(i for i, w in enumerate(before["workers"]) if w["alive"])
    pid = int(before["workers"][k]["name"].rsplit(":", 1)[1])
    visits = {x["shard"]: x["visits"] for x in before["shards"] if x["worker"] == k}
    victim = next(w for w in workers if w.pid == pid)
    victim.kill()
    killed = time.time()
    back = until(lambda s: {x["shard"]: x for x in s["shards"]}.keys() >= visits.keys() and all(
        x["visits"] > visits[x["shard"]] and x["worker"] != k for x in s["shards"] if x["shard"] in visits))
    of_workers.append(back - killed)
    workers.remove(victim)
    workers.append(worker())
    until(lambda s: sum(w["alive"] and w["shards"] > 0 for w in s["workers"]) >= 3)
    time.sleep(1)
for _ in range(args.rounds):
    while sum(w["alive"] for w in status().get("workers", [])) < 4:
        time.sleep(0.1)
    head.kill()
    head.wait()
    killed = time.time()
    head = coordinator()
    back = until(lambda s: s.get("version", 0) > s.get("resumed_version", 0) > 0)
    of_coordinators.append(back - killed)
    time.sleep(1)
head.terminate()
head.wait()
for w in workers:
    w.kill()
report = {name: {"seconds": statistics.median(x), "least": min(x), "most": max(x),
                 "tasks": statistics.median(x) / (PACE / 1e3)}
          for name, x in (("worker_killed_to_its_rows_processed", of_workers),
                          ("coordinator_killed_to_the_next_merge", of_coordinators))}
json.dump(report, open(out, "w"), indent=1)
print(json.dumps(report, indent=1))
