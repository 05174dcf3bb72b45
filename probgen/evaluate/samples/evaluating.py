"""pg.evaluate: all measures of samples against rows that were held out, by one net, on one scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from probgen.data.toys import TOYS
from probgen.data.whole_numbers import generator, whole
from probgen.evaluate.features.net import Net, no_net, yours
from probgen.evaluate.features.pictures import with_channels
from probgen.evaluate.samples import frechet, inception_score, kernel, memorisation, modes, prdc
from probgen.evaluate.samples.gathered import Gathered, gathered
from probgen.evaluate.samples.result import Measure, Measures
from probgen.evaluate.samples.rows import checked, same_columns, varied
from probgen.fitted import Fitted

WIDE = 512  # features, above which FID-infinity is not computed unless asked for: it takes fifteen decompositions


@dataclass(frozen=True)
class Settings:
    """What `evaluate` was asked for; see there."""

    centres: Any
    sd: float | None
    k: int
    splits: int
    subsets: int | None
    size: int | None
    seed: int


@dataclass(frozen=True)
class Seen:
    """Rows as the net sees them: features of samples x and data y, class probabilities p and q, or None."""

    rows: Gathered
    net: Net
    x: np.ndarray
    y: np.ndarray
    p: np.ndarray | None
    q: np.ndarray | None


def evaluate(
    samples: Any,
    data: Any = None,
    *,
    train: Any = None,
    net: Net | Callable[..., Any] | str | Path | None = None,
    measures: Sequence[str] | None = None,
    num_samples: int = 10_000,
    site: str | None = None,
    value_range: tuple[float, float] | None = None,
    centres: Any = None,
    sd: float | None = None,
    k: int = 5,
    splits: int = 10,
    subsets: int | None = None,
    size: int | None = None,
    seed: int = 0,
) -> Measures:
    """How good samples are, by several measures, each with its error and what a perfect sampler would have.

    samples: a fit, of which `num_samples` rows are drawn, or an array (row, *event).
    data: rows of the law that were not learned from, (row, *event), or the name of a data set, whose held-out rows are taken, at
        most 10,000. By default, of a fit, rows that it held out of learning; else held-out rows of the data set that it learned
        from, where that is one of ours; else the rows that it learned from, which flatter a memoriser. The result says which.
    train: rows that were learned from, for memorisation; known of a fit and of a named data set.
    net: whose features FID, KID, precision and the others compare. By default a classifier trained here where the data set has
        labels, else the rows themselves. Or a net of `probgen.evaluate.features`, a function of your own from rows to features, or
        (features, probabilities), or the path of a file with Inception's weights.
    measures: some of fid, fid_infinity, kid, inception_score, prdc, modes, memorisation; by default all that can be.
    site: which visible site of the fit. value_range: black and white of pictures given as floats, 0 and 1 by default; bytes are
        0 to 255. Samples that fill another of the scales 0 to 1, -1 to 1 and 0 to 255 than the data are refused, or noted where
        rows are no pictures and of fewer than 64 numbers; what else lies beyond black and white is clipped, and its share noted.
    centres, sd: of the modes, where the law is a mixture of round Gaussians; known of "ring_8", "grid_25" and "eight_gaussians".
    k: neighbours of precision and the others. splits: parts of the inception score. subsets, size: of KID, by default all rows.
    seed: of the draws, and of what is random in measures.

    Raises ValueError, before a net is trained or run, for NaN, rows of another shape, values off the scale, KID subsets larger
    than the sample, k or splits too large, and measures that cannot be had.
    """
    num_samples, k, splits = (
        whole(name, given) for name, given in {"num_samples": num_samples, "k": k, "splits": splits}.items()
    )
    subsets, size = (x if x is None else whole(name, x) for name, x in {"subsets": subsets, "size": size}.items())
    settings = Settings(centres, sd, k, splits, subsets, size, seed)
    asked = _asked(measures)
    _check_settings(settings, asked, num_samples if isinstance(samples, Fitted) else len(checked(samples, 2)), measures)
    for name, other in (("data", data), ("train", train)):
        same_columns(samples, other, ("samples", name))
    rows = gathered(samples, data, train, num_samples, site, value_range, seed)
    _check_rows(settings, asked, len(rows.samples), len(rows.data), measures)
    used = _net(net, rows)
    left = {word: why for word in asked if (why := _prevented(word, settings, rows, used))}
    if measures is not None and left:
        raise ValueError("\n".join(f"No {word}: {why}" for word, why in left.items()))
    x, p = _features(used, rows.samples, "samples")
    y, q = _features(used, rows.data, "data")
    varied(y, "data")
    seen = Seen(rows, used, x, y, p, q)
    found: dict[str, Measure] = {}
    for word in asked:
        if word not in left and not (word == "fid_infinity" and measures is None and x.shape[1] > WIDE):
            if (why := _too_few(word, seen)) and measures is None:
                left[word] = why
                continue
            found |= KNOWN[word](seen, settings)
    found |= _beside_training_rows(found, seen, settings)
    notes = [*rows.notes, *(f"no {word}: {why}" for word, why in left.items()), *([used.note] if used.note else [])]
    notes += kernel.on_scale(y) if "kid" in found else []
    if "fid" in found and (beside := found["fid"].more.get("training_rows")) is not None:
        notes.append(f"FID of as many training rows: {beside:.4g}")
    return Measures(found, used.name, used.hash, tuple(notes))


# ---- the measures, by word ---------------------------------------------------------------------------------------


def _fid(seen: Seen, settings: Settings) -> dict[str, Measure]:
    return {"fid": frechet.fid(seen.x, seen.y)}


def _fid_infinity(seen: Seen, settings: Settings) -> dict[str, Measure]:
    return {"fid_infinity": frechet.fid_infinity(seen.x, seen.y, seed=settings.seed)}


def _kid(seen: Seen, settings: Settings) -> dict[str, Measure]:
    return {"kid": kernel.kid(seen.x, seen.y, settings.subsets, settings.size)}


def _inception_score(seen: Seen, settings: Settings) -> dict[str, Measure]:
    return {"inception_score": inception_score.inception_score(seen.p, settings.splits, seen.q)}


def _prdc(seen: Seen, settings: Settings) -> dict[str, Measure]:
    return prdc.prdc(seen.x, seen.y, settings.k)


def _modes(seen: Seen, settings: Settings) -> dict[str, Measure]:
    geometry: tuple[Any, Any] = _geometry(settings, seen.rows)
    centres, sd = geometry
    if centres is not None:
        return modes.modes(seen.rows.samples, centres, sd)
    told: tuple[Any, Any] = (seen.p, seen.q)
    labels, reference = (each.argmax(1) for each in told)
    shares, noise = modes.shares_of(reference, seen.net.num_classes, seen.net.channels)
    return modes.classes(labels, seen.net.num_classes, shares, noise)


def _memorisation(seen: Seen, settings: Settings) -> dict[str, Measure]:
    return memorisation.memorisation(seen.rows.samples, seen.rows.train, seen.rows.data if seen.rows.held_out else None)


KNOWN: dict[str, Callable[[Seen, Settings], dict[str, Measure]]] = {
    "fid": _fid,
    "fid_infinity": _fid_infinity,
    "kid": _kid,
    "inception_score": _inception_score,
    "prdc": _prdc,
    "modes": _modes,
    "memorisation": _memorisation,
}


# ---- what can be had ---------------------------------------------------------------------------------------------


def _asked(measures: Sequence[str] | None) -> tuple[str, ...]:
    from probgen.algorithm import closest

    words = tuple(KNOWN) if measures is None else (measures,) if isinstance(measures, str) else tuple(measures)
    for word in words:
        if word not in KNOWN:
            raise ValueError(f"Unknown measure {word!r}.{closest(word, KNOWN)}\nKnown: {', '.join(KNOWN)}.")
    return words


def _check_settings(settings: Settings, asked: tuple[str, ...], n: int, measures: Any) -> None:
    if n < 2:
        raise ValueError(f"num_samples is {n}; it must be at least 2")
    if (settings.centres is None) != (settings.sd is None):
        raise ValueError("centres and sd belong together: pass both, or neither.")
    _check_rows(settings, asked, n, n, measures)


def _check_rows(settings: Settings, asked: tuple[str, ...], n: int, m: int, measures: Any) -> None:
    """What was set against how many rows there are; defaults that do not fit are left out later, unless they were asked for."""
    if "kid" in asked and (settings.subsets is not None or settings.size is not None):
        subsets = 100 if settings.subsets is None else settings.subsets
        kernel.check_subsets(subsets, 1000 if settings.size is None else settings.size, n, m)
    if "inception_score" in asked and (settings.splits != 10 or measures is not None):
        inception_score.check_splits(settings.splits, n)
    if "prdc" in asked and (settings.k != 5 or measures is not None):
        prdc.check_neighbours(settings.k, n, m)


def _prevented(word: str, settings: Settings, rows: Gathered, net: Net) -> str:
    """Why a measure cannot be had; empty where it can."""
    n, m = len(rows.samples), len(rows.data)
    if word == "inception_score" and not net.num_classes:
        return "the net tells no classes"
    if word == "inception_score" and settings.splits > n:
        return f"{settings.splits} splits of {n} rows"
    if word == "prdc" and settings.k >= min(n, m):
        return f"{n} samples and {m} rows of data are too few for k={settings.k} neighbours"
    if word == "modes" and not net.num_classes and _geometry(settings, rows)[0] is None:
        return "neither centres and sd nor a net with classes say what modes are"
    if word == "memorisation" and rows.train is None:
        return "the rows that were learned from are not known; pass train="
    return ""


def _too_few(word: str, seen: Seen) -> str:
    n, dim = min(len(seen.x), len(seen.y)), seen.x.shape[1]
    return f"{n} rows are too few for {dim} features" if word == "fid_infinity" and n < 4 * dim else ""


def _geometry(settings: Settings, rows: Gathered) -> tuple[np.ndarray | None, float | None]:
    """Centres and sd of the modes, given or known of the data set."""
    if settings.centres is not None or rows.name not in TOYS:
        return settings.centres, settings.sd
    toy = TOYS[rows.name]
    return toy.modes, toy.sd


# ---- nets --------------------------------------------------------------------------------------------------------


def _net(net: Any, rows: Gathered) -> Net:
    """The net that was asked for, or what suits the data set."""
    if net is None:
        net = _default(rows)
    elif isinstance(net, str | Path):
        from probgen.evaluate.features.inception import inception

        net = inception(net)
    elif not isinstance(net, Net):
        if not callable(net):
            raise TypeError(f"net is a {type(net).__name__}; expected a Net, a function of rows, or a file's path.")
        net = yours(net, rows.data)
    if net.pictures and not rows.pictures:
        raise ValueError(
            f"The net takes pictures; rows have shape {rows.data.shape[1:]} and values from {rows.data.min():.3g} to "
            f"{rows.data.max():.3g}.\nPass value_range=(black, white), or another net."
        )
    return net


def _default(rows: Gathered) -> Net:
    from probgen import datasets
    from probgen.evaluate.features.classifier import by_channel, classifier

    name = rows.name or ""
    found = datasets.labelled(name) if name and rows.pictures else None
    if found is None:
        return no_net()
    x, labels, test = found
    net = classifier(x, labels, test, name=name)
    return by_channel(net) if rows.data.shape[-1] == 3 and rows.data.ndim == 4 else net


def _features(net: Net, x: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    features, p = net(with_channels(x) if net.pictures else x)
    if not np.isfinite(features).all():
        raise ValueError(
            f"The net's features of row {np.argwhere(~np.isfinite(features))[0][0]} of {name} are not finite."
        )
    return features, p


def _beside_training_rows(found: dict[str, Measure], seen: Seen, settings: Settings) -> dict[str, Measure]:
    """Precision and recall of as many training rows as there are samples, as a perfect sampler's; and their FID."""
    n, train = len(seen.x), seen.rows.train
    if not seen.rows.held_out or train is None or len(train) < n or not {"precision", "fid"} & set(found):
        return {}
    some = train[np.sort(generator(settings.seed).choice(len(train), n, replace=False))]
    x, _ = _features(seen.net, some, "train")
    told: dict[str, Measure] = {}
    if "precision" in found:
        others = prdc.prdc(x, seen.y, settings.k)
        kind = "of as many training rows"
        told = {w: replace(found[w], perfect=others[w].value, perfect_kind=kind) for w in ("precision", "recall")}
    if "fid" in found:
        told["fid"] = replace(found["fid"], more={**found["fid"].more, "training_rows": frechet.fid(x, seen.y).value})
    return told
