"""Pointwise terms of a NumPyro program whose finite unknowns are summed out.

    log p(y_i | z, k, y of all others) = log sum over l of everything - log sum over l of everything but y_i

k are finite unknowns that several observations share, held at their draws; l those of y_i's own row, or of its sequence, which are
summed out. Where each row has its own (a mixture), this is the marginal log p(y_i | z, k). In a hidden Markov model it is the
density of y_t given the rest of the sequence: the weights 1 / p(y_t | ...) of leaving y_t out need that, not one at a drawn state
(Vehtari et al. 2016, arXiv:1412.6550, on integrated importance weights).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import funsor
import jax
import jax.numpy as jnp
from jax import lax

from probgen.engine.numpyro.sums.assignments import (
    Indices,
    array,
    given,
    lagged,
    messages,
    root,
    square,
    steps,
    support,
    tensor,
)
from probgen.engine.numpyro.sums.enumeration import PREVIOUS, Chain, Factors, over_time, summed_over


def terms(factors: Factors, observed: Iterable[str], held: Indices) -> dict[str, Any]:
    """The pointwise terms of the observed sites: in the order of their plates, steps of a scan first.

    held: shared finite sites at their draws.
    """
    factors = at(factors, held)
    found: dict[str, Any] = {}
    joint = [over_time(chain) for chain in factors.chains]
    for name in observed:
        pieces = []
        for key in sorted((k for k in factors.trace if root(k) == name), key=len, reverse=True):
            chain = next((c for c in factors.chains if key in c.factors), None)
            term = _in_plain(factors, joint, key) if chain is None else _in_chain(factors, chain, key)
            pieces.append(_placed(term, factors.trace[key]))
        found[name] = _together(pieces)
    return found


def _together(pieces: list[Any]) -> Any:
    if len(pieces) == 1:
        return pieces[0]
    rest = pieces[0].shape
    return jnp.concatenate([piece.reshape(-1, *rest) for piece in pieces])


def _placed(term: Any, site: Mapping[str, Any]) -> Any:
    """A term as an array of the site's plates, the time of a scan on their left."""
    names = site["infer"]["name_to_dim"]
    frames = {f.name: f for f in site["cond_indep_stack"] if f.dim is not None}
    depth = max((-f.dim for f in frames.values()), default=0)
    axes = {-f.dim: (f.name, f.size) for f in frames.values()}
    order = {axes[i][0] if i in axes else f" {i}": axes[i][1] if i in axes else 1 for i in range(depth, 0, -1)}
    time = {name: term.inputs[name].size for name in names if name.startswith("_time") and name in term.inputs}
    return array(term, {**time, **order})


def at(factors: Factors, held: Indices) -> Factors:
    """The factors with some finite sites at values; a chain all of whose carried sites are held is no chain any more."""
    put = lambda f: f(**{k: v for k, v in held.items() if k in f.inputs})  # noqa: E731
    plain, chains = {k: put(f) for k, f in factors.plain.items()}, []
    plates = factors.plates
    for chain in factors.chains:
        first = {k: v for k, v in held.items() if not k.startswith(PREVIOUS)}
        chain = given(chain, first | lagged(chain, held))
        carried = tuple(k for k in chain.carried if k not in held)
        if carried:
            chains.append(chain._replace(carried=carried, own=chain.own - set(held)))
        else:
            plain, plates = plain | chain.factors, plates | {chain.time}
    return factors._replace(plain=plain, chains=tuple(chains), plates=plates, summed=factors.summed - set(held))


def _in_plain(factors: Factors, joint: list[Any], key: str) -> Any:
    """The term of a site outside of chains: with and without it, the factors that its finite sites connect."""
    own = factors.plain[key]
    others = [f for k, f in factors.plain.items() if k != key] + joint
    names, found = set(own.inputs) & factors.summed, []
    while more := [f for f in others if set(f.inputs) & names]:
        found += more
        others = [f for f in others if not any(f is g for g in more)]
        names |= {name for f in more for name in f.inputs} & factors.summed
    if not names:
        return own
    kept = frozenset(own.inputs) & factors.plates
    with_it = summed_over([own, *found], frozenset(names), factors.plates, kept)
    return with_it - summed_over(found, frozenset(names), factors.plates, kept)


