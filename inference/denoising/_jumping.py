"""What learners of jumps share: a teacher given by init=, whose parameters are kept beside the rows held out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from probgen.algorithm import positive
from probgen.inference._learner import State
from probgen.inference.denoising._noise import FromNoise
from probgen.inference.denoising._teacher import begins_at_a_fit

TOLD = (
    "Draws, and the verdict's tests of them, are made in {0} evaluation{1} of the network, the setting `jumps`; "
    "they have no density."
)


class Taught(NamedTuple):
    """The teacher's parameters, () without one; steps done; the rows that are held out, (row,)."""

    teacher: Any
    done: Any
    held: Any


@dataclass(frozen=True, kw_only=True)
class Jumping(FromNoise):
    """Settings of both.

    jumps: evaluations of the network by which `fit.sample` draws unless it is told, and by which the verdict judges.
    """

    engines: ClassVar[tuple[str, ...]] = ("numpyro",)
    teaches: ClassVar[bool] = True

    jumps: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "jumps")

    def prepare(self, target: Any) -> Any:
        found = super().prepare(target)
        found.notes = (*found.notes, TOLD.format(self.jumps, "" if self.jumps == 1 else "s"))
        return found

    def init(self, key: Any, target: Any) -> State:
        import jax.numpy as jnp

        state = super().init(key, target)
        chains = Taught(state.parameters if begins_at_a_fit(target) else (), jnp.int32(0), state.chains.held)
        return state._replace(chains=chains, guard=state.guard._replace(chains=chains))

    def first_loss(self, key: Any, target: Any, state: State, batch: Any) -> Any:
        import jax.numpy as jnp

        teacher = state.parameters if begins_at_a_fit(target) else ()
        return self.of_pairs(key, target, state.parameters, Taught(teacher, jnp.int32(0), ()), batch)[1]

    def gradient(self, key: Any, target: Any, parameters: Any, batch: Any, chains: Any) -> tuple[Any, Any, Any]:
        import jax

        loss = lambda p: self.of_pairs(key, target, p, chains, batch)  # noqa: E731
        (_, told), gradient = jax.value_and_grad(loss, has_aux=True)(parameters)
        return gradient, -told, chains._replace(done=chains.done + 1)

    def of_pairs(self, key: Any, target: Any, parameters: Any, chains: Taught, batch: Any) -> tuple[Any, Any]:
        """What is minimised, and the loss that is told: (), ()."""
        import jax
        import jax.numpy as jnp

        k_noise, k_label, *keys = jax.random.split(key, 4)
        batch = self._shown(k_label, target, batch)
        noise, batch = self.paired(k_noise, target, parameters, batch)
        times = self.times_of(keys, chains, len(noise))

        def one(row: Any, noise: Any, *times: Any) -> Any:
            denoiser, x = target.denoised(parameters, row)
            teacher = target.denoised(chains.teacher, row)[0] if chains.teacher else None
            return self.of_jump(denoiser, teacher, x, noise, *times)

        losses, told = jax.vmap(one)(batch, noise, *times)
        return jnp.mean(losses), jnp.mean(told)

    def times_of(self, keys: Any, chains: Taught, count: int) -> tuple[Any, ...]:
        """What times of jumps are made of, for every row: arrays (row,)."""
        raise NotImplementedError

    def of_jump(self, denoiser: Any, teacher: Any, x: Any, noise: Any, *times: Any) -> tuple[Any, Any]:
        """What is minimised for a point and its noise, and the loss that is told of it: (), ()."""
        raise NotImplementedError
