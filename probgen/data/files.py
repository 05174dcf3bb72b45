"""Data of files, by name: arrays (.npz), settings and lists (.json), tables whose columns are arrays or words (.csv, .parquet)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

KNOWN = ".npz, .json, .csv or .parquet"


def read_file(path: Path) -> dict[str, Any]:
    """The data of a file. ValueError for one of another kind, or without names; counts and strings of .npz are settings."""
    readers = {".json": _json, ".npz": _npz, ".csv": _table, ".parquet": _table}
    if path.suffix not in readers:
        raise ValueError(f"{path}: expected {KNOWN}, or rows in an .npy file")
    return readers[path.suffix](path)


def _json(path: Path) -> dict[str, Any]:
    import json

    found = json.loads(path.read_text())
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}; expected an object, name to value.")
    return found


def _npz(path: Path) -> dict[str, Any]:
    import numpy as np

    with np.load(path) as arrays:
        return {k: v.item() if v.ndim == 0 and v.dtype.kind in "iubU" else v for k, v in arrays.items()}


def _table(path: Path) -> dict[str, Any]:
    import pandas as pd

    try:
        table = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    except ImportError as error:
        raise ValueError(f"{path}: reading Parquet needs pyarrow: pip install pyarrow") from error
    except pd.errors.ParserError as error:
        raise ValueError(f"{path} is no table of columns with names: {error}") from error
    unnamed = [c for c in table.columns if not str(c).strip() or str(c).startswith("Unnamed: ")]
    return {str(c): table[c] for c in table.columns if c not in unnamed}  # an index that pandas wrote has no name
