"""Fits side by side: do they agree, what did they cost, and which of them can be believed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from probgen.algorithm import Learner
from probgen.diagnostics import SEVERITY, Evidence, Scalars, Verdict, looked_at, r_hat, smoothed_weights
from probgen.diagnostics.evidence import wrapped
from probgen.fits.pointwise import left_out
from probgen.fits.tables import quiet
from probgen.fitted import Fitted, FittedParameters
from probgen.programs.pinned import Changed
from probgen.run import load
from probgen.target import Generative

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


COLUMNS = {
    "verdict": "pass, warn or fail",
    "mean_diff": "largest difference of a mean from the reference, in the reference's sds",
    "noise": "Monte Carlo error of that difference, in the same sds",
    "sd_diff": "largest |ratio of sds - 1| to the reference",
    "min_ess": "smallest bulk ESS; of a guide, the effective number of its weighted draws",
    "log_prob": "of a learned model: mean log probability of a row of its data, in nats",
    "log_prob_error": "its standard error; nothing where it is exact",
    "log_prob_kind": "what kind of number it is; bounds are below the log probability",
    "told_apart": "of learned programs: share of rows and draws that a classifier tells right; 0.5 is chance",
    "coverage": "of those learned from draws: share of rows with a draw near, in that of a perfect sampler; lost regions lower it",
    "quality": "of these: share of draws among rows, in that of a perfect sampler",
    "seconds": "wall time of all steps, warm-up included, without compiling",
    "compiling": "seconds of compiling beside: hardly any in a second fit, which finds that done; of Pyro none is counted",
    "ess_per_s": "min_ess / seconds: warm-up counts, compiling does not",
    "gradients": "gradient evaluations (random_walk: of the density), warm-up included, the search for a start apart; of a guide, "
    "steps x particles; nothing where an algorithm does not count them",
    "r_hat": "largest R-hat",
    "k_hat": "k-hat of a guide's importance weights",
}


@dataclass(frozen=True)
class Comparison:
    """What `compare` found. table: a pandas DataFrame, one row a fit, columns as in `COLUMNS`.

    reference: the fit that the others are held against. loo: arviz_stats.compare's table, where it was asked for.
    """

    table: pd.DataFrame
    reference: str
    fits: Mapping[str, Fitted]
    verdicts: Mapping[str, Verdict]
    loo: pd.DataFrame | None = None

    def __str__(self) -> str:
        parts = [_aligned([["", *self.table.columns], *_cells(self.table)]), f"reference: {self.reference}"]
        if self.loo is not None:
            parts += ["", _aligned([["", *map(str, self.loo.columns)], *_cells(self.loo)]), *self._cautions()]
        if faults := self._faults():
            parts += ["", *faults]
        parts += ["", *(f"{key}: {COLUMNS[key]}" for key in self.table.columns if key in COLUMNS and key != "verdict")]
        return "\n".join(parts)

    def _repr_html_(self) -> str:
        shown = self.table.to_html(float_format=_word, na_rep="", escape=True)
        faults = "".join(f"<br>{_escaped(line)}" for line in self._faults())
        return f"{shown}<p>reference: {_escaped(self.reference)}{faults}</p>"

    def report(self, path: str | Path, overwrite: bool = False) -> Path:
        """Write one self-contained HTML page: the table, a forest plot of all fits, and every verdict."""
        from probgen.pictures.draws import intervals
        from probgen.report import Page, Section, Table

        head = ["", *self.table.columns]
        legend = [(key, meaning) for key, meaning in COLUMNS.items() if key in self.table.columns]
        sections = [
            Section("Fits", f"Reference: {self.reference}.", Table(head, _cells(self.table))),
            Section("Posterior", f"Of shared unknowns. {intervals()}", svg=self._forest()),
        ]
        if self.loo is not None:
            note = "Expected log predictive density of left-out points, in nats; the best first."
            note = " ".join([note, *self._cautions()])
            sections.append(Section("Leave-one-out", note, Table(["", *map(str, self.loo.columns)], _cells(self.loo))))
        sections += [Section(f"Verdict on {name}", code=str(v), folded=True) for name, v in self.verdicts.items()]
        sections.append(Section("What the columns say", table=Table(("", ""), legend), folded=True))
        return Page("Comparison", ", ".join(self.fits), None, sections).write(path, overwrite)

    def _faults(self) -> list[str]:
        """Of every fit that does not pass, its worst finding."""
        lines = []
        for name, verdict in self.verdicts.items():
            open_ = [f for f in verdict.findings if f.status != "pass"]
            if open_:
                worst = max(open_, key=lambda f: SEVERITY[f.status])
                more = f"; {len(open_) - 1} more by `diagnose`" if len(open_) > 1 else ""
                lines.append(f"{name}: {worst.status}, {worst.check}: {worst.message}{more}")
        return lines

    def _cautions(self) -> list[str]:
        """Of whose leave-one-out estimate some observation's Pareto k says that it cannot be trusted."""
        if self.loo is None or "warning" not in self.loo:
            return []
        doubtful = [str(name) for name, warned in zip(self.loo.index, self.loo["warning"], strict=True) if warned]
        return [f"Not to be relied on, by Pareto k of single observations: {', '.join(doubtful)}."] if doubtful else []

    def _forest(self) -> str:
        from probgen.pictures.draws import MOST, by_site, forest
        from probgen.pictures.style import style, svg

        found = {name: _usable(fit) for name, fit in self.fits.items()}
        shared = [n for n in found[self.reference].names if all(n in s.names for s in found.values())][:MOST]
        if not shared:
            return ""
        flat = {name: _at(s, shared).reshape(len(shared), -1) for name, s in found.items()}
        groups = by_site(shared).items()
        with style():
            panels = [(t, [shared[i] for i in rows], {k: v[rows] for k, v in flat.items()}) for t, rows in groups]
            picture = forest(panels)
            return svg(picture) if picture is not None else ""


