"""A reference solver that shares nothing with Skald: numpy in f64 over the rows rounded to f32.

    F(w, b) = (1/n) sum_i s_i phi(x_i.w + b, y_i) + (l2/2) |w|^2 + l1 |w|_1        sum s_i = n, b not regularised

Softmax (class Softmax) has a w and a b for each class, one class behind the other.

Least squares are solved by the normal equations, the rest by Newton's method run until it stands still (with l1: on
the support that FISTA finds, until the optimality conditions hold outside it). No answer is taken on trust: `certify`
bounds its distance from the optimum, and `liblinear` solves the same problem with liblinear's own program where it can.
"""

import os
import subprocess

import numpy as np


class Sparse:
    """CSR rows with the two products that are needed."""

    def __init__(self, val, idx, ptr, dim):
        self.val, self.idx, self.ptr, self.shape = val, idx, ptr, (len(ptr) - 1, dim)
        self.filled = np.flatnonzero(np.diff(ptr))  # reduceat gives an empty row its neighbour's sum
        self.row = np.repeat(np.arange(len(ptr) - 1), np.diff(ptr))

    def dot(self, w):
        z = np.zeros(self.shape[0])
        if len(self.filled):
            z[self.filled] = np.add.reduceat(self.val * w[self.idx], self.ptr[self.filled])
        return z

    def tdot(self, c):
        return np.bincount(self.idx, self.val * c[self.row], self.shape[1])

    def largest_row(self, s):
        return np.max(s * np.bincount(self.row, self.val**2, self.shape[0]))

    def scaled(self, scale):
        return Sparse(as_f32(self.val * scale[self.idx]), self.idx, self.ptr, self.shape[1])

    def max_abs(self):
        most = np.zeros(self.shape[1])
        np.maximum.at(most, self.idx, np.abs(self.val))
        return most


class Dense:
    def __init__(self, x):
        self.x, self.shape = x, x.shape

    def dot(self, w):
        return self.x @ w

    def tdot(self, c):
        return c @ self.x

    def scaled(self, scale, shift=0):
        return Dense(as_f32((self.x - shift) * scale))

    def max_abs(self):
        return np.max(np.abs(self.x), axis=0)

    def largest_row(self, s):
        return np.max(s * np.einsum("ij,ij->i", self.x, self.x))


def as_f32(a):
    return a.astype(np.float32).astype(np.float64)


def read_svm(path):
    """LIBSVM text with 1-based indices: (rows, labels). Kept beside the file as .npz, since text is slow to read."""
    kept = path + ".npz"
    if os.path.exists(kept) and os.path.getmtime(kept) >= os.path.getmtime(path):
        with np.load(kept) as f:
            val, idx, ptr, y, dim = f["val"], f["idx"], f["ptr"], f["y"], int(f["dim"])
    else:
        parts, counts, left = [], [], b""
        with open(path, "rb") as f:
            while True:
                text = f.read(1 << 26)
                text, left = left + text, b""
                if not text:
                    break
                end = text.rfind(b"\n") + 1
                text, left = text[:end], text[end:]
                raw = np.frombuffer(text, np.uint8)
                starts = np.concatenate([[0], np.flatnonzero(raw == 10)[:-1] + 1])
                counts.append(np.add.reduceat((raw == 58).astype(np.int64), starts))
                parts.append(np.fromstring(text.replace(b":", b" "), sep=" "))
        count = np.concatenate(counts)
        flat = np.concatenate(parts)
        ptr = np.concatenate([[0], np.cumsum(count)])
        label = 2 * ptr[:-1] + np.arange(len(count))  # where each row's label is
        rest = np.ones(len(flat), bool)
        rest[label] = False
        y, pairs = flat[label], flat[rest]
        idx, val = pairs[0::2].astype(np.int32) - 1, pairs[1::2].astype(np.float32)
        dim = int(idx.max()) + 1
        np.savez(kept, val=val, idx=idx, ptr=ptr, y=y, dim=dim)
    n = len(y)
    if len(val) > 0.1 * n * dim:
        x = np.zeros((n, dim))
        x[np.repeat(np.arange(n), np.diff(ptr)), idx] = val
        return Dense(x), y
    return Sparse(val.astype(np.float64), idx.astype(np.int64), ptr, dim), y


