"""Rows of one multivariate normal, summed by what they say together: by their mean and the triangle of their spread.

    sum_i log N(y_i | m, K) = sum_j log N(a_j | 0, K) + log N(sqrt(N) (y - m) | 0, K) + (N - n - 1) log N(0 | 0, K)

y: the mean of the N rows; a_j: the n rows of R, where Q R are the rows less their mean. A density takes n + 2 rows in place of N,
whatever K and m are. R is taken once a run, by reflections, which square no condition number, in one thread: the bits are the same
however many cores there are.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import constraints
from numpyro.primitives import Messenger

from probgen import machine, pools
from probgen.distributions.normal import OfMatrix

ENDING = " together"  # of the arrays made here
AT_ONCE = 2**16  # rows


def together(target: Any) -> Any:
    """A target of unknowns in R^n with its rows of normals taken together, for a run; the target itself where it has none.

    Only what is the same in any case is changed: the arrays of the data stay, and others come beside them.
    """
    structure, found = target.structure, {}
    apart = structure.discrete or structure.blocks or structure.by_state or structure.part or structure.transforms
    if apart or target.points or machine.accelerator():
        return target
    for site in structure.sites:
        if (
            site.kind == "observed"
            and site.distribution == "MultivariateNormal"
            and not (site.masked or site.subsampled)
        ):
            rows = target.arrays.get(site.source)
            if rows is not None and np.ndim(rows) > 1 and (made := compressed(np.asarray(rows))) is not None:
                found[site.source + ENDING] = made
    if not found:
        return target
    target = copy.copy(target)
    target.arrays = {**target.arrays, **found}
    return target


def compressed(rows: np.ndarray) -> np.ndarray | None:
    """R of the rows (*batch, n) less their mean, and the mean below it: (n + 1, n); None where that is not much shorter."""
    import scipy.linalg

    qr: Any = scipy.linalg.qr

    size = rows.shape[-1]
    flat = rows.reshape(-1, size).astype(float)
    if len(flat) < 2 * (size + 2) or not np.isfinite(flat).all():
        return None
    mean, triangle = flat.mean(0), np.zeros((0, size))
    with pools.one_blas_thread:
        for begin in range(0, len(flat), AT_ONCE):
            block = np.concatenate([triangle, flat[begin : begin + AT_ONCE] - mean])
            (triangle,) = qr(block, mode="r", check_finite=False)
            triangle = triangle[:size]
    triangle = np.concatenate([triangle, np.zeros((size - len(triangle), size))])
    return np.concatenate([triangle, mean[None]]).astype(rows.dtype)


class Together(Messenger):
    """Effect handler, about whole plates: sites whose rows are taken together in `arrays` have their density by that."""

    def __init__(self, fn: Any, arrays: Mapping[str, Any]) -> None:
        super().__init__(fn)
        self.of = [(v, arrays[k + ENDING]) for k, v in arrays.items() if k + ENDING in arrays]

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] != "sample" or not msg["is_observed"]:
            return
        made = next((made for rows, made in self.of if rows is msg["value"]), None)
        if made is not None and jnp.ndim(1.0 if msg["scale"] is None else msg["scale"]) == 0:
            fn, shape = msg["fn"], jnp.shape(msg["value"])
            if type(fn) is dist.ExpandedDistribution and fn.batch_shape == shape[:-1]:
                fn = fn.base_dist
            if type(fn) is OfMatrix and not fn.batch_shape and fn.closed((len(made) + 1,), made.dtype):
                msg["fn"] = _Rows(fn, made, shape)


class _Rows(dist.Distribution):
    """All rows as one event; the density of the rows that were taken together, and of no others."""

    support: Any = constraints.real_matrix

    def __init__(self, fn: Any, made: Any, shape: tuple[int, ...]):
        self.fn, self.made = fn, made
        super().__init__((), shape, validate_args=False)

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        count = math.prod(self.event_shape[:-1])
        triangle, mean = self.made[:-1], self.made[-1:]
        away: Any = math.sqrt(count) * (mean - self.fn.loc)
        each = self.fn.of_deviation(jnp.concatenate([triangle, away, jnp.zeros_like(away)]))
        return jnp.sum(each[:-1]) + (count - len(self.made)) * each[-1]
