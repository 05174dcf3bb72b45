"""Data as users give them: checked, read, put in words, put on scales; and data sets by name."""

from __future__ import annotations

from typing import Any

__all__ = ["digits", "load"]


def __getattr__(name: str) -> Any:
    from probgen import datasets

    if name in __all__:
        return getattr(datasets, name)
    raise AttributeError(f"module 'probgen.data' has no attribute {name!r}; it has {', '.join(__all__)}")
