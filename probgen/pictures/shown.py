"""A figure that a notebook shows, whether or not pyplot was imported."""

from __future__ import annotations

import io

from matplotlib.figure import Figure


class Shown(Figure):
    """A matplotlib Figure that says itself as PNG."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()
