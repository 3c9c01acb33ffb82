"""What the live page shows, in headless Chromium. Prints PASS and FAIL lines, as the e2e scripts do.

    page_check.py run URL PID FOLDER AGAIN...   a run in progress with a slow worker: what it says is what /status.json
                                         says; screenshots into FOLDER; then PID is killed, and the page says that it is
                                         gone; then AGAIN, with the same port, and the page shows that run
    page_check.py many URL FOLDER        256 workers: what an update costs
    page_check.py end URL FOLDER         a run that ends while it is looked at
"""
import json
import os
import signal
import subprocess
import sys
import urllib.request

from browser import Browser

failed = 0


def check(name, good, detail=""):
    global failed
    failed += not good
    print(("PASS " if good else "FAIL ") + name + ("" if good else ": %s" % (detail,)))


def status(url):
    return json.load(urllib.request.urlopen(url + "status.json", timeout=60))


def figures(b):
    return b.ask("""Object.fromEntries([...document.querySelectorAll('#tiles > div')].map(
        t => [t.dataset.name, [t.dataset.value === '' ? null : Number(t.dataset.value), t.innerText]]))""")


def painted(b, canvas):
    """Share of the canvas's pixels that are not empty."""
    return b.ask("""(() => { const c = document.getElementById('%s'); if (!c.width || !c.height) return 0;
        const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let n = 0;
        for (let k = 3; k < d.length; k += 4) n += d[k] > 0; return 4 * n / d.length; })()""" % canvas)


def shots(b, folder, name):
    for shape, size in (("desktop", (1280, 900, False)), ("phone", (390, 844, True))):
        b.size(*size)
        updates = b.ask("skald.measured.updates")
        b.wait("skald.measured.updates > %d" % (updates + 1))
        wide = b.ask("document.documentElement.scrollWidth")
        check("%s: nothing sticks out at %d" % (name, size[0]), wide <= size[0], wide)
        b.screenshot(os.path.join(folder, "%s-%s.png" % (name, shape)))
        b.screenshot(os.path.join(folder, "%s-%s-whole.png" % (name, shape)), whole=True)
    b.size(1280, 900)


def run(b, url, pid, folder, again):
    b.wait("skald.state.status.state === 'training' && skald.state.evaluations.length > 2 && skald.state.samples.length > 20")
    b.wait("document.querySelector('#slow p') !== null")
    before = status(url)
    seen = b.ask("skald.state.snapshot")
    b.wait("skald.state.snapshot > %d" % (seen + 10))
    told, text, after = figures(b), b.ask("document.body.innerText"), status(url)
    for name, key in (("pass", "passes"), ("results", "updates"), ("staleness", None), ("workers", None)):
        if key:
            check("%s is the status's" % name, before[key] <= told[name][0] <= after[key], (before[key], told[name], after[key]))
    evaluated = [(float("%.12g" % e[2]), float("%.12g" % e[3])) for e in b.ask("skald.state.evaluations")]
    shown = (told["objective"][0], told["certified gap"][0])
    known = (float("%.12g" % before["objective"]), float("%.12g" % before["gap"]))
    check("objective and gap are of one evaluation", shown in evaluated, (told["objective"], told["certified gap"]))
    check("no older than the one the status knew", shown in evaluated and known in evaluated and
          evaluated.index(shown) >= evaluated.index(known), (known, shown, evaluated[-5:]))
    check("the workers are counted", told["workers"][0] == len(after["workers"]))
    rows = b.ask("[...document.querySelectorAll('#rows tr')].map(r => [...r.children].map(c => c.textContent))")
    check("a row a worker", [r[0].replace("▲ ", "") for r in rows] == [w["name"] for w in after["workers"]], rows)
    slow = [w for w in after["workers"] if w["cause"]]
    check("the slow one is named, and why", len(slow) == 1 and
          ("▲ %s is slow: " % slow[0]["name"]) in text and ("× the median, " + slow[0]["cause"]) in text, text[:600])
    check("and in its row", any(r[0] == "▲ " + slow[0]["name"] and slow[0]["cause"] in r for r in rows), rows)
    check("the pill says training", b.ask("document.getElementById('state').textContent") == "● training")
    for canvas in ("objective", "gap", "throughput", "staleness", "lanes"):
        check("%s is drawn" % canvas, painted(b, canvas) > 0.02, painted(b, canvas))
    total, now = sum(b.ask("skald.state.staleness")), status(url)
    done = [sum(s[k] for k in ("applied", "scaled", "folded", "rejected")) for s in (before, now)]
    check("the histogram has every result", done[0] <= total <= done[1], (total, done))

    # a lane: the slow worker was delayed on purpose most of the last seconds
    lane = b.ask("""(() => { const sums = [0, 0, 0, 0], s = skald.state, k = s.workers.findIndex(w => w.cause);
        for (const text of s.cells.values()) for (let j = 0; j < 4; j++) sums[j] += parseInt(text[4 * k + j], 16);
        return sums; })()""")
    check("its lane shows the delays", lane[1] > 2 * lane[0] and lane[1] > 0, lane)

    # against passes
    label = b.ask("document.getElementById('gap').getAttribute('aria-label')")
    b.ask("document.querySelector('input[name=axis][value=\"1\"]').click()")
    b.wait("document.getElementById('gap').getAttribute('aria-label') !== %s" % json.dumps(label))
    last = b.ask("skald.state.evaluations.at(-1)[1]")
    at = float(b.ask("document.getElementById('gap').getAttribute('aria-label')").rsplit(" ", 1)[1])
    check("against passes", abs(at - last) < 0.05 * last, (at, last))
    b.ask("document.querySelector('input[name=axis][value=\"0\"]').click()")

    # sorted, filtered
    b.ask("[...document.querySelectorAll('th button')].find(x => x.textContent === '× median').click()")
    b.wait("document.querySelector('#rows tr').dataset.worker === %s" % json.dumps(slow[0]["name"]))
    b.ask("(f => { f.value = 'purpose'; f.oninput(); })(document.getElementById('filter'))")
    b.wait("document.querySelectorAll('#rows tr').length === 1")
    b.ask("(f => { f.value = ''; f.oninput(); })(document.getElementById('filter'))")
    b.ask("document.querySelector('th button').click()")
    check("sorted and filtered", True)
    shots(b, folder, "page")
    check("no errors on the page", not b.errors, b.errors)

    os.kill(pid, signal.SIGKILL)
    b.wait("document.body.classList.contains('gone')")
    text = b.ask("document.body.innerText")
    check("the coordinator is gone, and the page says so", "▲ coordinator gone" in text and "it has not answered since" in text, text[:300])
    check("in its title too", b.ask("document.title").startswith("▲ coordinator gone"))
    check("what was last seen is still there", b.ask("document.querySelectorAll('#rows tr').length") == len(after["workers"]))
    b.screenshot(os.path.join(folder, "gone-desktop.png"))
    if not again:
        return

    instance = b.ask("skald.state.instance")
    next_one = subprocess.Popen(again + ["--http", url.rstrip("/").rsplit(":", 1)[1]], stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL)
    try:
        b.wait("!document.body.classList.contains('gone') && skald.state.status.state === 'training'"
               " && skald.state.samples.length > 3 && skald.state.instance !== '%s'" % instance)
        latest = b.ask("skald.state.samples.every((s, k, all) => s[0] <= skald.state.status.seconds && (!k || s[0] > all[k - 1][0]))")
        check("another run at the same address is shown from its beginning", latest, b.ask("skald.state.samples"))
    finally:
        next_one.send_signal(signal.SIGINT)
        next_one.wait()


