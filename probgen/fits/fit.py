"""Fit: what a run gives back."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from probgen.algorithm import Incompatible, Inference, Sampler
from probgen.data import whole_numbers
from probgen.data.large import blocks
from probgen.data.whole_numbers import generator
from probgen.evaluate.rare.result import Estimate
from probgen.fitted import Fitted, LogProb
from probgen.model import Model
from probgen.target import Continuous, Target


@dataclass(frozen=True)
class Fit(Fitted):
    """The result of a run.

    records: what the kernel told at every step, warm-up included: arrays (chain, step, ...).
    answer: what a learner read off its final state: `z` (chain, draw, dim), `log_q` and `log_p` (chain, draw).
    seconds: wall time of the run, compilation included, over all its sessions; compiling: those of them that went into compiling,
        0 for runs of versions that did not count them.
    complete: whether all steps were done (or the learner converged).
    starts: where each chain's starting paths ended, `ends` (chain, path, dim), and their ELBOs, `elbos` (chain, path).
    runner: what starts other runs, and writes this one down.
    """

    model: Model
    target: Target
    inference: Inference
    seed: int
    precision: str
    records: Mapping[str, np.ndarray]
    answer: Mapping[str, np.ndarray] = field(default_factory=dict)
    seconds: float = 0.0
    state: Mapping[str, np.ndarray] = field(default_factory=dict)
    directory: Path | None = None
    complete: bool = True
    starts: Mapping[str, np.ndarray] = field(default_factory=dict)
    runner: Any = field(default=None, repr=False, compare=False)
    compiling: float = 0.0

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know of how the program was read and what was used of it; the verdict shows them."""
        return (*self.target.notes, *vars(self).get("_said", ()))

    @property
    def num_steps(self) -> int:
        """Steps done, warm-up included."""
        return next(iter(self.records.values())).shape[1]

    @property
    def num_warmup(self) -> int:
        """Steps of the records that are warm-up."""
        return self.inference.num_warmup if isinstance(self.inference, Sampler) else self.num_steps

    @functools.cached_property
    def z(self) -> np.ndarray:
        """Draws in unconstrained space: (chain, draw, dim)."""
        if not self.answer and "z" not in self.records:  # a learner whose state is lost
            unknowns: Any = self.target
            return np.empty((1, 0, unknowns.dim))
        return self.answer["z"] if self.answer else self.records["z"][:, self.num_warmup :]

    @functools.cached_property
    def draws(self) -> dict[str, np.ndarray]:
        """Latent and deterministic sites: arrays (chain, draw, *event).

        Of a run on disk with more draws than memory should hold, they are in a scratch file beside it, and read from there.
        Finite unknowns that were summed out are drawn from their exact conditional given each draw of the others and the data.
        """
        if self.z.shape[1] == 0:
            raise ValueError(f"There are no draws: the run stopped in its warm-up, at step {self.num_steps}.")
        target: Any = self.target
        if not isinstance(target, Continuous):
            return target.constrain(np.asarray(self.z))
        if target.summed:
            return target.drawn(np.asarray(self.z), self.seed)
        width = sum(math.prod(s.shape) for s in target.sites if s.kind in ("latent", "deterministic"))
        return blocks.sites(lambda z: target.drawn(z, self.seed), self.z, width, self.directory)

    @functools.cached_property
    def tree(self) -> Any:
        """xarray.DataTree in ArviZ's schema: posterior, sample_stats, warmup_sample_stats, observed_data, constant_data."""
        from probgen.fits.tree import build

        return build(self)

    @property
    def posterior(self) -> Any:
        """The posterior group: an xarray.Dataset of variables with dims (chain, draw, *event)."""
        from probgen.fits.tree import group

        return group(self, "posterior")

    def summary(self, **keywords: Any) -> Any:
        """ArviZ's table of means, sds, intervals, ESS, R-hat and MCSE."""
        from probgen.fits.tables import summary

        return summary(self, **keywords)

    def diagnose(self) -> Any:
        """The verdict: pass, warn or fail, each finding with its number, its bar and the remedy.

        Of a run that this process wrote down it is kept beside it, in verdict.json.
        """
        from probgen.diagnostics import diagnose

        found = vars(self)["_verdict"] = diagnose(self)
        if self.runner is not None:
            self.runner.judged(self, found)
        return found

    def plot(self, name: str | None = None, *, var_names: Any = None) -> Any:
        """A picture of the fit, as a matplotlib Figure: `fit.plot().savefig("fit.png")`.

        name: which, such as "pairs", "chains", "posterior", "loss" or "samples"; by default what tells most of a fit of its
            kind: chains of a posterior, new points or a density of a learned program, paths from noise of a diffusion model.
        var_names: of draws, which sites (`"mu"`) or scalars (`"theta[3]"`).
        ValueError, with the pictures that there are, for a name that this fit has none of.
        """
        from probgen.pictures.gallery import plot

        return plot(self, name, var_names)

    def attribute(self, *args: Any, **settings: Any) -> Any:
        """Incompatible: this fit has no latent space of rows; see `LearnedFit.attribute`."""
        raise Incompatible(
            f"A fit by {self.inference.name} has no latent space in which points could be moved.\nfit.attribute is of models "
            "learned from rows: flows, latent models such as a vae, generators such as a gan, and diffusion models by a denoiser."
        )

    def report(self, path: str | Path, overwrite: bool = False) -> Path:
        """Write one self-contained HTML page, in place of an earlier one; FileExistsError for another file, unless `overwrite`."""
        from probgen.report import write

        return write(self, path, overwrite)

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write the run's directory; `pg.load` reads it. FileExistsError unless `overwrite`."""
        self.runner.save(self, path, overwrite)

    def predict(self, seed: int | None = None, **new_data: Any) -> Any:
        """Posterior predictive draws: an xarray.Dataset of the observed sites, dims (chain, draw, *event).

        new_data: replaces the fit's data, name by name; observed values need not be given.
        """
        from probgen.fits.tree import predictive

        return predictive(self, new_data, self.seed + 1 if seed is None else whole_numbers.seed(seed))

    def sample(self, num_samples: int = 1, seed: int | None = None) -> dict[str, np.ndarray]:
        """New data from the posterior predictive, or draws where nothing is observed: arrays (num_samples, *event)."""
        from probgen.fits.seal import check_seen

        check_seen(self.target)
        rng = generator(self.seed + 2 if seed is None else whole_numbers.seed(seed))
        chains, draws = self.z.shape[:2]
        pick = rng.choice(chains * draws, num_samples, replace=num_samples > chains * draws)
        chosen = {k: v[pick // draws, pick % draws][None] for k, v in self.draws.items()}
        if not self.target.named("observed"):  # an energy: its draws are the data
            return {k: v[0] for k, v in chosen.items()}
        drawn = self.target.predict(chosen, self.target.data, int(rng.integers(2**31)))
        return {k: v[0] for k, v in drawn.items()}

    def log_likelihood(self) -> Any:
        """Pointwise log likelihood in nats, as an xarray.Dataset; computed on demand and kept in `tree`.

        Where finite unknowns were summed out: log p(y_i | unknowns, k, the other observations). k are finite unknowns that
        observations share, at their draws; those of y_i's own row, or of its sequence, are summed out. So it is the marginal
        density of a row with its own finite unknowns, and in a hidden Markov model that of y_t given
        the rest, as leaving y_t out needs it.
        """
        from probgen.fits.pointwise import log_likelihood

        return log_likelihood(self)

    def log_prob(self, **new_data: Any) -> LogProb:
        """Log posterior predictive density of each observed point, in nats, averaged over the draws; `kind` says whose they are.

        Finite unknowns of a point's own row, or of its sequence, are summed out; see `log_likelihood`. Rows that a mask leaves out
        are no points. ValueError where no site is observed.
        """
        from probgen.fits.pointwise import averaged, of_observed
        from probgen.fits.tree import merged

        return averaged(self, of_observed(self, merged(self, new_data)))

    def loo(self, var_name: str | None = None) -> Any:
        """Leave-one-out predictive accuracy by Pareto-smoothed importance sampling (arviz_stats.loo).

        var_name: of which observed site, where there are several; or a factor that holds the log likelihood of one point in each
            entry. Rows that a mask leaves out are no points.
        """
        from probgen.fits.pointwise import loo

        return loo(self, var_name)

    def probability(
        self,
        event: Any,
        *,
        above: float | None = None,
        below: float | None = None,
        method: str = "auto",
        num_samples: int | None = None,
        seed: int | None = None,
        confidence: float = 0.95,
        **given: Any,
    ) -> Estimate:
        """The probability of an event under this fit's law, with its error and interval: see `probgen.evaluate.rare.asking`.

        event: a function of one draw, {name: array of the site's shape}, that returns a bool; or a score, one number, with `above`
            or `below`, which a rare event needs: only a score can be climbed. Or the name of a site of one number.
        method: "monte_carlo" counts draws; "splitting" climbs the score from level to level; "importance" draws from a normal guide
            that is tilted towards the event; "auto" counts, and climbs where too few draws are in the event.
        num_samples: new draws to count in, by default 4000; a posterior fit counts in the draws of its run.
        given: inputs of a conditional model, or new data to predict on; settings of splitting: num_particles, num_runs, num_moves.
        """
        from probgen.evaluate.rare import asking
        from probgen.fits.seal import check_seen
        from probgen.fits.tree import merged

        check_seen(self.target)
        return asking.probability(
            self, event, above, below, given, lambda new: merged(self, new), method=method, num_samples=num_samples,
            seed=seed, confidence=confidence,
        )  # fmt: skip

    def expectation(
        self,
        function: Any,
        *,
        num_samples: int | None = None,
        seed: int | None = None,
        confidence: float = 0.95,
        **given: Any,
    ) -> Estimate:
        """The mean of a function of a draw under this fit's law, with its error: a number, or an array of any shape.

        function: of one draw, {name: array of the site's shape}; or the name of a site. The rest as in `probability`.
        """
        from probgen.evaluate.rare import asking
        from probgen.fits.seal import check_seen

        check_seen(self.target)
        return asking.expectation(self, function, given, num_samples=num_samples, seed=seed, confidence=confidence)

    def resample(self, num_samples: int = 1000, seed: int | None = None) -> dict[str, np.ndarray]:
        """Draws of a variational fit resampled by Pareto-smoothed importance weights: arrays (1, num_samples, *event)."""
        from probgen.diagnostics import smoothed_weights

        if "log_q" not in self.answer:
            raise TypeError(f"{self.inference.name} draws from the target itself; there is nothing to reweight.")
        weights, _ = smoothed_weights(self)
        pick = generator(self.seed if seed is None else seed).choice(weights.size, num_samples, p=weights)
        return {k: v.reshape(-1, *v.shape[2:])[pick][None] for k, v in self.draws.items()}

    def _repr_html_(self) -> str:
        """For notebooks: what was run and how far, the verdict where `diagnose` was asked for it, a small picture; see `shown`."""
        from probgen.fits.shown import shown

        return shown(self)

    def __repr__(self) -> str:
        name = getattr(self.model.program, "__name__", "program")
        chains, draws = self.z.shape[:2]
        done = "" if self.complete else f", stopped at step {self.num_steps} of {self.inference.total_steps}"
        return f"Fit({name}, {self.inference.name}, {chains} chains x {draws} draws, {self.seconds:.1f} s{done})"
