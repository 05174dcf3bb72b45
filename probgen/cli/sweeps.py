"""probgen sweep: one model at every point of a grid of settings."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional, arg

from probgen.cli.words import INTERRUPTED, _data, _program, _split, _value

MAX_ROWS = 100  # of the table that is printed


@dataclass(frozen=True)
class Sweep:
    """Fit a model at every point of a grid of settings, side by side; print what came of each, and write sweep.csv beside the runs.

    probgen sweep eight_schools --set num_warmup=100,500 --set target_accept=.8,.95 --seeds 3 -o runs/sweep

    The same command again uses what is done and goes on with what is not. The exit code is 1 where a fit ended in an error.
    """

    program: Annotated[Positional[str], arg(metavar="MODEL")]
    """a model of `probgen list`, or file.py:function"""
    set: Annotated[tuple[str, ...], arg(metavar="NAME=VALUE,VALUE ...")] = ()
    """settings of the algorithm or of the model, each a dimension, such as num_warmup=100,500; several, or said again"""
    inference: Annotated[tuple[str, ...], arg(aliases=["-i"])] = ()
    """one algorithm of `probgen list` or several, a dimension; without it, what serves the model best"""
    data: Annotated[Path | None, arg(metavar="FILE")] = None
    """the program's data by name, .npz, .json, .csv or .parquet; rows, .npy; or a data set such as digits; the model's own by
    default"""
    seeds: Annotated[str, arg(metavar="N|SEED,SEED")] = "3"
    """how many seeds, from 0; or which, such as 0,7"""
    out: Annotated[Path, arg(aliases=["-o"], metavar="DIR")] = Path("runs/sweep")
    """the folder of the runs"""
    init: Annotated[Path | None, arg(metavar="RUN")] = None
    """the directory of a run at whose learned parameters, or draws, all of them begin"""
    num_workers: Annotated[int | None, arg(metavar="N")] = None
    """fits at once, each in a process of its own; by default as many as there are cores"""
    num_threads: Annotated[int | None, arg(metavar="N")] = None
    """threads of each fit; by default its share of the cores"""
    part: Annotated[str | None, arg(metavar="I/N")] = None
    """only the I-th of N parts of the grid, such as 1/8: for jobs on several machines that share the folder"""
    scheduler: Annotated[str | None, arg(metavar="ADDRESS")] = None
    """a scheduler of dask, such as tcp://host:8786, on whose workers it runs"""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """fit anew what is there of another program, other data or other settings"""
    netcdf: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """also write sweep.nc, the xarray.Dataset"""
    progress: bool = True
    """a line on stderr for every fit that is done"""

    def run(self) -> int:
        from probgen.sweeps.sweeping import sweep

        settings = {name: values(text) for name, text in self._said()}
        inference: Any = list(self.inference) if len(self.inference) > 1 else next(iter(self.inference), "auto")
        client = _client(self.scheduler) if self.scheduler else None
        try:
            found = sweep(
                _program(self.program), settings, _data(self.data), inference, seeds=_seeds(self.seeds), out=self.out,
                client=client, num_workers=self.num_workers, num_threads=self.num_threads, part=_part(self.part),
                overwrite=self.overwrite, progress=self.progress, init=self.init,
            )  # fmt: skip
        except KeyboardInterrupt:
            print("\nStopped. The same command goes on with it.", file=sys.stderr)
            return INTERRUPTED
        return _written(found, self.out, self.netcdf)

    def _said(self) -> list[tuple[str, str]]:
        said = [_split(word, "--set", "num_warmup=100,500") for word in self.set]
        names = [name.replace("-", "_") for name, _ in said]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"--set {twice} is said twice; say {twice}=VALUE,VALUE")
        return list(zip(names, (text for _, text in said), strict=True))


def _written(found: Any, out: Path, netcdf: bool) -> int:
    """Print the table and write it; the exit code."""
    table = found.to_dataframe().reset_index()
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / "sweep.csv", index=False)
    told = [f"Table: {out / 'sweep.csv'}"]
    if netcdf:
        found.to_netcdf(out / "sweep.nc")
        told.append(f"Dataset: {out / 'sweep.nc'}")
    shown = table.drop(columns=["run", *(["error"] if (table["error"] == "").all() else [])])
    print(shown.head(MAX_ROWS).to_string(index=False, na_rep="-", float_format="{:.4g}".format, max_colwidth=60))
    if len(shown) > MAX_ROWS:
        print(f"... and {len(shown) - MAX_ROWS} more rows")
    print("\n" + "\n".join(told))
    return int((table["status"] == "error").any())


def values(text: str) -> tuple[Any, ...]:
    """Values between commas, as they are written: numbers, words, True, None, and lists in brackets, which are one value each."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[(") - (letter in ")]")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    if "" in (stripped := [part.strip() for part in parts]):
        raise ValueError(f"{text!r} has an empty value; say for example 100,500")
    return tuple(_one(part) for part in stripped)


def _one(word: str) -> Any:
    if word.startswith(("[", "(")) and word.endswith(("]", ")")):
        return values(word[1:-1])
    found = _value(word)
    if isinstance(found, str):
        try:
            return float(found)  # as .8 is, which is no number of JSON's
        except ValueError:
            return found
    return found


def _seeds(text: str) -> Any:
    first, *others = values(text)
    return [first, *others] if others else first


def _part(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    i, slash, n = text.partition("/")
    if not (slash and i.strip().isdecimal() and n.strip().isdecimal()):
        raise ValueError(f"--part is {text!r}; expected I/N, such as 1/8 for the first of eight parts")
    return int(i), int(n)


def _client(address: str) -> Any:
    """A client of dask's scheduler."""
    import importlib

    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError as error:
        raise ImportError("--scheduler needs dask: pip install 'probgen[dask]'") from error
    return distributed.Client(address)
