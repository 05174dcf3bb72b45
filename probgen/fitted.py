"""What verdicts, tables, pictures and estimates read of a fit: they take any of these, and import no kind of fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from probgen.algorithm import Inference
from probgen.model import Model
from probgen.programs.bridging import Bridging
from probgen.target import Bounded, Diffused, Generative, Target


class LogProb(NamedTuple):
    """A log probability in nats, its Monte Carlo standard error, and what kind of number it is."""

    value: Any
    stderr: Any
    kind: str


class Fitted:
    """A result of a run; see `Fit`, which says what each of these is."""

    model: Model
    target: Target
    inference: Inference
    seed: int
    precision: str
    records: Mapping[str, np.ndarray]
    answer: Mapping[str, np.ndarray]
    seconds: float
    compiling: float
    state: Mapping[str, np.ndarray]
    directory: Path | None
    complete: bool
    starts: Mapping[str, np.ndarray]
    runner: Any  # what starts another run: `fit(target, inference=..., seed=...)`, and `save(fit, path)`
    notes: tuple[str, ...]
    num_steps: int
    num_warmup: int
    z: np.ndarray
    draws: dict[str, np.ndarray]
    tree: Any
    posterior: Any

    def sample(self, num_samples: int = 1, seed: int | None = None) -> dict[str, np.ndarray]:
        """New data: arrays (num_samples, *event)."""
        raise NotImplementedError

    def predict(self, seed: int | None = None, **new_data: Any) -> Any:
        """The observed sites predicted: an xarray.Dataset of dims (chain, draw, *event)."""
        raise NotImplementedError

    def log_prob(self, **new_data: Any) -> LogProb:
        """The log density of every observed point, in nats."""
        raise NotImplementedError

    def summary(self, **keywords: Any) -> Any:
        """A table of what was found."""
        raise NotImplementedError

    def diagnose(self) -> Any:
        """The verdict."""
        raise NotImplementedError

    def plot(self, name: str | None = None, *, var_names: Any = None) -> Any:
        """A picture: a matplotlib Figure."""
        raise NotImplementedError

    def report(self, path: str | Path, overwrite: bool = False) -> Path:
        """One page of HTML."""
        raise NotImplementedError


class FittedParameters(Fitted):
    """Parameters learned from rows; see `LearnedFit`."""

    target: Generative
    parameters: Mapping[str, np.ndarray]
    constants: dict[str, LogProb]

    def condition(self, x: Any = None, /, **given: Any) -> Target:
        """The target of a new point, given a part of it."""
        raise NotImplementedError

    def interpolate(self, a: Any, b: Any, num_points: int = 8, **inputs: Any) -> dict[str, np.ndarray]:
        """Points between two: {site: (num_points, *event)}."""
        raise NotImplementedError

    def simulate(self, num_samples: int = 1, seed: int | None = None) -> dict[str, np.ndarray]:
        """New points, with the inputs of rows of the data: sites and inputs, (num_samples, *event)."""
        raise NotImplementedError

    def judge(self, x: Any = None, /, **rows: Any) -> np.ndarray:
        """The critic's logits of points: (row,)."""
        raise NotImplementedError

    def energy(self, x: Any = None, /, **rows: Any) -> np.ndarray:
        """The free energy of rows, in nats: (row,)."""
        raise NotImplementedError

    def log_prob(self, x: Any = None, /, **rows: Any) -> LogProb:
        """log p of rows, in nats: (row,)."""
        raise NotImplementedError

    def _rows(self, given: Mapping[str, Any]) -> dict[str, np.ndarray]:
        raise NotImplementedError


class FittedLatents(FittedParameters):
    """Parameters with hidden sites and a guide of them; see `LatentFit`."""

    target: Bounded

    def encode(self, x: Any = None, /, *, num_samples: int = 0, **rows: Any) -> dict[str, np.ndarray]:
        """Hidden sites of rows."""
        raise NotImplementedError

    def decode(self, **hidden: Any) -> dict[str, np.ndarray]:
        """Means of the visible sites given hidden ones."""
        raise NotImplementedError

    def reconstruct(self, x: Any = None, /, **rows: Any) -> dict[str, np.ndarray]:
        """Means of the visible sites of rows."""
        raise NotImplementedError

    def activity(self, x: Any = None, /, **rows: Any) -> dict[str, np.ndarray]:
        """Variances of the guide's means over rows."""
        raise NotImplementedError


class FittedDenoiser(FittedParameters):
    """Parameters of a program with a denoiser; see `DiffusionFit`."""

    target: Diffused
    held_out: Mapping[str, np.ndarray]

    def drawn(
        self, inputs: Mapping[str, np.ndarray], count: int, seed: int, num_steps: int | None = None
    ) -> dict[str, np.ndarray]:
        """New points by the law that is the fit's own, for inputs (count, *shape): (count, *event)."""
        raise NotImplementedError

    def sample(
        self,
        num_samples: int = 1,
        seed: int | None = None,
        *,
        sampler: str = "own",
        num_steps: int | None = None,
        **given: Any,
    ) -> dict[str, np.ndarray]:
        """New points by a sampler, given inputs: (num_samples, *event)."""
        raise NotImplementedError

    def log_prob(self, x: Any = None, /, *, method: str = "auto", num_draws: int = 100, **rows: Any) -> LogProb:
        """A bound on log p of rows, or a density, in nats: (row,)."""
        raise NotImplementedError

    def losses(self, num_levels: int = 10) -> Mapping[str, np.ndarray]:
        """The network's error by level of noise."""
        raise NotImplementedError

    def schedule(self, num_times: int = 200) -> Mapping[str, np.ndarray]:
        """alpha and sigma by time."""
        raise NotImplementedError

    def trajectory(self, num_samples: int = 8, seed: int | None = None, **how: Any) -> Mapping[str, np.ndarray]:
        """How points come out of noise."""
        raise NotImplementedError


class FittedImplicit(FittedParameters):
    """Parameters of a program without a density; see `ImplicitFit`."""

    noise: Mapping[str, tuple[tuple[int, ...], str]]

    def sample(
        self, num_samples: int = 1, seed: int | None = None, *, truncation: float | None = None, **inputs: Any
    ) -> dict[str, np.ndarray]:
        """New points, of truncated noise, given inputs: (num_samples, *event)."""
        raise NotImplementedError

    def decode(self, **noise: Any) -> dict[str, np.ndarray]:
        """Points of given noise: (row, *event)."""
        raise NotImplementedError


class FittedBridge(FittedImplicit):
    """Parameters of a diffusion between rows of two kinds; see `BridgeFit`."""

    target: Bridging
    held_out: Mapping[str, np.ndarray]

    def translate(self, *, seed: int | None = None, **rows: Any) -> dict[str, np.ndarray]:
        """What becomes of rows of one kind: (row, *event)."""
        raise NotImplementedError

    def trajectory(self, num_samples: int = 8, seed: int | None = None, **rows: Any) -> Mapping[str, np.ndarray]:
        """Paths from rows of one kind."""
        raise NotImplementedError
