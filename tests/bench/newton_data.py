"""The problems of tests/bench/newton: generated ones; digits as nine against the rest, pixels from 0 to 1; and rows of unit
norm whose column k is 1/k as large as the first. Each shuffled, and sorted by label."""

import subprocess

import h5py
import numpy as np
import scipy.sparse as sp


def write(path, x, y):
    part = path.with_suffix(".part")
    with h5py.File(part, "w") as f:
        f["y"] = y
        if sp.issparse(x):
            f["data"], f["indices"], f["indptr"], f["shape"] = x.data, x.indices, x.indptr, x.shape
        else:
            f["x"] = x.astype(np.float32)
    part.rename(path)


def read(path):
    with h5py.File(path) as f:
        if "x" in f:
            return f["x"][:], f["y"][:]
        shape = (len(f["y"]), int(f["indices"][:].max()) + 1)
        return sp.csr_matrix((f["data"][:], f["indices"][:], f["indptr"][:]), shape), f["y"][:]


def generated(skald, out, kind, rows):
    path = out / f"{kind}-{rows}.generated.h5"
    if not path.exists():
        command = [skald, "generate", kind, "--rows", rows, "--output", path]
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
    return read(path)


def mnist8m(skald, out):
    x, y = generated(skald, out, "mnist8m", 20000)
    return x.toarray() / np.float32(255), np.where(y == 9, 1.0, -1.0)


def steep(skald, out):
    r = np.random.default_rng(5)
    x = r.standard_normal((12000, 400)) / np.arange(1, 401)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    z = x @ (r.standard_normal(400) * np.arange(1, 401) ** 0.5)
    return x, np.where(r.random(12000) < 1 / (1 + np.exp(-4 * z / z.std())), 1.0, -1.0)


PROBLEMS = {
    "epsilon-10": lambda skald, out: generated(skald, out, "epsilon", 10000),
    "epsilon-40": lambda skald, out: generated(skald, out, "epsilon", 40000),
    "rcv1-20": lambda skald, out: generated(skald, out, "rcv1", 20000),
    "mnist8m-20": mnist8m,
    "steep-12": steep,
}


def make(skald, out):
    for name, problem in PROBLEMS.items():
        if (out / f"{name}-sorted.h5").exists():
            continue
        x, y = problem(skald, out)
        write(out / f"{name}-shuffled.h5", x, y)
        order = np.argsort(y, kind="stable")
        write(out / f"{name}-sorted.h5", x[order], y[order])
