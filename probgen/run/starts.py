"""Where the chains of a sampler begin: at given values or the draws of a fit; and a search where no usual start is finite."""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from probgen.algorithm import Inference, Sampler, closest
from probgen.data.checks import on_host
from probgen.fitted import Fitted, FittedParameters
from probgen.target import Conditional, Continuous, Generative, Target

Chains = dict[str, np.ndarray]  # arrays (chain, ...): the flat point "z" of continuous unknowns, else values by site
FLAT = "z"
TRIED, ROUNDS, SCALES = 256, 12, (0.0, 0.1, 0.5, 2.0, 5.0, 10.0, 20.0)
EXPECTED = "expected values by site, init={'theta': 0.5}, or a fit, or its directory."


class Learned(dict[str, np.ndarray]):
    """Parameters by name, of a learned fit that was looked at already: what is sent in its place."""


# ---- given -------------------------------------------------------------------------------------------------------


def given(init: Any, target: Target, algorithm: Inference, seed: int) -> Chains:
    """Where each chain begins. init: see `pg.fit`. Unknowns that it does not name begin anywhere near zero, unconstrained."""
    if isinstance(target, Generative):
        raise TypeError(f"init is a {type(init).__name__}; expected a fit that learned parameters from rows.")
    if not algorithm.begins_anywhere or target.points or getattr(target, "takes_turns", False):
        raise TypeError(f"{algorithm.name} does not begin at values of the unknowns: it takes no init.")
    num_chains = algorithm.num_chains if isinstance(algorithm, Sampler) else 1
    values = _of_chains(values_of(init, algorithm), target, num_chains)
    if isinstance(target, Conditional):
        return values
    space: Any = target
    points = [space.begun_at({k: v[c] for k, v in values.items()}, seed * 1009 + c) for c in range(num_chains)]
    for point in points:
        _check(values, target, point)
    return {FLAT: np.stack(points)}


def digest(init: Any, algorithm: Inference) -> str:
    """What is written down of where chains begin: the same of the same values."""
    said = hashlib.blake2b(digest_size=16)
    for name, value in sorted(values_of(init, algorithm).items()):
        array = np.asarray(value, float)
        said.update(f"{name} {array.shape}".encode() + array.tobytes())
    return said.hexdigest()


