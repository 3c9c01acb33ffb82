"""One Markdown table of what the benchmarks wrote: table.py OUT, from OUT/*.json to OUT/table.md."""

import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys


def cpu():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def version(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.split("\n")[0].strip()
    except OSError:
        return "?"


def package(name):
    return version("dpkg-query", "-W", "-f", "${Version}", name) or "?"


def main():
    out = pathlib.Path(sys.argv[1])
    here = pathlib.Path(__file__).resolve().parent
    benches = {}
    for name in ("compute", "solve", "text", "coordinator", "net"):
        path = out / f"{name}.json"
        if path.exists():
            found = json.loads(path.read_text())
            benches[name] = found if isinstance(found, dict) else {"lines": found}
    facts = [
        f"{cpu()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        f"{datetime.date.today().isoformat()}, commit {version('git', '-C', str(here), 'rev-parse', '--short', 'HEAD')}",
        f"{version('gcc', '--version')}; gRPC {package('libgrpc29')}; OpenBLAS {package('libopenblas0-pthread')}; "
        f"liblinear {package('liblinear4')}",
    ]
    facts += [f"{name}: {bench['versions']}" for name, bench in benches.items() if "versions" in bench]
    text = ["# Benchmarks", "", *[f"- {fact}" for fact in facts], ""]
    text += ["| benchmark | what | value | goal | |", "| --- | --- | ---: | ---: | --- |"]
    met = missed = 0
    for name, bench in benches.items():
        for line in bench["lines"]:
            goal, verdict = "", line.get("note", "")
            if "goal" in line:
                goal = f"{'<=' if line.get('at_most') else '>='} {line['goal']:g}"
                verdict = "met" if line["met"] else "**missed** " + verdict
                met, missed = met + line["met"], missed + (not line["met"])
            text.append(f"| {name} | {line['name']} | {line['value']:.4g} {line['unit']} | {goal} | {verdict} |")
    text += ["", f"{met} goals met, {missed} missed."]
    (out / "table.md").write_text("\n".join(text) + "\n")
    print(f"{out / 'table.md'}: {met} goals met, {missed} missed")


if __name__ == "__main__":
    main()
