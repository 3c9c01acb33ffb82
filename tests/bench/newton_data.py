"""mnist.h5 (generated) as nine against the rest, pixels from 0 to 1, sorted by label; and steep-12.svm: 12,000 rows of unit
norm whose column k is 1/k as large as the first."""
import h5py
import numpy as np
import scipy.sparse as sp

with h5py.File("mnist.h5") as f:
    X = sp.csr_matrix((f["data"][:], f["indices"][:], f["indptr"][:])).toarray() / np.float32(255)
    y = np.where(f["y"][:] == 9, 1.0, -1.0)
order = np.argsort(y, kind="stable")
with h5py.File("mnist-20.h5", "w") as f:
    f["x"], f["y"] = X[order].astype(np.float32), y[order]

r = np.random.default_rng(5)
X = r.standard_normal((12000, 400)) / np.arange(1, 401)
X /= np.linalg.norm(X, axis=1, keepdims=True)
z = X @ (r.standard_normal(400) * np.arange(1, 401) ** 0.5)
y = np.where(r.random(12000) < 1 / (1 + np.exp(-4 * z / z.std())), 1, -1)
with open("steep-12.svm", "w") as f:
    for i in np.argsort(y, kind="stable"):
        f.write("%+d " % y[i] + " ".join("%d:%.7g" % (j + 1, v) for j, v in enumerate(X[i])) + "\n")