def compare(fits: Mapping[str, Fitted] | xr.Dataset, loo: bool = False) -> Comparison:
    """Compare fits: one row each on agreement, cost and verdict.

    fits: by the name to show; or what `pg.sweep` returns, whose fits have the names of their points. The reference is, of those
        with the best verdict, the Markov chains with the largest smallest ESS, else the first; agreement with it is over the
        scalars that both have.
    loo: also rank by leave-one-out predictive accuracy (arviz_stats.compare) different programs on the same data.
    Raises ValueError without fits, of a sweep where one ended in an error, where what they observe differs, and for `loo` of
    models that were learned from rows.
    """
    given: Any = fits
    of_a_sweep = hasattr(given, "data_vars") or not isinstance(given, Mapping)
    return _compared(swept(given) if of_a_sweep else dict(given), loo)


def _compared(fits: dict[str, Fitted], loo: bool) -> Comparison:
    if not fits:
        raise ValueError("There is nothing to compare: pass {'name': fit, ...}.")
    for name, fit in fits.items():
        if not isinstance(fit, Fitted):
            read = f": pg.load({str(fit)!r})" if isinstance(fit, str | Path) else ""
            raise TypeError(f"fits[{name!r}] is a {type(fit).__name__}; expected a fit{read}.")
    same_data(fits)
    if loo and (learned := [name for name, fit in fits.items() if isinstance(fit, FittedParameters)]):
        raise ValueError(
            f"loo is for posterior draws; {', '.join(learned)} learned parameters from rows.\nCompare log_prob on held-out rows."
        )
    verdicts = {name: fit.diagnose() for name, fit in fits.items()}
    found = {name: _usable(fit) for name, fit in fits.items()}
    told = {name: costs(fit, verdicts[name], found[name]) for name, fit in fits.items()}
    reference = max(fits, key=lambda name: _merit(fits[name], verdicts[name], told[name]))
    rows = {
        name: {
            "verdict": verdicts[name].status,
            **_agreement(found[name], found[reference], name == reference, _angles(fits[name])),
            **cost,
        }
        for name, cost in told.items()
    }
    return Comparison(_table(rows), reference, fits, verdicts, _loo(fits) if loo else None)


def swept(found: Any) -> dict[str, Fitted]:
    """The fits of a sweep, read from their directories, by what tells them apart."""
    if not {"run", "status", "error"} <= {*getattr(found, "data_vars", ())}:
        raise TypeError(f"fits is a {type(found).__name__}; expected {{'name': fit, ...}}, or what pg.sweep returns.")
    apart = [name for name, size in found.run.sizes.items() if size > 1]
    fits: dict[str, Fitted] = {}
    for index in np.ndindex(*found.run.shape):
        one = found.isel(dict(zip(found.run.dims, index, strict=True)))
        name = " ".join(f"{axis}={one[axis].item()}" for axis in apart) or Path(one.run.item()).name
        name = one[apart[0]].item() if apart == ["inference"] else name
        if one.status.item() not in SEVERITY:
            raise ValueError(
                f"The sweep has no fit {name}: {one.error.item() or one.status.item()}.\n"
                "Compare those that it has: pg.compare({'name': pg.load(run), ...})."
            )
        fits[name] = load(one.run.item())
    return fits


