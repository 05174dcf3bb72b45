"""Consistency: a network learns to say of a noisy point where the probability flow takes it, in one evaluation.

    f(z_t, t) = where the flow takes z_t at the earliest time;   f(z, earliest) = z, whatever the network says
    minimise E d(f(z_t, t), f(z_s, s)),  s the level below t, f(z_s, s) held fixed
    of a fit, init=teacher:  z_s = a step of Heun's of the teacher's flow from z_t
    of rows:                 z_s = alpha_s x + sigma_s e,  the same point and noise as z_t

    teacher = pg.fit("edm", data="two_moons", inference="denoising")
    fit = pg.fit("edm", data="two_moons", inference="consistency", init=teacher)
    fit.sample(64); fit.sample(64, num_steps=2)

f is the program's denoiser, D, taken as a line from z_t to D: no second network. Its D is then no mean of x, and the fit has no
score, velocity or density: the teacher has. Levels are few at first, and twice as many again and again up to `num_levels`.
d is the pseudo-Huber distance of a fit, and the square of rows, whose z_s is random given z_t: f(z_t, t) is to be the mean of
f(z_s, s). So draws without a teacher are narrower than the data, of N(0, 1) by the product of cosines that the verdict tells: more
levels mend it. Song et al. 2023 (arXiv:2303.01469); Song and Dhariwal 2023 (arXiv:2310.14189).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from probgen.algorithm import Incompatible
from probgen.inference._times import spread_out
from probgen.inference.denoising._jumping import Jumping, Taught
from probgen.inference.denoising._teacher import begins_at_a_fit

HUBER = 0.03  # where the distance turns from a square to a length, in units of the noise


@dataclass(frozen=True, kw_only=True)
class Consistency(Jumping):
    """Consistency distillation, or training, by Adam on minibatches.

    num_levels: of noise, at last; first_levels: at first, which doubled some times are num_levels.
    times: half of the levels are drawn so, half evenly.
    The loss is the mean square of f(z_t, t) - f(z_s, s) a coordinate: small where neighbours agree, and smaller with more levels.
    """

    num_levels: int = 128
    first_levels: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        doubled = self.num_levels / self.first_levels if self.first_levels > 0 else 0
        if doubled not in [2**i for i in range(20)]:
            raise ValueError(
                f"num_levels is {self.num_levels}, first_levels {self.first_levels}: expected the latter doubled a few times, "
                "such as 128 and 8."
            )
        if self.jumps > self.num_levels:
            raise ValueError(f"jumps is {self.jumps}; at most num_levels, {self.num_levels}.")

    @property
    def most_jumps(self) -> int:
        """Evaluations by which a point can be drawn."""
        return self.num_levels

    def prepare(self, target: Any) -> Any:
        found = super().prepare(target)
        found.looked_at(self._check_ends)
        return found

    def _check_ends(self, denoiser: Any, x: Any) -> None:
        """Raise Incompatible where the flow ends in noise, or begins where a network of noise hardly knows the point."""
        from probgen.nets.diffusion.sampling import NOISY, earliest

        alpha, sigma = denoiser.schedule.scales(earliest(denoiser.schedule))
        if not sigma <= NOISY * alpha:
            raise Incompatible(
                f"Consistency ends at the schedule's earliest time, where noise is still {float(sigma / alpha):.2g} of a point; "
                f"at most {NOISY}: use more levels, or a smaller `low`."
            )
        if getattr(denoiser, "kind", "") == "noise" and denoiser.schedule.scales(1.0)[0] < 0.1:
            raise Incompatible(
                "The network says the noise: where noise is nearly all, one step to the point would multiply its errors.\n"
                "Use a program whose network says the point, v, the velocity or EDM's output, such as 'edm' or 'velocity'."
            )

    def narrows(self, target: Any) -> float | None:
        """By how much N(0, 1) data are narrowed for want of a teacher; None with one."""
        from probgen.nets.diffusion.sampling import narrowed

        if begins_at_a_fit(target):
            return None
        return target.looked_at(lambda denoiser, x: float(narrowed(denoiser.schedule, self.num_levels)))

    # ---- the loss

    def times_of(self, keys: Any, chains: Taught, count: int) -> tuple[Any, ...]:
        """Numbers in [0, 1); whether they are of `times` or even; and over how many of the finest levels a jump goes."""
        import jax
        import jax.numpy as jnp

        stages = (self.num_levels // self.first_levels).bit_length()
        stage = jnp.minimum(chains.done * stages // self.num_steps, stages - 1)
        wide = jnp.left_shift(1, stages - 1 - stage)
        return spread_out(keys[0], (count,)), jax.random.bernoulli(keys[1], 0.5, (count,)), jnp.full(count, wide)

    def of_jump(self, denoiser: Any, teacher: Any, x: Any, noise: Any, *times: Any) -> tuple[Any, Any]:
        import equinox as eqx
        import jax
        import jax.numpy as jnp

        from probgen.nets.diffusion.samplers import Heun
        from probgen.nets.diffusion.sampling import ladder, to_the_end

        schedule = jax.lax.stop_gradient((denoiser if teacher is None else teacher).schedule)
        denoiser = eqx.tree_at(lambda d: d.schedule, denoiser, schedule)
        levels = ladder(schedule, self.num_levels).astype(x.dtype)
        t, s = self._neighbours(denoiser, levels, *times)
        z = schedule.noised(x, noise, t)
        if teacher is None:
            before = schedule.noised(x, noise, s)
        else:
            before = Heun().step(teacher, z, t, s, None, ())[0]
        aim = jax.lax.stop_gradient(to_the_end(denoiser, before, s, levels[-1]))
        square = jnp.mean((to_the_end(denoiser, z, t, levels[-1]) - aim) ** 2)
        return square if teacher is None else jnp.sqrt(square + HUBER**2) - HUBER, square

    def _neighbours(self, denoiser: Any, levels: Any, u: Any, asked: Any, wide: Any) -> tuple[Any, Any]:
        """Two times of the levels that are `wide` of the finest apart: (), ()."""
        import jax.numpy as jnp

        even = jnp.floor(u * (self.num_levels // wide)).astype(int)
        by_time = jnp.sum(levels > self.time(denoiser, u)) // wide  # levels fall
        at = jnp.clip(jnp.where(asked, by_time, even), 0, self.num_levels // wide - 1) * wide
        return levels[at], levels[at + wide]
