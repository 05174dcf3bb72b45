"""probgen evaluate: measures of a run's samples against rows that were held out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from probgen.cli.words import ARRAYS, _array, _check_new


@dataclass(frozen=True)
class Evaluate:
    """Measure a run's samples: FID, KID, inception score, precision, recall, density, coverage, modes, memorisation.

    probgen evaluate runs/rbm --measures kid prdc
    """

    run_: Annotated[Positional[Path], arg(metavar="RUN")]
    """the run's directory"""
    data: Annotated[str | None, arg(metavar="NAME|FILE")] = None
    """a data set such as mnist, whose held-out rows are taken, or an .npz or .npy file of rows; by default rows that the run held
    out of learning, else held-out rows of the data set that it learned from, else its own rows"""
    measures: Annotated[tuple[str, ...], arg(metavar="NAME ...")] = ()
    """some of fid, fid_infinity, kid, inception_score, prdc, modes, memorisation; by default all that can be"""
    net: Annotated[Path | None, arg(metavar="FILE")] = None
    """a file with Inception's weights; by default a classifier trained here where the data set has labels, else none"""
    site: str | None = None
    """which visible site, where there are several"""
    num_samples: Annotated[int, arg(aliases=["-n"])] = 10_000
    """how many rows are drawn"""
    value_range: tuple[float, float] | None = None
    """black and white of pictures given as floats"""
    k: int = 5
    """neighbours of precision, recall, density and coverage"""
    splits: int = 10
    """parts of the inception score"""
    subsets: int | None = None
    """of KID; by default all rows at once"""
    size: int | None = None
    """rows of a subset of KID"""
    seed: int = 0
    """of the draws"""
    out: Annotated[Path | None, arg(aliases=["-o"], metavar="FILE")] = None
    """also write the numbers as .json"""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """replace a file that is there already"""

    def run(self) -> int:
        from probgen.evaluate.samples.evaluating import evaluate
        from probgen.run import load

        if self.out and self.out.suffix != ".json":
            raise ValueError(f"{self.out} is not a .json file; say for example -o {self.out.with_suffix('.json')}")
        _check_new(self.out, self.overwrite)
        found = evaluate(
            load(self.run_), _rows(self.data), measures=self.measures or None, net=self.net, site=self.site,
            num_samples=self.num_samples, value_range=self.value_range, k=self.k, splits=self.splits,
            subsets=self.subsets, size=self.size, seed=self.seed,
        )  # fmt: skip
        print(found)
        if self.out:
            self.out.write_text(json.dumps(found.to_dict(), indent=1) + "\n")
            print(f"Written: {self.out}")
        return 0


def _rows(word: str | None) -> object:
    """A data set's name as it is; the one array of a file."""
    return word if word is None or Path(word).suffix not in ARRAYS else _array(word)
