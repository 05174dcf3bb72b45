"""What learners of energies share: the likelihood's gradient, and what can be watched of it.

With f the joint log density of one point, F(v) = log sum_h exp f(v, h) and Z its sum over v too, the gradient is

    d/dtheta mean log p(v) = mean over data of dF/dtheta - mean over the model of dF/dtheta

The learners differ in where the model's points come from. Both means are exact over one block of units given the rest,
by automatic differentiation of the sum over that block. Hidden units that interact take their mean-field values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from probgen.engine import energy
from probgen.inference.learning._rows import RowLearner, State
from probgen.target import Learnable

SAMPLES = 1000  # of the posterior where F has no closed form
BITS = 8  # of a row, by which its pseudo-likelihood is estimated
ITERATIONS, STILL = 50, 1e-3  # of mean field at most; the largest change of a mean by the last


@dataclass(frozen=True, kw_only=True)
class EnergyLearner(RowLearner[Learnable]):
    """Settings of all learners of energies: those of all learners from rows."""

    loss_of: ClassVar[str] = "pseudo-likelihood"  # where there are bits; see `monitor`

    def prepare(self, target: Any) -> Any:
        return blocked(target)

    def monitor(self, key: Any, target: Any, state: State, batch: Any, gap: Any) -> Any:
        """The loss to be shown: minus the pseudo-likelihood of bits, estimated from a few units a row, every tenth step.

        Of reals, the reconstruction's squared error; of levels, the size of the gap.
        """
        later = lambda: state.loss  # noqa: E731
        now = lambda: pseudo_loss(key, target, state.parameters, batch)  # noqa: E731
        if all(v.kind == "reals" for v in target.visible):
            now = lambda: reconstruction(target, state.parameters, batch)  # noqa: E731
        elif not any(v.kind == "bits" for v in target.visible):
            now = lambda: jnp.abs(gap)  # noqa: E731
        return jax.lax.cond(state.step % 10 == 0, now, later)


def blocked(target: Any) -> Any:
    """The target with its blocks; NotConditional where there are none, with what a learner can do about it."""
    try:
        return target.blocked()
    except energy.NotConditional as error:
        why = str(error).splitlines()[0]
        if any(v.kind == "bits" for v in target.visible):
            advice = "Learners draw each bit by the derivative of the energy in it; a stack of layers learns by inference='greedy'."
        else:
            advice = "Learners draw real numbers by normal conditionals; use inference='score_matching' or 'short_run'."
        raise energy.NotConditional(f"{why}\n{advice}") from None


# ---- the likelihood ----------------------------------------------------------------------------------------------


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
        from probgen.inference.learning._exact import marginal

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
        return jax.vmap(f if block else lambda row: target.joint(parameters, row))(batch)
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


def sweeps(key: Any, target: Any, parameters: Any, chains: Any, count: int) -> Any:
    """Gibbs sweeps of many chains {site: (chain, *event)} under given parameters, all sites free."""
    f = lambda x: target.joint(parameters, x)  # noqa: E731
    number = len(next(iter(chains.values())))

    def one(i: Any, values: Any) -> Any:
        keys = jax.random.split(jax.random.fold_in(key, i), number)
        sweep = lambda k, x: energy.sweep(k, f, x, target.variables, target.structure.blocks, {})[0]  # noqa: E731
        return jax.vmap(sweep)(keys, values)

    return one(0, chains) if count == 1 else jax.lax.fori_loop(0, count, one, chains)


def with_hidden(key: Any, target: Any, parameters: Any, batch: Any) -> Any:
    """Rows with their hidden sites at random; the first block of a sweep draws what it needs."""
    number = len(next(iter(batch.values())))
    return {**batch, **energy.anywhere(key, target.hidden, number)}


def pseudo_loss(key: Any, target: Any, parameters: Any, batch: Any) -> Any:
    """Minus the log pseudo-likelihood of a row's bits in nats, by BITS bits of each row, or by one where F has no closed form.

    D log(1 + exp(F(v with one bit flipped) - F(v))), D the number of visible bits. Where F is bounded by mean field, that of the
    flipped row begins at the means of the other: their difference must not be one between two modes of the bound.
    """
    if not exact(target):
        return _pseudo_loss(key, target, parameters, batch)
    losses = jax.vmap(lambda key: _pseudo_loss(key, target, parameters, batch))(jax.random.split(key, BITS))
    return losses.mean()


def _pseudo_loss(key: Any, target: Any, parameters: Any, batch: Any) -> Any:
    """The same from one bit of every row."""
    bits = [v for v in target.visible if v.kind == "bits"]
    number, total = len(next(iter(batch.values()))), sum(v.size for v in bits)
    at = jax.random.randint(key, (number,), 0, total)
    flipped, start = dict(batch), 0
    for v in bits:
        hit = jax.nn.one_hot(at - start, v.size, dtype=batch[v.name].dtype).reshape(number, *v.shape)
        flipped[v.name] = hit * (1 - batch[v.name]) + (1 - hit) * batch[v.name]
        start += v.size
    if exact(target) or evaluated(target):
        change = free(target, parameters, flipped) - free(target, parameters, batch)
    else:
        at_rows = means(target, parameters, batch)
        near = bound(target, parameters, flipped, means(target, parameters, flipped, at_rows))
        change = near - bound(target, parameters, batch, at_rows)
    return total * jnp.mean(jax.nn.softplus(change))


def reconstruction(target: Any, parameters: Any, batch: Any) -> Any:
    """Mean squared error of the visible means given the hidden means of a row."""

    def one(row: Any) -> Any:
        f = lambda x: target.joint(parameters, x)  # noqa: E731
        block = hidden_block(target)
        hidden = energy.means(f, row, block) if block else mean_field(target, parameters, row) if target.hidden else {}
        back = energy.means(f, {**row, **hidden}, target.visible)
        return sum(jnp.sum((back[k] - row[k]) ** 2) for k in row)

    return jnp.mean(jax.vmap(one)(batch))


def filled(key: Any, target: Any, parameters: Any, points: Any) -> Any:
    """Points with the hidden sites drawn given the visible ones: exactly where they do not interact, else one sweep."""
    if not target.hidden:
        return points
    f = lambda x: target.joint(parameters, x)  # noqa: E731
    names = {v.name for v in target.hidden}
    blocks = tuple(
        block._replace(sites=tuple(s for s in block.sites if s in names))
        for block in target.structure.blocks
        if set(block.sites) & names
    )
    keys = jax.random.split(key, len(next(iter(points.values()))))
    return jax.vmap(lambda k, x: energy.sweep(k, f, x, target.variables, blocks, {})[0])(keys, points)


def contrast(target: Any, parameters: Any, batch: Any, points: Any) -> tuple[Any, Any]:
    """The gradient of mean F over the model's points minus mean F over the batch, and their gap, in nats.

    Over the model's points F is summed over one block given the rest of each point.
    """
    points = jax.lax.stop_gradient(points)

    def loss(parameters: Any) -> Any:
        model = jnp.mean(jax.vmap(lambda x: summed(target, parameters, x))(points))
        return model - jnp.mean(free(target, parameters, batch))

    value, gradient = jax.value_and_grad(loss)(parameters)
    return gradient, -value
