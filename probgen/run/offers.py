"""Which algorithm fits which model: the table of `pg.matrix`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from probgen import catalog
from probgen.catalog import algorithms_for, modules
from probgen.engine import detect
from probgen.run import conditioned
from probgen.run.suggestions import working


def matrix(engine: str | None = None, program: Callable[..., Any] | None = None, tried: bool = False) -> Any:
    """Which inference fits which model by its type: an xarray.DataArray of booleans (model, inference).

    engine: only models of that engine; program: one program of your own instead of the collection; tried: whether each algorithm
        is also asked to take the model, which takes seconds a model and refuses what types do not say. The attribute "by" says
        which of the two a table is, "type" or "trial".
    Models of an engine that is not installed are left out; they are in the table's attribute "left_out".
    """
    import numpy as np
    import xarray as xr

    names = sorted(modules("probgen.models")) if program is None else [getattr(program, "__name__", "program")]
    words = list(modules("probgen.inference"))
    rows, kept, left_out = [], [], []
    for name in names:
        try:
            if program is None and engine not in (None, detect(catalog.model(name).program)):
                continue  # no need to run it
            _, target = conditioned(name if program is None else program, None, engine=None)
        except ModuleNotFoundError as error:
            if program is not None or error.name not in ("pyro", "torch"):
                raise
            left_out.append(name)
            continue
        if engine in (None, target.engine):
            fits = set(working(target) if tried else algorithms_for(target, target.engine))
            rows.append([word in fits for word in words])
            kept.append(name)
    told = {"left_out": left_out, "by": "trial" if tried else "type"}
    cells, coords = np.array(rows, bool).reshape(len(kept), len(words)), {"model": kept, "inference": words}
    return xr.DataArray(cells, coords=coords, dims=("model", "inference"), attrs=told)
