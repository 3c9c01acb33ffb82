"""The optimum of a small problem in f64, however its columns are scaled: for tests/bench/real.

The objective is tests/grid/reference.py's. Rows wider than there are rows are turned into the space that they span, the
columns centred (with an intercept) and scaled, which changes the coordinates and not the problem. Then Newton's method,
whose systems are solved with the triangular factor of the rows' QR decomposition (of their Gram matrix where that is
too long) and one step of refinement. With l1 each system is a quadratic with |.|_1, solved to the end by an active set.

Three bounds of F - F*, the least counts: |gradient|^2 / (2 l2); half the Newton decrement, where that step moves no
margin by more than a tenth (the second derivatives of logistic and softmax loss change by less than a factor
e^0.1 a way then, and of squared loss not at all); with l1 the duality gap of the scaled residuals.
"""

import sys
from pathlib import Path

import numpy as np
import scipy.linalg
import scipy.sparse

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "grid"))
import reference  # noqa: E402


def problem(x, y, loss, l2, l1, intercept):
    if scipy.sparse.issparse(x):
        rows = reference.Sparse(x.data.astype(float), x.indices.astype(np.int64), x.indptr.astype(np.int64), x.shape[1])
    else:
        rows = reference.Dense(x.astype(np.float64))
    kind = reference.Softmax if loss == "softmax" else reference.Problem
    return kind(rows, y, loss, l2, l1, intercept)


class Coordinates:
    """z = x.w + b as c.v + b, with the columns of c of about equal size; and the way back."""

    def __init__(self, p):
        x = p.rows.x
        self.q = None
        if p.d > p.n and p.l1 == 0:
            self.q, r = np.linalg.qr(x.T)
            x = r.T
        self.mean = x.mean(axis=0) if p.intercept else np.zeros(x.shape[1])
        x = x - self.mean
        self.scale = np.sqrt(np.mean(x**2, axis=0))
        self.scale[self.scale == 0] = 1.0
        self.c = x / self.scale
        if p.intercept:
            self.c = np.column_stack([self.c, np.ones(p.n)])
        free = [False] * p.intercept
        self.l2 = np.append(p.l2 / self.scale**2, free)  # a weight a coordinate
        self.l1 = np.append(p.l1 / self.scale, free)

    def back(self, v, intercept):
        w = v[: len(self.scale)] / self.scale
        b = [v[-1] - self.mean @ w] if intercept else []
        if self.q is not None:
            w = self.q @ w
        return np.append(w, b)


class Binary:
    """Of all losses with one margin a row. careful: no Gram matrix, however long it takes."""

    careful = False

    def __init__(self, p, at, delta=1.0):
        self.p, self.at, self.delta, self.size = p, at, delta, at.c.shape[1]
        self.l2 = at.l2

    def margins(self, v):
        return self.at.c @ v

    def value(self, z, v):
        return np.mean(reference.phi(self.p.loss, z, self.p.y, self.delta)[0]) + 0.5 * (self.l2 @ v**2)

    def slopes(self, z, v):
        slope, curve = reference.phi(self.p.loss, z, self.p.y, self.delta)[1:]
        return self.at.c.T @ slope / self.p.n + self.l2 * v, curve

    def roots(self, curve):
        yield self.at.c * np.sqrt(curve / self.p.n)[:, None]

    def bend(self, curve, step):
        return self.at.c.T @ (curve * (self.at.c @ step)) / self.p.n + self.l2 * step

    def back(self, v):
        return self.at.back(v, self.p.intercept)


