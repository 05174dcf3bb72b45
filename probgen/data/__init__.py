"""Data as users give them: checked, read, put in words, put on scales; and data sets by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probgen.data.values.named import table as table
    from probgen.data.values.text import text as text
    from probgen.datasets import digits as digits
    from probgen.datasets import load as load

__all__ = ["digits", "load", "table", "text"]
WHERE = {"table": "probgen.data.values.named", "text": "probgen.data.values.text"}


def __getattr__(name: str) -> Any:
    import importlib

    if name in __all__:
        return getattr(importlib.import_module(WHERE.get(name, "probgen.datasets")), name)
    raise AttributeError(f"module 'probgen.data' has no attribute {name!r}; it has {', '.join(__all__)}")
