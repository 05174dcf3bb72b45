"""FID, KID, inception score, precision and recall beside torch-fidelity and clean-fid, on the same features.

    pip install --no-deps torch-fidelity clean-fid        (and torch; torchvision is not needed for this)
    python benchmarks/measures.py

First where definitions agree: both numbers, and their difference, at most 1e-4 of the number. Then where they do not: the rows of
docs/measures.md. Then seconds.
"""

from __future__ import annotations

import contextlib
import io
import sys
import time
import warnings
from importlib.machinery import ModuleSpec
from unittest.mock import MagicMock

import numpy as np

for word in ("torchvision", "torchvision.transforms", "torchvision.models", "torchvision.datasets",
             "torchvision.transforms.functional"):  # fmt: skip
    try:
        __import__(word)
    except Exception:
        sys.modules[word] = MagicMock(__spec__=ModuleSpec(word, None), __path__=[])

import torch  # noqa: E402
from cleanfid import fid as clean  # noqa: E402
from cleanfid.resize import build_resizer  # noqa: E402
from torch_fidelity import metric_fid, metric_isc, metric_kid, metric_prc  # noqa: E402
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x as tensorflow  # noqa: E402

from probgen.evaluate.features.pictures import resized  # noqa: E402
from probgen.evaluate.samples import frechet, kernel, prdc  # noqa: E402
from probgen.evaluate.samples.inception_score import inception_score  # noqa: E402

TOLERANCE = 1e-4


def features(seed: int, n: int, dim: int, shift: float = 0.0) -> np.ndarray:
    """Like a net's: correlated, positive, of different sizes."""
    mix = np.random.default_rng(99).normal(size=(dim, dim)) / np.sqrt(dim)
    return np.maximum(np.random.default_rng(seed).normal(size=(n, dim)) @ mix * np.geomspace(0.1, 2, dim) + shift, 0)


def theirs_fid(x: np.ndarray, y: np.ndarray) -> float:
    stats = [metric_fid.fid_features_to_statistics(torch.tensor(z)) for z in (x, y)]
    return metric_fid.fid_statistics_to_metric(*stats, False)[metric_fid.KEY_METRIC_FID]


def clean_fid(x: np.ndarray, y: np.ndarray) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SciPy's `disp`, which it passes, is going
        found = clean.frechet_distance(x.mean(0), np.cov(x, rowvar=False), y.mean(0), np.cov(y, rowvar=False))
    return float(found)


def theirs_kid(x: np.ndarray, y: np.ndarray, subsets: int, size: int) -> tuple[float, float]:
    found = metric_kid.kid_features_to_metric(
        torch.tensor(x), torch.tensor(y), kid_subsets=subsets, kid_subset_size=size, rng_seed=2020, verbose=False
    )
    return found[metric_kid.KEY_METRIC_KID_MEAN], found[metric_kid.KEY_METRIC_KID_STD]


def theirs_is(logits: np.ndarray, splits: int) -> tuple[float, float]:
    found = metric_isc.isc_features_to_metric(torch.tensor(logits), splits)
    return found[metric_isc.KEY_METRIC_ISC_MEAN], found[metric_isc.KEY_METRIC_ISC_STD]


def theirs_precision(x: np.ndarray, y: np.ndarray, k: int) -> tuple[float, float]:
    return metric_prc.calculate_precision_recall_full(torch.tensor(x), torch.tensor(y), k)


