"""Real data for tests/bench/real: scikit-learn's own sets, those of R packages of Debian, Debian's descriptions.

Of R only the packages' data files are read (`launch/install bench` unpacks them in out/bench/r), with rdata; R itself is
not needed. Rows with a missing value are left out, a factor is its numbers where its levels are numbers and else a column
a level. What was read is kept as .npz.
"""

import bz2
import lzma
import pathlib
import subprocess
import zlib

import numpy as np
import scipy.sparse

HERE = pathlib.Path(__file__).resolve().parent


class Missing(Exception):
    """A set that this machine does not have, and why."""


# name: (kind, package, archive or "" for a lazy-load database, object, column of the label, columns to leave out)
R_SETS = {
    "spam": ("binary", "kernlab", "spam.rda", "spam", "type", ()),
    "musk": ("binary", "kernlab", "musk.rda", "musk", "Class", ()),
    "ticdata": ("binary", "kernlab", "ticdata.rda", "ticdata", "CARAVAN", ()),
    "promoter": ("binary", "kernlab", "promotergene.rda", "promotergene", "Class", ()),
    "sonar": ("binary", "mlbench", "Sonar.rda", "Sonar", "Class", ()),
    "ionosphere": ("binary", "mlbench", "Ionosphere.rda", "Ionosphere", "Class", ()),
    "pima": ("binary", "mlbench", "PimaIndiansDiabetes.rda", "PimaIndiansDiabetes", "diabetes", ()),
    "german": ("binary", "caret", "GermanCredit.RData", "GermanCredit", "Class", ()),
    "cells": ("binary", "modeldata", "", "cells", "class", ("case",)),
    "churn": ("binary", "modeldata", "", "wa_churn", "churn", ()),
    "lending": ("binary", "modeldata", "", "lending_club", "Class", ()),
    "alzheimer": ("binary", "modeldata", "", "ad_data", "Class", ()),
    "speech": ("binary", "modeldata", "", "pd_speech", "class", ()),
    "grants": ("binary", "modeldata", "", "grants_other", "class", ()),
    "letter": ("multi", "mlbench", "LetterRecognition.rda", "LetterRecognition", "lettr", ()),
    "satellite": ("multi", "mlbench", "Satellite.rda", "Satellite", "classes", ()),
    "shuttle": ("multi", "mlbench", "Shuttle.rda", "Shuttle", "Class", ()),
    "vehicle": ("multi", "mlbench", "Vehicle.rda", "Vehicle", "Class", ()),
    "glass": ("multi", "mlbench", "Glass.rda", "Glass", "Type", ()),
    "dna": ("multi", "mlbench", "DNA.rda", "DNA", "Class", ()),
    "vowel": ("multi", "mlbench", "Vowel.rda", "Vowel", "Class", ()),
    "zoo": ("multi", "mlbench", "Zoo.rda", "Zoo", "type", ()),
    "boston": ("real", "mlbench", "BostonHousing.rda", "BostonHousing", "medv", ()),
    "ozone": ("real", "mlbench", "Ozone.rda", "Ozone", "V4", ()),
    "cars": ("real", "caret", "cars.RData", "cars", "Price", ()),
    "concrete": ("real", "modeldata", "", "concrete", "compressive_strength", ()),
    "chicago": ("real", "modeldata", "", "Chicago", "ridership", ("date",)),
    "ames": ("real", "modeldata", "", "ames", "Sale_Price", ()),
    "gasoline": ("real", "pls", "", "gasoline", "octane", ()),
    "yarn": ("real", "pls", "", "yarn", "density", ("train",)),
}
# Features and labels in two objects (or two entries of one), transposed or not.
R_PAIRS = {
    "golub": ("binary", "multtest", "golub.RData", "golub", "golub.cl"),
    "mdrr": ("binary", "caret", "mdrr.RData", "mdrrDescr", "mdrrClass"),
    "bloodbrain": ("real", "caret", "BloodBrain.RData", "bbbDescr", "logBBB"),
    "tecator": ("real", "caret", "tecator.RData", "absorp", "endpoints"),
    "tissue": ("multi", "dslabs", "", "tissue_gene_expression", ""),
}
SKLEARN = {
    "cancer": ("binary", "load_breast_cancer"),
    "digits": ("multi", "load_digits"),
    "wine": ("multi", "load_wine"),
    "iris": ("multi", "load_iris"),
    "diabetes": ("real", "load_diabetes"),
    "linnerud": ("real", "load_linnerud"),
}
# One class of many against the rest.
RARE = {"letter-A": "letter", "shuttle-rare": "shuttle"}

KIND = {name: spec[0] for table in (SKLEARN, R_SETS, R_PAIRS) for name, spec in table.items()}
KIND |= {name: "binary" for name in RARE} | {"descriptions": "binary"}


