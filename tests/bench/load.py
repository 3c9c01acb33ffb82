"""A coordinator under many sessions that come and go. Says how many results it merged, its memory at the beginning and
at the end, and how long a result waited from its arrival until the engine had it (median, p99, most).

    load.py SKALD OUT [--sessions 256] [--minutes 10] [--pace 2000] [--churn 1]

Each --churn seconds one worker leaves (killed, told to go by SIGTERM, or drained, in turn) and another comes. Exit code:
0 when nothing failed: the run went on to its time limit, who was drained ended with 0, and memory stayed flat (within
5% between a quarter and the end of the time).
"""
import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time

parser = argparse.ArgumentParser()
parser.add_argument("skald")
parser.add_argument("out")
parser.add_argument("--sessions", type=int, default=256)
parser.add_argument("--minutes", type=float, default=10)
parser.add_argument("--pace", type=int, default=2000)
parser.add_argument("--churn", type=float, default=1)
args = parser.parse_args()
skald, out = os.path.abspath(args.skald), os.path.abspath(args.out)
folder = tempfile.TemporaryDirectory()
os.chdir(folder.name)
chance = random.Random(1)
address = f"unix:{folder.name}/s"
failures = []
subprocess.run([skald, "generate", "rcv1", "--rows", str(40 * (args.sessions + 64)), "--output", "data.h5"], check=True,
               stdout=subprocess.DEVNULL)
head = subprocess.Popen(
    [skald, "coordinator", "--listen", address, "--workers", str(args.sessions), "--max-workers",
     str(args.sessions + 64), "--shards", str(args.sessions + 64), "--l2", "1e-6", "--target-gap", "1e-15", "--max-time",
     f"{60 * args.minutes:g}s", "--max-passes", "1e9", "--record", "load.record", "--progress", "none", "--linger", "0",
     "data.h5"], stdout=open("head.out", "w"), stderr=open("head.err", "w"))


def resident(pid):
    with open(f"/proc/{pid}/status") as f:
        return next((int(line.split()[1]) / 1024 for line in f if line.startswith("VmRSS")), None)  # None: it has ended


class Worker:
    made = 0

    def __init__(self):
        Worker.made += 1
        self.name = f"w{Worker.made}"
        self.gone = None  # how it was sent away
        self.process = subprocess.Popen([skald, "worker", "--connect", address, "--name", self.name, "--threads", "1",
                                         "--pace", str(args.pace), "--wait", "300s"], stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)


workers = [Worker() for _ in range(args.sessions)]
while "training" not in subprocess.run([skald, "status", "--connect", address, "--json", "--wait", "5s"],
                                       capture_output=True, text=True).stdout:
    if head.poll() is not None:
        sys.exit("the coordinator ended: " + open("head.err").read()[-500:])
    time.sleep(1)
began, memory, left, turn = time.time(), [], [], 0
drains = []
while head.poll() is None:
    now = time.time() - began
    held = resident(head.pid)
    if held is None:
        break
    memory.append((now, held))
    for w in workers:
        if w.gone is None and w.process.poll() is not None and now < 60 * args.minutes - 5:
            failures.append(f"{w.name} ended by itself with {w.process.returncode}")
            w.gone = "itself"
    if now < 60 * args.minutes - 10:
        there = [w for w in workers if w.gone is None]
        w = chance.choice(there)
        w.gone = ("killed", "told", "drained")[turn % 3]
        turn += 1
        if w.gone == "killed":
            w.process.kill()
        elif w.gone == "told":
            w.process.send_signal(signal.SIGTERM)
        else:
            drains.append((w, subprocess.Popen([skald, "drain", "--connect", address, w.name, "--wait", "120s"],
                                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)))
        workers.append(Worker())
    time.sleep(max(0, began + now + args.churn - time.time()))
head.wait()
if head.returncode != 3:
    failures.append(f"the coordinator ended with {head.returncode}: {open('head.err').read()[-300:]}")
for w in workers:
    try:
        w.process.wait(30)
    except subprocess.TimeoutExpired:
        failures.append(f"{w.name} did not end")
        w.process.kill()
refused = 0
for w, drain in drains:
    code = drain.wait(30)
    text = drain.stderr.read()
    if code and "on its way in" in text:  # it had come a moment before
        refused += 1
    elif code or w.process.returncode:
        failures.append(f"drain of {w.name}: {code}, worker {w.process.returncode}: {text.strip()[-200:]}")
waits, merged = [], 0
with open("load.record") as f:
    next(f)
    for line in f:
        o = json.loads(line)
        merged += o["do"] == "merge"
        if o["do"] == "result":
            waits.append((o["t"] - o["arrived"]) / 1e6)
waits.sort()
quarter = [m for t, m in memory if t >= 15 * args.minutes]
grown = quarter[-1] / quarter[0] - 1 if quarter else float("nan")
if not grown <= 0.05:
    failures.append(f"memory grew by {100 * grown:.1f}%")
report = {"sessions": args.sessions, "minutes": args.minutes, "came": Worker.made, "left": turn, "drains_too_early": refused,
          "results": len(waits), "merges": merged, "memory_mb": {"after_a_quarter": quarter[0], "at_the_end": quarter[-1]},
          "turnaround_ms": {"p50": waits[len(waits) // 2], "p99": waits[len(waits) * 99 // 100], "most": waits[-1]},
          "failures": failures}
json.dump(report, open(out, "w"), indent=1)
print(json.dumps(report, indent=1))
sys.exit(1 if failures else 0)
