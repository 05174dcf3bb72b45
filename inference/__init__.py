"""The algorithms: one file is one algorithm, found by the folder listing; each class is also an attribute here."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    from probgen import catalog

    for word in () if name.startswith("_") else catalog.modules("probgen.inference"):
        found = catalog.algorithm(word)
        if found.__name__ == name:
            return found
    raise AttributeError(f"probgen.inference has no algorithm {name!r}")


def __dir__() -> list[str]:
    from probgen import catalog

    return sorted(catalog.algorithm(word).__name__ for word in catalog.modules("probgen.inference"))