def softmax(logits: np.ndarray) -> np.ndarray:
    p = np.exp(logits - logits.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def agreeing() -> list[tuple[str, float, float]]:
    """Names, their numbers, ours."""
    x, y = features(0, 3000, 64), features(1, 2500, 64, 0.1)
    logits = 3 * np.random.default_rng(2).normal(size=(2000, 10))
    ours = inception_score(softmax(logits), splits=10)
    mean, spread = theirs_kid(x, y, 20, 500)
    kid = kernel.kid(x, y, subsets=20, size=500)
    precision, recall = theirs_precision(x, y, 3)
    near = prdc.prdc(x, y, k=3)
    score, score_spread = theirs_is(logits, 10)
    np.random.seed(0)  # noqa: NPY002
    whole = clean.kernel_distance(x[:2500], y, num_subsets=1, max_subset_size=2500)
    byte = np.random.default_rng(3).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    picture = np.clip(resized(byte[None].astype(float), 299, 299), 0, 255)[0]
    return [
        ("FID, torch-fidelity", theirs_fid(x, y), frechet.fid(x, y).value),
        ("FID, clean-fid", clean_fid(x, y), frechet.fid(x, y).value),
        ("KID, mean over subsets, torch-fidelity", mean, kid.value),
        ("KID, sd over subsets, torch-fidelity", spread, kid.error),
        ("KID, all rows, clean-fid", whole, kernel.kid(x[:2500], y).value),
        ("IS, torch-fidelity", score, ours.value),
        ("IS, sd over parts, torch-fidelity (n)", score_spread, ours.more["spread"] * np.sqrt(0.9)),
        ("precision, k=3, torch-fidelity", precision, near["precision"].value),
        ("recall, k=3, torch-fidelity", recall, near["recall"].value),
        ("bicubic pixel sum, clean-fid", float(build_resizer("clean")(byte).sum()), float(picture.sum())),
    ]


def run(what) -> str:
    """What a call says: its number, or its error."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            found = what()
        except Exception as error:
            return f"{type(error).__name__}: {str(error).splitlines()[0][:60] if str(error) else ''}"
    return " +- ".join(f"{v:.6g}" for v in found) if isinstance(found, tuple) else f"{found:.6g}"


def differing() -> list[tuple[str, str, str]]:
    """Cases, what a library says, what probgen says; see docs/measures.md."""
    few, other = features(0, 100, 256), features(1, 100, 256)
    x, y = features(0, 60, 16), features(1, 60, 16)
    logits = 3 * np.random.default_rng(2).normal(size=(8, 10))
    same = np.float32(np.repeat(features(5, 8, 32), 6, axis=0))
    both = lambda measure: (measure.value, measure.error)  # noqa: E731
    ours_fid = lambda x, y: frechet.fid(x, y).value  # noqa: E731
    ours_kid = lambda **settings: both(kernel.kid(x, y, **settings))  # noqa: E731
    rows = [
        ("FID, 100 rows of 256 features, torch-fidelity", lambda: theirs_fid(few, other), lambda: ours_fid(few, other)),
        ("FID, 100 rows of 256 features, clean-fid", lambda: clean_fid(few, other), lambda: ours_fid(few, other)),
        ("FID of 100 rows and themselves, torch-fidelity", lambda: theirs_fid(few, few), lambda: ours_fid(few, few)),
        ("FID of 100 rows and themselves, clean-fid", lambda: clean_fid(few, few), lambda: ours_fid(few, few)),
        ("KID, 60 rows, subsets of 60, torch-fidelity", lambda: theirs_kid(x, y, 10, 60), ours_kid),
        ("KID, 60 rows, subsets of 1000, torch-fidelity", lambda: theirs_kid(x, y, 10, 1000), lambda: ours_kid(size=1000)),
        ("KID, 60 rows, subsets of 1000, clean-fid", lambda: clean.kernel_distance(x, y, 10), lambda: ours_kid(size=1000)),
        ("IS, 8 rows, 10 splits, torch-fidelity", lambda: theirs_is(logits, 10),
         lambda: both(inception_score(softmax(logits), 10))),
        ("precision of duplicates and themselves, torch-fidelity", lambda: theirs_precision(same, same, 3)[0],
         lambda: prdc.prdc(same, same, 3)["precision"].value),
        ("sd left of a fine pattern, 900 to 299 pixels, torch-fidelity", lambda: shrunk()[0], lambda: shrunk()[1]),
    ]  # fmt: skip
    return [(name, run(a), run(b)) for name, a, b in rows]


def shrunk() -> tuple[float, float]:
    """Of stripes of three pixels, one white: what is left of them at a third of the size, where they cannot be shown."""
    x = np.zeros((1, 900, 900, 3))
    x[:, ::3] = 255.0
    theirs = tensorflow(torch.tensor(x.transpose(0, 3, 1, 2)), size=(299, 299), align_corners=False)
    return float(theirs[..., 40:-40, 40:-40].std()), float(resized(x, 299, 299)[0, 40:-40, 40:-40].std())


def timed(what) -> float:
    start = time.perf_counter()
    what()
    return time.perf_counter() - start


def main() -> None:
    wrong = 0
    print(f"{'where definitions agree':44} {'theirs':>14} {'ours':>14} {'difference':>11}")
    for name, a, b in agreeing():
        off = abs(a - b) / max(abs(a), 1e-12)
        wrong += off > TOLERANCE
        print(f"{name:44} {a:14.7g} {b:14.7g} {off:11.1e}")
    print(f"\n{'where they do not':64} | theirs | ours")
    for name, a, b in differing():
        print(f"{name:64} | {a} | {b}")
    x, y = features(0, 10_000, 128), features(1, 10_000, 128)
    print("\nseconds, 10,000 rows of each, 128 features")
    for name, theirs, ours in (
        ("FID", lambda: theirs_fid(x, y), lambda: frechet.fid(x, y)),
        ("KID, 100 subsets of 1000 / all rows", lambda: theirs_kid(x, y, 100, 1000), lambda: kernel.kid(x, y)),
        ("precision, recall / and density, coverage", lambda: theirs_precision(x, y, 5), lambda: prdc.prdc(x, y)),
    ):
        print(f"{name:44} theirs {timed(theirs):6.1f}   ours {timed(ours):6.1f}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
