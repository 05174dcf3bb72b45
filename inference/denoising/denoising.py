"""Denoising: the network says what noise, or what point, a noisy point is made of.

    minimise E_{x, e, t} w(t) | F(z_t, t) - what it should have said |^2,   z_t = alpha x + sigma e

With weighting="simple" w is 1, which is DDPM's simple loss and EDM's; it is no bound. With "likelihood" the loss is the bound's own
KL in nats, up to its ends: -1/2 d SNR / dt | x - x(z_t, t) |^2. Ho et al. 2020 (arXiv:2006.11239); Song et al. 2021
(arXiv:2101.09258); Vincent 2011 (doi:10.1162/NECO_a_00142).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from probgen.inference.denoising._noise import FromNoise


@dataclass(frozen=True, kw_only=True)
class Denoising(FromNoise):
    """Denoising by Adam on minibatches.

    weighting: of times: "simple", of what the network says; or "likelihood".
    The loss is the mean square a coordinate, no nats, and with "likelihood" nats a coordinate.
    """

    shared: ClassVar[bool] = True

    weighting: Literal["simple", "likelihood"] = "simple"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weighting not in ("simple", "likelihood"):
            raise ValueError(f"weighting is {self.weighting!r}; known: simple, likelihood")

    def on(self, engine: str) -> Any:
        from probgen.inference.denoising import _torch

        return _torch.Noised(self) if engine == "pyro" else self

    def loss(self, denoiser: Any, x: Any, noise: Any, t: Any, share: Any) -> Any:
        import jax
        import jax.numpy as jnp

        schedule = denoiser.schedule
        z = schedule.noised(x, noise, t)
        if self.weighting == "simple":
            return jnp.mean((denoiser.said(z, t) - denoiser.wanted(x, noise, t)) ** 2)
        _, slope = jax.jvp(schedule.log_snr, (t,), (jnp.ones_like(t),))
        return -0.5 * slope * share * jnp.mean((noise - denoiser.noise(z, t)) ** 2)

    def torch_loss(self, denoiser: Any, x: Any, noise: Any, t: Any, share: Any) -> Any:
        schedule = denoiser.schedule
        z = schedule.noised(x, noise, t)
        if self.weighting == "simple":
            return ((denoiser.said(z, t) - denoiser.wanted(x, noise, t)) ** 2).mean()
        error = ((noise - denoiser.noise(z, t)) ** 2).flatten(1).mean(1)
        return (-0.5 * schedule.fall(t) * share * error).mean()
