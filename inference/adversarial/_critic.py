"""A critic of points: what it says of data and of a model's points, and what the model learns from that.

critic:   minimise -log s(D(x)) - mean log(1 - s(D(x'))),   x' of the model, s the logistic function (Goodfellow et al. 2014)
model:    minimise -mean log s(D(x')),                      the non-saturating form
likeness: -log N(F(x) | F(x'), I), up to a constant, x' the rebuilt x, F the critic's features (Larsen et al. 2016)

A critic of patches says D of each; means are over patches and rows. Isola, Zhu, Zhou and Efros 2017 (arXiv:1611.07004).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

SHORT = 1e-4  # added to a gradient's length
LARGEST = 1e4  # weight of a critic (Esser, Rombach and Ommer 2021)


class Judgement(NamedTuple):
    """Means over rows, in nats: the critic's loss (2 log 2 where it cannot tell), the model's, the distance of the features.

    right: the share of points, or of their patches, that the critic tells right, data and model's points each counting one half.
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
    return jax.vmap(lambda key, row: target.rebuilt(key, parameters, row))(keys, rows)


def balance(alike: Any, fooling: Any) -> Any:
    """|alike| / (|fooling| + 1e-4), at most 1e4: what makes the second of two gradients (*shape) as long as the first, ()."""
    return jnp.clip(_length(alike) / (_length(fooling) + SHORT), 0.0, LARGEST)


def _length(x: Any) -> Any:
    return jnp.sqrt(jnp.sum(x**2))


def weighed(losses: Callable[[Any], tuple[tuple[Any, ...], Any]], parameters: Any) -> tuple[Callable[..., Any], Any]:
    """The gradient of several losses, by label, as a function of their weights; and what else `losses` gives.

    losses: parameters -> (losses, the rest).
    """
    values, pull, rest = jax.vjp(losses, parameters, has_aux=True)
    return lambda *by: pull(tuple(jnp.asarray(w, v.dtype) for w, v in zip(by, values, strict=True)))[0], rest


def by_owner(losses: Callable[[Any], tuple[tuple[Any, ...], Any]], parameters: Any, owners: Sequence[Any]) -> Any:
    """Gradients where each group of parameters has a loss of its own, as players have; and what else `losses` gives.

    losses: parameters -> (a loss for each group), the rest. owners: the labels of each group; earlier groups go first.
    """
    along, rest = weighed(losses, parameters)
    gradient = {}
    for i, labels in reversed(list(enumerate(owners))):
        own = along(*(float(i == j) for j in range(len(owners))))
        gradient |= {k: v for k, v in own.items() if k in labels}
    return gradient, rest
