"""The command line: the words of Python, said in the shell.

Each command is a dataclass: its fields are the flags, `run` does the work and returns the exit code. The flags of
`probgen fit` are those of `Fit` and the settings of the algorithm that `--inference` names. Bad input is one message on
stderr and exit code 2, Ctrl-C is 130, and `probgen diagnose` exits with the verdict's code.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_type_hints

import tyro
from tyro.conf import Positional, arg, subcommand

if TYPE_CHECKING:
    from probgen import result
    from probgen.algorithm import Inference

BAD_INPUT, INTERRUPTED = 2, 130
MAX_ROWS = 30  # of a summary, where nobody asked for more

Folder = Annotated[Positional[Path], arg(metavar="RUN")]
Output = Annotated[Path | None, arg(aliases=["-o"], metavar="FILE")]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words or bool(os.environ.get("PROBGEN_DEBUG"))
    words = [word for word in words if word != "--debug"]
    try:
        return _version() if words == ["--version"] else _parse(words).run()
    except (TypeError, ValueError, LookupError, OSError, ImportError) as error:
        if debug:
            raise
        print(f"probgen: {_message(error)}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        if debug:
            raise
        print("probgen: interrupted", file=sys.stderr)
        return INTERRUPTED


def _message(error: Exception) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return text.strip() or type(error).__name__


def _version() -> int:
    from importlib.metadata import version

    print(f"probgen {version('probgen')}")
    return 0


# ---- the collection ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class List:
    """List the models and the algorithms, one line each."""

    def run(self) -> int:
        from probgen import catalog

        for title, group in (("Models", "probgen.models"), ("Inference", "probgen.inference")):
            print(f"{title}\n{_listing(catalog.modules(group))}\n")
        print("probgen show NAME tells more of each; probgen matrix, which inference fits which model.")
        return 0


def _listing(modules: Mapping[str, str]) -> str:
    lines, folder = [], ""
    width = max(map(len, modules), default=0)
    for word, module in modules.items():
        if (parent := module.partition(":")[0].split(".")[-2:-1] or [module])[0] != folder:
            folder = parent[0]
            lines.append(f"  {folder}/")
        lines.append(f"    {word:{width}}  {_first_line(module)}")
    return "\n".join(lines)


def _first_line(module: str) -> str:
    """The first line of a module's docstring, read without importing the module."""
    import ast
    import importlib.util

    spec = importlib.util.find_spec(module.partition(":")[0])
    doc = ast.get_docstring(ast.parse(Path(spec.origin).read_text())) if spec and spec.origin else None
    return (doc or "").partition("\n")[0]


@dataclass(frozen=True)
class Show:
    """Show a model (docstring, data, source, which algorithms fit) or an algorithm (docstring, settings)."""

    name: Annotated[Positional[str], arg(metavar="NAME")]
    """a model or an algorithm of `probgen list`, or file.py:function"""

    def run(self) -> int:
        from probgen import catalog
        from probgen.algorithm import closest

        models, algorithms = catalog.modules("probgen.models"), catalog.modules("probgen.inference")
        shown = []
        if self.name in models or _is_file(self.name):
            shown.append(_about_model(self.name))
        if self.name in algorithms:
            shown.append(_about_algorithm(self.name))
        if not shown:
            hint = closest(self.name, {**models, **algorithms})
            raise ValueError(f"Unknown model or algorithm {self.name!r}.{hint}\n`probgen list` shows all.")
        print("\n\n".join(shown))
        return 0


def _about_model(word: str) -> str:
    import inspect

    import numpy as np

    from probgen import catalog, suggestions
    from probgen.model import Model
    from probgen.run import conditioned

    program = _program(word)
    found = catalog.model(program) if isinstance(program, str) else program
    model = found if isinstance(found, Model) else Model(found)
    about = f"{model.doc}\n\n{inspect.getsource(model.program).rstrip()}"
    data = model.default_data()
    if not data and _is_file(word):
        return about
    _, target = conditioned(program, data)
    shapes = [f"  {k}: {f'{v.dtype} {v.shape}' if isinstance(v, np.ndarray) else repr(v)}" for k, v in data.items()]
    sites = [f"  {site.name}: {site.kind} {site.shape}" for site in target.sites]
    names = ", ".join(suggestions.working(target)) or "none"
    return (
        f"{about}\n\nData:\n{_lines(shapes)}\nSites:\n{_lines(sites)}\n"
        f"Engine: {target.engine}. Offers: {target.offers}.\nInference that fits, best first: {names}."
    )


def _lines(lines: list[str]) -> str:
    return "\n".join(lines) or "  none"