def same_data(fits: Mapping[str, Fitted]) -> None:
    """Raise ValueError where what the fits observe differs: by name, or as a whole where no site has the same name."""
    found = {name: _observed(fit) for name, fit in fits.items()}
    (first, ours), *others = found.items()
    for name, theirs in others:
        shared = [k for k in ours if k in theirs]
        pairs = [(f"site {k!r}", ours[k], theirs[k]) for k in shared]
        if not shared:
            pairs = [("what they observe", *map(_joined, (ours, theirs)))]
        for what, one, other in pairs:
            if told := _difference(one, other, any(fits[k].precision == "float32" for k in (first, name))):
                raise ValueError(
                    f"{first!r} and {name!r} are fits of different data: {what} {told}.\n"
                    "compare holds algorithms and programs against each other on the same data."
                )


def _observed(fit: Fitted) -> dict[str, np.ndarray]:
    """What a fit observes, by site, each as a flat array."""
    if isinstance(fit.target, Generative):
        rows, sites = fit.target.all_rows(), fit.target.keywords.values()
        return {k: np.ravel(rows[k]).astype(float) for k in sites}
    try:
        found = fit.target.observed_values()
    except Changed:  # what is observed by its keyword
        sources = {site.source: site.name for site in fit.target.sites if site.kind == "observed" and site.source}
        found = {name: np.asarray(fit.target.data[k]) for k, name in sources.items()}
    return {k: np.ravel(v).astype(float) for k, v in found.items()}


