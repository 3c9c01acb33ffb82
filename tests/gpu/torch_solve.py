"""PyTorch's L-BFGS on the rows that `solve generate` wrote, until the objective is as near to its optimum as the solve
beside it came; prints one line of JSON, or why not.

    torch_solve.py FOLDER GAP SECONDS SOLVED.json     SOLVED: of `solve` on the same rows; it has the lower bound
"""
import json
import sys
import time

folder, gap, most, solved = sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
try:
    import torch
except ImportError:
    print(json.dumps({"skipped": "no PyTorch"}))
    sys.exit(77)
if not torch.cuda.is_available():
    print(json.dumps({"skipped": "PyTorch sees no card"}))
    sys.exit(77)
with open(folder + "/shape") as f:
    rows, dim = map(int, f.read().split())
with open(solved) as f:
    bound = json.load(f)["bound"]
x = torch.from_file(folder + "/x.f32", size=rows * dim, dtype=torch.float32).view(rows, dim).cuda()
y = torch.from_file(folder + "/y.f32", size=rows, dtype=torch.float32).cuda()
l2 = 1 / rows


def objective(w):
    z = y * (x @ w.float()).double()
    return torch.nn.functional.softplus(-z).mean() + l2 / 2 * (w @ w)


torch.cuda.synchronize()
begin = time.perf_counter()
w = torch.zeros(dim, device="cuda", dtype=torch.float64, requires_grad=True)
solver = torch.optim.LBFGS([w], max_iter=10, history_size=20, line_search_fn="strong_wolfe",
                           tolerance_grad=0, tolerance_change=0)
evaluations = 0


def closure():
    global evaluations
    evaluations += 1
    solver.zero_grad()
    value = objective(w)
    value.backward()
    return value


value, reached = float("inf"), False
while not reached and time.perf_counter() - begin < most:
    solver.step(closure)
    with torch.no_grad():
        value = objective(w).item()
    reached = value - bound <= gap * bound
print(json.dumps({"device": torch.cuda.get_device_name(0), "engine": f"PyTorch {torch.__version__}, L-BFGS",
                  "rows": rows, "dim": dim, "seconds": time.perf_counter() - begin, "passes": evaluations,
                  "objective": value, "relative_gap": (value - bound) / bound, "reached": reached}))
