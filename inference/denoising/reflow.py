"""Rectified flow: a flow learns anew from pairs of noise and the point to which its own ODE takes it, so that paths are straight.

    y = ODE of the fit from e ~ N(0, I);   minimise E_{e, t} | u((1 - t) y + t e, t) - (e - y) |^2

    first = pg.fit("velocity", data="two_moons", inference="flow_matching")
    fit = pg.fit("velocity", data="two_moons", inference="reflow", init=first)

The law stays that of the fit, with its errors: points of the data are not looked at, only their inputs. Where paths are straight,
few steps of Euler's are enough. With `first` above 0 one run does both: flow matching for that share of the steps, then reflow.
Liu et al. 2023 (arXiv:2209.03003).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

from probgen.algorithm import Incompatible, positive
from probgen.inference._learner import State
from probgen.inference.denoising._noise import FromNoise
from probgen.inference.denoising._teacher import begins_at_a_fit

NEEDED = (
    "reflow goes on from a fit of the same program: pg.fit(..., inference='flow_matching') first, then init=fit; or first=0.5 for "
    "both in one run."
)


class Taught(NamedTuple):
    """The flow that pairs noise with points, its parameters; whether it does so yet; and the rows that are held out, (row,)."""

    teacher: Any
    ready: Any
    held: Any


@dataclass(frozen=True, kw_only=True)
class Reflow(FromNoise):
    """Rectified flow by Adam on minibatches of pairs, each new; begins at `init=fit`, which also makes the pairs.

    first: share of the steps by flow matching, from rows and any noise, before; 0: the fit given as init makes all pairs.
    ode_steps: of Heun's, by which the fit takes noise to a point, at two evaluations of the network each.
    The loss is the mean square of the velocity's error a coordinate, and goes to zero where paths do not cross.
    """

    engines: ClassVar[tuple[str, ...]] = ("numpyro",)
    teaches: ClassVar[bool] = True

    learning_rate: float = 3e-4
    first: float = 0.0
    ode_steps: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "ode_steps")
        if not 0 <= self.first < 1:
            raise ValueError(f"first is {self.first}; it must be at least 0 and below 1")

    @property
    def coupled(self) -> bool:
        return True

    def check_begun(self, target: Any, fit: Any) -> None:
        if not self.first:  # else it is a start alone
            super().check_begun(target, fit)

    def init(self, key: Any, target: Any) -> State:
        import jax.numpy as jnp

        if not self.first and not begins_at_a_fit(target):
            raise ValueError(NEEDED)
        self._check_straight(target)
        state = super().init(key, target)
        chains = Taught(state.parameters, jnp.asarray(self.begins == 0), state.chains.held)
        return state._replace(chains=chains, guard=state.guard._replace(chains=chains))

    def first_loss(self, key: Any, target: Any, state: State, batch: Any) -> Any:
        if self.begins:
            return self.of_batch(key, target, state.parameters, batch)
        return self._of_pairs(key, target, state.parameters, state.parameters, batch)

    def gradient(self, key: Any, target: Any, parameters: Any, batch: Any, chains: Any) -> tuple[Any, Any, Any]:
        import jax

        loss = lambda p: self._of_either(key, target, p, batch, chains)  # noqa: E731
        value, gradient = jax.value_and_grad(loss)(parameters)
        return gradient, -value, chains

    def loss(self, denoiser: Any, x: Any, noise: Any, t: Any, share: Any) -> Any:
        import jax.numpy as jnp

        z = denoiser.schedule.noised(x, noise, t)
        return jnp.mean((denoiser.velocity(z, t) - (noise - x)) ** 2)

    def looked(self, state: State, target: Any) -> State:
        """Where flow matching is over, its average makes the pairs, and learning goes on from it."""
        import jax
        import jax.numpy as jnp

        over = jnp.logical_and(jnp.logical_not(state.chains.ready), state.step >= self.begins)
        pick = lambda new, old: jax.tree.map(lambda a, b: jnp.where(over, a, b), new, old)  # noqa: E731
        averaged = self.averaged(state)
        chains = Taught(
            pick(averaged, state.chains.teacher), jnp.logical_or(over, state.chains.ready), state.chains.held
        )
        return state._replace(parameters=pick(averaged, state.parameters), chains=chains)

    def rate(self, step: Any, xp: Any = None) -> Any:
        """The learning rate of a step: each part of the run has its own rise and fall."""
        if xp is None:
            import jax.numpy as xp
        if not self.begins:
            return super().rate(step, xp)
        parts = [replace(self, first=0.0, num_steps=n) for n in (self.begins, max(self.num_steps - self.begins, 1))]
        early, late = (part.rate(at, xp) for part, at in zip(parts, (step, step - self.begins), strict=True))
        return xp.where(step < self.begins, early, late)

    # ---- parts

    @property
    def settles(self) -> int:
        """The step from which the loss is of one thing."""
        return self.begins

    @property
    def begins(self) -> int:
        """The step from which pairs are learned from, a multiple of the period."""
        return int(self.first * self.num_steps) // self.period * self.period

    def _of_either(self, key: Any, target: Any, parameters: Any, batch: Any, chains: Taught) -> Any:
        """The loss of pairs, or before that of rows and any noise: ()."""
        import jax

        pairs = lambda: self._of_pairs(key, target, parameters, chains.teacher, batch)  # noqa: E731
        if not self.begins:
            return pairs()
        return jax.lax.cond(chains.ready, pairs, lambda: self.of_batch(key, target, parameters, batch))

    def _of_pairs(self, key: Any, target: Any, parameters: Any, teacher: Any, batch: Any) -> Any:
        """The mean loss over pairs of noise and points, at times that they share out: ()."""
        import jax
        import jax.numpy as jnp

        from probgen.inference._times import spread_out

        k_time, k_noise = jax.random.split(key)
        times = spread_out(k_time, (len(next(iter(batch.values()))),))
        noise, batch = self.paired(k_noise, target, parameters, batch)
        points = jax.lax.stop_gradient(jax.vmap(lambda *each: self._point(target, teacher, *each))(batch, noise))

        def one(row: Any, point: Any, u: Any, noise: Any) -> Any:
            denoiser = target.denoised(parameters, row)[0]
            return self.loss(denoiser, point, noise, self.time(denoiser, u), 1.0)

        return jnp.mean(jax.vmap(one)(batch, points, times, noise))

    def _point(self, target: Any, teacher: Any, row: Any, noise: Any) -> Any:
        """Where the ODE of the teacher takes noise, for the inputs of a row: (*event)."""
        from probgen.nets.diffusion.flow import ProbabilityFlow, Solver, moved

        velocity = ProbabilityFlow(target.denoised(teacher, row)[0])
        return moved(velocity, noise, Solver("heun", num_steps=self.ode_steps))

    def _check_straight(self, target: Any) -> None:
        """Raise Incompatible for a program whose paths are not straight."""
        import jax
        import jax.numpy as jnp

        from probgen.nets.diffusion.schedules import Straight

        row = jax.tree.map(lambda x: x[0], target.rows(jnp.arange(1)))
        schedule = target.denoised(target.initial(jax.random.key(0)), row)[0].schedule
        if not isinstance(schedule, Straight):
            raise Incompatible(
                f"reflow makes straight paths straighter; those of {type(schedule).__name__} are not straight: "
                "use a program on the schedule Straight, such as 'velocity'."
            )
