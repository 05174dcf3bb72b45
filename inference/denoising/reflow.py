"""Rectified flow: a flow learns anew from pairs of noise and the point to which its own ODE takes it, so that paths are straight.

    y = ODE of the fit from e ~ N(0, I);   minimise E_{e, t} | u((1 - t) y + t e, t) - (e - y) |^2

    first = pg.fit("velocity", data="two_moons", inference="flow_matching")
    fit = pg.fit("velocity", data="two_moons", inference="reflow", init=first)

The law stays that of the fit, with its errors: points of the data are not looked at, only their inputs. Where paths are straight,
few steps of Euler's are enough. Liu et al. 2023 (arXiv:2209.03003).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from probgen.algorithm import Incompatible, positive
from probgen.inference._learner import State
from probgen.inference.denoising._noise import FromNoise
from probgen.target import START

NEEDED = "reflow goes on from a fit of the same program: pg.fit(..., inference='flow_matching') first, then init=fit."


class Taught(NamedTuple):
    """The parameters of the flow that pairs noise with points, and the rows that are held out, (row,)."""

    teacher: Any
    held: Any


@dataclass(frozen=True, kw_only=True)
class Reflow(FromNoise):
    """Rectified flow by Adam on minibatches of pairs, each new; begins at `init=fit`, which also makes the pairs.

    ode_steps: of Heun's, by which the fit takes noise to a point, at two evaluations of the network each.
    The loss is the mean square of the velocity's error a coordinate, and goes to zero where paths do not cross.
    """

    engines: ClassVar[tuple[str, ...]] = ("numpyro",)

    learning_rate: float = 3e-4
    ode_steps: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "ode_steps")

    @property
    def coupled(self) -> bool:
        return True

    def init(self, key: Any, target: Any) -> State:
        if not any(k.endswith(START) for k in target.data):
            raise ValueError(NEEDED)
        self._check_straight(target)
        state = super().init(key, target)
        chains = Taught(state.parameters, state.chains.held)
        return state._replace(chains=chains, guard=state.guard._replace(chains=chains))

    def first_loss(self, key: Any, target: Any, state: State, batch: Any) -> Any:
        return self._of_pairs(key, target, state.parameters, state.parameters, batch)

    def gradient(self, key: Any, target: Any, parameters: Any, batch: Any, chains: Any) -> tuple[Any, Any, Any]:
        import jax

        loss = lambda p: self._of_pairs(key, target, p, chains.teacher, batch)  # noqa: E731
        value, gradient = jax.value_and_grad(loss)(parameters)
        return gradient, -value, chains

    def loss(self, denoiser: Any, x: Any, noise: Any, t: Any, share: Any) -> Any:
        import jax.numpy as jnp

        z = denoiser.schedule.noised(x, noise, t)
        return jnp.mean((denoiser.velocity(z, t) - (noise - x)) ** 2)

    # ---- parts

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
