"""ArviZ's tables of a fit, without what is not a number to a reader: NaN diagnostics and warnings of theirs."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from probgen.algorithm import closest
from probgen.data import slashes
from probgen.data.large import scratch
from probgen.data.large.stored import numbers_at_once
from probgen.diagnostics import convention
from probgen.diagnostics.evidence import unwrapped
from probgen.fitted import Fitted

MOST = 1000  # scalars of one site up to which it is in the table unasked
MANY = 2**24  # numbers beyond which a table is made of a few rows at a time
# Settings under which rows of a table know nothing of each other:
ROW_BY_ROW = {"group", "var_names", "kind", "ci_kind", "ci_prob", "round_to", "fmt"}
ENTRIES = 100  # of all learned parameters up to which each has a row
UNDEFINED = "-"  # shown where a diagnostic is not defined: of a constant, or of a single draw


@contextmanager
def quiet() -> Iterator[None]:
    """ArviZ's and NumPy's warnings about chains that do not move or are too short: the verdict says them in its own words."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def summary(fit: Fitted, **keywords: Any) -> Any:
    """`arviz_stats.summary` of a fit's posterior; angles around their circular means.

    Unasked, sites of more than a thousand scalars are left out, and the table says so.
    """
    from arviz_stats import summary as of

    tree, left = _shown(fit, keywords)
    names = slashes.owned(tree[keywords.get("group", "posterior")].to_dataset())
    keywords = _asked(keywords, names)
    if fit.z.shape[:2] == (1, 1):  # a point: its value, and no diagnostics
        keywords = {"kind": "stats"} | keywords
    with quiet():
        table = _table(of, tree, keywords)
        if not hasattr(table, "columns"):  # fmt="xarray"
            return table
    table = table.rename(index=lambda row: _own_row(row, names)) if names else table
    return _table_class()(table).told(left)


def _table(of: Any, tree: Any, keywords: dict[str, Any]) -> Any:
    """ArviZ's table; of draws that are too many for its copies of them, a few rows at a time."""
    group, narrow = keywords.get("group", "posterior"), keywords.get("fmt", "wide") == "wide"
    names = list(tree[group].data_vars)
    if not narrow or sum(tree[group][name].size for name in names) <= MANY or keywords.keys() - ROW_BY_ROW:
        table = of(tree, **keywords)
        return _mended(table, tree, keywords) if hasattr(table, "columns") else table
    import pandas as pd
    import xarray as xr

    chosen, parts = keywords.pop("var_names", None), []
    for name in _chosen(names, chosen):
        for piece in _rows(tree[group].to_dataset()[[name]]):
            part = xr.DataTree.from_dict({group: piece})
            parts.append(_mended(of(part, **keywords), part, keywords))
            scratch.release(tree[group][name].values)
    return pd.concat(parts)


def _chosen(names: list[Any], asked: Any) -> list[Any]:
    """The variables that are asked for, in the order of ArviZ's tables."""
    if asked is None:
        return names
    asked = [asked] if isinstance(asked, str) else list(asked)
    if all(word.startswith("~") for word in asked):
        return [name for name in names if f"~{name}" not in asked]
    if unknown := [word for word in asked if word not in names]:
        raise KeyError(f"{unknown[0]!r} is no variable of the fit; known: {', '.join(map(str, names))}")
    return asked


