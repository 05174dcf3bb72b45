"""Masked diffusion of bits, levels and tokens as one hidden site: units are masked by and by, and a network unmasks them.

    q(z_0, ..., z_{T-1} | x):  z_0 = x;  every unit is masked at a level of its own, and stays so;  P(masked at t) = m_t
    p(z_0, ..., z_{T-1}):      z_T is all mask;  a unit that is masked at t is shown at t - 1 with probability
                               (m_t - m_{t-1}) / m_t, its value drawn by a network given what is shown at t

m_t = 1 - alpha_t rises from 0 to 1. When a unit is masked has one law under both, so that only the values count:

    KL(q || p) = sum_t (m_t - m_{t-1}) / m_t  E sum_{i masked at t} -log p(x_i | z_t)

The network never says "mask", and units that are shown stay as they are. With num_levels=None there are infinitely many levels, of
which only those where something happens are kept: units are masked one by one in an order drawn evenly, and the sum is the bound
of continuous time, int_0^1 m'/m E sum_{i masked} -log p(x_i | z) dt, whatever the schedule.
Austin et al. 2021 (arXiv:2107.03006); Hoogeboom et al. 2022 (arXiv:2110.02037); Sahoo et al. 2024 (arXiv:2406.07524);
Shi et al. 2024 (arXiv:2406.04329); draws: Zheng et al. 2025 (arXiv:2409.02908).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution, constraints

from probgen.distributions.flags import dependent_property

ShareSchedule = Literal["linear", "cosine"]
TOGETHER = 16  # levels of a whole chain that the network sees at once


def shares(num_levels: int, schedule: ShareSchedule = "linear") -> np.ndarray:
    """m_0 = 0, ..., m_T = 1: the share of units that are masked at every level: (num_levels + 1,).

    schedule: "linear", m = t, or "cosine", m = sin(pi t / 2), which shows few units in the first steps from all mask.
    """
    if isinstance(num_levels, bool) or not isinstance(num_levels, int | np.integer) or num_levels < 1:
        raise ValueError(
            f"num_levels is {num_levels!r}; expected a whole number, 1 or more, or None for continuous time."
        )
    t = np.arange(num_levels + 1) / num_levels
    if schedule == "linear":
        return t
    if schedule == "cosine":
        return np.concatenate([np.sin(np.pi / 2 * t[:-1]), [1.0]])
    raise ValueError(f"schedule is {schedule!r}; known: linear, cosine")


class Tokens(constraints.Constraint):
    """Chains (level, unit) of whole numbers 0 ... num_values, the last of them the mask. Finitely many, but not to be listed."""

    is_discrete = True
    event_dim = 2

    def __init__(self, num_values: int):
        self.num_values = num_values

    def __call__(self, x: Any) -> Any:
        return ((x >= 0) & (x <= self.num_values) & (x == jnp.floor(x))).all((-2, -1))

    def tree_flatten(self) -> Any:
        return (), ((), {"num_values": self.num_values})


class At(NamedTuple):
    """A point at one level: which (), the share of units that is masked there (), and the point (unit,)."""

    index: Any
    share: Any
    z: Any


class Chain(Distribution):
    """What both chains share: when each unit is masked. `when`: (unit,) is the first level, 1 ... T, at which it is.

    Events: (level, unit), level 0 the point itself; the mask is the number num_values.
    """

    reparametrized_params: Any = ()
    num_levels: int | None
    num_values: int
    schedule: ShareSchedule

    def _begin(self, num_units: int, validate_args: bool | None) -> None:
        if isinstance(self.num_values, bool) or not isinstance(self.num_values, int) or self.num_values < 2:
            raise ValueError(f"num_values is {self.num_values!r}; expected a whole number, 2 or more.")
        if num_units < 1:
            raise ValueError(f"There are {num_units} units; expected 1 or more.")
        levels = num_units if self.num_levels is None else len(shares(self.num_levels, self.schedule)) - 1
        super().__init__((), (levels, num_units), validate_args=validate_args)

    @dependent_property(is_discrete=True, event_dim=2)
    def support(self) -> Any:
        return Tokens(self.num_values)

    @property
    def shares(self) -> Any:
        """(level + 1,)."""
        return jnp.asarray(shares(self.event_shape[0], "linear" if self.num_levels is None else self.schedule))

    def when(self, key: Any) -> Any:
        """A draw: (unit,)."""
        if self.num_levels is None:
            return 1 + jax.random.permutation(key, self.event_shape[1])
        return jnp.searchsorted(self.shares, jax.random.uniform(key, self.event_shape[1:]), side="right")

    def log_when(self, when: Any) -> Any:
        """log P of when units are masked, in nats: ()."""
        if self.num_levels is None:
            return -jax.lax.lgamma(self.event_shape[1] + 1.0)
        return jnp.log(jnp.diff(self.shares))[when - 1].sum()

    def chain(self, x: Any, when: Any) -> Any:
        """All levels of a point: (level, unit)."""
        return self.hidden(x, when, jnp.arange(self.event_shape[0])[:, None])

    def hidden(self, x: Any, when: Any, level: Any) -> Any:
        return jnp.where(when <= level, self.num_values, x)

    def read(self, chain: Any) -> tuple[Any, Any]:
        """When units are masked in a chain, (unit,), and whether it is one that can be, ()."""
        when = jnp.sum(chain != self.num_values, 0)
        good = (self.chain(chain[0], when) == chain).all() & (when > 0).all() & Tokens(self.num_values)(chain)
        if self.num_levels is None:
            good &= (jnp.sort(when) == 1 + jnp.arange(len(when))).all()
        return jnp.maximum(when, 1), good

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        if not sample_shape:
            return self._path(key)
        keys = jax.random.split(key, math.prod(sample_shape))
        return jax.vmap(self._path)(keys).reshape(*sample_shape, *self.event_shape)

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        """log p of chains (*batch, level, unit), in nats: (*batch,); minus infinity for what is no chain."""
        value = jnp.asarray(value)
        batch = value.shape[:-2]
        flat = value.reshape(-1, *self.event_shape)
        return (jax.vmap(self._mass)(flat) if batch else self._mass(flat[0])).reshape(batch)

    def _path(self, key: Any) -> Any:
        raise NotImplementedError

    def _mass(self, chain: Any) -> Any:
        raise NotImplementedError


class Masking(Chain):
    """q(z_0, ..., z_{T-1} | x): units are masked by chance, each with probability m_t at level t. Nothing is learned.

    x: (unit,), whole numbers 0 ... num_values - 1; num_levels: T, or None for continuous time; schedule: see `shares`.
    """

    pytree_data_fields = ("x",)
    pytree_aux_fields = ("num_levels", "num_values", "schedule")

    def __init__(
        self, x: Any, num_levels: int | None, num_values: int = 2, schedule: ShareSchedule = "linear",
        *, validate_args: bool | None = None,
    ):  # fmt: skip
        self.x = jnp.asarray(x, jnp.result_type(float))
        if self.x.ndim != 1:
            raise ValueError(f"x has shape {self.x.shape}; expected the units of one point, (unit,). Ravel it.")
        self.num_levels, self.num_values, self.schedule = num_levels, num_values, schedule
        self._begin(self.x.size, validate_args)

    def _path(self, key: Any) -> Any:
        return self.chain(self.x, self.when(key))

    def _mass(self, chain: Any) -> Any:
        when, good = self.read(chain)
        return jnp.where(good & (chain[0] == self.x).all(), self.log_when(when), -jnp.inf)

    # ---- a random level of it

    def lazily(self, key: Any, time: Any = None) -> tuple[Any, At]:
        """The point, which is the chain's level 0, and one random level; time: which, in [0, 1), by default drawn."""
        k_time, k_at = jax.random.split(key)
        time = jax.random.uniform(k_time) if time is None else time
        return self.x, self.at(k_at, time)

    def at(self, key: Any, time: Any) -> At:
        """The chain at a level, 1 ... T. In continuous time the number of masked units, 0 ... unit, is what comes of that time."""
        levels, units = self.event_shape
        u = jax.random.uniform(key, (units,))
        if self.num_levels is None:
            masked = u < time
            index = masked.sum()
            return At(index, index / units, jnp.where(masked, self.num_values, self.x))
        index = 1 + jnp.clip(jnp.floor(time * levels).astype(int), 0, levels - 1)
        share = self.shares[index]
        return At(index, share, jnp.where(u < share, self.num_values, self.x))


