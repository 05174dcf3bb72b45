"""The outcome of a sweep as an xarray.Dataset: a dimension for every axis of the grid."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from probgen.processes.outcomes import Outcome
from probgen.run.conditioning import model_of
from probgen.sweeps.asking import Asked
from probgen.sweeps.grid import Axis, Grid, Point
from probgen.versions import versions

if TYPE_CHECKING:
    import xarray as xr

MISSING = "missing"  # the status of a point that is in another part, and not there yet
MEANT = {
    "status": f"the verdict: pass, warn or fail; error where there is none; {MISSING} where another part has not made it yet",
    "error": "why there is no verdict",
    "seconds": "wall time of the fit, compilation included",
    "run": "the directory of the run: pg.load(...)",
}


def check(grid: Grid) -> None:
    """TypeError for an axis that has the name of something that is told of every fit."""
    from probgen.sweeps.figures import MEANINGS

    if clash := [axis.name for axis in grid.axes if axis.name in {**MEANT, **MEANINGS}]:
        raise TypeError(
            f"{clash[0]!r} is what a sweep tells of its fits, and can be no axis of the grid; rename that setting."
        )


def told(program: Any, asked: Mapping[Point, Asked], fixed: Mapping[str, Any]) -> dict[str, str]:
    """What the dataset says of the sweep as a whole."""
    name = program if isinstance(program, str) else getattr(model_of(program).program, "__name__", "program")
    words = ", ".join(dict.fromkeys(one.algorithm.name for one in asked.values()))
    same = ", ".join(f"{k}={v!r}" for k, v in fixed.items() if isinstance(v, str | int | float | bool | tuple))
    return {"program": name, "inference": words, "for_all": same, "probgen": versions()["probgen"]}


def dataset(grid: Grid, folder: Path, outcomes: Mapping[Point, Outcome], attributes: Mapping[str, str]) -> xr.Dataset:
    """The outcomes at their places, NaN or empty where there are none."""
    import xarray as xr

    from probgen.sweeps.figures import MEANINGS, WORDS

    points = grid.points
    rows = [_row(point, folder, outcomes.get(point)) for point in points]
    names = [*MEANT, *(k for k in MEANINGS if any(_is_there(row.get(k)) for row in rows))]
    dims, shape = [axis.name for axis in grid.axes], [len(axis.labels) for axis in grid.axes]
    empty = {k: "" if k in WORDS else np.nan for k in names}
    columns = {k: np.array([row.get(k, empty[k]) for row in rows]).reshape(shape) for k in names}
    meanings = {**MEANT, **MEANINGS}
    return xr.Dataset(
        {k: (dims, v, {"long_name": meanings[k]}) for k, v in columns.items()},
        {axis.name: coordinate(axis) for axis in grid.axes},
        {**attributes, "out": str(folder)},
    )


def _is_there(value: Any) -> bool:
    return value is not None and value == value  # NaN is no figure


def coordinate(axis: Axis) -> np.ndarray:
    """Its labels as an array."""
    return np.array(axis.labels)


def _row(point: Point, folder: Path, outcome: Outcome | None) -> dict[str, Any]:
    found = outcome or Outcome(MISSING)
    there = (folder / point.folder / "run.json").exists()
    own = {"status": found.status, "error": found.error, "seconds": found.seconds}
    return {**own, "run": str(folder / point.folder) if there else "", **found.figures}
