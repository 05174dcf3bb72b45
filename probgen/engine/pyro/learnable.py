"""Targets of learning: parameters of a Pyro program of batches of rows, with a density or without."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from probgen.algorithm import Incompatible
from probgen.engine.pyro.programs.looks import log_prob
from probgen.engine.pyro.rows import AT_ONCE, PyroRows, parts
from probgen.programs.pinned import check_pins
from probgen.target import Implicit, Learnable, Target


class PyroImplicit(PyroRows, Implicit):
    """Rows, and a program of a batch of them that says how points arise: an observed site is `Delta(f(noise))`."""

    normalised = False

    def learned(self, answer: Mapping[str, np.ndarray], given: Mapping[str, Any] | None = None) -> Target:
        if known := [k for k in self.keywords if k in (given or {})]:
            raise Incompatible(
                f"The program has no density, so that nothing is known of its noise given {known[0]}.\n"
                "Draw points with fit.sample, or give inputs alone."
            )
        return super().learned(answer, given)


class PyroLearnable(PyroRows, Learnable):
    """Rows, and a program of a batch of them with a density."""

    @property
    def normalised(self) -> bool:
        return self.proper and not self.hidden

    def joint(self, rows: Mapping[str, Any]) -> torch.Tensor:
        """log p of rows, where nothing is hidden, in nats: (row,)."""
        found: Any = sum(log_prob(node) for node in self.told(rows).values())
        return found

    def log_probs(self, answer: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray]) -> np.ndarray:
        """log p of rows, where nothing is hidden, in nats: (row,); Incompatible where something is."""
        if self.hidden:
            raise Incompatible(
                "The hidden sites of a Pyro program are not integrated out; fit.log_prob(x) bounds log p."
            )
        check_pins(self)
        found = []
        with self.running(self.as_tensors(answer), 0), torch.no_grad():
            for part in parts(self.from_host(rows), AT_ONCE):
                found.append(self.joint(part).cpu().numpy())
        return np.concatenate(found).astype(float)
