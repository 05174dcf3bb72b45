"""Flow matching: the velocity of a flow learns to be that of the paths from noise to points.

    minimise E_{x, e, t} | u(z_t, t) - (alpha' x + sigma' e) |^2,   z_t = alpha x + sigma e

coupling: which noise a point is paired with in a batch: "independent", or "optimal_transport", the assignment with the least total
squared distance, which straightens the flow. On batches that assignment has a bias that falls with the batch, and with labels it
pairs noise with classes (arXiv:2503.10636): the fit's notes say so.
Lipman et al. 2023 (arXiv:2210.02747); Tong et al. 2024 (arXiv:2302.00482).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from probgen.inference.denoising._noise import FromNoise

COUPLINGS = ("independent", "optimal_transport")
LABELLED = (
    "Noise is paired with points of whatever class: with coupling='optimal_transport' samples of one class come from noise that "
    "learning gave to others, too."
)


@dataclass(frozen=True, kw_only=True)
class FlowMatching(FromNoise):
    """Flow matching by Adam on minibatches.

    coupling: "independent" or "optimal_transport".
    The loss is the mean square of the velocity's error a coordinate: no nats, and it does not go to zero.
    """

    shared: ClassVar[bool] = True

    coupling: Literal["independent", "optimal_transport"] = "independent"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.coupling not in COUPLINGS:
            raise ValueError(f"coupling is {self.coupling!r}; known: {', '.join(COUPLINGS)}")

    def prepare(self, target: Any) -> Any:
        found = super().prepare(target)
        if self.coupling != "independent" and target.inputs:
            found.notes = (*found.notes, LABELLED)
        return found

    def unshared(self, target: Any) -> str:
        if self.coupled:
            return "coupling pairs a whole batch, of which each process sees its rows.\nLeave it out, or fit in one process."
        return super().unshared(target)

    def on(self, engine: str) -> Any:
        from probgen.inference.denoising import _torch

        return _torch.Noised(self) if engine == "pyro" else self

    @property
    def coupled(self) -> bool:
        return self.coupling != "independent"

    def loss(self, denoiser: Any, x: Any, noise: Any, t: Any, share: Any) -> Any:
        import jax.numpy as jnp

        up, down = denoiser.schedule.slopes(t)
        z = denoiser.schedule.noised(x, noise, t)
        return jnp.mean((denoiser.velocity(z, t) - up * x - down * noise) ** 2)

    def paired(self, key: Any, target: Any, parameters: Any, batch: Any) -> tuple[Any, Any]:
        import jax

        noise, batch = super().paired(key, target, parameters, batch)
        if self.coupling == "independent":
            return noise, batch
        from probgen.nets.diffusion.coupling import paired

        points = jax.vmap(lambda row: target.denoised(parameters, row)[1])(batch)
        return paired(noise, jax.lax.stop_gradient(points)), batch

    def torch_loss(self, denoiser: Any, x: Any, noise: Any, t: Any, share: Any) -> Any:
        up, down = denoiser.slopes(x, t)
        z = denoiser.schedule.noised(x, noise, t)
        return ((denoiser.velocity(z, t) - up * x - down * noise) ** 2).mean()

    def torch_paired(self, noise: Any, x: Any) -> Any:
        from probgen.inference.denoising import _torch

        return noise if self.coupling == "independent" else _torch.coupled(noise, x)
