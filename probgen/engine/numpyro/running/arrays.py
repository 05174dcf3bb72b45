"""Data as arrays of a precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def as_arrays(data: Mapping[str, Any], precision: str) -> dict[str, Any]:
    """Floats in the given precision; counts, settings and strings as they are."""
    real = np.dtype(precision)

    def convert(value: Any) -> Any:
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            return value.astype(real)
        return value

    return {k: convert(v) for k, v in data.items()}
