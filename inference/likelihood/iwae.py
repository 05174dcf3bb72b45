"""The importance-weighted autoencoder's objective: `amortised_svi` by the bound of many draws, with its low-variance gradient.

    maximise E_q [log 1/K sum_k p(x, h_k) / q(h_k | x)],   at most log p(x), and closer to it than the ELBO

Burda, Grosse and Salakhutdinov 2016 (arXiv:1509.00519); the gradient: Tucker et al. 2019 (arXiv:1810.04152).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from probgen.inference.likelihood.amortised_svi import AmortisedSVI


@dataclass(frozen=True, kw_only=True)
class IWAE(AmortisedSVI):
    """Settings of `amortised_svi`, by default with 50 draws."""

    objective: Literal["elbo", "iwae"] = "iwae"
    num_particles: int = 50
    estimator: Literal["total", "path"] = "path"