def _about_algorithm(word: str) -> str:
    import inspect

    from probgen import catalog

    kind = catalog.algorithm(word)
    about = inspect.getdoc(sys.modules[kind.__module__]) or inspect.getdoc(kind) or ""
    documented = _field_docs(kind)
    settings = []
    for f in fields(kind):
        default = "required" if (value := _default(f)) is MISSING else repr(value)
        settings.append(f"  {f.name} = {default}" + (f"\n      {documented[f.name]}" if f.name in documented else ""))
    bias = f"\nBias: {kind.bias}" if kind.bias else ""
    return (
        f"{about}\n\nSettings of {kind.__name__}:\n{_lines(settings)}\n"
        f"Needs a {kind.needs.offers} target. Engines: {', '.join(kind.engines)}.{bias}"
    )


@dataclass(frozen=True)
class Matrix:
    """Print which inference fits which model, derived from the types."""

    engine: Literal["numpyro", "pyro"] | None = None
    """only the programs of one engine"""

    def run(self) -> int:
        from probgen import offers

        table = offers.matrix(self.engine)
        words, models = [str(w) for w in table.inference.values], [str(m) for m in table.model.values]
        width, height = max(map(len, models), default=0), max(map(len, words), default=0)
        for row in zip(*(word.rjust(height) for word in words), strict=True):
            print(" " * width + "".join(f" {letter}" for letter in row))
        for name, row in zip(models, table.values, strict=True):
            print(f"{name:{width}}" + "".join(" x" if fits else " ." for fits in row))
        if left_out := table.attrs["left_out"]:
            print(f"\nLeft out, for they need torch and pyro-ppl (pip install 'probgen[pyro]'): {', '.join(left_out)}.")
        return 0


# ---- runs --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Fit a model of the collection, or a program of your own, by any algorithm that its structure allows."""

    program: Annotated[Positional[str], arg(metavar="MODEL")]
    """a model of `probgen list`, or file.py:function"""
    inference: Annotated[str, arg(aliases=["-i"])] = "nuts"
    """an algorithm of `probgen list`; its settings are further flags, shown by --help. Without it, what serves the model best"""
    data: Annotated[Path | None, arg(metavar="FILE")] = None
    """the program's data by name, .npz, .json, .csv or .parquet, or a data set such as digits; the model's own by default"""
    set: Annotated[tuple[str, ...], arg(metavar="NAME=VALUE ...")] = ()
    """the model's own settings, in place of its data's, such as num_latents=4 width=64; `probgen show MODEL` lists them"""
    out: Annotated[Path | None, arg(metavar="DIR")] = None
    """where the run is written; by default the first free of runs/MODEL-INFERENCE, runs/MODEL-INFERENCE-2, ..."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """replace a run that is there already"""
    seed: int = 0
    """the run is a function of program, data, settings and seed"""
    precision: Literal["float64", "float32"] | None = None
    """float64 by default on a CPU, float32 on an accelerator"""
    engine: Literal["numpyro", "pyro"] | None = None
    """only where the program leaves it in doubt"""
    init: Annotated[Path | None, arg(metavar="RUN")] = None
    """the directory of a run at whose learned parameters learning begins"""
    progress: bool = field(default_factory=sys.stderr.isatty)
    """a bar on stderr; by default where that is a terminal"""
    report: Annotated[Path | None, arg(metavar="FILE")] = None
    """also write a self-contained HTML page"""

    def run(self) -> int:
        from probgen import run

        out = self.out or _free_folder(self.program, self.inference, self.overwrite)
        if (out / "run.json").exists() and not self.overwrite:
            raise FileExistsError(f"{out} holds a run already. Go on with `probgen resume {out}`, or pass --overwrite.")
        settings = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in {f.name for f in fields(Fit)}}
        program = _program(self.program)
        data = _with(program, _data(self.data), self.set)
        work = lambda: run.fit(  # noqa: E731
            program, data, self.inference, seed=self.seed, out=out, progress=self.progress, overwrite=self.overwrite,
            precision=self.precision, engine=self.engine, init=self.init, **settings,
        )  # fmt: skip
        return _told(work, out, self.report)


@dataclass(frozen=True)
class Resume:
    """Go on with a run after a crash or Ctrl-C; the result is bit for bit that of an uninterrupted run."""

    out: Folder
    """the run's directory"""
    program: Annotated[str | None, arg(metavar="FILE.py:FUNCTION")] = None
    """only where the program cannot be found again"""
    progress: bool = field(default_factory=sys.stderr.isatty)
    """a bar on stderr; by default where that is a terminal"""
    report: Annotated[Path | None, arg(metavar="FILE")] = None
    """also write a self-contained HTML page"""

    def run(self) -> int:
        from probgen import run

        program = _program(self.program) if self.program else None
        return _told(lambda: run.resume(self.out, program, progress=self.progress), self.out, self.report)


