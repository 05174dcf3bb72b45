"""probgen compare: several algorithms on one model, or several runs."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import Positional, arg

from probgen.cli.words import _check_new, _data, _program

if TYPE_CHECKING:
    from probgen.fitted import Fitted


@dataclass(frozen=True)
class Compare:
    """Compare runs, or fit one model by several algorithms and compare: agreement, ESS per second, cost, verdicts."""

    runs: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN RUN ... | MODEL")]
    """directories of runs on the same data, or one model with --inference"""
    inference: Annotated[tuple[str, ...], arg(aliases=["-i"])] = ()
    """the algorithms to fit the model by, each with its default settings"""
    data: Annotated[Path | None, arg(metavar="FILE")] = None
    """the program's data by name, .npz, .json, .csv or .parquet, or a data set such as digits; the model's own by default"""
    seed: int = 0
    """of every fit"""
    out: Annotated[Path | None, arg(metavar="DIR")] = None
    """keep the fits here, one directory each"""
    report: Annotated[Path | None, arg(metavar="FILE")] = None
    """also write a self-contained HTML page"""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """replace a page that is there already"""
    progress: bool = field(default_factory=sys.stderr.isatty)
    """a bar on stderr; by default where that is a terminal"""

    def run(self) -> int:
        from probgen.comparison import compare

        _check_new(self.report, self.overwrite)
        compared = compare(self._fitted() if self.inference else self._loaded())
        print(compared)
        if self.report:
            print(f"Report: {compared.report(self.report, self.overwrite)}")
        return 0

    def _loaded(self) -> dict[str, Fitted]:
        from probgen.run import load

        if len(self.runs) < 2:
            raise ValueError("Compare needs two or more runs, or one model with --inference nuts hmc ...")
        labels = [Path(run).name for run in self.runs]
        labels = labels if len(set(labels)) == len(labels) else list(self.runs)
        return {label: load(run) for label, run in zip(labels, self.runs, strict=True)}

    def _fitted(self) -> dict[str, Fitted]:
        from probgen import catalog, run

        if len(self.runs) != 1:
            raise ValueError(f"--inference fits one model; got {len(self.runs)}: {' '.join(self.runs) or 'none'}")
        for word in self.inference:
            catalog.algorithm(word)
        program, data, fits = _program(self.runs[0]), _data(self.data), {}
        outs = {word: self.out / word if self.out else None for word in self.inference}
        for word, out in outs.items():  # all of them, before any is fitted
            run.asked(program, data, word, out=out)
        for word, out in outs.items():
            fits[word] = run.fit(program, data, word, seed=self.seed, out=out, progress=self.progress)
        return fits
