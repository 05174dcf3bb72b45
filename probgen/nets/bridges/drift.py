"""Diffusions from a point of one kind to a point of another, by a drift that a network says.

    dX = v(X, t) dt + sigma dW,   X_0 a point of the first kind,   X_1 one of the second

Of pairs that Brownian bridges join, X_t = (1 - t) X_0 + t X_1 + sigma sqrt(t (1 - t)) e, the drift that keeps every marginal is

    v(x, t) = (E[X_1 | X_t = x] - x) / (1 - t)

The network says it in units in which what is learned from has about variance one at every time: near the end it is the noise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution, constraints

from probgen.nets.flows import fitting

FARTHEST = 7.0  # log t / (1 - t) that a network is shown
LAST = 1e-4  # before the end, the nearest time at which a network is asked


class Drift(eqx.Module):
    """A drift by a network: (scaled x, log t / (1 - t)) -> (*event).

    sigma: of the Brownian motion, in units of the data; begin, end: the means of both kinds, numbers, (*event) or
    (1, *event); spreads: the standard deviation of a coordinate of each, ().
    """

    net: Callable[[Any, Any], Any]
    sigma: Any = 1.0
    begin: Any = 0.0
    end: Any = 0.0
    spreads: tuple[Any, Any] = (1.0, 1.0)

    def __check_init__(self) -> None:
        known = isinstance(self.sigma, int | float | np.number)  # else an array, which compiled code may not look into
        if known and not 0 < self.sigma < np.inf:
            raise ValueError(
                f"sigma is {self.sigma}; expected a number above 0, the standard deviation of the Brownian motion after one unit "
                "of time.\nWithout noise there is no bridge: as sigma falls, it becomes optimal transport."
            )

    def __call__(self, x: Any, t: Any) -> Any:
        """v(x, t): (*event), t: () -> (*event)."""
        t = jnp.minimum(t, 1.0 - LAST)
        apart = self.spreads[0] ** 2 + self.spreads[1] ** 2
        return self.shift(x) + jnp.sqrt(apart + self.sigma**2 * t / (1 - t)) * self.said(x, t)

    def shift(self, x: Any) -> Any:
        """What the means are apart, for points of the shape of x: (*event)."""
        return fitting(self.end, jnp.shape(x)) - fitting(self.begin, jnp.shape(x))

    def said(self, x: Any, t: Any) -> Any:
        """The network's own output: (*event)."""
        t = jnp.minimum(t, 1.0 - LAST)
        first, last = self.spreads
        seen = jnp.sqrt(((1 - t) * first) ** 2 + (t * last) ** 2 + self.sigma**2 * t * (1 - t))
        level = jnp.clip(jnp.log(t) - jnp.log1p(-t), -FARTHEST, FARTHEST)
        return self.net((x - fitting(self.begin, jnp.shape(x)) - t * self.shift(x)) / seen, level)

    def bridged(self, x0: Any, x1: Any, noise: Any, t: Any) -> Any:
        """A point of the Brownian bridge between two: (*event)."""
        return (1 - t) * x0 + t * x1 + self.sigma * jnp.sqrt(t * (1 - t)) * noise

    def wanted(self, x0: Any, x1: Any, noise: Any, t: Any) -> Any:
        """What the network should have said at that point: (*event)."""
        apart = self.spreads[0] ** 2 + self.spreads[1] ** 2
        left = x1 - x0 - self.shift(x0) - self.sigma * jnp.sqrt(t / (1 - t)) * noise
        return left / jnp.sqrt(apart + self.sigma**2 * t / (1 - t))

    def path(self, start: Any, key: Any, num_steps: int) -> Any:
        """X at `times(num_steps)` from a point: (*event) -> (time, *event).

        Heun's method, of weak order two where noise is added alike everywhere; Euler's at the last step.
        """
        at = times(num_steps)
        noise = jax.random.normal(key, (num_steps, *jnp.shape(start)), jnp.result_type(float, start))

        def step(x: Any, now: Any) -> Any:
            t, s, e = now
            push = self.sigma * jnp.sqrt(s - t) * e
            first = self(x, t)
            second = jnp.where(s < 1, self(x + (s - t) * first + push, s), first)
            x = x + 0.5 * (s - t) * (first + second) + push
            return x, x

        start = jnp.asarray(start, noise.dtype)
        _, rest = jax.lax.scan(step, start, (at[:-1], at[1:], noise))
        return jnp.concatenate([start[None], rest])


def times(num_steps: int) -> Any:
    """From 0 to 1, closer and closer at the end, where a diffusion makes out the finest of what it goes to: (num_steps + 1,)."""
    if isinstance(num_steps, bool) or num_steps != int(num_steps) or num_steps < 2:
        raise ValueError(f"num_steps is {num_steps}; expected a whole number of at least 2.")
    return time(jnp.linspace(0.0, 1.0, int(num_steps) + 1))


def time(u: Any) -> Any:
    """The time of a number in [0, 1]: as many fall anywhere as steps of a path do."""
    return u * (2 - u)


class Driven(Distribution):
    """Where a diffusion ends that begins at a point: its law has no density that is known.

    drift: see `Drift`; start: (*event); num_steps: of the path.
    """

    pytree_data_fields = ("drift", "start")
    pytree_aux_fields = ("num_steps",)

    def __init__(self, drift: Drift, start: Any, num_steps: int = 50) -> None:
        times(num_steps)
        self.drift, self.start, self.num_steps = drift, start, num_steps
        super().__init__(event_shape=jnp.shape(start), validate_args=False)

    @property
    def support(self) -> Any:
        return constraints.independent(constraints.real, len(self.event_shape))

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        if not sample_shape:
            return self.drift.path(self.start, key, self.num_steps)[-1]
        keys = jax.random.split(key, sample_shape)
        one = lambda key: self.drift.path(self.start, key, self.num_steps)[-1]  # noqa: E731
        for _ in sample_shape:
            one = jax.vmap(one)
        return one(keys)

    def log_prob(self, value: Any) -> Any:
        raise NotImplementedError(
            "The density of where a diffusion ends is not known: its drift is a network. inference='bridge_matching' learns it "
            "from rows of both kinds, by a program with a, and b=None, obs=b."
        )
