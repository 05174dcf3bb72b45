"""One self-contained HTML page about a Fit: verdict first, then numbers, pictures, program, settings and versions."""

from __future__ import annotations

import functools
import inspect
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from probgen.data.fixed import is_setting, plain
from probgen.diagnostics import Looked, Scalars, Verdict, convention, looked_at, r_hat
from probgen.fitted import Fitted, FittedBridge, FittedDenoiser, FittedParameters
from probgen.pictures import gallery
from probgen.pictures.draws import MOST
from probgen.pictures.style import style, svg
from probgen.programs.fields import Field

MARK = b'<meta name="generator" content="probgen">'


@dataclass(frozen=True)
class Table:
    """Rows of words below a head; the first column is left-aligned."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Section:
    """One part of a page: any of a note, a table, a picture (SVG) and program text."""

    title: str
    note: str = ""
    table: Table | None = None
    svg: str = ""
    code: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Page:
    """What the template shows."""

    title: str
    subtitle: str
    verdict: Verdict | None = None
    sections: Sequence[Section] = field(default_factory=tuple)

    def write(self, path: str | Path, overwrite: bool = False) -> Path:
        """The page as one HTML file; its folder is made where it is missing.

        A page that is there already is replaced; FileExistsError for a file that is none, unless `overwrite`.
        """
        path = Path(path)
        if not overwrite and path.is_file() and path.stat().st_size and MARK not in path.read_bytes()[:1000]:
            raise FileExistsError(
                f"{path} exists already and is no page of probgen's; choose another file, or pass overwrite=True."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_template().render(page=self), encoding="utf-8")
        return path


@functools.cache
def _template() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("probgen", "")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template("report.html")


def write(fit: Fitted, path: str | Path, overwrite: bool = False) -> Path:
    """Write the page of a fit; returns its path. See `Page.write`."""
    return page(fit).write(path, overwrite)


def page(fit: Fitted) -> Page:
    """The page of a fit: its verdict, its numbers and pictures, what was run."""
    verdict = fit.diagnose()
    if isinstance(fit, FittedParameters):
        subtitle = f"{fit.inference.name} on {fit.target.engine}, {fit.num_steps} steps, {fit.seconds:.1f} s"
        return Page(_name(fit), subtitle, verdict, [*_of_learned(fit), *_of_run(fit)])
    if isinstance(fit.target, Field):
        subtitle = f"{fit.inference.name} on {fit.target.engine}, {fit.z.shape[1]} pictures, {fit.seconds:.1f} s"
        return Page(_name(fit), subtitle, verdict, [*_pictured(fit), *_of_run(fit)])
    chains, length = fit.z.shape[:2] if verdict.findings[0].check != "draws" else (fit.records["z"].shape[0], 0)
    subtitle = f"{fit.inference.name} on {fit.target.engine}, {chains} chains × {length} draws, {fit.seconds:.1f} s"
    sections = [*(_of_draws(fit) if length else ()), *_of_run(fit)]
    return Page(_name(fit), subtitle, verdict, sections)


def _name(fit: Fitted) -> str:
    return getattr(fit.model.program, "__name__", type(fit.model.program).__name__)


def _of_draws(fit: Fitted) -> Iterator[Section]:
    shown = gallery.in_order(fit)
    if shown.names:
        yield Section("Summary", _note(fit, looked_at(fit)), table=summary(shown.pick(slice(MOST))))
    yield from _pictured(fit)


def _pictured(fit: Fitted) -> Iterator[Section]:
    """A section for every picture that there is, or for the reason why there is none."""
    with style():
        for picture in gallery.pictures(fit):
            found = picture.draw()
            if isinstance(found, str):
                yield Section(picture.title, found)
            elif found is not None:
                yield Section(picture.title, picture.note, svg=svg(found))


def _of_learned(fit: FittedParameters) -> Iterator[Section]:
    """Parameters as numbers and pictures, the loss, the gap between data and model."""
    table = fit.summary()
    cells = [
        [str(name), *(x if isinstance(x, str) else f"{x:.3g}" for x in row)]
        for name, row in zip(table.index, table.to_numpy(object), strict=True)
    ]
    game = gallery.is_game(fit) or isinstance(fit, FittedDenoiser | FittedBridge)
    parameters = Section("Parameters", table=Table(("", *map(str, table.columns)), cells), folded=game)
    if not game:
        yield parameters
    yield from _pictured(fit)
    if game:  # what it draws says more than weights of a network
        yield parameters


def _note(fit: Fitted, looked: Looked) -> str:
    """Which scalars the page shows."""
    order = "in the program's order" if fit.answer else "those that mix worst first"
    note = f"{looked.varying} scalars, {order}."
    if looked.varying > MOST:
        note = f"{MOST} of {looked.varying:,} scalars, {order}; fit.summary() has the rest."
    left_out = looked.total - looked.varying
    return f"{note} {left_out} that are constant or not finite are left out." if left_out else note


def summary(shown: Scalars) -> Table:
    """Mean, sd, quantiles and diagnostics of scalars."""
    from arviz_stats.base import array_stats

    ends = f"{convention.per_cent()} from", "to"
    head = ("", "mean", "sd", ends[0], "median", ends[1], "error of mean", "bulk ESS", "tail ESS", "R-hat")
    flat = shown.draws.reshape(len(shown.names), -1)
    with np.errstate(all="ignore"):
        low, high = convention.interval(flat)
        columns = [
            flat.mean(1),
            flat.std(1),
            low,
            np.median(flat, axis=1),
            high,
            array_stats.mcse(shown.draws),
        ]
        sizes = [array_stats.ess(shown.draws), convention.tail_ess(shown.draws)]
        mixing = r_hat(shown.draws)
    rows = [
        [name, *(_cell(c[i], ".3g") for c in columns), *(_cell(c[i], ".0f") for c in sizes), _cell(mixing[i], ".3f")]
        for i, name in enumerate(shown.names)
    ]
    return Table(head, rows)


def _cell(value: float, form: str) -> str:
    """A number as text; a dash where it is not defined, as R-hat of a single draw."""
    return format(value, form) if np.isfinite(value) else "-"


def _of_run(fit: Fitted) -> Iterator[Section]:
    from probgen.versions import versions

    settings = [(key, str(value)) for key, value in fit.inference.settings().items()]
    steps = f"{fit.num_steps} of at most {fit.inference.total_steps}, warm-up included"
    facts = [("inference", fit.inference.name), ("seed", str(fit.seed)), ("precision", fit.precision), ("steps", steps)]
    facts += [("seconds", f"{fit.seconds:.2f}, compilation included"), *settings]
    yield Section("Settings", table=Table(("", ""), facts))
    yield Section("Data", table=Table(("", "shape", "type", "smallest", "largest"), [*_data_rows(fit)]))
    yield Section("Program", note=fit.model.doc, code=_source(fit.model.program), folded=True)
    yield Section("Versions", table=Table(("", ""), list(versions().items())), folded=True)


def _data_rows(fit: Fitted) -> Iterator[Sequence[str]]:
    for key, value in fit.target.data.items():
        if is_setting(value) and not hasattr(value, "shape"):
            yield key, "setting", type(plain(value)).__name__, str(plain(value))[:80], ""
        else:
            array = np.asarray(plain(value))
            yield (
                key,
                "×".join(map(str, array.shape)) or "scalar",
                str(array.dtype),
                f"{array.min():.4g}",
                f"{array.max():.4g}",
            )


def _source(program: Callable[..., Any]) -> str:
    try:
        return textwrap.dedent(inspect.getsource(inspect.unwrap(getattr(program, "func", program))))
    except (OSError, TypeError):
        return "(The program's source is not in a file.)"