def _told(work: Callable[[], result.Fit], out: Path, report: Path | None) -> int:
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
            print(f"Report: {fit.report(report)}")
    if fit.complete:
        print(f"Run: {out}   (probgen diagnose | report | sample {out})")
        return 0
    steps = f"step {fit.num_steps} of {fit.inference.total_steps}"
    print(f"Stopped at {steps}; what is there is in {out}. Go on with: probgen resume {out}", file=sys.stderr)
    return INTERRUPTED


def _summary(fit: result.Fit) -> str:
    table = fit.summary()
    rest = len(table) - MAX_ROWS
    more = f"\n... and {rest} more rows: pg.load({str(fit.directory)!r}).summary()" if rest > 0 else ""
    left = f"\n{table.footnote}" if getattr(table, "footnote", "") else ""
    return f"\n{table.head(MAX_ROWS).to_string(na_rep='-')}{more}{left}\n"


@dataclass(frozen=True)
class Sample:
    """Draw new data from the posterior predictive of a run."""

    run_: Folder
    """the run's directory"""
    num_samples: Annotated[int, arg(aliases=["-n"])] = 1
    """how many data sets"""
    out: Output = None
    """an .npz file, arrays (num_samples, *shape); printed where there is none"""
    seed: int | None = None
    """by default the run's seed decides"""

    def run(self) -> int:
        import numpy as np

        from probgen.run import load

        if self.num_samples < 1:
            raise ValueError(f"num_samples is {self.num_samples}; it must be above 0")
        if self.out and self.out.suffix != ".npz":
            raise ValueError(f"{self.out} is not an .npz file; say for example -o {self.out.with_suffix('.npz')}")
        drawn = load(self.run_).sample(self.num_samples, self.seed)
        if self.out:
            np.savez(self.out, **drawn)  # type: ignore[arg-type]
            print(f"{self.out}: " + ", ".join(f"{k} {v.shape}" for k, v in drawn.items()))
        else:
            for key, value in drawn.items():
                print(f"{key} {value.shape}\n{np.array2string(value, precision=4, threshold=2000)}")
        return 0


@dataclass(frozen=True)
class Diagnose:
    """Print the verdict on a run; the exit code is the verdict's."""

    run_: Folder
    """the run's directory"""

    def run(self) -> int:
        from probgen.run import load

        verdict = load(self.run_).diagnose()
        print(verdict)
        return verdict.exit_code


@dataclass(frozen=True)
class Report:
    """Write one self-contained HTML page on a run."""

    run_: Folder
    """the run's directory"""
    out: Output = None
    """the page; by default report.html in the run's directory"""

    def run(self) -> int:
        from probgen.run import load

        print(load(self.run_).report(self.out or self.run_ / "report.html"))
        return 0


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
    progress: bool = field(default_factory=sys.stderr.isatty)
    """a bar on stderr; by default where that is a terminal"""

    def run(self) -> int:
        from probgen.comparison import compare

        compared = compare(self._fitted() if self.inference else self._loaded())
        print(compared)
        if self.report:
            print(f"Report: {compared.report(self.report)}")
        return 0

    def _loaded(self) -> dict[str, result.Fit]:
        from probgen.run import load

        if len(self.runs) < 2:
            raise ValueError("Compare needs two or more runs, or one model with --inference nuts hmc ...")
        labels = [Path(run).name for run in self.runs]
        labels = labels if len(set(labels)) == len(labels) else list(self.runs)
        return {label: load(run) for label, run in zip(labels, self.runs, strict=True)}

    def _fitted(self) -> dict[str, result.Fit]:
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


# ---- words to things ---------------------------------------------------------------------------------------------


def _is_file(word: str) -> bool:
    return word.partition(":")[0].endswith(".py")


def _program(word: str) -> Any:
    """What pg.fit takes: a catalogue name as it is; file.py:function imported."""
    if not _is_file(word):
        return word
    from probgen.run import from_file

    path, _, name = word.partition(":")
    if not name:
        raise ValueError(f"Which function of {path}? Say {path}:NAME.")
    return from_file(path, name)


def _data(path: Path | None) -> dict[str, Any] | str | None:
    """The data of a file, or a data set's name."""
    from probgen.data_files import read_file

    if path is None:
        return None
    if not path.suffix and not path.exists():
        return str(path)
    return read_file(path)


def _with(program: Any, data: Any, words: tuple[str, ...]) -> Any:
    """A program's data, with settings given as NAME=VALUE."""
    if not words:
        return data
    import json

    from probgen.run import given

    settings = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise ValueError(f"--set takes NAME=VALUE; got {word!r}. Say for example --set num_latents=4")
        try:
            settings[name] = json.loads({"True": "true", "False": "false", "None": "null"}.get(value, value))
        except ValueError:
            settings[name] = value
    return {**given(program, data), **settings}


