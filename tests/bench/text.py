"""Reading LIBSVM text: megabytes a second on one core, Skald's parser beside scikit-learn's and liblinear's.

    text.py BUILD OUT [--rounds N] [--megabytes M]

Files of the shapes of rcv1 (short sparse rows) and epsilon (long dense ones), in memory (/dev/shm) if there is room.
Skald reads a file twice, once to learn what is in it (scan) and once for the rows (read); the goals are on read, the
parser, and both together are reported too. liblinear: `liblinear-train -c -1`, which reads the file and only then
refuses the option. In turns, a round each, medians.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import time

from sklearn.datasets import load_svmlight_file
import sklearn

ROW_BYTES = {"rcv1": 1090, "epsilon": 29900}


def liblinear(path):
    started = time.perf_counter()
    run = subprocess.run(["liblinear-train", "-q", "-c", "-1", path, "/dev/null"], capture_output=True, text=True)
    seconds = time.perf_counter() - started
    assert run.returncode == 1 and "C <= 0" in run.stderr, run.stderr
    return seconds


def scikit(path):
    started = time.perf_counter()
    load_svmlight_file(str(path))
    return time.perf_counter() - started


def skald(build, path):
    run = subprocess.run([build / "bench_parse", path], check=True, capture_output=True, text=True)
    seconds = {}
    for line in run.stdout.splitlines():
        if line.startswith("{"):
            record = json.loads(line)
            seconds[record["op"]] = record["seconds"]
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=float, default=100)
    a = parser.parse_args()
    folder = pathlib.Path("/dev/shm" if os.access("/dev/shm", os.W_OK) else a.out)
    lines = []

    def line(name, value, unit, goal=None):
        entry = {"name": name, "value": value, "unit": unit}
        if goal:
            entry |= {"goal": goal, "met": value >= goal}
        lines.append(entry)
        print(f"  {name:44} {value:8.1f} {unit}" + (f"  (goal {goal}: {'met' if entry['met'] else 'MISSED'})" if goal else ""),
              flush=True)  # fmt: skip

    for kind, row in ROW_BYTES.items():
        path = folder / f"skald-bench-{os.getpid()}-{kind}.svm"
        try:
            rows = str(int(a.megabytes * 1e6 / row))
            subprocess.run([a.build / "skald", "generate", kind, "--rows", rows, "--output", path], check=True,
                           stdout=subprocess.DEVNULL)  # fmt: skip
            size = path.stat().st_size / 1e6
            times = {"read": [], "scan and read": [], "scikit-learn": [], "liblinear": []}
            for _ in range(a.rounds):
                ours = skald(a.build, path)
                times["read"].append(ours["read"])
                times["scan and read"].append(ours["scan"] + ours["read"])
                times["scikit-learn"].append(scikit(path))
                times["liblinear"].append(liblinear(path))
        finally:
            path.unlink(missing_ok=True)
        for who, seconds in times.items():
            line(f"{kind}: {who}", size / statistics.median(seconds), "MB/s", 500 if who == "read" else None)
        for who, goal in (("scikit-learn", 10), ("liblinear", 4)):
            for what in ("read", "scan and read"):
                ratio = statistics.median(theirs / our for our, theirs in zip(times[what], times[who]))
                line(f"{kind}: {what} over {who}", ratio, "x", goal if what == "read" else None)
    result = {"bench": "text", "versions": f"scikit-learn {sklearn.__version__}", "lines": lines}
    (a.out / "text.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