def _in_chain(factors: Factors, chain: Chain, key: str) -> Any:
    """The term of a site of a scan: messages from both sides, and the steps with and without it."""
    plates, before, logits = steps(chain)
    full, bare = square(chain, logits), square(chain, steps(chain, without=key)[2])
    names = [name for group in before for name in group]
    levels = logits.shape[-len(chain.carried) :] * chain.history
    parts = [f for f in factors.plain.values() if set(f.inputs) & set(names)]
    inner = {name for f in parts for name in f.inputs} & factors.summed - set(names)
    parts += [f for f in factors.plain.values() if set(f.inputs) & inner and not any(f is g for g in parts)]
    start = (
        summed_over(parts, frozenset(inner), factors.plates, frozenset({*plates, *names}))
        if parts
        else funsor.Number(0.0)
    )
    begin = (
        array(start, {**plates, **dict(zip(names, levels, strict=True))})
        if parts
        else jnp.zeros((*plates.values(), *levels))
    )
    begin = begin.reshape(full.shape[1:-1])

    def onward(alpha: Any, factor: Any) -> tuple[Any, Any]:
        after = jax.scipy.special.logsumexp(alpha[..., None] + factor, axis=1)  # (unit, others, now)
        return after.reshape(alpha.shape), alpha

    _, alphas = lax.scan(onward, begin, full)
    beside = alphas[..., None] + messages(full)[:, :, None]
    total, rest = (jax.scipy.special.logsumexp(beside + factor, axis=(2, 3, 4)) for factor in (full, bare))
    axes = {chain.time: chain.size, **plates}
    return tensor((total - rest).reshape(tuple(axes.values())), axes, "real")


def indices(factors: Factors, name: str, value: Any) -> Indices:
    """The indices of a finite site's values, as tensors over its plates: the inverse of how draws are put together."""
    trace = factors.trace
    parts = sorted((k for k in trace if root(k) == name), key=len, reverse=True)
    values, index = support(trace[parts[0]]["fn"]), jnp.asarray(value)
    if values is not None:
        index = _place(index, values)
    groups = (factors.plain, *(chain.factors for chain in factors.chains))
    sizes = {k: d.size for group in groups for f in group.values() for k, d in f.inputs.items()}
    found = {}
    for i, key in enumerate(parts):
        frames = sorted((f for f in trace[key]["cond_indep_stack"] if f.dim is not None), key=lambda f: f.dim)
        time = next((k for k in trace[key]["infer"]["dim_to_name"].values() if k.startswith("_time")), None)
        own = index[i] if key.startswith(PREVIOUS) else index[i:] if time else index
        axes = ({time: sizes[time]} if time else {}) | {f.name: f.size for f in frames}
        found[key] = tensor(own.reshape(tuple(axes.values())).astype(int), axes, sizes[key])
    return found


def anywhere(factors: Factors, name: str, shape: tuple[int, ...], key: Any) -> tuple[Indices, Any]:
    """Random values of a finite site: as indices, and in its `shape`."""
    part = next(k for k in factors.trace if root(k) == name)
    values, groups = support(factors.trace[part]["fn"]), (factors.plain, *(chain.factors for chain in factors.chains))
    size = next(d.size for group in groups for f in group.values() for k, d in f.inputs.items() if k == part)
    batch = shape if values is None else shape[: len(shape) - values.ndim + 1]
    index = jax.random.randint(key, batch, 0, size)
    value = index if values is None else values[index]
    return indices(factors, name, value), value


def total(factors: Factors, held: Indices) -> Any:
    """The sum of all factors with every finite site at a value, ()."""
    rest = at(factors, held)
    return sum(jnp.sum(f.data) for f in rest.plain.values())


def _place(value: Any, values: Any) -> Any:
    """Where values stand in a support (levels, *event)."""
    event = values.ndim - 1
    same = value[None] == values.reshape(len(values), *(1,) * (value.ndim - event), *values.shape[1:])
    return jnp.argmax(same.all(tuple(range(same.ndim - event, same.ndim))), axis=0)