def metrics(b):
    return {m["name"]: m["value"] for m in b.call("Performance.getMetrics")["metrics"]}


def cost(b):
    """Milliseconds of the processor that an update takes the page's thread: scripts, styles and layout."""
    parts = ("ScriptDuration", "LayoutDuration", "RecalcStyleDuration")
    before, updates = metrics(b), b.ask("skald.measured.updates")
    b.wait("skald.measured.updates >= %d" % (updates + 20))
    after, updates = metrics(b), b.ask("skald.measured.updates") - updates
    return 1000 * sum(after[p] - before[p] for p in parts) / updates


def many(b, url, folder):
    b.wait("skald.state.workers.length === 256 && skald.measured.updates > 5")
    few = cost(b)
    b.ask("document.getElementById('all').click()")  # the whole table
    b.wait("document.querySelectorAll('#rows tr').length === 256")
    whole, after = cost(b), metrics(b)
    drawn = sorted(b.ask("skald.measured.draw_ms"))
    print("256 workers: an update takes %.1f ms of the processor (a row for each: %.1f ms); drawing %.1f ms by the clock, "
          "median of %d" % (few, whole, drawn[len(drawn) // 2], len(drawn)))
    # the processor's time, which a busy machine does not stretch much. A frame in 60 has 17 ms
    check("256 workers: no jank", few < 50 and whole < 100, (few, whole))
    check("256 workers: nothing piles up", after["Nodes"] < 20000, after["Nodes"])
    check("256 workers: their lanes", painted(b, "lanes") > 0.02, painted(b, "lanes"))
    b.ask("document.getElementById('all').click()")
    shots(b, folder, "many")
    check("256 workers: no errors", not b.errors, b.errors)


def end(b, url, folder):
    b.wait("skald.state.final", 300)
    b.wait("document.getElementById('state').textContent === '■ ended'")
    text = b.ask("document.getElementById('alarm').textContent")
    check("the end is told", "The run has ended: target gap reached." in text, text)
    check("the last gap is the target", figures(b)["certified gap"][0] <= 1e-6, figures(b))
    b.wait("document.getElementById('alarm').textContent.includes('has left since')")
    check("it is no alarm that the coordinator has left then", not b.ask("document.body.classList.contains('gone')"))
    b.screenshot(os.path.join(folder, "ended-desktop.png"))


def main():
    what, url = sys.argv[1:3]
    with Browser() as b:
        b.call("Performance.enable", timeDomain="threadTicks")
        b.open(url)
        b.wait("window.skald && skald.measured.updates > 0")
        try:
            if what == "run":
                run(b, url, int(sys.argv[3]), sys.argv[4], sys.argv[5:])
            elif what == "many":
                many(b, url, sys.argv[3])
            else:
                end(b, url, sys.argv[3])
        except TimeoutError as error:
            check("in time", False, "%s; %s; errors: %s" % (error, b.ask("document.body.innerText")[:800], b.errors))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