def _free_folder(program: str, inference: str, overwrite: bool) -> Path:
    """runs/MODEL-INFERENCE, or the first with a number that is not there yet."""
    first = Path("runs") / f"{program.rpartition(':')[2]}-{inference}"
    path, number = first, 2
    while path.exists() and not overwrite:
        path, number = first.with_name(f"{first.name}-{number}"), number + 1
    return path


# ---- flags -------------------------------------------------------------------------------------------------------

COMMANDS: dict[str, type] = {
    "list": List, "show": Show, "matrix": Matrix, "fit": Fit, "resume": Resume, "sample": Sample,
    "diagnose": Diagnose, "compare": Compare, "report": Report,
}  # fmt: skip


def _parse(words: list[str]) -> Any:
    """The command that the words say; an unknown flag is a TypeError that names the known ones."""
    commands = dict(COMMANDS)
    if words[:1] == ["fit"]:
        commands["fit"] = _with_settings(*_meant(words))
    choice: Any = Union[tuple(Annotated[kind, subcommand(name)] for name, kind in commands.items())]  # noqa: UP007
    command, rest = tyro.cli(
        choice, args=words or ["--help"], prog="probgen", return_unknown_args=True, config=(tyro.conf.OmitArgPrefixes,),
        description="Generative models as plain NumPyro and Pyro programs, and any inference by one word.\n"
        "--version tells the version; --debug shows the traceback of an error.",
    )  # fmt: skip
    if rest:
        raise TypeError(_unknown(words[0], commands[words[0]], rest))
    return command


def _named(words: list[str], *flags: str) -> str | None:
    """The value of a flag, seen before the words are parsed."""
    for i, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if flag in flags:
            return value if equals else next(iter(words[i + 1 :]), None)
    return None


def _meant(words: list[str]) -> tuple[str, dict[str, Any]]:
    """The algorithm of the words, and settings that suit their model, where it can be found yet."""
    from probgen import run

    word, file = _named(words, "--inference", "-i"), _named(words, "--data")
    models = [w for before, w in itertools.pairwise(words) if not w.startswith("-") and not before.startswith("-")]
    if models:
        with contextlib.suppress(Exception):  # told where the run begins
            program, data = _program(models[0]), _data(Path(file) if file else None)
            word = word or run.default_algorithm(program, data, engine=_named(words, "--engine"))
            return run.meant(word, program, data)
    return word or "nuts", {}


def _with_settings(inference: str, suggested: Mapping[str, Any]) -> type[Fit]:
    """`Fit` with the settings of one algorithm as further fields."""
    from probgen import catalog

    kind = catalog.algorithm(inference)
    hints, documented, own = get_type_hints(kind, include_extras=True), _field_docs(kind), {f.name for f in fields(Fit)}
    extra = []
    for f in fields(kind):
        if f.name in own:
            raise TypeError(f"{kind.__name__}.{f.name} is also a flag of probgen fit; rename the setting")
        kept = {k: getattr(f, k) for k in ("default", "default_factory") if getattr(f, k) is not MISSING}
        kept = {"default": suggested[f.name]} if f.name in suggested else kept
        extra.append((f.name, Annotated[hints[f.name], arg(help=documented.get(f.name, ""))], field(**kept)))
    extra.append(("inference", get_type_hints(Fit, include_extras=True)["inference"], field(default=inference)))
    return make_dataclass("Fit", extra, bases=(Fit,), frozen=True, kw_only=True, namespace={"__doc__": Fit.__doc__})


def _field_docs(kind: type[Inference]) -> dict[str, str]:
    """What the docstrings of a class and its bases say of its fields: `name: text`, or `a, b: text; c: text`."""
    import re

    names = {f.name for f in fields(kind)}
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        joined = re.sub(r"\n {8,}", " ", base.__doc__ or "")
        for part in re.split(r"\n|; (?=\w+: )", joined):
            heads, _, text = part.strip().partition(": ")
            if names.issuperset(heads.split(", ")):
                found |= dict.fromkeys(heads.split(", "), text)
    return found


def _default(f: Any) -> Any:
    return f.default if f.default_factory is MISSING else f.default_factory()


def _unknown(name: str, command: type, rest: list[str]) -> str:
    from probgen.algorithm import closest

    positional = get_args(Positional[str])[1]
    hints = get_type_hints(command, include_extras=True)
    flags = [f"--{f.name.replace('_', '-')}" for f in fields(command) if positional not in get_args(hints[f.name])]
    flag = next((word.partition("=")[0] for word in rest if word.startswith("-")), None)
    if flag is None:
        return f"Unexpected {' '.join(rest)!r}.\nSee probgen {name} --help."
    return f"Unknown flag {flag!r} of probgen {name}.{closest(flag, flags)}\nKnown: {', '.join([*flags, '--help'])}."