def phi(loss, z, y, delta=1.0):
    """(value, derivative, second derivative) a row."""
    if loss == "squared":
        r = z - y
        return r * r / 2, r, np.ones_like(z)
    if loss == "logistic":
        m = y * z
        e = np.exp(-np.abs(m))
        p = np.where(m >= 0, e, 1.0) / (1 + e)  # 1 / (1 + exp(m))
        return np.maximum(-m, 0) + np.log1p(e), -y * p, p * (1 - p)
    if loss == "squared-hinge":
        m = np.maximum(0, 1 - y * z)
        return m * m / 2, -y * m, (m > 0).astype(float)
    if loss == "huber":
        r = z - y
        a = np.abs(r)
        return np.where(a <= delta, r * r / 2, delta * (a - delta / 2)), np.clip(r, -delta, delta), (a <= delta) * 1.0
    raise ValueError(loss)


class Problem:
    """s: weights of any sum, rescaled here. A point is w, and b behind it with an intercept."""

    def __init__(self, rows, y, loss, l2, l1=0.0, intercept=False, s=None):
        self.rows, self.loss, self.l2, self.l1, self.intercept = rows, loss, l2, l1, intercept
        if loss in ("logistic", "squared-hinge"):
            values = np.unique(y)
            assert len(values) == 2, values
            y = np.where(y == values[1], 1.0, -1.0)
        self.n, self.d = rows.shape
        s = np.ones(self.n) if s is None else np.asarray(s, float)
        self.y, self.s, self.dim = y, s * (self.n / s.sum()), self.d + intercept
        self.regular = np.arange(self.dim) < self.d  # the coordinates that the regulariser sees
        self.curvature = 0.25 if loss == "logistic" else 1.0

    def margins(self, t):
        return self.rows.dot(t[: self.d]) + (t[self.d] if self.intercept else 0)

    def gather(self, c):
        """Sum of c_i (x_i, 1) / n."""
        g = self.rows.tdot(c)
        return (np.append(g, c.sum()) if self.intercept else g) / self.n

    def objective(self, t):
        w = t[self.regular]
        return self.smooth(t)[0] + self.l1 * np.abs(w).sum()

    def smooth(self, t):
        """Value and gradient of all but l1, and the rows' curvatures."""
        w = t * self.regular
        value, slope, curve = self.phi(self.margins(t))
        g = self.gather(self.s * slope) + self.l2 * w
        return np.sum(self.s * value) / self.n + self.l2 / 2 * (w @ w), g, self.s * curve

    def phi(self, z):
        return phi(self.loss, z, self.y)

    def bend(self, curve, v):
        """The data term's Hessian times v; curve: of `smooth`."""
        return self.gather(curve * self.margins(v))


class Softmax(Problem):
    """Labels become class numbers. A point is (w, b) of each class in turn; margins and residuals are n x C."""

    def __init__(self, rows, y, loss, l2, l1=0.0, intercept=False, s=None):
        self.values, which = np.unique(y, return_inverse=True)
        super().__init__(rows, which, loss, l2, l1, intercept, s)
        self.classes, self.columns = len(self.values), self.dim
        self.dim, self.s = self.classes * self.columns, self.s[:, None]
        self.regular = np.tile(self.regular, self.classes)
        self.one = which[:, None] == np.arange(self.classes)
        self.curvature = 0.5

    def margins(self, t):
        return np.stack([super(Softmax, self).margins(v) for v in t.reshape(self.classes, -1)], axis=1)

    def gather(self, c):
        return np.concatenate([super(Softmax, self).gather(r) for r in c.T])

    def phi(self, z):
        top = z.max(axis=1, keepdims=True)
        e = np.exp(z - top)
        total = e.sum(axis=1, keepdims=True)
        p = e / total
        return top + np.log(total) - z[self.one][:, None], p - self.one, p

    def bend(self, curve, v):
        z = self.margins(v)
        p = curve / self.s if np.all(self.s > 0) else np.divide(curve, self.s, where=self.s > 0, out=curve * 0)
        bent = self.gather(curve * (z - (p * z).sum(axis=1, keepdims=True)))
        if self.intercept:  # nothing bends the same constant for all classes: rounding would collect there
            last = slice(self.columns - 1, None, self.columns)
            bent[last] += v[last].mean() / self.classes
        return bent

    def accuracy(self, t):
        return np.mean(self.margins(t).argmax(axis=1) == self.y)

    def best_constants(self, t):
        """The point with the C constants minimised, by Newton; damped while the gradient does not fall."""
        last = np.arange(self.columns - 1, self.dim, self.columns)
        for _ in range(100):
            _, g, curve = self.smooth(t)
            if np.abs(g[last]).max() < 1e-15:
                break
            p = curve / np.where(self.s > 0, self.s, 1)
            hessian = (np.diag(curve.sum(axis=0)) - curve.T @ p) / self.n
            step, a, new = np.linalg.lstsq(hessian, g[last], rcond=None)[0], 1.0, t.copy()
            while a > 1e-9:
                new[last] = t[last] - a * step
                if np.abs(self.smooth(new)[1][last]).max() < np.abs(g[last]).max():
                    break
                a /= 2
            else:
                break
            t = new
        return t


