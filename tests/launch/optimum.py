"""Is this the optimum? F at a model in liblinear's format against the optimum that tests/grid/reference.py finds.

    optimum.py DATA.svm L2 MODEL [TOLERANCE]      logistic loss; exits 1 if the relative gap exceeds TOLERANCE (1e-7)
"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "grid"))
import reference

data, l2, model = sys.argv[1], float(sys.argv[2]), sys.argv[3]
tolerance = float(sys.argv[4]) if len(sys.argv) > 4 else 1e-7
rows, y = reference.read_svm(data)
problem = reference.Problem(rows, y, "logistic", l2)
best, bound = reference.solve(problem)
least = problem.objective(best)
gap = problem.objective(reference.read_liblinear(model, problem)) / least - 1
print(f"F* = {least:.12g} (certified to {bound / least:.1g}), relative gap of {model}: {gap:.2g}")
sys.exit(0 if gap <= tolerance else 1)
