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

from probgen.algorithm import Incompatible
from probgen.engine.numpyro.sums import energy
from probgen.engine.numpyro.sums.free_energy import (
    bound,
    evaluated,
    exact,
    free,
    hidden_block,
    mean_field,
    means,
    summed,
)
from probgen.inference._learner import RowLearner, State
from probgen.target import Learnable

BITS = 8  # of a row, by which its pseudo-likelihood is estimated


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


def without_inputs(learner: Any, target: Any) -> None:
    """Raise Incompatible where rows have inputs: chains that go on from step to step are of no row whose inputs they could have."""
    if target.inputs:
        raise Incompatible(
            f"{learner.name} keeps chains that belong to no row; the program has inputs of each row: {', '.join(target.inputs)}.\n"
            "Use inference='cd', whose chains begin at the rows of a batch, or 'pseudo_likelihood'."
        )


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


# ---- chains and what is watched -------------------------------------------------------------------------------------


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
