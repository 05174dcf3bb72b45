"""probgen fit, resume, sample, diagnose: one run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import Positional, arg

from probgen.cli.words import (
    ARRAYS,
    INTERRUPTED,
    PICTURES,
    SOUNDS,
    Folder,
    Output,
    _array,
    _check_new,
    _data,
    _free_folder,
    _program,
    _split,
    _value,
    _with,
)

if TYPE_CHECKING:
    from probgen.fitted import Fitted

MAX_ROWS = 30  # of a summary, where nobody asked for more


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Fit a model of the collection, or a program of your own, by any algorithm that its structure allows.

    probgen fit eight_schools --inference nuts --out runs/schools

    probgen fit line.py:line --data points.csv
    """

    program: Annotated[Positional[str], arg(metavar="MODEL")]
    """a model of `probgen list`, or file.py:function"""
    inference: Annotated[str, arg(aliases=["-i"])] = "nuts"
    """an algorithm of `probgen list`; its settings are further flags, shown by --help. Without it, what serves the model best"""
    data: Annotated[Path | None, arg(metavar="FILE")] = None
    """the program's data by name, .npz, .json, .csv or .parquet; rows, .npy; or a data set of `probgen list --data` such as
    digits, or several, as digits,inverted_digits; the model's own by default"""
    set: Annotated[tuple[str, ...], arg(metavar="NAME=VALUE ...")] = ()
    """the model's own settings, in place of its data's, such as num_latents=4 width=64; `probgen show MODEL` lists them"""
    out: Annotated[Path | None, arg(metavar="DIR")] = None
    """where the run is written; by default the first free of runs/MODEL-INFERENCE, runs/MODEL-INFERENCE-2, ..."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """replace a run, and a page, that is there already"""
    seed: int = 0
    """the run is a function of program, data, settings and seed"""
    precision: Literal["float64", "float32"] | None = None
    """float64 by default on a CPU, float32 on an accelerator"""
    engine: Literal["numpyro", "pyro"] | None = None
    """only where the program leaves it in doubt"""
    init: Annotated[Path | None, arg(metavar="RUN")] = None
    """the directory of a run at whose learned parameters learning begins"""
    coordinator: Annotated[str | None, arg(metavar="HOST:PORT")] = None
    """work over processes: where they meet, at the first; each runs the same command, with a --process-id of its own"""
    num_processes: Annotated[int | None, arg(metavar="N")] = None
    """with --coordinator: how many"""
    process_id: Annotated[int | None, arg(metavar="I")] = None
    """with --coordinator: which one this is, from 0; process 0 writes the run and prints"""
    progress: bool = field(default_factory=sys.stderr.isatty)
    """a bar on stderr; by default where that is a terminal"""
    logger: Annotated[tuple[str, ...], arg(metavar="WORD ...")] = ()
    """tensorboard (event files in the run's directory), mlflow, or both: the loss as it goes, the verdict at the end"""
    report: Annotated[Path | None, arg(metavar="FILE")] = None
    """also write a self-contained HTML page"""

    def run(self) -> int:
        from probgen import run
        from probgen.processes import torchrun

        first = not (self.process_id or torchrun.number())
        out = self.out or _free_folder(self.program, self.inference, self.overwrite)
        if first:
            if (out / "run.json").exists() and not self.overwrite:
                raise FileExistsError(
                    f"{out} holds a run already. Go on with `probgen resume {out}`, or pass --overwrite."
                )
            _check_new(self.report, self.overwrite)
        settings = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in {f.name for f in fields(Fit)}}
        program, data = _program(self.program), _data(self.data)
        if self.coordinator is not None and self.set:  # looking at a model's own data starts JAX
            from probgen.processes.peers import connected

            connected(self.coordinator, self.num_processes, self.process_id)
        data = _with(program, data, self.set)
        work = lambda: run.fit(  # noqa: E731
            program, data, self.inference, seed=self.seed, out=out, progress=self.progress, overwrite=self.overwrite,
            precision=self.precision, engine=self.engine, init=self.init, coordinator=self.coordinator,
            num_processes=self.num_processes, process_id=self.process_id, loggers=self.logger or None, **settings,
        )  # fmt: skip
        return _told(work, out, self.report) if first else _silent(work)


@dataclass(frozen=True)
class Resume:
    """Go on with a run after a crash or Ctrl-C; the result is bit for bit that of an uninterrupted run.

    probgen resume runs/schools
    """

    out: Folder
    """the run's directory"""
    program: Annotated[str | None, arg(metavar="FILE.py:FUNCTION")] = None
    """only where the program cannot be found again"""
    coordinator: Annotated[str | None, arg(metavar="HOST:PORT")] = None
    """as of `probgen fit`, with any number of processes, which all read the run's directory"""
    num_processes: Annotated[int | None, arg(metavar="N")] = None
    """with --coordinator: how many"""
    process_id: Annotated[int | None, arg(metavar="I")] = None
    """with --coordinator: which one this is, from 0"""
    progress: bool = field(default_factory=sys.stderr.isatty)
    """a bar on stderr; by default where that is a terminal"""
    logger: Annotated[tuple[str, ...], arg(metavar="WORD ...")] = ()
    """tensorboard, mlflow or none; by default those that the run was begun with"""
    report: Annotated[Path | None, arg(metavar="FILE")] = None
    """also write a self-contained HTML page"""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """replace a page that is there already"""

    def run(self) -> int:
        from probgen import run
        from probgen.processes import torchrun

        first = not (self.process_id or torchrun.number())
        if first:
            _check_new(self.report, self.overwrite)
        program = _program(self.program) if self.program else None
        work = lambda: run.resume(  # noqa: E731
            self.out, program, progress=self.progress, coordinator=self.coordinator, num_processes=self.num_processes,
            process_id=self.process_id, loggers=self.logger or None,
        )  # fmt: skip
        return _told(work, self.out, self.report) if first else _silent(work)


