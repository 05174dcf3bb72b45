"""Sites of NumPyro programs in forms that the library takes, and what they mean: unobserved point masses, labels as floats, shapes.

x = sample("x", Delta(v))                  is v: a deterministic site, and no unknown
sample("y", Categorical(p), obs=[0., 2.])  labels that a table gave as floats
sample("y", Normal(m, s), obs=y)           y of shape (3,) where m has (1, 3)
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.core import Tracer

from probgen.engine.numpyro.wrapped import as_kind, changed, innermost


def settle(msg: dict[str, Any]) -> None:
    """A draw from a point mass as a deterministic site; its density, where it has one, as a factor."""
    fn = msg["fn"]
    inner: Any = innermost(fn)
    if not isinstance(inner, dist.Delta):
        return
    point: Any = inner
    value, shape = jnp.asarray(point.v), tuple(msg["kwargs"].get("sample_shape", ())) + fn.shape()
    msg["type"], msg["value"] = "deterministic", jnp.broadcast_to(value, shape)
    if not _is_nothing(point.log_density):
        log_density = jnp.broadcast_to(point.log_density, point.batch_shape)
        numpyro.factor(f"{msg['name']}_log_density", log_density)


def _is_nothing(log_density: Any) -> bool:
    return not isinstance(log_density, Tracer) and bool(np.all(np.asarray(log_density) == 0))


def observe(msg: dict[str, Any]) -> None:
    """An observed site whose labels are floats, or whose data lack leading axes of length 1."""
    fn, value = msg["fn"], msg["value"]
    if not isinstance(fn, dist.Distribution):
        return
    shape, own = fn.shape(), jnp.shape(value)
    lead = len(shape) - len(own)
    if lead > 0 and set(shape[:lead]) == {1} and own and jnp.broadcast_shapes(shape[lead:], own) == own:
        msg["value"] = jnp.reshape(value, (1,) * lead + own)
    if jnp.issubdtype(jnp.result_type(value), jnp.floating):
        msg["fn"] = _of_floats(fn)


class _Probs(dist.CategoricalProbs):
    """Labels are whole numbers, in a type of any kind."""

    def log_prob(self, value: Any) -> Any:
        return super().log_prob(jnp.asarray(value).astype(int))


class _Logits(dist.CategoricalLogits):
    """Labels are whole numbers, in a type of any kind."""

    def log_prob(self, value: Any) -> Any:
        return super().log_prob(jnp.asarray(value).astype(int))


_Probs.__name__, _Logits.__name__ = "CategoricalProbs", "CategoricalLogits"
KINDS = {dist.CategoricalProbs: _Probs, dist.CategoricalLogits: _Logits}


def _of_floats(fn: Any) -> Any:
    """The distribution with labels of any type; itself where it is of another kind."""
    return changed(fn, lambda inner: as_kind(inner, KINDS[type(inner)]) if type(inner) in KINDS else inner)