def values_of(init: Any, algorithm: Inference) -> Mapping[str, Any]:
    """Values by site; of a fit, arrays (chain, *event): the last draws of its chains, or draws spread over them."""
    num_chains = algorithm.num_chains if isinstance(algorithm, Sampler) else 1
    if isinstance(init, Mapping):
        return init
    if isinstance(init, FittedParameters):
        raise TypeError("This init is for programs with parameters that are learned from rows; this one has none.")
    if not isinstance(init, Fitted):
        raise TypeError(f"init is a {type(init).__name__}; {EXPECTED}")
    chains, draws = init.z.shape[:2]
    rounds = -(-num_chains // chains)
    back = [-1 - (draws * r) // rounds for r in range(rounds)]
    pick = [(c % chains, back[c // chains]) for c in range(num_chains)]
    names = set(init.target.named("latent"))
    return {k: np.stack([v[c, d] for c, d in pick]) for k, v in init.draws.items() if k in names}


def _of_chains(values: Mapping[str, Any], target: Target, num_chains: int) -> Chains:
    """The values as arrays (chain, *event) of the sites' shapes; raises for sites that are not unknown, and for other shapes."""
    sites = {site.name: site for site in target.sites if site.kind == "latent"}
    found = {}
    for name, value in values.items():
        if name not in sites:
            known = ", ".join(sites)
            raise TypeError(f"init names {name!r}, which is no unknown.{closest(str(name), sites)}\nUnknowns: {known}.")
        array, shape = np.asarray(value, float), sites[name].shape
        if array.shape == (num_chains, *shape):
            found[name] = array
        elif array.shape == shape or array.ndim == 0:
            found[name] = np.broadcast_to(array, (num_chains, *shape))
        else:
            raise ValueError(
                f"init of {name!r} has shape {array.shape}; expected {shape}, or {(num_chains, *shape)}: one for each chain."
            )
    return found


def _check(values: Chains, target: Any, point: np.ndarray) -> None:
    """Raise ValueError for a start outside of a support, or of no density."""
    value = float(target.gradients(point[None])[0][0]) if np.isfinite(point).all() else np.nan
    if np.isfinite(value):
        return
    bad = ", ".join(values)
    with contextlib.suppress(Exception):
        bad = ", ".join(f"{k} ({v:g})" for k, v in target.terms(point).items() if not np.isfinite(v)) or bad
    raise ValueError(f"init is a point without a finite density: {bad}.\nGive values inside the supports.")


# ---- found -------------------------------------------------------------------------------------------------------


def found(target: Target, num_chains: int, seed: int) -> np.ndarray | None:
    """Points of finite density, (chain, dim): of draws of the prior, of wider boxes, or of a search; None where there is none."""
    if not isinstance(target, Continuous) or target.points:
        return None
    for some in (_of_prior, _of_boxes, _searched):
        points = np.concatenate([*some(target, seed), np.zeros((0, target.dim))])
        points = points[np.isfinite(points).all(axis=1)]
        if len(points):
            values = target.densities(points)
            good = np.flatnonzero(np.isfinite(values))
            if len(good):
                best = good[np.argsort(-values[good])][: max(num_chains, len(good) // 4)]
                return points[np.resize(np.random.default_rng(seed).permutation(best), num_chains)]
    return None


def _of_prior(target: Any, seed: int) -> Iterator[np.ndarray]:
    """Draws of the prior, unconstrained."""
    with contextlib.suppress(Exception):  # an improper prior has none
        names = [site.name for site in target.sites if site.kind == "latent" and not site.discrete]
        draws = target.prior(seed, TRIED, names)
        yield np.stack([target.begun_at({k: draws[k][i] for k in names}, i) for i in range(TRIED)])


def _of_boxes(target: Any, seed: int) -> Iterator[np.ndarray]:
    """Uniform draws of boxes around zero, and of boxes with another width along every coordinate."""
    rng = np.random.default_rng(seed)
    yield from (rng.uniform(-scale, scale, (TRIED, target.dim)) for scale in SCALES)
    widths = rng.choice(SCALES, (TRIED, target.dim))
    yield widths * rng.uniform(-1, 1, (TRIED, target.dim))


def _searched(target: Any, seed: int) -> Iterator[np.ndarray]:
    """A random climb on the number of observations and factors that are possible."""
    rng, score = np.random.default_rng(seed), _possible(target)
    point = np.zeros(target.dim)
    with contextlib.suppress(Exception), warnings.catch_warnings():  # a program that does not run at some points
        warnings.simplefilter("ignore")  # the engine's, of values outside of supports
        for _ in range(ROUNDS):
            mask = rng.random((TRIED, target.dim)) < rng.choice([0.1, 0.5, 1.0], (TRIED, 1))
            steps = rng.choice([0.1, 1.0, 5.0], (TRIED, 1)) * rng.normal(size=(TRIED, target.dim))
            points = np.concatenate([point[None], point + mask * steps])
            point = points[int(np.argmax(score(points)))]
            yield points


def _possible(target: Any) -> Callable[[np.ndarray], np.ndarray]:
    """How many terms of the likelihood are finite at points (point, dim): (point,)."""
    data = on_host(target.data)

    def score(points: np.ndarray) -> np.ndarray:
        terms = target.log_likelihood(target.constrain(points[None]), data)
        return np.sum([np.isfinite(v[0]).reshape(len(points), -1).sum(1) for v in terms.values()], axis=0)

    return score


def flat(begin: Chains | None) -> Any:
    """What an executor is given: the flat points, or the values by site."""
    return None if begin is None else begin.get(FLAT, begin)