@dataclass(frozen=True)
class Extend:
    """Go on with a run that is done: more draws of each chain, or more steps of a learner, as one longer run has them.

    probgen extend runs/schools --num-samples 2000
    """

    out: Folder
    """the run's directory"""
    num_samples: Annotated[int | None, arg(metavar="N")] = None
    """how many more draws of each chain"""
    num_steps: Annotated[int | None, arg(metavar="N")] = None
    """how many more steps of a learner"""
    program: Annotated[str | None, arg(metavar="FILE.py:FUNCTION")] = None
    """only where the program cannot be found again"""
    progress: bool = field(default_factory=sys.stderr.isatty)
    """a bar on stderr; by default where that is a terminal"""
    report: Annotated[Path | None, arg(metavar="FILE")] = None
    """also write a self-contained HTML page"""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """replace a page that is there already"""

    def run(self) -> int:
        from probgen.run.longer import extend

        _check_new(self.report, self.overwrite)
        program = _program(self.program) if self.program else None
        work = lambda: extend(  # noqa: E731
            self.out, self.num_samples, num_steps=self.num_steps, program=program, progress=self.progress
        )
        return _told(work, self.out, self.report)


def _told(work: Callable[[], Fitted], out: Path, report: Path | None) -> int:
    """Do the work; say the verdict, the summary and where the run is, or how to go on with it."""
    try:
        fit = work()
    except KeyboardInterrupt:
        if (out / "run.json").exists():
            print(f"\nStopped before the first step. Go on with: probgen resume {out}", file=sys.stderr)
        else:
            print("\nStopped before anything was written.", file=sys.stderr)
        return INTERRUPTED
    if fit.z.shape[1]:
        print(fit.diagnose())
        print(_summary(fit))
        if report:
            print(f"Report: {fit.report(report, overwrite=True)}")
    if fit.complete:
        print(f"Run: {out}   (probgen diagnose | report | sample {out})")
        return 0
    steps = f"step {fit.num_steps} of {fit.inference.total_steps}"
    print(f"Stopped at {steps}; what is there is in {out}. Go on with: probgen resume {out}", file=sys.stderr)
    return INTERRUPTED


def _silent(work: Callable[[], Fitted]) -> int:
    """Do the work of a process that is not the first, which says what came of it."""
    try:
        return 0 if work().complete else INTERRUPTED
    except KeyboardInterrupt:
        return INTERRUPTED


def _summary(fit: Fitted) -> str:
    table = fit.summary()
    rest = len(table) - MAX_ROWS
    more = f"\n... and {rest} more rows: pg.load({str(fit.directory)!r}).summary()" if rest > 0 else ""
    left = f"\n{table.footnote}" if getattr(table, "footnote", "") else ""
    return f"\n{table.head(MAX_ROWS).to_string(na_rep='-')}{more}{left}\n"