class Classes:
    """Softmax. At the optimum the classes' vectors sum to 0: C - 1 of them, in a basis of those that do."""

    careful = False

    def __init__(self, p, at):
        self.p, self.at, self.k = p, at, at.c.shape[1]
        self.basis = np.linalg.qr(np.column_stack([np.ones(p.classes), np.eye(p.classes)[:, 1:]]))[0][:, 1:]
        self.size = (p.classes - 1) * self.k
        self.l2 = np.tile(at.l2, p.classes - 1)

    def margins(self, v):
        return self.at.c @ v.reshape(-1, self.k).T @ self.basis.T

    def value(self, z, v):
        return np.mean(self.p.phi(z)[0]) + 0.5 * (self.l2 @ v**2)

    def slopes(self, z, v):
        _, slope, share = self.p.phi(z)
        return ((slope @ self.basis).T @ self.at.c / self.p.n).ravel() + self.l2 * v, share

    def roots(self, share):
        rows = max(1, 4_000_000 // (self.p.classes * self.size))
        for first in range(0, self.p.n, rows):
            r = np.sqrt(share[first : first + rows])
            m = r[:, :, None] * (self.basis - ((r**2) @ self.basis)[:, None, :])
            part = np.einsum("ick,ij->ickj", m, self.at.c[first : first + rows] / np.sqrt(self.p.n))
            yield part.reshape(-1, self.size)

    def bend(self, share, step):
        z = self.margins(step)
        bent = share * (z - (share * z).sum(axis=1, keepdims=True))
        return ((bent @ self.basis).T @ self.at.c / self.p.n).ravel() + self.l2 * step

    def back(self, v):
        each = self.basis @ v.reshape(-1, self.k)
        return np.concatenate([self.at.back(row, self.p.intercept) for row in each])


def factor(m, curve):
    """R with R'R = the Hessian."""
    tail = np.sqrt(m.l2)
    work = m.p.n * (m.p.classes if isinstance(m, Classes) else 1) * m.size**2
    if m.careful or work < 1e9:
        r = np.diag(tail)
        for part in m.roots(curve):
            r = np.linalg.qr(np.vstack([r, part]), mode="r")
    else:
        gram = np.diag(tail**2)
        for part in m.roots(curve):
            gram += part.T @ part
        try:
            r = scipy.linalg.cholesky(gram)
        except scipy.linalg.LinAlgError:
            gram[np.diag_indices_from(gram)] += 1e-14 * np.trace(gram) / len(gram)
            r = scipy.linalg.cholesky(gram)
    # a coordinate that nothing bends (an intercept whose rows are all far away): no step there
    bent = np.abs(np.diag(r)) > 0
    r[~bent, ~bent] = np.inf
    return r


def system(m, curve, g):
    """H step = -g, refined."""
    r = factor(m, curve)

    def apply(v):
        return scipy.linalg.solve_triangular(r, scipy.linalg.solve_triangular(r, v, trans="T", check_finite=False),
                                             check_finite=False)  # fmt: skip

    step = -apply(g)
    for _ in range(2):
        step -= apply(g + m.bend(curve, step))
    return step


def newton(m, v, rounds=500):
    """(v, half the last decrement, the farthest that the last step would move a margin)"""
    z = m.margins(v)
    f = m.value(z, v)
    best = (np.inf, v, np.inf)
    for _ in range(rounds):
        g, curve = m.slopes(z, v)
        step = system(m, curve, g)
        dz = m.margins(step)
        half = -0.5 * (g @ step)
        best = min(best, (half, v, np.abs(dz).max()), key=lambda b: b[0])
        if half <= 1e-15 * f:
            break
        a = 1.0
        while a > 1e-10:
            new = m.value(z + a * dz, v + a * step)
            if new <= f - 1e-4 * a * 2 * half or (a == 1.0 and half < 1e-8 * f and new <= f * (1 + 1e-15)):
                break
            a /= 2
        if a < 1e-7 and m.p.loss == "huber":  # few rows are squared: the parabolas above all rows, then
            step, a = system(m, np.minimum(1, m.delta / np.maximum(np.abs(z - m.p.y), 1e-300)), g), 1.0
        elif a <= 1e-10:
            break
        v = v + a * step
        z = m.margins(v)
        f, last = m.value(z, v), f
        if half < 1e-12 * f and f >= last:  # rounding
            break
    return best[1], best[0], best[2]


def huber(m):
    """From a delta so large that all rows are squared down to 1: each start is near its end."""
    p = m.p
    squared = Binary(reference.Problem(p.rows, p.y, "squared", p.l2, 0, p.intercept), m.at)
    v = newton(squared, np.zeros(m.size))[0]
    m.delta = np.abs(m.margins(v) - p.y).max()
    while m.delta > 1:
        m.delta = max(m.delta / 2, 1.0)
        v = newton(m, v)[0]
    m.delta = 1.0
    return newton(m, v)


def quadratic(h, c, weight, v, rounds):
    """Minimises v'Hv/2 - c'v + sum weight_j |v_j| by an active set, from the v given: (v, did it end)."""
    n = len(c)
    v = v.copy()
    penal = weight > 0
    sign = np.where(penal, np.sign(v), 0.0)
    active = (v != 0) | ~penal
    for _ in range(rounds):
        a = np.flatnonzero(active)
        target = c[a] - (weight * sign)[a]
        try:
            root = scipy.linalg.cho_factor(h[np.ix_(a, a)])
            new = scipy.linalg.cho_solve(root, target)
            new += scipy.linalg.cho_solve(root, target - h[np.ix_(a, a)] @ new)
        except scipy.linalg.LinAlgError:
            new = np.linalg.lstsq(h[np.ix_(a, a)], target, rcond=None)[0]
        old = v[a]
        crossing = penal[a] & (new * sign[a] < 0)
        if crossing.any():
            way = np.full(len(a), np.inf)
            way[crossing] = old[crossing] / (old[crossing] - new[crossing])
            j = np.argmin(way)
            v[a] = old + max(way[j], 0.0) * (new - old)
            v[a[j]], sign[a[j]], active[a[j]] = 0.0, 0.0, False
            continue
        v[a] = new
        g = h @ v - c
        over = np.where(active, 0.0, np.abs(g) - weight)
        j = np.argmax(over)
        if over[j] <= 1e-11 * weight[j] + 1e-14:
            return v, True
        sign[j], active[j] = -np.sign(g[j]), True
    return v, False


def with_l1(m, rounds=100):
    """Newton's method whose every system has the |.|_1; (v, did the last end at the optimum)"""
    weight = m.at.l1
    v = np.zeros(m.size)
    z = m.margins(v)
    f = m.value(z, v)
    ended = False
    for _ in range(rounds):
        g, curve = m.slopes(z, v)
        h = np.diag(m.l2)
        for part in m.roots(curve):
            h += part.T @ part
        new, ended = quadratic(h, h @ v - g, weight, v, 20 * min(m.size, 4 * m.p.n) + 100)
        step = new - v
        fall = -(g @ step) + weight @ (np.abs(v) - np.abs(new))
        if fall <= 1e-20 * f:
            break
        a, dz = 1.0, m.margins(step)
        while a > 1e-10:
            trial = m.value(z + a * dz, v + a * step) + weight @ np.abs(v + a * step)
            if trial <= f - 1e-4 * a * fall or (a == 1.0 and fall < 1e-9 * f):
                break
            a /= 2
        else:
            break
        v = new if a == 1.0 else v + a * step
        z = m.margins(v)
        f, last = m.value(z, v) + weight @ np.abs(v), f
        if f >= last and fall < 1e-15 * f:
            break
    return v, ended


def lasso_gap(p, t):
    """F(t) - D(theta) with l2 = 0, the residuals scaled until no column's product with them is above l1."""
    f = p.objective(t)
    z = p.margins(t)
    slope = reference.phi(p.loss, z, p.y)[1]
    if p.intercept:
        slope = slope - slope.mean()  # feasible; with logistic loss the shift is rounding
    most = np.abs(p.rows.tdot(slope)).max() / p.n
    theta = slope * min(1.0, p.l1 / most) if most > 0 else slope
    if p.loss == "squared":
        dual = -np.mean(0.5 * theta**2 + theta * p.y)
    elif p.loss == "logistic":
        s = np.clip(-theta * p.y, 0, 1)
        dual = -np.mean(np.where(s > 0, s * np.log(np.maximum(s, 1e-300)), 0) + np.where(
            s < 1, (1 - s) * np.log1p(-np.minimum(s, 1 - 1e-16)), 0))  # fmt: skip
    else:
        return np.inf
    return max(f - dual, 0.0)


def solve(x, y, loss, l2, l1, intercept):
    """(F*, bound of how far it may be from the optimum, the point)"""
    p = problem(x, y, loss, l2, l1, intercept)
    if isinstance(p.rows, reference.Sparse):
        t, bound = reference.solve(p)
        return p.objective(t), bound, t
    at = Coordinates(p)
    if l1 > 0:
        m = Binary(p, at)
        v, _ = with_l1(m)
        t = m.back(v)
        bound = reference.certify(p, t) if l2 > 0 else np.inf
        if bound > 1e-9 * p.objective(t):
            bound = min(bound, lasso_gap(p, t))
        return p.objective(t), bound, t
    for careful in (False, True):
        m = Classes(p, at) if loss == "softmax" else Binary(p, at)
        m.careful = careful
        v, half, far = huber(m) if loss == "huber" else newton(m, np.zeros(m.size))
        t = m.back(v)
        f, bound = p.objective(t), reference.certify(p, t)
        if loss in ("squared", "huber") or far <= 0.1:
            bound = min(bound, max(1.3 * half, abs(f - m.value(m.margins(v), v))))
        if bound <= 1e-10 * f:
            break
    return f, bound, t
