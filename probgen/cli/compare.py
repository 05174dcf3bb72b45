"""probgen compare: several algorithms on one model, or several runs."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.conf import Positional, arg

from probgen.cli.words import _check_new, _data, _program

if TYPE_CHECKING:
    from probgen.fitted import Fitted


@dataclass(frozen=True)
class Compare:
    """Compare runs, or fit one model by several algorithms and compare: agreement, ESS per second, cost, verdicts.

    probgen compare eight_schools --inference nuts hmc laplace

    probgen compare runs/a runs/b
    """

    runs: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN RUN ... | MODEL")]
    """directories of runs on the same data, or one model with --inference"""
    inference: Annotated[tuple[str, ...], arg(aliases=["-i"])] = ()
    """the algorithms to fit the model by, each with its default settings"""
    data: Annotated[Path | None, arg(metavar="FILE")] = None
    """the program's data by name, .npz, .json, .csv or .parquet; rows, .npy; or a data set such as digits; the model's own by
    default"""
    seed: int = 0
    """of every fit"""
    out: Annotated[Path | None, arg(metavar="DIR")] = None
    """keep the fits here, one directory each"""
    num_workers: Annotated[int | None, arg(metavar="N")] = None
    """with --inference and --out: fits at once, each in a process of its own; the same command again uses what is done"""
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

        if self.num_workers is not None:
            raise ValueError("--num-workers is of fits, with --inference; runs are there already")
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
        if self.num_workers is not None:
            return self._side_by_side(program, data)
        outs = {word: self.out / word if self.out else None for word in self.inference}
        for word, out in outs.items():  # all of them, before any is fitted
            run.asked(program, data, word, out=out)
        for word, out in outs.items():
            fits[word] = run.fit(program, data, word, seed=self.seed, out=out, progress=self.progress)
        return fits

    def _side_by_side(self, program: Any, data: Any) -> dict[str, Fitted]:
        from probgen.comparison import swept
        from probgen.sweeps.sweeping import sweep

        if self.out is None:
            raise ValueError("--num-workers needs --out DIR, where the fits are kept")
        found = sweep(
            program, data=data, inference=list(self.inference), seeds=[self.seed], out=self.out, num_workers=self.num_workers,
            progress=self.progress,
        )  # fmt: skip
        return swept(found)
