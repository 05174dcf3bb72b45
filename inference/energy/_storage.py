"""What rules of storage share: which parameter is the coupling, and what is stored there.

The coupling is the array whose derivative of f at a point is the outer product of the point's spins s = 2 v - 1, up to
a factor, on all pairs of units or on one half of them: f = c sum_ij W_ij s_i s_j + ...
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from probgen import runtime
from probgen.algorithm import Learner
from probgen.target import Learnable


class State(NamedTuple):
    """The parameters."""

    parameters: Any


class Info(NamedTuple):
    """loss: the share of the patterns' bits that one update at zero temperature would change; load: patterns a unit."""

    loss: Any
    load: Any
    converged: Any


@dataclass(frozen=True, kw_only=True)
class Storage(Learner[Learnable]):
    """Patterns stored in the couplings of a pairwise program, in closed form: one step."""

    engines: ClassVar[tuple[str, ...]] = ("numpyro",)
    precision: ClassVar[str] = "float32"
    loss_of: ClassVar[str] = "loss"

    num_steps: int = 1

    def prepare(self, target: Any) -> Any:
        site = _only_site(target)
        with runtime.jax_scope(target.precision):
            parameters = target.initial(jax.random.key(0))
            found = [name for name in parameters if bool(coupling(target, parameters, name)[0])]
        if len(found) != 1:
            known = ", ".join(f"{k}: {v.shape}" for k, v in parameters.items())
            raise ValueError(
                f"{'No' if not found else 'More than one'} parameter ({known}) couples the spins 2 {site.name} - 1 in "
                f"pairs.\nStorage needs a density like 0.5 * s @ W @ s; use inference='pcd' for others."
            )
        return target

    def init(self, key: Any, target: Any) -> State:
        return State(target.initial(key))

    def step(self, key: Any, state: State, target: Any) -> tuple[State, Info]:
        site = _only_site(target)
        spins = 2 * _patterns(target) - 1
        weights, parameters = self.weights(spins), dict(state.parameters)
        for name, value in state.parameters.items():
            is_coupling, sign = coupling(target, state.parameters, name)
            if value.shape == weights.shape:
                parameters[name] = jnp.where(is_coupling, sign * weights * (1 - jnp.eye(site.size)), value)
        return State(parameters), Info(
            unstable(target, parameters), jnp.float32(target.num_rows / site.size), jnp.bool_(True)
        )

    def answer(self, key: Any, state: State, target: Any) -> dict[str, Any]:
        return dict(state.parameters)

    def weights(self, spins: Any) -> Any:
        """The couplings (unit, unit) of patterns (pattern, unit) of spins -1 and 1."""
        raise NotImplementedError


def _only_site(target: Any) -> Any:
    sites = list(target.variables.values())
    if len(sites) != 1 or sites[0].kind != "bits" or target.hidden:
        names = ", ".join(f"{v.name} ({v.kind})" for v in sites)
        raise ValueError(f"Storage needs one site of visible bits; this program has {names}.")
    return sites[0]


def _patterns(target: Any) -> Any:
    """All rows, flattened: (pattern, unit)."""
    return target.rows(jnp.arange(target.num_rows))[_only_site(target).name].reshape(target.num_rows, -1)


def coupling(target: Any, parameters: Any, name: str) -> tuple[Any, Any]:
    """Whether a parameter couples the spins in pairs, and the sign of its factor."""
    site, shape = _only_site(target), parameters[name].shape
    if shape != (site.size, site.size):
        return jnp.bool_(False), jnp.zeros(())

    def slope(key: Any) -> tuple[Any, Any]:
        v = jax.random.bernoulli(key, shape=site.shape).astype(target.precision)
        f = lambda w: target.joint({**parameters, name: w}, {site.name: v})  # noqa: E731
        s = 2 * v.reshape(-1) - 1
        return jax.grad(f)(parameters[name]), jnp.outer(s, s)

    slopes, products = jax.vmap(slope)(jax.random.split(jax.random.key(0), 8))
    where = jnp.all(slopes != 0, axis=0)
    signed = slopes * products
    factor = jnp.sum(signed) / jnp.maximum(jnp.sum(slopes != 0), 1)
    pairs = jnp.all(where | where.T | jnp.eye(len(where), dtype=bool))
    off = ~jnp.eye(len(where), dtype=bool)
    fits = jnp.all(jnp.where(where & off, jnp.abs(signed - factor), 0.0) <= 1e-3 * jnp.abs(factor))
    nowhere_else = jnp.all(jnp.where(where, 0.0, slopes) == 0)
    return pairs & fits & nowhere_else & (factor != 0), jnp.sign(factor)


def unstable(target: Any, parameters: Any) -> Any:
    """The share of the patterns' bits whose conditional logit has the wrong sign."""
    site, patterns = _only_site(target), _patterns(target)

    def wrong(v: Any) -> Any:
        f = lambda x: target.joint(parameters, {site.name: x.reshape(site.shape)})  # noqa: E731
        return jnp.mean((jax.grad(f)(v) > 0) != (v > 0.5))

    return jnp.mean(jax.vmap(wrong)(patterns))
