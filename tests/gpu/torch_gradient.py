"""PyTorch's logistic gradient of a batch, as the kernels' benchmark times theirs; prints JSON, or why not.

    torch_gradient.py KERNELS.json TABLE.md     KERNELS: what bench_kernels wrote, to stand beside; TABLE is written
"""
import json
import statistics
import sys

batch, shard = 40000, 400000
try:
    import torch
except ImportError:
    print(json.dumps({"skipped": "no PyTorch"}))
    sys.exit(77)
if not torch.cuda.is_available():
    print(json.dumps({"skipped": "PyTorch sees no card"}))
    sys.exit(77)


def gradient(x, y, w):
    z = x @ w
    return (-y * torch.sigmoid(-y * z)) @ x


results = []
for dim in (2000, 784):
    x = torch.rand(shard, dim, device="cuda") - 0.5
    y = torch.randint(0, 2, (shard,), device="cuda").float() * 2 - 1
    w = torch.rand(dim, device="cuda") * 1e-3
    lists = [torch.randperm(shard, device="cuda")[:batch] for _ in range(8)]
    for rows in ("neighbours", "random"):

        def run(turn):
            if rows == "random":
                at = lists[turn % 8]
                return gradient(x[at], y[at], w)
            first = turn % (shard // batch) * batch
            return gradient(x[first : first + batch], y[first : first + batch], w)

        for k in range(5):
            run(k)
        seconds = []
        for _ in range(7):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            for k in range(20):
                run(k)
            end.record()
            end.synchronize()
            seconds.append(begin.elapsed_time(end) * 1e-3 / 20)
        median = statistics.median(seconds)
        results.append(
            {"case": f"{batch} x {dim} f32", "kernel": f"PyTorch {torch.__version__}", "rows": rows,
             "us": median * 1e6, "GBps": batch * dim * 4 / median * 1e-9}
        )
    del x
ours = {}
try:
    with open(sys.argv[1]) as f:
        ours = {(r["case"], r["rows"]): r["us"] for r in json.load(f)["results"] if r["note"] == "chosen"}
except (OSError, ValueError, KeyError) as why:
    print("no kernels to stand beside:", why)
with open(sys.argv[2], "w") as f:
    f.write("| gradient of logistic loss | rows | PyTorch, us | kernel, us | times |\n| --- | --- | ---: | ---: | ---: |\n")
    for r in results:
        us = ours.get((r["case"], r["rows"]))
        beside = f"{us:.1f} | {r['us'] / us:.2f}" if us else " | "
        f.write(f"| {r['case']} | {r['rows']} | {r['us']:.1f} | {beside} |\n")
print(json.dumps({"results": results}))
