"""MeanFlow: a network learns the mean velocity between two times, so that one step goes all the way from noise to a point.

    u(z_t, s, t) = 1 / (t - s) int_s^t v(z_r, r) dr   is the same as   u = v(z_t, t) - (t - s) d/dt u(z_t, s, t)
    minimise E | u - stop(v - (t - s) (v . grad_z u + du/dt)) |^2,   the derivative along (v, 0, 1) by forward differentiation
    of a fit, init=teacher:  v = its velocity, which stays as it is
    of rows:                 v = alpha' x + sigma' e, the velocity of the path from noise to the row; E[v | z_t] is learned beside

    teacher = pg.fit("velocity", data="two_moons", inference="flow_matching")
    fit = pg.fit("mean_flow", data="two_moons", inference="mean_flow", init=teacher)
    fit.sample(64); fit.sample(64, num_steps=4)

Of a fit each row's loss is divided by what it is, without a gradient, since the derivative has few large errors; of rows, whose v
is random given z_t, that would make u another thing than a mean. Draws are z - u(z, 0, 1), or by more such steps: they have no
density, but v has. Geng et al. 2025 (arXiv:2505.13447).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from probgen.algorithm import Incompatible
from probgen.inference._times import spread_out
from probgen.inference.denoising._jumping import Jumping, Taught

SMALL = 0.1  # square of an error below which losses are not made larger
NEEDED = (
    "mean_flow learns a network that sees two times, which this program has not.\n"
    "Use the model 'mean_flow', or a Network with `mean`."
)


@dataclass(frozen=True, kw_only=True)
class MeanFlow(Jumping):
    """MeanFlow by Adam on minibatches.

    instant: share of rows whose two times are one, where u is v.
    whole: share of the others that jump to the point itself, s = 0; the rest end anywhere before.
    The loss that is told is the mean of u's error, a root mean square a coordinate: of a teacher it goes to zero.
    """

    keeps_flow: ClassVar[bool] = True
    most_jumps: ClassVar[int | None] = None

    instant: float = 0.25
    whole: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("instant", "whole"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be from 0 to 1")
        if self.weight_decay:
            raise ValueError("weight_decay would change the velocity that a fit gives: leave it out.")

    def prepare(self, target: Any) -> Any:
        found = super().prepare(target)
        if found.looked_at(lambda denoiser, x: getattr(denoiser, "mean", None)) is None:
            raise Incompatible(NEEDED)
        return found

    def times_of(self, keys: Any, chains: Taught, count: int) -> tuple[Any, ...]:
        """Numbers in [0, 1) of the later time, and of how far it is to the earlier one."""
        import jax
        import jax.numpy as jnp

        u, kind = jax.random.uniform(keys[1], (2, count))
        share = jnp.where(kind < self.instant + (1 - self.instant) * self.whole, 1.0, u)
        return spread_out(keys[0], (count,)), jnp.where(kind < self.instant, 0.0, share)

    def of_jump(self, denoiser: Any, teacher: Any, x: Any, noise: Any, *times: Any) -> tuple[Any, Any]:
        import jax
        import jax.numpy as jnp

        u, share = times
        schedule = jax.lax.stop_gradient(denoiser.schedule)
        t = self.time(denoiser, u)
        s = t - share * (t - schedule.first)
        z = schedule.noised(x, noise, t)
        if teacher is None:
            up, down = schedule.slopes(t)
            v = up * x + down * noise
        else:
            v = teacher.velocity(z, t)
        mean, slope = jax.jvp(lambda z, t: denoiser.mean_velocity(z, t, s), (z, t), (v, jnp.ones_like(t)))
        square = jnp.mean((mean - jax.lax.stop_gradient(v - (t - s) * slope)) ** 2)
        if teacher is None:
            return square + jnp.mean((denoiser.velocity(z, t) - v) ** 2), jnp.sqrt(square)
        return square / jax.lax.stop_gradient(square + SMALL), jnp.sqrt(square)