def best_constant(p, t):
    """The point with b minimised, by Newton with halving of a bracket: one dimension, monotone derivative."""
    if not p.intercept:
        return t
    if isinstance(p, Softmax):
        return p.best_constants(t)
    z = p.rows.dot(t[: p.d])
    low, high, b = -1e6, 1e6, t[p.d]
    for _ in range(200):
        _, slope, curve = phi(p.loss, z + b, p.y)
        g, h = p.s @ slope, p.s @ curve
        low, high = (low, b) if g > 0 else (b, high)
        step = b - g / h if h > 0 else (low + high) / 2
        new = step if low < step < high else (low + high) / 2
        if new == b or high - low < 1e-15:
            break
        b = new
    return np.append(t[: p.d], b)


def certify(p, t):
    """Upper bound of F(t) - F*, with b minimised first: w.g + (l2/2)|w|^2 + l1 |w|_1 + |soft(g, l1)|^2 / (2 l2).
    Without l2 the residuals are shrunk until |g| <= l1; their part of the dual is concave, and 0 at 0."""
    t = best_constant(p, t)
    w = t[p.regular]
    loss, g, _ = p.smooth(t)
    r = g[p.regular]  # g + l2 w
    if p.l1 == 0:
        return (r @ r) / (2 * p.l2)  # the same, without the cancellation
    data = r - p.l2 * w
    if p.l2 == 0:
        shrink = min(1.0, p.l1 / np.abs(data).max())
        return max(w @ data + p.l1 * np.abs(w).sum() + (1 - shrink) * (loss - w @ data), 0.0)
    over = np.sign(data) * np.maximum(np.abs(data) - p.l1, 0)
    return max(w @ data + p.l2 / 2 * (w @ w) + p.l1 * np.abs(w).sum() + (over @ over) / (2 * p.l2), 0.0)


def cg(apply, g, tolerance, most):
    """Conjugate gradients for H x = g."""
    x, r = np.zeros_like(g), g.copy()
    q, rr = r.copy(), r @ r
    stop = tolerance**2 * rr
    for _ in range(most):
        h = apply(q)
        a = rr / (q @ h)
        x += a * q
        r -= a * h
        new = r @ r
        if new <= stop:
            break
        q = r + (new / rr) * q
        rr = new
    return x


def newton(p, t, free=None, sign=None, rounds=60):
    """Minimises the smooth part (+ l1 sign.w) over the coordinates `free` (all of them by default)."""
    free = np.arange(p.dim) if free is None else free
    linear = np.zeros(p.dim) if sign is None else p.l1 * sign
    direct = isinstance(p.rows, Dense) and len(free) <= 1000 and not isinstance(p, Softmax)
    f, g, curve = p.smooth(t)
    f += linear @ t
    for _ in range(rounds):
        r = (g + linear)[free]
        norm = np.linalg.norm(r)
        if norm < 1e-15:
            break
        if direct:
            x = p.rows.x if not p.intercept else np.hstack([p.rows.x, np.ones((p.n, 1))])
            x = x[:, free] if len(free) < p.dim else x
            hessian = (x.T * curve) @ x / p.n + np.diag(p.l2 * p.regular[free])
            try:
                step = np.linalg.solve(hessian, r)
            except np.linalg.LinAlgError:  # an intercept that no row bends
                step = np.linalg.lstsq(hessian, r, rcond=None)[0]
        else:

            def apply(v):
                full = np.zeros(p.dim)
                full[free] = v
                return (p.bend(curve, full) + p.l2 * full * p.regular)[free]

            step = cg(apply, r, min(0.1, max(np.sqrt(norm), 1e-8)), 3000)
        slope, a = r @ step, 1.0
        for _ in range(40):
            new = t.copy()
            new[free] -= a * step
            fn, gn, cn = p.smooth(new)
            fn += linear @ new
            # near the end F is all rounding: then a smaller gradient counts
            if fn < f - 1e-4 * a * slope or (fn <= f + 1e-14 * abs(f) and np.linalg.norm((gn + linear)[free]) < norm):
                break
            a /= 2
        else:
            break
        t, f, g, curve = new, fn, gn, cn
    return t


