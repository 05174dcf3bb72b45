"""The free energy of rows: what a sum over their hidden units leaves of the joint density.

    F(v) = log sum_h exp f(v, h)

exact where hidden units do not interact, are jointly normal, or have levels; else a mean-field bound, or one by draws.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from probgen.engine.numpyro.sums import energy
from probgen.engine.numpyro.sums.exact import marginal

SAMPLES = 1000  # of the posterior where F has no closed form
ITERATIONS, STILL = 50, 1e-3  # of mean field at most; the largest change of a mean by the last


def hidden_block(target: Any) -> list[Any] | None:
    """The hidden sites where they do not interact given the visible ones; None where they do."""
    names = {v.name for v in target.hidden}
    if not names:
        return []
    blocks = [b for b in target.structure.blocks if set(b.sites) & names]
    single = len(blocks) == 1 and blocks[0].colours is None
    return target.hidden if single else None


def exact(target: Any) -> bool:
    """Whether `free` has a closed form."""
    return target.structure.normal or hidden_block(target) is not None or any(v.kind == "levels" for v in target.hidden)


def summed(target: Any, parameters: Any, values: Any) -> Any:
    """f summed over the largest block whose units do not interact, the rest as in `values`; one point."""
    sizes = {b: sum(target.variables[s].size for s in b.sites) for b in target.structure.blocks if b.colours is None}
    hidden = hidden_block(target)
    sites = (
        hidden if hidden else [target.variables[s] for s in max(sizes, key=sizes.__getitem__).sites] if sizes else []
    )
    f = lambda x: target.joint(parameters, x)  # noqa: E731
    return energy.collapsed(f, values, sites) if sites else f(values)


def free(target: Any, parameters: Any, batch: Any) -> Any:
    """F of rows, (row,): exact where hidden units do not interact, are jointly normal, or have levels, which are enumerated.

    Else the mean-field bound, its values held fixed; where f is not affine in every hidden bit, one by draws from the mean-field
    posterior: see `sampled_bound`.
    """
    if target.structure.normal or any(v.kind == "levels" for v in target.hidden):
        return jax.vmap(marginal(target, lambda x: target.joint(parameters, x)))(batch)
    summable = ("bits",) if evaluated(target) else ("bits", "reals")
    if other := [v for v in target.hidden if v.kind not in summable]:
        raise energy.NotConditional(
            f"Hidden site {other[0].name!r} ({other[0].kind}) cannot be summed out: that is for {' and '.join(summable)} here."
        )
    if evaluated(target):
        keys = jax.random.split(jax.random.key(0), len(next(iter(batch.values()))))
        return jax.lax.map(lambda x: sampled_bound(x[0], target, parameters, x[1]), (keys, batch))
    block = hidden_block(target)
    if block is not None:
        f = lambda row: energy.collapsed(lambda x: target.joint(parameters, x), row, block)  # noqa: E731
        return jax.vmap(f)(batch) if block else target.joints(parameters, batch)
    if real := [v.name for v in target.hidden if v.kind == "reals"]:
        raise energy.NotConditional(
            f"Hidden site {real[0]!r} interacts with others and is not jointly normal with them: it has no closed integral."
        )
    return bound(target, parameters, batch, means(target, parameters, batch))


def means(target: Any, parameters: Any, batch: Any, start: Any = None) -> dict[str, Any]:
    """The hidden units' mean-field values given rows, constants to differentiation: arrays (row, *event)."""
    found = jax.vmap(lambda row, start: mean_field(target, parameters, row, start))(batch, start)
    return jax.lax.stop_gradient(found)


def bound(target: Any, parameters: Any, batch: Any, means: Any) -> Any:
    """The variational bound on F of rows with independent hidden bits of these means: (row,)."""
    entropy = sum(jnp.sum(_entropy(m).reshape(len(m), -1), axis=1) for m in means.values())
    return jax.vmap(lambda row, m: target.joint(parameters, {**row, **m}))(batch, means) + entropy


def _entropy(mean: Any) -> Any:
    """Of bits with these means, in nats."""
    return -jax.scipy.special.xlogy(mean, mean) - jax.scipy.special.xlogy(1 - mean, 1 - mean)


def mean_field(target: Any, parameters: Any, row: Any, start: Any = None) -> dict[str, Any]:
    """The hidden units' means by coordinate ascent on the bound, damped, a site after the other, until they stand still.

    start: means to begin at; a half by default.
    """
    parameters = jax.lax.stop_gradient(parameters)
    f = lambda x: target.joint(parameters, x)  # noqa: E731
    hidden = target.hidden

    def update(carry: Any) -> Any:
        i, _, old = carry
        means = old
        for v in hidden:
            new = energy.means(f, {**row, **means}, [v])[v.name] if _whole(target, v) else _self_mean(f, row, means, v)
            means = {**means, v.name: new}
        return i + 1, jnp.max(jnp.array([jnp.max(jnp.abs(means[k] - old[k])) for k in means])), means

    going = lambda carry: jnp.logical_and(carry[0] < ITERATIONS, carry[1] > STILL)  # noqa: E731
    begun = start or {v.name: jnp.full(v.shape, 0.5) for v in hidden}
    return jax.lax.while_loop(going, update, (jnp.int32(0), jnp.ones(()), begun))[2]


def evaluated(target: Any) -> bool:
    """Whether f is not affine in some of the hidden bits."""
    names = {v.name for v in target.hidden}
    return any(b.evaluated and set(b.sites) & names for b in target.structure.blocks)


def sampled_bound(key: Any, target: Any, parameters: Any, row: Any) -> Any:
    """log of the mean of exp f(v, h) / q(h) over draws h of a factorised q: below F(v) on average, for any q.

    Burda, Grosse and Salakhutdinov 2016 (arXiv:1509.00519).
    """
    means = mean_field(target, parameters, row)
    means = {k: jnp.clip(m, 1e-3, 1 - 1e-3) for k, m in means.items()}  # so that no value is out of reach

    def term(key: Any) -> Any:
        h = {
            k: jax.random.bernoulli(jax.random.fold_in(key, i), m).astype(m.dtype)
            for i, (k, m) in enumerate(means.items())
        }
        log_q = sum(jnp.sum(jnp.where(h[k] > 0, jnp.log(m), jnp.log1p(-m))) for k, m in means.items())
        return target.joint(parameters, {**row, **h}) - log_q

    terms = jax.vmap(term)(jax.random.split(key, SAMPLES))
    return jax.nn.logsumexp(terms) - jnp.log(SAMPLES)


def _whole(target: Any, v: Any) -> bool:
    return any(v.name in b.sites and b.colours is None for b in target.structure.blocks)


def _self_mean(f: Any, row: Any, means: Any, v: Any) -> Any:
    """Half a step of all of a site's units at once, where they interact among themselves."""
    slope = energy.slopes(f, {**row, **means}, [v.name])[v.name]
    return 0.5 * means[v.name] + 0.5 * jax.nn.sigmoid(slope)