class Unmasking(Chain):
    """p(z_0, ..., z_{T-1}): from all mask, a network shows unit after unit.

    predict: (z (unit,), share ()) -> logits of every unit given those that are shown in z, where the mask is num_values:
        (unit, num_values), or for bits (unit,), of being 1; share: of the units that are masked, as expected, from 0 to 1.
        A network with parameters is an `equinox.Module`, or an `equinox.Partial` of one.
    num_levels, num_values, schedule: as of `Masking`. A draw takes as many evaluations of the network as there are levels.
    """

    pytree_data_fields = ("predict",)
    pytree_aux_fields = ("num_levels", "num_units", "num_values", "schedule")

    def __init__(
        self, predict: Callable[[Any, Any], Any], num_levels: int | None, num_units: int, num_values: int = 2,
        schedule: ShareSchedule = "linear", *, validate_args: bool | None = None,
    ):  # fmt: skip
        self.predict: Any = predict if isinstance(predict, eqx.Module) else jax.tree_util.Partial(predict)
        self.num_levels, self.num_units, self.num_values, self.schedule = num_levels, num_units, num_values, schedule
        self._begin(num_units, validate_args)

    def logits(self, z: Any, share: Any) -> Any:
        """What the network says: (unit, num_values), or (unit,)."""
        found = self.predict(z, share)
        good = [(self.num_units, self.num_values)] + [(self.num_units,)] * (self.num_values == 2)
        if jnp.shape(found) not in good:
            raise ValueError(
                f"predict returns logits of shape {jnp.shape(found)}; expected {' or '.join(map(str, good))}."
            )
        return found

    def first(self, key: Any, num_steps: int | None = None) -> Any:
        """The point alone, by all levels: (unit,); num_steps: by so many levels instead, of another law than `log_prob` is of."""
        if num_steps is not None:
            return Unmasking(self.predict, num_steps, self.num_units, self.num_values, self.schedule).first(key)
        return self._back(key, self._nothing, False)[0]

    @property
    def _nothing(self) -> Any:
        return jnp.full(self.num_units, self.num_values, jnp.result_type(float))

    def _path(self, key: Any) -> Any:
        return self._back(key, self._nothing, True)[1][::-1]

    def complete(self, key: Any, value: Any, known: Any) -> Any:
        """A point whose known units keep their value; the others are shown in an order drawn evenly: (unit,).

        That is p(unknown | known) as the network says it, which is the chain's own where the network's conditionals are those of
        one distribution. value, known (booleans): (unit,); what is not known may be NaN.
        """
        return self._back(key, jnp.where(known, value, self.num_values), False)[0]

    def _back(self, key: Any, z: Any, kept: bool) -> tuple[Any, Any]:
        """From what is shown in z to the point, (unit,), and where they are kept the levels on the way, (level, unit)."""
        k_when, k_values = jax.random.split(key)
        when, levels = self.when(k_when), self.event_shape[0]
        hidden, at = z == self.num_values, self.shares

        def step(z: Any, given: Any) -> tuple[Any, Any]:
            level, key = given
            share = jnp.mean(z == self.num_values) if self.num_levels is None else at[level]
            drawn = drawn_values(key, self.logits(z, share))
            z = jnp.where(hidden & (when == level), drawn, z)
            return z, z if kept else None

        down = jnp.arange(levels, 0, -1), jax.random.split(k_values, levels)
        return jax.lax.scan(step, z, down)

    def _mass(self, chain: Any) -> Any:
        when, good = self.read(chain)

        def one(level: Any) -> Any:
            z = self.hidden(chain[0], when, level)
            own = log_mass(self.logits(z, self.shares[level]), jnp.minimum(chain[0], self.num_values - 1))
            return jnp.where(when == level, own, 0.0).sum()

        levels = 1 + jnp.arange(self.event_shape[0])
        few = len(levels) <= TOGETHER
        each = jax.vmap(one)(levels) if few else jax.lax.map(one, levels, batch_size=TOGETHER)
        return jnp.where(good, self.log_when(when) + each.sum(), -jnp.inf)

    # ---- KL(q || p), a part at a time

    def end_gap(self, q: Masking) -> Any:
        """Zero: at the end both are all mask."""
        return jnp.zeros(())

    def gap(self, q: Masking, at: At) -> Any:
        """The KL of one random level, scaled to stand for them all, in nats: ()."""
        lost = -log_mass(self.logits(at.z, at.share), q.x)
        lost = jnp.where(at.z == self.num_values, lost, 0.0).sum()
        return self.weight(at) * lost

    def weight(self, at: At) -> Any:
        """Of the units masked at a level: T (m_t - m_{t-1}) / m_t; in continuous time, where 0 to D of D units are masked with the
        same probability each, (D + 1) / number."""
        if self.num_levels is None:
            return (self.num_units + 1) / jnp.maximum(at.index, 1)
        return self.event_shape[0] * (1 - self.shares[at.index - 1] / self.shares[at.index])


