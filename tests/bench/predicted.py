"""What `skald simulate` says of runs that `skald bench` measured.

  tests/bench/predicted.py SKALD FOLDER...    (of bench's --output)

For each solver and kind of stragglers that a folder has both modes of: both are simulated with the options of the
measured runs, whose delays are the same by their seed. What a row and a message take is as the asynchronous run's log
has it; the coordinator's time for a result is in no log, and is simulate's guess. Prints the speed-ups and whether the
simulated one is within 15% of the measured one; exits 1 if one is not.
"""
import json, math, pathlib, re, subprocess, sys, tempfile

# What the simulation does otherwise. It ends some passes after the measured run did, and not at the target: for that one
# a simulated run would stand still at every evaluation, and bench's do not.
LEFT_OUT = {"workers", "log", "record", "progress", "quiet", "max-time", "max-passes", "target-objective",
            "target-tolerance"}


def events(log, name):
    return [e for e in map(json.loads, open(log)) if e["event"] == name]


def to_target(log, optimum, gap):
    """As bench has it: linear in the logarithm between the last evaluation above the gap and the first at it."""
    last = None
    for e in events(log, "evaluation"):
        seconds, at = e["train_seconds"], (e["objective"] - optimum) / abs(optimum)
        if at <= gap:
            if not last or at <= 0:
                return seconds
            return last[0] + math.log(last[1] / gap) / math.log(last[1] / at) * (seconds - last[0])
        last = seconds, at
    return math.nan


def times(log):
    """ns a row and us a message, means over the workers' tasks."""
    workers = [w for w in events(log, "end")[0]["workers"] if w["tasks"]]
    tasks, rows = (sum(w[k] for w in workers) for k in ("tasks", "rows"))
    compute, message = (sum(w["tasks"] * sum(w[f"{k}_ms_mean"] or 0 for k in part) for w in workers)
                        for part in (["compute"], ["receive", "send"]))
    return 1e6 * compute / rows, 1e3 * max(message / tasks / 2, 0)


def simulated(skald, known, log, row_ns, message_us, result, gap):
    start, end = (events(log, name)[0] for name in ("start", "end"))
    options = [f"--{k}={v}" for k, v in start["config"].items() if k in known and k not in LEFT_OUT and v != known[k]]
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as to:
        command = [skald, "simulate", *options, f'--workers={result["config"]["workers"]}', f"--row-time={row_ns:.6g}",
                   f"--message-time={message_us:.6g}", "--free-evaluations", f'--max-passes={1.5 * end["passes"] + 3:.6g}',
                   f"--log={to.name}", "--quiet", start["data"]]
        code = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
        if code not in (0, 3):
            sys.exit(f"exit code {code}: {' '.join(command)}")
        return to_target(to.name, result["optimum"], gap)


def defaults(skald):
    """simulate's options and what they are if not given."""
    text = subprocess.run([skald, "simulate", "--dump-config", "."], stdout=subprocess.PIPE, text=True, check=True).stdout
    return dict(re.findall(r"^--(\S+) +(.*?) +# ", text, re.M))


def main(skald, folders):
    known = defaults(skald)
    worse = 0
    for folder in map(pathlib.Path, folders):
        result = json.loads((folder / "results.json").read_text())
        gap = float(result["config"]["gap"])
        first = {}  # the logs that bench left, by what was run
        for k, run in enumerate(result["runs"]):
            first.setdefault((run["straggler"], run["algo"], run["mode"]), folder / f"run-{k:03d}.jsonl")
        for c in result["cells"]:
            kind = c["straggler"], c["algo"]
            if c["mode"] != "async" or c["straggler"] == "none" or (*kind, "sync") not in first:
                continue
            where = f'{folder.name}: {c["algo"]}, {c["straggler"]}'
            if c["speedup"] is None or c["speedup_at_least"]:
                print(f"{where}: not all runs reached the gap: nothing to compare")
                continue
            row_ns, message_us = times(first[(*kind, "async")])
            sync, asynchronous = (simulated(skald, known, first[(*kind, mode)], row_ns, message_us, result, gap)
                                  for mode in ("sync", "async"))
            predicted, measured = sync / asynchronous, c["speedup"]
            within = abs(predicted / measured - 1) <= 0.15
            worse += not within
            print(f"{where}: simulated {predicted:.2f}x ({sync:.3g} s, {asynchronous:.3g} s; a row {row_ns:.3g} ns, a "
                  f"message {message_us:.3g} us), measured {measured:.2f}x: within 15%: {'yes' if within else 'no'}",
                  flush=True)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
