"""CompletedFit: points that a diffusion model made of one that is known in part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from probgen.algorithm import Incompatible
from probgen.fits.fit import Fit
from probgen.fitted import LogProb
from probgen.programs.completable import PartlyKnown


@dataclass(frozen=True, repr=False)
class CompletedFit(Fit):
    """Completions: `draws` of independent runs, and what the evidence of the known part is."""

    target: PartlyKnown

    @property
    def log_evidence(self) -> LogProb:
        """log p(what is known), in nats, with its standard error by independent runs; the estimate of p itself is unbiased.

        Of whole numbers, the probability of their unit intervals. Incompatible for draws that were not weighted.
        """
        if "log_evidence" not in self.answer:
            raise Incompatible(f"{self.inference.name} estimates no evidence; inference='twisted_smc' does.")
        each = np.asarray(self.answer["log_evidence"], float)[:, 0]
        weights = np.exp(each - each.max())
        error = weights.std(ddof=1) / np.sqrt(len(each)) / weights.mean() if len(each) > 1 else np.nan
        kind = f"estimate by particles, of a chain of {self.inference.total_steps} levels"
        return LogProb(each.max() + np.log(weights.mean()), error, kind)
