"""A critic of points: what it says of data and of a model's points, and what the model learns from that.

critic:   minimise -log s(D(x)) - mean log(1 - s(D(x'))),   x' of the model, s the logistic function (Goodfellow et al. 2014)
model:    minimise -mean log s(D(x')),                      the non-saturating form
likeness: -log N(F(x) | F(x'), I), up to a constant, x' the rebuilt x, F the critic's features (Larsen et al. 2016)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Judgement(NamedTuple):
    """Means over rows, in nats: the critic's loss (2 log 2 where it cannot tell), the model's, the distance of the features.

    right: the share of points that the critic tells right, data and model's points each counting one half.
    """

    critic: Any
    model: Any
    distance: Any
    right: Any


def judgement(target: Any, parameters: Any, rows: Any, rebuilt: Any, *others: Any) -> Judgement:
    """What the critic says of rows, of the same rows as the model rebuilds them, and of other points of the model."""
    judge = jax.vmap(lambda row: target.judged(parameters, row))
    logit, features = judge(rows)
    shown = [judge(points) for points in (rebuilt, *others)]
    fooled = jnp.concatenate([found for found, _ in shown])
    softplus = jax.nn.softplus
    return Judgement(
        critic=jnp.mean(softplus(-logit)) + jnp.mean(softplus(fooled)),
        model=jnp.mean(softplus(-fooled)),
        distance=0.5 * jnp.mean(jnp.sum((features - shown[0][1]) ** 2, -1)),
        right=0.5 * jnp.mean(logit > 0) + 0.5 * jnp.mean(fooled < 0),
    )


def rebuilt(target: Any, keys: Any, parameters: Any, rows: Any) -> Any:
    """What the program makes of the guide's draws, with the rows' inputs: the visible sites' means, (row, *event)."""

    def one(key: Any, row: Any) -> Any:
        inputs = {k: row[k] for k in target.inputs}
        return target.means(parameters, inputs | target.draw(key, parameters, row)) | inputs

    return jax.vmap(one)(keys, rows)


def by_owner(losses: Callable[[Any], tuple[tuple[Any, ...], Any]], parameters: Any, owners: Sequence[Any]) -> Any:
    """Gradients where each group of parameters has a loss of its own, as players have; and what else `losses` gives.

    losses: parameters -> (a loss for each group), the rest. owners: the labels of each group; earlier groups go first.
    """
    values, pull, rest = jax.vjp(losses, parameters, has_aux=True)
    gradient = {}
    for i, labels in reversed(list(enumerate(owners))):
        one = tuple(jnp.ones_like(v) if i == j else jnp.zeros_like(v) for j, v in enumerate(values))
        gradient |= {k: v for k, v in pull(one)[0].items() if k in labels}
    return gradient, rest