def _rows(one: Any) -> Iterator[Any]:
    """A dataset of one variable in pieces along the first of its axes."""
    (value,) = one.data_vars.values()
    if len(value.dims) < 3:
        yield one
        return
    axis, size = value.dims[2], value.sizes[value.dims[2]]
    step = numbers_at_once(value.size // max(1, size))
    for start in range(0, size, step):
        yield one.isel({axis: slice(start, start + step)})


def parameters(values: Mapping[str, np.ndarray], var_names: str | Sequence[str] | None = None) -> Any:
    """A table of learned parameters: a row an entry of those that are asked for, or of few in all; else a row an array."""
    import pandas as pd

    asked = list(values) if var_names is None else [var_names] if isinstance(var_names, str) else list(var_names)
    if unknown := [name for name in asked if name not in values]:
        raise KeyError(f"Unknown parameter {unknown[0]!r}.{closest(unknown[0], values)} Known: {', '.join(values)}.")
    chosen = {k: np.asarray(values[k]) for k in asked if np.size(values[k])}
    if var_names is not None or sum(v.size for v in chosen.values()) <= ENTRIES:
        cells = [(k, index, v[index]) for k, v in chosen.items() for index in np.ndindex(v.shape)]
        names = [f"{k}[{', '.join(map(str, index))}]" if index else k for k, index, _ in cells]
        return pd.DataFrame({"value": [value for *_, value in cells]}, index=names)
    rows = {
        k: {"shape": "x".join(map(str, v.shape)), "mean": v.mean(), "sd": v.std(), "min": v.min(), "max": v.max()}
        for k, v in chosen.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def _asked(keywords: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The keywords with `var_names` as the tree has them."""
    words, back = keywords.get("var_names"), {v: k for k, v in names.items()}
    if not names or words is None:
        return keywords
    put = lambda word: back.get(word, f"~{back[word[1:]]}" if word[1:] in back else word.replace("/", "."))  # noqa: E731
    return {**keywords, "var_names": put(words) if isinstance(words, str) else [put(word) for word in words]}


def _own_row(row: Any, names: Mapping[str, str]) -> Any:
    """The label of a row by the name in the program."""
    name, bracket, rest = str(row).partition("[")
    return f"{names[name]}{bracket}{rest}" if name in names else row


def _shown(fit: Fitted, keywords: dict[str, Any]) -> tuple[Any, list[str]]:
    """The tree to summarise, and the names of the sites that are left out."""
    if keywords.get("group", "posterior") != "posterior":
        return fit.tree, []
    posterior = fit.posterior
    draws = unwrapped(fit)
    turned = {k: (posterior[k].dims, draws[k]) for k in posterior if k in draws and draws[k] is not fit.draws[k]}
    asked = any(keywords.get(k) is not None for k in ("var_names", "coords"))
    left = [] if asked else [k for k, v in posterior.items() if v.size > MOST * v.shape[0] * v.shape[1]]
    if not turned and not left:
        return fit.tree, []
    import xarray as xr

    shown = slashes.plain(posterior.assign(turned).drop_vars(left))
    return xr.DataTree.from_dict({"posterior": shown}), [str(name) for name in left]


def _mended(table: Any, tree: Any, keywords: dict[str, Any]) -> Any:
    """The table with what it says it holds.

    ArviZ's own (0.8) holds equal tails as highest density intervals, and as the error of an sd one by the effective sample size of
    the mean: of chains that alternate, as those of NUTS do, too small.
    """
    if keywords.get("fmt", "wide") != "wide":
        return table
    from arviz_stats import hdi

    shown = {str(row).partition("[")[0] for row in table.index}
    posterior = tree[keywords.get("group", "posterior")].to_dataset()
    posterior = posterior[[name for name in posterior.data_vars if name in shown]]
    if not posterior:
        return table
    if "mcse_sd" in table.columns:
        _put(table, ["mcse_sd"], _errors_of_sd(posterior).expand_dims("column"), "column", keywords)
    ends = [c for c in table.columns if str(c).startswith("hdi")]
    if (keywords.get("ci_kind") or convention.kind()) == "hdi" and len(ends) == 2:
        prob = keywords.get("ci_prob") or convention.probability()
        _put(table, ends, hdi(posterior, prob=prob), "ci_bound", keywords)
    return table


def _errors_of_sd(posterior: Any) -> Any:
    """Monte Carlo standard errors of the sd: half of those of the variance, over the sd (Kenney and Keeping 1951, p. 141)."""
    from arviz_stats import mcse

    dims = ["chain", "draw"]
    squares = (posterior - posterior.mean(dims)) ** 2
    return mcse(squares, method="mean") / (2 * squares.mean(dims) ** 0.5)


def _put(table: Any, columns: list[Any], found: Any, axis: str, keywords: dict[str, Any]) -> None:
    """Write what was found, a dataset with the columns along an axis, into the rows of the table that are of it."""
    from arviz_base import dataset_to_dataframe

    frame = dataset_to_dataframe(found, sample_dims=[axis]).T
    rows = [row for row in table.index if row in frame.index]
    digits, values = keywords.get("round_to", 2), frame.loc[rows].to_numpy()
    table.loc[rows, columns] = values if digits in (None, "none", "None") else values.round(digits)


@functools.cache
def _table_class() -> Any:
    """A pandas DataFrame that shows a dash for what is not defined, and below it which sites it leaves out."""
    import pandas as pd

    class Summary(pd.DataFrame):
        """ArviZ's table; entries that are not defined are NaN and shown as a dash."""

        _metadata: Any = ("left_out",)

        @property
        def _constructor(self) -> Any:
            return Summary

        def told(self, left: list[str]) -> Summary:
            self.left_out = tuple(left)
            return self

        @property
        def footnote(self) -> str:
            """Which sites are left out, and how to see them."""
            left = getattr(self, "left_out", ())
            asked = ", ".join(map(repr, left))
            return (
                f"Left out: {', '.join(left)} (over {MOST} scalars each); fit.summary(var_names=[{asked}])"
                if left
                else ""
            )

        def __repr__(self) -> str:
            limit = pd.get_option("display.max_rows")
            text = self.to_string(na_rep=UNDEFINED, max_rows=limit, max_cols=0, line_width=None)
            return "\n".join(filter(None, [text, self.footnote]))

        __str__ = __repr__

        def _repr_html_(self) -> str:
            shown = self.to_html(na_rep=UNDEFINED, max_rows=pd.get_option("display.max_rows"))
            return shown + (f"<p>{self.footnote}</p>" if self.footnote else "")

    return Summary