def _joined(observed: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.sort(np.concatenate([*observed.values(), np.empty(0)]))


def _difference(one: np.ndarray, other: np.ndarray, single: bool) -> str:
    """How two arrays of observations differ by more than rounding, to single or to double precision; empty where they do not."""
    if one.size != other.size:
        return f"has {one.size} and {other.size} values"
    scale = np.maximum(1e-30, np.maximum(abs(one), abs(other)))
    near, small = (1e-5, 1e-6) if single else (1e-10, 1e-10)  # of double: 1e8 and 1e8 + 1 are two numbers
    off = ~np.isclose(one, other, rtol=near, atol=small * np.median(scale) if scale.size else 0, equal_nan=True)
    if not off.any():
        return ""
    at = int(np.argmax(off))
    return f"differs at {int(off.sum())} of {one.size} values, {one[at]:.6g} and {other[at]:.6g} the first"


def _table(rows: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    table = pd.DataFrame.from_dict(dict(rows), orient="index", columns=list(COLUMNS))
    if (
        len(rows) > 1 and sum(np.isfinite(row.get("mean_diff", np.nan)) for row in rows.values()) == 1
    ):  # the reference alone
        table[["mean_diff", "sd_diff"]] = np.nan
    return table.dropna(axis="columns", how="all")


def _usable(fit: Fitted) -> Scalars:
    if isinstance(fit, FittedParameters):  # parameters have no draws to compare
        return Scalars((), np.zeros((0, 1, 1)))
    return looked_at(fit).scalars


def _merit(fit: Fitted, verdict: Verdict, cost: Mapping[str, float]) -> tuple[int, bool, float]:
    merit = cost.get("log_prob", -cost["told_apart"] if "told_apart" in cost else cost["min_ess"])
    return -SEVERITY[verdict.status], not isinstance(fit.inference, Learner), np.nan_to_num(merit, nan=-np.inf)


def costs(fit: Fitted, verdict: Verdict, found: Scalars | None = None) -> dict[str, Any]:
    """What a fit cost and what came of it, by the names in `COLUMNS`: what can be told without another fit."""
    return _cost(fit, _usable(fit) if found is None else found) | _of_samples(verdict)


def _cost(fit: Fitted, found: Scalars) -> dict[str, Any]:
    """Effective draws, time and gradients of one fit."""
    from arviz_stats.base import array_stats

    learned = isinstance(fit.inference, Learner)
    if isinstance(fit, FittedParameters):
        return {**_times(fit), "min_ess": np.nan, **_log_prob(fit)}
    cost: dict[str, Any] = {**_times(fit), "gradients": _gradients(fit), "min_ess": np.nan}
    with np.errstate(all="ignore"):
        if learned and (weights := Evidence(fit, found, {}).weights) is not None:
            cost |= {"min_ess": 1 / (weights.weights @ weights.weights), "k_hat": smoothed_weights(fit).khat}
        elif not learned and found.names:
            cost |= {"min_ess": np.min(array_stats.ess(found.draws)), "r_hat": r_hat(found.draws).max()}
    return cost | {"ess_per_s": cost["min_ess"] / max(cost["seconds"], 1e-9)}


def _times(fit: Fitted) -> dict[str, float]:
    """Seconds of a fit's steps, and of compiling."""
    return {"seconds": max(fit.seconds - fit.compiling, 0.0), "compiling": fit.compiling}


def _of_samples(verdict: Verdict) -> dict[str, Any]:
    """What the verdict says of the draws of a program that was learned from them."""
    names = {"two_sample": "told_apart", "coverage": "coverage", "quality": "quality"}
    return {names[f.check]: f.value for f in verdict.findings if f.check in names}


def _log_prob(fit: FittedParameters) -> dict[str, Any]:
    """Mean log probability of the rows that a model was learned from."""
    try:
        found = fit.log_prob()
    except Changed:
        raise
    except (TypeError, ValueError):  # there is no estimate of its constant
        return {}
    stderr = np.asarray(found.stderr if found.stderr is not None else 0.0, float)
    error = np.sqrt(np.sum(stderr**2)) / stderr.size if stderr.ndim else float(stderr)  # of each row, or of a constant
    return {"log_prob": float(np.mean(found.value)), "log_prob_error": error or np.nan, "log_prob_kind": found.kind}


def _gradients(fit: Fitted) -> float:
    """NaN of those that do not count: sweeps, ladders of temperatures, searches, whose steps are not one gradient each."""
    if "n_steps" in fit.records:
        return float(fit.records["n_steps"].sum())
    chains = next(iter(fit.records.values())).shape[0]
    return fit.num_steps * chains * float(fit.inference.settings().get("num_particles", np.nan))


def _angles(fit: Fitted) -> set[str]:
    return {site.name for site in fit.target.sites if site.circular}


def _agreement(found: Scalars, reference: Scalars, same: bool, angles: set[str]) -> dict[str, float]:
    """How far a fit's means and sds are from the reference's, at worst over the scalars that both have."""
    from arviz_stats.base import array_stats

    shared = [name for name in reference.names if name in found.names]
    if same or not shared:
        return {"mean_diff": 0.0 if same else np.nan, "noise": np.nan, "sd_diff": 0.0 if same else np.nan}
    ours, theirs = _at(found, shared), _at(reference, shared)
    sd = theirs.std(axis=(1, 2))
    shift = ours.mean(axis=(1, 2)) - theirs.mean(axis=(1, 2))
    shift = abs(np.where([name.partition("[")[0] in angles for name in shared], wrapped(shift), shift)) / sd
    worst = int(np.argmax(shift))
    with np.errstate(all="ignore"):
        noise = np.hypot(array_stats.mcse(ours[[worst]]), array_stats.mcse(theirs[[worst]]))[0] / sd[worst]
    return {
        "mean_diff": float(shift[worst]),
        "noise": float(noise),
        "sd_diff": float(abs(ours.std(axis=(1, 2)) / sd - 1).max()),
    }


def _at(found: Scalars, names: list[str]) -> np.ndarray:
    """Draws (scalar, chain, draw) of the named scalars, in their order."""
    index = {name: i for i, name in enumerate(found.names)}
    return found.draws[[index[name] for name in names]]


def _loo(fits: Mapping[str, Fitted]) -> pd.DataFrame:
    """arviz_stats.compare of the fits' estimates by leaving out each point."""
    from arviz_stats import compare as ranked

    found = {name: left_out(fit) for name, fit in fits.items()}
    with quiet():  # the table has a column for what its warnings say
        return ranked(found)


def _cells(table: pd.DataFrame) -> list[list[str]]:
    return [[str(name), *map(_word, row)] for name, row in zip(table.index, table.to_numpy(object), strict=True)]


def _word(value: Any) -> str:
    """A table's entry as a word: a few figures, nothing for a missing number."""
    if isinstance(value, str | bool | np.bool_):
        return str(value)
    if not np.isfinite(value):
        return "" if np.isnan(value) else str(value)
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3f}" if 0.95 < value < 10 else f"{value:.3g}"


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(w.rjust(n) for w, n in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )


def _escaped(text: str) -> str:
    import html

    return html.escape(text)
