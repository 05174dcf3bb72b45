"""FieldFit: pictures that were grown from a sample."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from probgen.algorithm import Incompatible
from probgen.data import whole_numbers
from probgen.evaluate.textures import pieces
from probgen.fits.fit import Fit
from probgen.fitted import LogProb
from probgen.programs.fields import Field

NO_DENSITY = (
    "A texture is said by its conditionals alone, which need not agree with any joint law: there is no {}.\n"
    "fit.diagnose() says how its pictures compare with the sample; fit.sample(size=(128, 128)) grows another."
)


@dataclass(frozen=True, repr=False)
class FieldFit(Fit):
    """Pictures grown from a sample, and more of any size: `fit.sample(size=(128, 128))`."""

    target: Field

    @property
    def sources(self) -> np.ndarray:
        """Which pixel of the sample each pixel is, counted in rows of the sample, -1 for none: (picture, height, width)."""
        return self.answer["sources"][0]

    def sample(
        self, num_samples: int = 1, seed: int | None = None, size: tuple[int, int] | None = None
    ) -> dict[str, np.ndarray]:
        """New pictures, grown as the fit's: {site: (num_samples, height, width)}, or (num_samples, height, width, 3).

        size: (height, width) in pixels, where the program has settings of these names; by default as the fit's.
        """
        count = whole_numbers.whole("num_samples", num_samples)
        if count < 1:
            raise ValueError(f"num_samples is {count}; it must be at least 1")
        data = dict(self.target.data) | self._sized(size)
        seed = self.seed + 2 if seed is None else whole_numbers.seed(seed)
        found = self.runner.fit(
            self.model, data, dataclasses.replace(self.inference, num_pictures=count), seed=seed, progress=False,
            precision=self.precision, engine=self.target.engine,
        )  # fmt: skip
        return {k: v[0] for k, v in found.draws.items()}

    def summary(self, **keywords: Any) -> Any:
        """A pandas table of the sample and the pictures: mean, sd, smallest and largest value, and the largest piece in pixels."""
        import pandas as pd

        if keywords:
            raise TypeError(f"Unknown setting {next(iter(keywords))!r}: a table of pictures takes none.")
        sample = self.target.picture
        rows = {"sample": _described(sample) | {"largest piece": sample.shape[0] * sample.shape[1]}}
        for i, (picture, sources) in enumerate(zip(next(iter(self.draws.values()))[0], self.sources, strict=True)):
            rows[f"picture {i}"] = _described(picture) | {"largest piece": int(pieces(sources, sample.shape[1])[0])}
        return pd.DataFrame.from_dict(rows, orient="index")

    def log_prob(self, *args: Any, **given: Any) -> LogProb:
        """Incompatible: there is no density."""
        raise Incompatible(NO_DENSITY.format("log probability"))

    def predict(self, *args: Any, **new_data: Any) -> Any:
        """Incompatible: nothing is observed."""
        raise Incompatible(NO_DENSITY.format("observed site to predict"))

    def _sized(self, size: Any) -> dict[str, int]:
        if size is None:
            return {}
        if np.shape(size) != (2,):
            raise ValueError(f"size is {size!r}; expected (height, width) in pixels.")
        if missing := [name for name in ("height", "width") if name not in self.target.data]:
            raise TypeError(f"This program has no setting {missing[0]!r}, by which another size could be said.")
        found = {k: whole_numbers.whole(k, v) for k, v in zip(("height", "width"), size, strict=True)}
        if min(found.values()) < 1:
            raise ValueError(f"size is {size!r}; both sides must be above 0")
        return found

    def __repr__(self) -> str:
        name = getattr(self.model.program, "__name__", "program")
        done = "" if self.complete else f", stopped at step {self.num_steps}"
        sides = "x".join(map(str, self.target.shape[:2]))
        return f"FieldFit({name}, {self.inference.name}, {len(self.sources)} pictures of {sides}, {self.seconds:.1f} s{done})"


def _described(picture: np.ndarray) -> dict[str, Any]:
    return {"mean": picture.mean(), "sd": picture.std(), "min": picture.min(), "max": picture.max()}
