"""What the algorithms share that complete a point known in part by a denoiser: particles from noise, in runs of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from probgen.algorithm import Incompatible, Learner, positive
from probgen.programs.completable import Completable


@dataclass(frozen=True, kw_only=True)
class Completing(Learner[Completable]):
    """Settings of both.

    num_steps: times at which the network is asked, from noise to the point, evenly in log SNR.
    num_particles: points of each run.
    num_runs: independent runs, which must agree: the chains of the fit.
    noise: the standard deviation of what is known, in the units of the data; None: it is known exactly, whole numbers to half of
        one, reals to a hundredth of the spread that the denoiser sees.
    covariance: of x given its noisy self: "jacobian", the network's derivative, one for every number that is known; "variance",
        what the denoiser says of every coordinate alone, which is cheap; "rows" of particles, what rows that were learned from say
        of the network's error, which is cheap and the best. "auto": "rows" of particles, else "jacobian" up to 128 numbers,
        and above for more than 2,000 combinations that share numbers, by conjugate gradients.
    """

    precision: ClassVar[str] = "float32"
    loss_of: ClassVar[str] = "evidence"

    num_steps: int = 50
    num_particles: int = 250
    num_runs: int = 4
    noise: float | None = None
    covariance: Literal["auto", "jacobian", "variance", "rows"] = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "num_particles", "num_runs")
        if self.num_steps < 2:
            raise ValueError(f"num_steps is {self.num_steps}; it must be at least 2")
        if self.noise is not None and not self.noise > 0:
            raise ValueError(f"noise is {self.noise}; it must be above 0, or None for what is known exactly")
        if self.covariance not in ("auto", "jacobian", "variance", "rows"):
            raise ValueError(f"covariance is {self.covariance!r}; known: auto, jacobian, variance, rows")

    def prepare(self, target: Any) -> Any:
        if why := getattr(target, "no_score", ""):
            raise Incompatible(why)
        found = target.alone()
        if found.linear and self.noise is not None:
            raise ValueError("noise is of points known in part; of combinations say pg.Linear(of, value, noise).")
        return found