def objects(folder, package, archive):
    """Name and content of what a package's data file has; data frames as dictionaries of columns."""
    try:
        import rdata
    except ImportError:
        raise Missing("no rdata in this Python: launch/install bench") from None
    at = list(folder.glob(f"usr/lib/R/*/{package}/data"))
    if not at:
        raise Missing(f"r package {package} is not unpacked in {folder}: launch/install bench")
    classes = {**rdata.conversion.DEFAULT_CLASS_MAP, "data.frame": lambda columns, _: columns}
    classes |= {"tbl_df": classes["data.frame"], "tbl": classes["data.frame"]}

    def convert(parsed):
        return rdata.conversion.convert(parsed, classes)

    if archive:
        return convert(rdata.parser.parse_file(at[0] / archive))
    index = rdata.read_rds(at[0] / "Rdata.rdx")["variables"]
    raw = (at[0] / "Rdata.rdb").read_bytes()

    class Lazy:
        def __getitem__(self, name):
            start, size = (int(v) for v in index[name])
            part = raw[start + 4 : start + size]  # behind the length of what is packed
            if part[:1] == b"Z":
                lzma2 = [{"id": lzma.FILTER_LZMA2}]
                part = lzma.decompress(part[1:], format=lzma.FORMAT_RAW, filters=lzma2)
            else:
                part = bz2.decompress(part[1:]) if part[:1] == b"2" else zlib.decompress(part)
            return convert(rdata.parser.parse_data(part))

    return Lazy()


def column(values):
    """(n x k numbers, NaN where missing) of a column of a data frame, a matrix in it too."""
    values = getattr(values, "values", values)
    if hasattr(values, "categories"):
        codes, levels = np.asarray(values.codes), np.asarray(values.categories, str)
        missing = (codes < 0)[:, None]
        try:
            return np.where(missing, np.nan, levels.astype(float)[codes][:, None])
        except ValueError:
            seen = [k for k in range(len(levels)) if np.any(codes == k)]
            return np.where(missing, np.nan, codes[:, None] == np.array(seen))
    if isinstance(values, np.ma.MaskedArray):
        values = values.astype(float).filled(np.nan)
    out = np.asarray(values)
    if out.dtype.kind not in "fiub":
        out = np.array([np.nan if v is None or v != v else float(v) for v in out.ravel()]).reshape(out.shape)
    return out.astype(float).reshape(len(out), -1)


def features(frame):
    if not isinstance(frame, dict):
        return column(frame)
    return np.hstack([column(v) for v in frame.values()])


def labels(values, kind):
    values = getattr(values, "values", values)
    if kind == "real":
        return np.asarray(column(values))[:, 0]
    if hasattr(values, "codes"):
        codes = np.asarray(values.codes).astype(float)
        return np.where(codes < 0, np.nan, codes)
    return np.unique(np.asarray(values), return_inverse=True)[1].astype(float)


def read(name, folder):
    kind = KIND[name]
    if name in SKLEARN:
        import sklearn.datasets

        x, y = getattr(sklearn.datasets, SKLEARN[name][1])(return_X_y=True)
        return x, y[:, 0] if y.ndim > 1 else y
    if name in R_PAIRS:
        _, package, archive, rows, target = R_PAIRS[name]
        found = objects(folder / "r", package, archive)
        x, y = (found[rows], found[target]) if target else (found[rows]["x"], found[rows]["y"])
        x = features(x)
        if name == "golub":
            x = x.T
        if name == "tecator":
            y = np.asarray(y)[:, 1]
        return x, labels(y, kind)
    _, package, archive, rows, target, leave = R_SETS[name]
    frame = {str(k): v for k, v in objects(folder / "r", package, archive)[rows].items()}
    y = labels(frame.pop(target), kind)
    for other in leave:
        frame.pop(other, None)
    return features(frame), y


def descriptions(folder):
    text = folder / "data" / "descriptions.svm"
    if not text.exists():
        text.parent.mkdir(parents=True, exist_ok=True)
        script = HERE.parent / "tools" / "debian_descriptions.py"
        dump = subprocess.run(["apt-cache", "dumpavail"], check=True, stdout=subprocess.PIPE)
        part = text.with_suffix(".part")
        command = ["/usr/bin/python3", script, part, text.with_suffix(".heldout")]
        subprocess.run(command, check=True, input=dump.stdout)
        part.rename(text)
    from sklearn.datasets import load_svmlight_file

    return load_svmlight_file(str(text), dtype=np.float32)


def load(name, folder):
    """(rows, labels): f64 as the set has them; a CSR matrix for descriptions."""
    if name == "descriptions":
        x, y = descriptions(folder)
        return scipy.sparse.csr_matrix(x), y
    if name in RARE:
        x, y = load(RARE[name], folder)
        values, counts = np.unique(y, return_counts=True)
        kept = counts >= 30
        rare = values[kept][np.argmin(counts[kept])] if name == "shuttle-rare" else values[0]
        return x, (y == rare).astype(float)
    kept = folder / "real" / f"{name}.npz"
    if not kept.exists():
        x, y = read(name, folder)
        x, y = np.asarray(x, float), np.asarray(y, float)
        whole = np.isfinite(x).all(axis=1) & np.isfinite(y)
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept, x=x[whole], y=y[whole])
    with np.load(kept) as f:
        return f["x"], f["y"]


def standardised(x):
    deviation = x.std(axis=0)
    return (x - x.mean(axis=0)) / np.where(deviation > 1e-12 * np.abs(x).max(axis=0, initial=1e-300), deviation, 1)
