"""Programs that run on a minibatch of rows alone: `w = jnp.ones(size)` in a plate that draws `size` rows.

Their log density on all rows is that of one minibatch after the other, whose rows are given, and not drawn: sites in the plate
count with weight 1, the others with the first minibatch only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpyro import handlers
from numpyro.infer import Predictive
from numpyro.infer.util import log_likelihood, potential_energy
from numpyro.primitives import Messenger

from probgen.engine.numpyro.programs.messengers import MINIBATCH, freed


class Part(NamedTuple):
    """A plate of `size` rows of which a program takes `count` at a time.

    axes: of the sites in it, the dimension of the rows and the number of event dimensions behind.
    """

    plate: str
    size: int
    count: int
    axes: tuple[tuple[str, int, int], ...] = ()

    def starts(self) -> list[tuple[int, int]]:
        """The first row of every minibatch, and from which of its rows on they count: the last one ends with the last row."""
        begins = range(0, self.size, self.count)
        return [(min(i, self.size - self.count), max(0, i - (self.size - self.count))) for i in begins]


class Piece(Messenger):
    """Effect handler: the plate takes given rows, of which those count that `counted` says; first: whether the others do.

    rows, counted: (count,); all count once where they are None, and the rows are the first ones.
    """

    def __init__(self, fn: Any, part: Part, rows: Any = None, counted: Any = None, first: Any = True) -> None:
        super().__init__(fn)
        self.part, self.counted, self.first = part, counted, first
        self.rows = jnp.arange(part.count) if rows is None else rows

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "plate" and msg["name"] == self.part.plate and msg["value"] is None:
            msg["value"] = self.rows
        elif msg["type"] == "sample":
            dims = [frame.dim for frame in msg["cond_indep_stack"] if frame.name == self.part.plate]
            if dims:
                msg["scale"] = msg["scale"] * (self.part.count / self.part.size)
            counted = self.counted if dims else self.first
            if counted is not None and counted is not True:
                msg["fn"] = msg["fn"].mask(counted.reshape(-1, *(1,) * (-dims[0] - 1)) if dims else counted)


def log_density(run: Callable[[], Any], part: Part, values: Mapping[str, Any]) -> Any:
    """The log density on all rows at unconstrained values, in nats, log-Jacobian included: ()."""

    def one(i: Any) -> Any:
        start = jnp.minimum(i * part.count, part.size - part.count)  # the last minibatch ends with the last row
        rows = start + jnp.arange(part.count)
        piece = Piece(run, part, rows, rows >= i * part.count, i == 0)
        with handlers.block():
            return -potential_energy(piece, (), {}, values)

    return jnp.sum(lax.map(one, jnp.arange(-(-part.size // part.count))))


def part_of(trace: Mapping[str, Any]) -> Part | None:
    """The one plate of a trace that draws a minibatch, if no unknown is of its rows; None where that is not so."""
    plates = {k: site["args"][:2] for k, site in trace.items() if site["type"] == "plate"}
    found = [Part(k, size, count) for k, (size, count) in plates.items() if count not in (None, size)]
    if len(found) != 1:
        return None
    frames = [
        (k, frame.dim, site["fn"].event_dim)
        for k, site in trace.items() if site["type"] == "sample"
        for frame in site["cond_indep_stack"] if frame.name == found[0].plate
    ]  # fmt: skip
    found = [found[0]._replace(axes=tuple(frames))]
    of_rows = [
        site for site in trace.values()
        if site["type"] == "sample" and not site["is_observed"]
        and any(frame.name == found[0].plate for frame in site["cond_indep_stack"])
    ]  # fmt: skip
    return None if of_rows else found[0]


def whole(program: Callable[..., Any], trace: Mapping[str, Any], full: type) -> tuple[Mapping[str, Any], Part | None]:
    """The trace of a program whose plates are whole; that of a minibatch, and its plate, where it does not run so.

    trace: of a minibatch; full: the handler that makes plates whole.
    """
    try:
        return handlers.trace(full(program)).get_trace(), None
    except (TypeError, ValueError) as error:
        part = part_of(trace)
        if isinstance(error, jax.errors.JAXTypeError):
            raise
        if part is None:
            plates = {k: site["args"][:2] for k, site in trace.items() if site["type"] == "plate"}
            name, (size, count) = next((k, v) for k, v in plates.items() if v[1] not in (None, v[0]))
            raise ValueError(MINIBATCH.format(name, count, size)) from error
        return trace, part


# ---- what is said of rows ----------------------------------------------------------------------------------------


def likelihoods(
    run: Callable[[], Any], part: Part, latent: Mapping[str, Any], observed: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """The log likelihood of every row, in nats: arrays (chain, draw, *batch)."""

    def terms(piece: Piece, _: Any) -> Mapping[str, Any]:
        return log_likelihood(handlers.seed(piece, jax.random.key(0)), dict(latent), batch_ndims=2)

    return _together(run, part, terms, {k: dim for k, dim, _ in part.axes}, observed, jax.random.key(0))


def predicted(
    run: Callable[[], Any], part: Part, latent: Mapping[str, Any], observed: tuple[str, ...], seed: int
) -> dict[str, np.ndarray]:
    """Draws of the observed sites at every row: arrays (chain, draw, *event)."""

    def draws(piece: Piece, key: Any) -> Mapping[str, Any]:
        return Predictive(freed(piece), dict(latent), return_sites=list(observed), batch_ndims=2)(key)

    axes = {k: dim - event for k, dim, event in part.axes}
    return _together(run, part, draws, axes, observed, jax.random.key(seed))


def _together(
    run: Callable[[], Any], part: Part, of: Callable[..., Mapping[str, Any]], axes: Mapping[str, int],
    observed: tuple[str, ...], key: Any,
) -> dict[str, np.ndarray]:  # fmt: skip
    """What holds of each minibatch, put together along the rows; of other sites that of the first."""
    found: dict[str, list[np.ndarray]] = {k: [] for k in observed}
    for i, (start, skip) in enumerate(part.starts()):
        piece = Piece(run, part, start + jnp.arange(part.count))
        values = of(piece, jax.random.fold_in(key, i))
        for k in observed:
            if k in axes:
                kept = [slice(None)] * np.ndim(values[k])
                kept[axes[k]] = slice(skip, None)
                found[k].append(np.asarray(values[k])[tuple(kept)])
            elif not i:
                found[k].append(np.asarray(values[k]))
    return {k: np.concatenate(v, axes[k]) if k in axes else v[0] for k, v in found.items()}
