"""Is this Prometheus' text format? With prometheus_client installed its parser decides; a strict reading of the format
does in any case. Prints what is wrong, a line each; exit code 1 if anything is.

    prometheus.py FILE
"""
import re
import sys

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*"'
SAMPLE = re.compile(r"^(%s)(?:\{((?:%s(?:,%s)*)?)\})? (NaN|[+-]Inf|[-+0-9.eE]+)$" % (NAME, LABEL, LABEL))


def read(text):
    """[(name, labels, value)] and [what is wrong]."""
    samples, wrong, types, seen, closed, family = [], [], {}, set(), set(), None
    if not text.endswith("\n"):
        wrong.append("the last line does not end")
    for number, line in enumerate(text.splitlines(), 1):
        def bad(what):
            wrong.append("%d: %s: %s" % (number, what, line))
        if line.startswith("# "):
            kind, name, rest = line[2:].split(" ", 2)
            if kind == "HELP":
                if name in closed or name == family:
                    bad("a family in two pieces")
                closed.add(family)
                family = name
            elif kind == "TYPE":
                if name != family or rest not in ("counter", "gauge", "histogram"):
                    bad("TYPE without its HELP, or unknown")
                types[name] = rest
                if (rest == "counter") != name.endswith("_total"):
                    bad("counters end in _total, nothing else does")
            continue
        match = SAMPLE.match(line)
        if not match:
            bad("no sample")
            continue
        name, labels, value = match.group(1), match.group(2) or "", float(match.group(3))
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        of = base if types.get(base) == "histogram" else name
        if of != family or of not in types:
            bad("a sample outside its family")
        if (name, labels) in seen:
            bad("the same sample twice")
        seen.add((name, labels))
        if types.get(of) == "counter" and not value >= 0:
            bad("a counter below 0")
        if re.search(r"_(ms|milliseconds|megabytes|kb|mb|percent)(_|$)", name):
            bad("no base unit")
        samples.append((name, dict(re.findall(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"', labels)), value))
    for name, kind in types.items():
        if kind != "histogram":
            continue
        buckets = [(float(l["le"]), v) for n, l, v in samples if n == name + "_bucket"]
        total = [v for n, l, v in samples if n == name + "_count"]
        if not buckets or buckets != sorted(buckets) or [v for _, v in buckets] != sorted(v for _, v in buckets):
            wrong.append(name + ": buckets do not grow")
        elif buckets[-1][0] != float("inf") or total != [buckets[-1][1]]:
            wrong.append(name + ": +Inf is not the count")
    return samples, wrong


def main():
    text = open(sys.argv[1]).read()
    wrong = read(text)[1]
    try:
        from prometheus_client.parser import text_string_to_metric_families
        families = list(text_string_to_metric_families(text))
        if len(families) < 20:
            wrong.append("prometheus_client finds only %d families" % len(families))
        print("prometheus_client: %d families" % len(families))
    except ImportError:
        print("SKIP prometheus_client is not installed: the strict reading here decides")
    except ValueError as error:
        wrong.append("prometheus_client: %s" % error)
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
