"""The DataTree of a Fit in ArviZ's schema, and the groups that are computed on demand."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from probgen.data import dims, slashes
from probgen.data.fixed import Fixed, arrays_of
from probgen.data.inputs import read
from probgen.data.looking import is_words
from probgen.fitted import Fitted, FittedParameters
from probgen.programs import meanings
from probgen.programs.arguments import Arranged
from probgen.programs.pinned import Changed
from probgen.target import Generative

NOT_STATISTICS = ("z",)
SAMPLE = ("chain", "draw")


def build(fit: Fitted) -> Any:
    """posterior, sample_stats, warmup_sample_stats, observed_data and constant_data of a Fit."""
    import xarray as xr

    warmup, stats = _stats(fit, slice(0, fit.num_warmup)), _stats(fit, slice(fit.num_warmup, None))
    if fit.answer:
        stats = {k: v for k, v in fit.answer.items() if v.ndim == 2}
    groups = {"posterior": dataset(fit, fit.draws)}
    if stats and not isinstance(fit.target, Generative):
        groups["sample_stats"] = _plain(stats, SAMPLE)
    if warmup and not fit.answer:
        groups["warmup_sample_stats"] = _plain(warmup, SAMPLE)
    if fit.answer:
        losses = {k: v for k, v in fit.records.items() if v.ndim == 2}
        groups["optimisation"] = _plain(losses, ("chain", "step"))
    groups |= {group: dataset(fit, data, ()) for group, data in _data_groups(fit).items()}
    groups["posterior"].attrs.update(_attributes(fit))
    return xr.DataTree.from_dict({name: slashes.plain(group) for name, group in groups.items()})


def dataset(fit: Fitted, arrays: Mapping[str, np.ndarray], leading: tuple[str, ...] = SAMPLE) -> Any:
    """Arrays (*leading, *event) as a Dataset in ArviZ's form, with the names of axes and labels that are known."""
    from arviz_base import dict_to_dataset

    arrays = {k: np.asarray(v) for k, v in arrays.items()}
    names: Any
    names, coords = dims.of(fit.model, {k: v.shape[len(leading) :] for k, v in arrays.items()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # ArviZ's, on more chains than draws: here thousands are normal
        return dict_to_dataset(arrays, dims=names, coords=coords, sample_dims=list(leading))


def group(fit: Fitted, name: str) -> Any:
    """A group of the tree as a Dataset, its variables by their names in the program."""
    return slashes.own(fit.tree[name].to_dataset())


def _attributes(fit: Fitted) -> dict[str, Any]:
    return {
        "inference_library": "probgen",
        "inference": fit.inference.name,
        "sampling_time": max(fit.seconds - fit.compiling, 0.0),
        "tuning_steps": fit.num_warmup,
        "seed": fit.seed,
    }


def _stats(fit: Fitted, part: slice) -> dict[str, np.ndarray]:
    stats = {k: v[:, part] for k, v in fit.records.items() if k not in NOT_STATISTICS}
    limit = getattr(fit.inference, "max_tree_depth", None)
    if limit is not None and "tree_depth" in stats:
        stats["reached_max_treedepth"] = stats["tree_depth"] >= limit
    return stats


def _plain(arrays: Mapping[str, np.ndarray], leading: tuple[str, ...]) -> Any:
    import xarray as xr

    variables = {}
    for key, value in arrays.items():
        rest = [f"{key}_dim_{i}" for i in range(value.ndim - len(leading))]
        variables[key] = ([*leading, *rest], value)
    return xr.Dataset(variables)


def _data_groups(fit: Fitted) -> dict[str, dict[str, np.ndarray]]:
    """What sites are observed at goes to observed_data, by their names; data that are not that, as they are, to constant_data."""
    arrays = arrays_of(fit.target.data)
    if isinstance(fit.target, Generative):
        sources = dict(fit.target.keywords)
        observed = {site: arrays[k] for k, site in sources.items() if k in arrays}
    else:
        sites = [site for site in fit.target.sites if site.kind == "observed"]
        observed = {site.name: arrays[site.source] for site in sites if site.source in arrays}
        if len(observed) < len(sites):
            with contextlib.suppress(Changed):  # of a program that is another by now, what is observed by its keyword
                observed = fit.target.observed_values()
        sources = {site.source: site.name for site in sites}
        sources |= {k: k for k in observed if k in arrays and _same(observed[k], arrays[k])}
    groups = {"observed_data": observed, "constant_data": {k: v for k, v in arrays.items() if k not in sources}}
    return {group: data for group, data in groups.items() if data}


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and bool(np.array_equal(a, b, equal_nan=a.dtype.kind == b.dtype.kind == "f"))


def merged(fit: Fitted, new_data: Mapping[str, Any]) -> dict[str, Any]:
    """The fit's data with some replaced; checked as at the start of a fit."""
    from probgen.data.checks import check, on_host
    from probgen.fits.seal import check_seen

    check_seen(fit.target)
    own, program = on_host(fit.target.data), fit.model.program
    new_data = program.given(new_data) if isinstance(program, Arranged) else new_data
    new = {k: _renewed(fit, k, v, own.get(k)) for k, v in new_data.items()}
    data = check(program, {**own, **new}, fit.precision)
    data = {k: _counted(v, own.get(k)) if k in new_data else v for k, v in data.items()}
    for name in new_data:
        if meanings.are_whole(own.get(name)) and own[name].min() >= 0 and meanings.are_whole(data[name]):
            entries = int(own[name].max()) + 1
            if -entries <= data[name].min() < 0 and _counts_from_end(fit, data, name, entries):
                raise ValueError(meanings.from_end(name, data[name], entries))
    return data


def _counts_from_end(fit: Fitted, data: Mapping[str, Any], name: str, entries: int) -> bool:
    """Whether predictions are the same where new indices below 0 are counted from the end, and others where they are 0."""
    v, draws = data[name], {k: x[:1, :2] for k, x in fit.draws.items()}
    with contextlib.suppress(Exception):  # on other numbers it may not run
        tried = (v, np.where(v < 0, v + entries, v), np.where(v < 0, 0, v))
        own, ends, first = (fit.target.predict(draws, {**data, name: x}, 0) for x in tried)
        same = lambda found: all(np.array_equal(own[k], found[k]) for k in own)  # noqa: E731
        return same(ends) and not same(first)
    return False


def _renewed(fit: Fitted, name: str, value: Any, own: Any) -> Any:
    """A new datum as the fit's own was given: as it is, as codes of words, or as an array."""
    _check_columns(fit, name, value)
    if type(own) is Fixed:
        return Fixed(value)
    levels = fit.model.coords.get(name, ())
    if (
        isinstance(own, np.ndarray)
        and is_words(value)
        and all(isinstance(word, str) for word in levels)
        and len(levels)
    ):
        return _codes(name, np.asarray(value), list(levels))
    if isinstance(own, np.ndarray) and value is not None and np.isfinite(own).all():
        return read(name, value)
    return value


def _check_columns(fit: Fitted, name: str, value: Any) -> None:
    """ValueError for a table whose columns have other names than the fit's own, or another order: a program knows places alone."""
    new = [*getattr(value, "columns", ())]
    axes = fit.model.dims.get(name, ())
    own = [*fit.model.coords.get(axes[-1], ())] if axes else []
    if new and own and new != own and all(isinstance(word, str) for word in (*new, *own)):
        raise ValueError(
            f"Columns of {name!r} are {', '.join(new)}; those of the fit are {', '.join(own)}.\n"
            f"A program knows columns by their place: pass {name}[{[*map(str, own)]}], or an array."
        )


def _codes(name: str, words: np.ndarray, levels: list[str]) -> np.ndarray:
    if new := sorted(set(map(str, words.ravel())) - set(levels)):
        raise ValueError(f"Data {name!r} has {new[0]!r}; the fit's are {', '.join(levels) or 'numbers'}.")
    return np.array([levels.index(str(word)) for word in words.ravel()]).reshape(words.shape)


def _counted(value: Any, own: Any) -> Any:
    """Whole numbers given as floats, as integers where the fit's are: they may be indices."""
    if not (isinstance(value, np.ndarray) and isinstance(own, np.ndarray)):
        return value
    whole = value.dtype.kind == "f" and own.dtype.kind in "iu" and bool((value == np.rint(value)).all())
    return value.astype(np.int64) if whole else value


def _learned(fit: FittedParameters) -> str:
    inputs = list(fit.target.inputs)
    given = (
        f"fit.sample(n, {inputs[0]}=...) given inputs of your own, fit.simulate(n) given those of rows"
        if inputs
        else "fit.sample(n)"
    )
    return (
        "predict averages over draws of a posterior; this fit learned parameters from rows, one value of each.\n"
        f"New rows are drawn by {given}."
    )


def predictive(fit: Fitted, new_data: Mapping[str, Any], seed: int) -> Any:
    """Posterior predictive draws as a Dataset; with the fit's own data also kept in its tree."""
    import xarray as xr

    if not fit.target.named("observed"):
        if isinstance(fit, FittedParameters):
            raise ValueError(_learned(fit))
        raise ValueError(
            "The program observes nothing (no site has obs=), so there is nothing to predict.\nfit.sample(n) gives its own draws."
        )
    data = merged(fit, new_data)
    found = dataset(fit, fit.target.predict(fit.draws, data, seed))
    if not new_data:
        fit.tree["posterior_predictive"] = xr.DataTree(slashes.plain(found))
    return found