@dataclass(frozen=True)
class Sample:
    """Draw new data from a run: of the posterior predictive, or of the program that was learned.

    probgen sample runs/rbm -o grid.png

    Inputs of a conditional program are flags of their own, --label 7, or --label [0,1,2] for each draw its own, or an .npy file;
    without them each draw has the inputs of a random row of the data.
    """

    run_: Folder
    """the run's directory"""
    num_samples: Annotated[int | None, arg(aliases=["-n"])] = None
    """how many data sets, of a sound windows, each after the one before; by default 1, and 64 for a picture or a sound"""
    out: Output = None
    """an .npz file, arrays (num_samples, *shape), a picture of them (.png, .svg, .pdf), or of a program of sound a .wav file;
    printed where there is none"""
    seed: int | None = None
    """by default the run's seed decides"""
    truncation: float | None = None
    """of a program without a density: its normal noise lies within so many standard deviations; fewer outliers, less variety"""
    sampler: str | None = None
    """of a diffusion model: ancestral, ddim, euler, heun, dpm++ or sde; by default the program's own law"""
    num_steps: int | None = None
    """how often a diffusion model's network is asked"""
    guidance: float | None = None
    """of a diffusion model with labels: 1 is the conditional model, above 1 exaggerates"""
    given: Annotated[tuple[str, ...], arg(metavar="NAME=VALUE ...")] = ()
    """the same as a flag for each input: --given label=7"""
    begin: str = ""
    """of a model of a text: what each text begins with"""
    length: int | None = None
    """of a model of a text: characters of each, by default those of a window"""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """replace a file that is there already"""

    def run(self) -> int:
        import numpy as np

        from probgen.fits.text import TextFit
        from probgen.run import load

        picture, sound = (self.out is not None and self.out.suffix in known for known in (PICTURES, SOUNDS))
        count = self.num_samples if self.num_samples is not None else (64 if picture or sound else 1)
        if count < 1:
            raise ValueError(f"num_samples is {count}; it must be above 0")
        if self.out and not (picture or sound) and self.out.suffix not in (".npz", ".txt"):
            known = f"{self.out.with_suffix('.npz')}, or {self.out.with_suffix('.png')} for a picture"
            raise ValueError(f"{self.out} is not an .npz file; say for example -o {known}")
        _check_new(self.out, self.overwrite)
        fit = load(self.run_)
        if isinstance(fit, TextFit) and (self.out is None or self.out.suffix == ".txt"):
            return self._told(fit.text(count, self.seed, begin=self.begin, length=self.length))
        if wrong := [k for k in ("begin", "length") if getattr(self, k)] or ["out"] * (str(self.out)[-4:] == ".txt"):
            raise TypeError(f"--{wrong[0]} of a text is for models of a text, printed or written to a .txt file.")
        if self.out and sound:
            print(self._heard(fit, count, self.out))
            return 0
        drawn = self._drawn(fit, count)
        if self.out and picture:
            _picture(fit, drawn).savefig(self.out, dpi=150)
            print(self.out)
        elif self.out:
            np.savez(self.out, **drawn)
            print(f"{self.out}: " + ", ".join(f"{k} {v.shape}" for k, v in drawn.items()))
        else:
            for key, value in drawn.items():
                print(f"{key} {value.shape}\n{np.array2string(value, precision=4, threshold=2000)}")
        return 0

    def _told(self, texts: list[str]) -> int:
        """Texts printed, or written to a file, parted by a line where there are several."""
        whole = "\n---\n".join(texts)
        if self.out:
            self.out.write_text(whole + "\n", encoding="utf-8")
        print(self.out or whole)
        return 0

    def _heard(self, fit: Any, count: int, out: Path) -> str:
        """Write a sound; what was written."""
        from probgen.data.values.sounds import write
        from probgen.evaluate.sounds import heard

        waveform, rate = heard(fit, count, self.seed, **self._settings(fit))
        write(out, waveform, rate)
        return f"{out}: {len(waveform) / rate:.2f} s, {rate} samples a second"

    def _drawn(self, fit: Any, count: int) -> dict[str, Any]:
        from probgen.fitted import FittedParameters

        more = self._settings(fit)
        by_chance = isinstance(fit, FittedParameters) and fit.target.inputs and not more
        return (fit.simulate if by_chance else fit.sample)(count, self.seed, **more)

    def _settings(self, fit: Any) -> dict[str, Any]:
        """What flags say of the draws: inputs, and settings of the kinds of fits that have them."""
        from probgen.fitted import FittedDenoiser, FittedImplicit, FittedParameters

        own = tuple(getattr(fit.target, "inputs", ())) if isinstance(fit, FittedParameters) else ()
        inputs = dict(_split(word, "--given", "label=7") for word in self.given)
        if unknown := [k for k in inputs if k not in own]:
            known = f"its inputs are {', '.join(own)}" if own else "its program has no inputs"
            raise TypeError(f"Unknown flag '--{unknown[0]}' of probgen sample for this run; {known}.")
        more: dict[str, Any] = {k: _array(v) if Path(v).suffix in ARRAYS else _value(v) for k, v in inputs.items()}
        if self.truncation is not None:
            if not isinstance(fit, FittedImplicit):
                raise TypeError(
                    "--truncation is for programs without a density, such as a gan's; this run has another."
                )
            more["truncation"] = self.truncation
        how = {k: v for k in ("sampler", "num_steps", "guidance") if (v := getattr(self, k)) is not None}
        if how and not isinstance(fit, FittedDenoiser):
            raise TypeError(f"--{next(iter(how)).replace('_', '-')} is for diffusion models; this run has another.")
        return more | how


def _picture(fit: Fitted, drawn: dict[str, Any]) -> Any:
    from probgen.pictures import samples
    from probgen.pictures.style import style

    with style():
        picture = samples.of(fit, drawn)
    if isinstance(picture, str):
        raise ValueError(f"There is no picture of these: {picture}\nTheir numbers: -o samples.npz")
    picture.set_facecolor("white")
    return picture


@dataclass(frozen=True)
class Diagnose:
    """Print the verdict on a run; the exit code is the verdict's: 0 pass, 1 warn, 2 fail; 64 where no verdict can be given.

    probgen diagnose runs/schools
    """

    run_: Folder
    """the run's directory"""

    def run(self) -> int:
        from probgen.run import load
        from probgen.run.verdicts import keep

        fit = load(self.run_)
        verdict = fit.diagnose()
        keep(fit, verdict)
        print(verdict)
        return verdict.exit_code