class Shown(Distribution):
    """All mass at one point (unit,): what is seen of level 0 of a chain.

    num_values: of a unit; 2 for bits.
    """

    pytree_data_fields = ("value",)
    pytree_aux_fields = ("num_values",)

    def __init__(self, value: Any, num_values: int = 2, *, validate_args: bool | None = None):
        self.value, self.num_values = value, num_values
        super().__init__((), jnp.shape(value), validate_args=validate_args)

    @dependent_property(is_discrete=True)
    def support(self) -> Any:
        unit = constraints.boolean if self.num_values == 2 else constraints.integer_interval(0, self.num_values - 1)
        return constraints.independent(unit, len(self.event_shape))

    @property
    def mean(self) -> Any:
        return self.value

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        """0 at the point, minus infinity elsewhere."""
        same = (value == self.value).all(tuple(range(-self.event_dim, 0)))
        return jnp.where(same, 0.0, -jnp.inf)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        return jnp.broadcast_to(self.value, (*sample_shape, *self.event_shape))


def log_mass(logits: Any, x: Any) -> Any:
    """log p of every unit's value, in nats: (unit,). logits: (unit, value), or of bits (unit,)."""
    if logits.ndim == 1:
        return -jax.nn.softplus(jnp.where(x == 1, -logits, logits))
    own = jnp.arange(logits.shape[1]) == x[:, None]  # no gather, whose gradient is slow on a CPU
    return jnp.where(own, jax.nn.log_softmax(logits), 0.0).sum(-1)


def drawn_values(key: Any, logits: Any) -> Any:
    """A value of every unit: (unit,). Of more than two, by Gumbel noise of all bits: that of JAX's default ends at 16, which draws
    rare values too rarely."""
    if logits.ndim == 1:
        return (jax.random.uniform(key, logits.shape) < jax.nn.sigmoid(logits)).astype(logits.dtype)
    return jax.random.categorical(key, logits, mode="high").astype(logits.dtype)
