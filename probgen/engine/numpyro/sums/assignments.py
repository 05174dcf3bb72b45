"""Finite unknowns of a NumPyro program, drawn from their exact conditional given all else.

    k ~ p(k | z, y)

Sites outside of a `scan` are drawn by the adjoint of the log sum (`funsor.adjoint`), with what the chains' steps sum to as factors.
The steps of a chain are then drawn forwards, by messages that come back from its end:

    m_t(k) = log sum over k_{t+1}, ... of the factors of later steps          k_t ~ f_t(k_{t-1}, k_t) exp m_t(k_t)
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

import funsor
import jax
import jax.numpy as jnp
from funsor.montecarlo import MonteCarlo
from jax import lax

from probgen.engine.numpyro.sums.enumeration import LOG_SUM, PREVIOUS, PRODUCT, Chain, Factors, Indexed, over_time, step

Indices = dict[str, Any]  # of finite sites, as tensors of Funsor over their plates


def drawn(factors: Factors, key: Any, shapes: Mapping[str, tuple[int, ...]], numbered: bool = False) -> dict[str, Any]:
    """One joint draw of all finite sites: their values, in the sites' `shapes`; `numbered`: their indices in the supports."""
    first, later = jax.random.split(key)
    over = [over_time(chain) for chain in factors.chains]
    found = _by_adjoint(factors.plain, over, factors.summed, factors.plates, first)
    for i, chain in enumerate(factors.chains):
        found |= _along(chain, found, jax.random.fold_in(later, i))
    return {name: _joined(factors.trace, found, name, shape, numbered) for name, shape in shapes.items()}


def _by_adjoint(
    parts: Mapping[str, Any], more: Iterable[Any], names: frozenset, plates: frozenset, key: Any
) -> Indices:
    """A joint draw of the sites `names` that have a factor among `parts`."""
    with funsor.interpretations.lazy:
        total = funsor.sum_product.sum_product(
            LOG_SUM, PRODUCT, [*parts.values(), *more], eliminate=names | plates, plates=plates
        )
    with MonteCarlo(rng_key=key):
        adjoints = funsor.adjoint.adjoint(LOG_SUM, PRODUCT, total)
    return {name: _point(adjoints[f], name) for name, f in parts.items() if name in names}


def _point(adjoint: Any, name: str) -> Any:
    """Where the point mass of a site lies, among the terms of the adjoint of its factor."""
    terms = adjoint.terms if isinstance(adjoint, funsor.cnf.Contraction) else (adjoint,)
    (found,) = [t for t in terms if isinstance(t, funsor.delta.Delta) and name in t.fresh]
    return OrderedDict(found.terms)[name][0]


# ---- chains ------------------------------------------------------------------------------------------------------


def _along(chain: Chain, found: Indices, key: Any) -> Indices:
    """A draw of the steps of a chain given what is outside of it, with an axis of time."""
    first, later = jax.random.split(key)
    chain = given(chain, {k: v for k, v in found.items() if not k.startswith(PREVIOUS)})
    plates, before, logits = steps(chain)
    levels = logits.shape[-len(chain.carried) :]
    start = [array(found[name], plates).ravel() for names in before for name in names]
    path = _forwards(logits, start, chain, first)  # (time, unit of the plates), carried sites ravelled
    axes = {chain.time: chain.size, **plates}
    values = [v.reshape(tuple(axes.values())) for v in jnp.unravel_index(path, levels)]
    new = dict(zip(chain.carried, [tensor(v, axes, n) for v, n in zip(values, levels, strict=True)], strict=True))
    rest = chain.own - set(chain.carried)
    if not rest:
        return new
    seen = new | lagged(chain, found | new)
    parts = given(chain, seen).factors
    return new | _by_adjoint(parts, (), rest, chain.plates | chain.inner | {chain.time}, later)


def lagged(chain: Chain, found: Indices) -> Indices:
    """The steps before, by their names in the factors of a chain, of carried sites whose first steps and path are found."""
    seen = {}
    for name in chain.carried:
        if name not in found:
            continue
        axes = {chain.time: chain.size, **{p: found[name].inputs[p].size for p in sorted(chain.plates)}}
        plates, path, size = dict(list(axes.items())[1:]), array(found[name], axes), found[name].dtype
        for shift in range(1, chain.history + 1):
            early = [array(found[s * PREVIOUS + name], plates)[None] for s in range(shift, 0, -1)]
            seen[shift * PREVIOUS + name] = tensor(jnp.concatenate([*early, path])[: chain.size], axes, size)
    return seen


