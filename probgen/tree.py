"""The DataTree of a Fit in ArviZ's schema, and the groups that are computed on demand."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from probgen.arguments import Arranged
from probgen.fixed import Fixed, arrays_of
from probgen.inputs import read
from probgen.looking import is_words
from probgen.target import Learnable

if TYPE_CHECKING:
    from probgen.result import Fit

NOT_STATISTICS = ("z",)


def build(fit: Fit) -> Any:
    """posterior, sample_stats, warmup_sample_stats, observed_data and constant_data of a Fit."""
    import xarray as xr
    from arviz_base import from_dict

    posterior, stats, warmup = (
        fit.draws,
        _stats(fit, slice(fit.num_warmup, None)),
        _stats(fit, slice(0, fit.num_warmup)),
    )
    if fit.answer:
        stats = {k: v for k, v in fit.answer.items() if v.ndim == 2}
    groups: dict[str, Any] = {"posterior": posterior, "sample_stats": stats}
    if isinstance(fit.target, Learnable):
        groups = {"posterior": posterior}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # ArviZ's, on more chains than draws: here thousands are normal
        tree = from_dict(groups, coords=dict(fit.model.coords), dims=_dims(fit, posterior))
    if warmup and not fit.answer:
        tree["warmup_sample_stats"] = xr.DataTree(_plain(warmup, ("chain", "draw")))
    if fit.answer:
        losses = {k: v for k, v in fit.records.items() if v.ndim == 2}
        tree["optimisation"] = xr.DataTree(_plain(losses, ("chain", "step")))
    for group, data in _data_groups(fit).items():
        tree[group] = xr.DataTree(_plain(data, ()))
    tree["posterior"].attrs.update(_attributes(fit))
    return tree


def _attributes(fit: Fit) -> dict[str, Any]:
    return {
        "inference_library": "probgen",
        "inference": fit.inference.name,
        "sampling_time": fit.seconds,
        "tuning_steps": fit.num_warmup,
        "seed": fit.seed,
    }


def _stats(fit: Fit, part: slice) -> dict[str, np.ndarray]:
    stats = {k: v[:, part] for k, v in fit.records.items() if k not in NOT_STATISTICS}
    limit = getattr(fit.inference, "max_tree_depth", None)
    if limit is not None and "tree_depth" in stats:
        stats["reached_max_treedepth"] = stats["tree_depth"] >= limit
    return stats


def _dims(fit: Fit, variables: Mapping[str, np.ndarray]) -> dict[str, list[str]]:
    return {k: list(v) for k, v in fit.model.dims.items() if k in variables}


def _plain(arrays: Mapping[str, np.ndarray], leading: tuple[str, ...]) -> Any:
    import xarray as xr

    variables = {}
    for key, value in arrays.items():
        rest = [f"{key}_dim_{i}" for i in range(value.ndim - len(leading))]
        variables[key] = ([*leading, *rest], value)
    return xr.Dataset(variables)


def _data_groups(fit: Fit) -> dict[str, dict[str, np.ndarray]]:
    """Data whose values are those of an observed site go to observed_data, the rest to constant_data."""
    observed = set(fit.target.named("observed"))
    arrays = arrays_of(fit.target.data)
    groups = {
        "observed_data": {k: v for k, v in arrays.items() if k in observed},
        "constant_data": {k: v for k, v in arrays.items() if k not in observed},
    }
    return {group: data for group, data in groups.items() if data}


def merged(fit: Fit, new_data: Mapping[str, Any]) -> dict[str, Any]:
    """The fit's data with some replaced; checked as at the start of a fit."""
    from probgen.data import check, on_host
    from probgen.seal import check_seen

    check_seen(fit.target)
    own, program = on_host(fit.target.data), fit.model.program
    new_data = program.given(new_data) if isinstance(program, Arranged) else new_data
    new = {k: _renewed(fit, k, v, own.get(k)) for k, v in new_data.items()}
    data = check(program, {**own, **new}, fit.precision)
    return {k: _counted(v, own.get(k)) if k in new_data else v for k, v in data.items()}


def _renewed(fit: Fit, name: str, value: Any, own: Any) -> Any:
    """A new datum as the fit's own was given: as it is, as codes of words, or as an array."""
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


def predictive(fit: Fit, new_data: Mapping[str, Any], seed: int) -> Any:
    """Posterior predictive draws as a Dataset; with the fit's own data also kept in its tree."""
    import xarray as xr
    from arviz_base import dict_to_dataset

    data = merged(fit, new_data)
    drawn = fit.target.predict(fit.draws, {k: v for k, v in data.items()}, seed)
    dims = _dims(fit, drawn) if not new_data else {}
    dataset = dict_to_dataset(drawn, dims=dims, coords=dict(fit.model.coords) if dims else {})
    if not new_data:
        fit.tree["posterior_predictive"] = xr.DataTree(dataset)
    return dataset


def log_likelihood(fit: Fit) -> Any:
    """Pointwise log likelihood as a Dataset, kept in the tree's log_likelihood group."""
    import xarray as xr
    from arviz_base import dict_to_dataset

    if "log_likelihood" not in fit.tree.children:
        terms = fit.target.log_likelihood(fit.draws, merged(fit, {}))
        fit.tree["log_likelihood"] = xr.DataTree(dict_to_dataset(terms))
    return fit.tree["log_likelihood"].to_dataset()