def soft(v, a):
    return np.sign(v) * np.maximum(np.abs(v) - a, 0)


def with_l1(p):
    """FISTA with restarts until the support is right, Newton on the support; right is what the conditions say."""
    curvature = p.curvature
    norm = p.rows.largest_row(p.s.ravel()) + p.intercept * p.s.max()
    # the power method's largest eigenvalue, a little more; never more than the largest row's
    v = np.ones(p.dim)
    for _ in range(30):
        v /= np.linalg.norm(v)
        v, last = p.gather(p.s * p.margins(v)), v
    L = min(1.1 * curvature * (v @ last), curvature * norm) + p.l2
    t = u = np.zeros(p.dim)
    k = 1.0
    for round in range(40):
        for _ in range(250):
            _, g, _ = p.smooth(u)
            new = u - g / L
            new[p.regular] = soft(new[p.regular], p.l1 / L)
            if (u - new) @ (new - t) > 0:  # going the wrong way: forget the momentum
                k, u = 1.0, t
                continue
            kn = (1 + np.sqrt(1 + 4 * k * k)) / 2
            t, u, k = new, new + (k - 1) / kn * (new - t), kn
        sign = np.sign(t) * p.regular
        free = np.flatnonzero((sign != 0) | ~p.regular)
        at = newton(p, t, free, sign)
        _, g, _ = p.smooth(at)
        out = np.setdiff1d(np.arange(p.dim), free)
        if np.all((np.sign(at) == sign) | ~p.regular) and np.all(np.abs(g[out]) <= p.l1 * (1 + 1e-12)):
            return at
    raise RuntimeError("no support satisfies the optimality conditions")


def solve(p, start=None):
    """The minimiser, and the certified bound of how far it is from it."""
    t = np.zeros(p.dim) if start is None else start
    t = with_l1(p) if p.l1 > 0 else newton(p, t)
    return t, certify(p, t)


def undecided(p, t, slack=1e-5):
    """Features so near the edge between zero and not zero that F to 1e-10 says nothing about them."""
    _, g, _ = p.smooth(t)
    w = t[p.regular]
    data = np.abs(g[p.regular] - p.l2 * w)
    return (w == 0) & (data > p.l1 * (1 - slack)) | (w != 0) & (np.abs(w) < slack * np.abs(w).max())


def liblinear(p, path, folder, class_weight=None):
    """The same problem solved by liblinear-train on the file itself, to its own limit; None where it has no solver.
    Its objective is |w|^2/2 (or |w|_1) + C sum_i c_i xi_i, so C = scale of the weights / (l2 n)."""
    if p.intercept or (p.l1 > 0 and p.l2 > 0):
        return None
    smooth = {"logistic": (0, 1), "squared-hinge": (2, 2), "squared": (11, 2)}  # ours is halved for the last two
    lasso = {"logistic": (6, 1), "squared-hinge": (5, 2)}
    solver, half = (lasso if p.l1 > 0 else smooth).get(p.loss, (None, 1))
    if solver is None:
        return None
    c = 1 / ((p.l1 if p.l1 > 0 else p.l2) * p.n * half)
    command = ["liblinear-train", "-q", "-s", str(solver), "-e", "1e-12", "-p", "0"]
    if class_weight:
        c *= p.s[0] / class_weight[p.y[0]]
        for label, weight in class_weight.items():
            command += [f"-w{label:.0f}", repr(weight)]
    model = os.path.join(folder, "liblinear.model")
    subprocess.run(command + ["-c", repr(float(c)), path, model], check=True)
    return read_liblinear(model, p)


def read_liblinear(path, p=None):
    """w (and b) of a model file in liblinear's format, turned so that a positive value is the larger label. Of more than
    two classes: those of each in turn, as the file orders them."""
    with open(path) as f:
        lines = f.read().split("\n")
    at = lines.index("w")
    head = dict(line.split(" ", 1) for line in lines[:at])
    w = np.array([[float(v) for v in line.split()] for line in lines[at + 1 :] if line.strip()])
    if w.shape[1] > 1:
        return w.T.ravel()
    w = w.ravel()
    if "label" in head:
        first, second = (float(v) for v in head["label"].split())
        w = w if first > second else -w
    if p is not None and len(w) < p.dim:  # the file's last columns may be empty
        w = np.append(w, np.zeros(p.dim - len(w)))
    return w