def given(chain: Chain, values: Indices) -> Chain:
    """The chain with some finite sites at values."""
    return chain._replace(
        factors={k: f(**{name: v for name, v in values.items() if name in f.inputs}) for k, f in chain.factors.items()}
    )


def steps(chain: Chain, without: str = "") -> tuple[dict[str, int], list[tuple[str, ...]], Any]:
    """Plates with sizes, the names of the steps before, and log factors (time, *plates, *steps before, *carried sites)."""
    sizes = {name: d.size for f in chain.factors.values() for name, d in f.inputs.items()}
    plates = {name: sizes[name] for name in sorted(chain.plates)}
    before = [chain.previous(shift) for shift in range(chain.history, 0, -1)]
    levels = {name: sizes[name] for name in chain.carried}
    axes = {s * PREVIOUS + name: n for s in range(chain.history, -1, -1) for name, n in levels.items()}
    return plates, before, array(step(chain, without), {chain.time: chain.size, **plates, **axes})


def square(chain: Chain, logits: Any) -> Any:
    """Log factors with plates and carried sites ravelled: (time, unit, oldest step, other steps before, now)."""
    width = math.prod(logits.shape[-len(chain.carried) :])
    return logits.reshape(chain.size, -1, width, width ** (chain.history - 1), width)


def messages(steps: Any) -> Any:
    """Log sums over all later steps, of `square` log factors: (time, unit, other steps before, now)."""

    def back(message: Any, factor: Any) -> tuple[Any, Any]:
        summed = jax.scipy.special.logsumexp(factor + message[:, None], axis=-1)  # (unit, oldest, others)
        return summed.reshape(message.shape), message

    _, units, width, others, _ = steps.shape
    return lax.scan(back, jnp.zeros((units, others, width), steps.dtype), steps, reverse=True)[1]


def _forwards(logits: Any, start: list[Any], chain: Chain, key: Any) -> Any:
    """A path drawn along the chain: (time, unit)."""
    factors, levels = square(chain, logits), logits.shape[-len(chain.carried) :]
    width, others = factors.shape[-1], factors.shape[-2]
    state = jnp.ravel_multi_index(tuple(start), levels * chain.history, mode="clip")
    units = jnp.arange(factors.shape[1])

    def one(state: Any, at: tuple[Any, Any, Any]) -> tuple[Any, Any]:
        factor, message, key = at
        oldest, other = state // others, state % others
        now = jax.random.categorical(key, factor[units, oldest, other] + message[units, other])
        return other * width + now, now

    return lax.scan(one, state, (factors, messages(factors), jax.random.split(key, chain.size)))[1]


# ---- arrays and tensors ------------------------------------------------------------------------------------------


def array(value: Any, axes: Mapping[str, int]) -> Any:
    """A tensor of Funsor as an array of these axes, broadcast along those it lacks."""
    present = tuple(name for name in axes if name in value.inputs)
    data = value.align(present).data if present else value.data
    shape = [size if name in value.inputs else 1 for name, size in axes.items()]
    return jnp.broadcast_to(jnp.reshape(data, shape), tuple(axes.values()))


def tensor(data: Any, axes: Mapping[str, int], size: Any) -> Any:
    """An array of these axes as a tensor of Funsor; size: how many levels its entries index, or "real"."""
    return funsor.Tensor(data, OrderedDict((name, funsor.Bint[n]) for name, n in axes.items()), size)


def _joined(trace: Mapping[str, Any], found: Indices, name: str, shape: tuple[int, ...], numbered: bool) -> Any:
    """The values of a site: those of a scan's first steps, and of the others after them."""
    parts = sorted((k for k in found if root(k) == name), key=len, reverse=True)
    values = support(trace[parts[0]]["fn"])
    shape = shape if values is None else shape[: len(shape) - values.ndim + 1]
    pieces = [funsor.to_data(found[k], name_to_dim=trace[k]["infer"]["name_to_dim"]) for k in parts]
    if len(pieces) > 1 or parts != [name]:
        index = jnp.concatenate([piece.reshape(-1, *shape[1:]) for piece in pieces])
    else:
        index = jnp.reshape(pieces[0], shape)
    return index.astype(jnp.int32) if values is None or numbered else values[index]


def root(name: str) -> str:
    """The name of a site as the program has it."""
    while name.startswith(PREVIOUS):
        name = name[len(PREVIOUS) :]
    return name


def support(fn: Any) -> Any:
    """The values that indices stand for, (levels, *event); None where they stand for themselves."""
    while not isinstance(fn, Indexed):
        if not hasattr(fn, "base_dist"):
            return None
        fn = fn.base_dist
    values = jnp.asarray(fn.values)
    return values.astype(jnp.int32) if jnp.issubdtype(values.dtype, jnp.integer) else values
