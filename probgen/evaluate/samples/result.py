"""Measure and Measures: numbers about samples, each with its error, what a perfect sampler would have, and how it was made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One number about samples.

    name: its word. value: the number. better: "lower", "higher", or "near" where it is best near `perfect`.
    error: what stands behind the +-; NaN where none is known. error_kind: what it is (a standard error, a spread, and of what).
    perfect: what samples of the law of the data would have on average, with as many rows; NaN where it is not known.
    perfect_kind: where that is from. num_samples, num_reference: the rows that went in, of samples and of data.
    kind: the definition, where several go by one name. more: further numbers by name.
    """

    name: str
    value: float
    error: float = np.nan
    error_kind: str = ""
    perfect: float = np.nan
    perfect_kind: str = ""
    better: str = "lower"
    num_samples: int = 0
    num_reference: int = 0
    kind: str = ""
    more: Mapping[str, float] = field(default_factory=dict)

    def __float__(self) -> float:
        return float(self.value)

    def __repr__(self) -> str:
        told = f"{self.name} {number(self.value)}"
        told += f" +- {number(self.error)} ({self.error_kind})" if np.isfinite(self.error) else ""
        told += (
            f"; a perfect sampler: {number(self.perfect)} ({self.perfect_kind})" if np.isfinite(self.perfect) else ""
        )
        return f"{told}; {self.kind}" if self.kind else told


@dataclass(frozen=True, repr=False)
class Measures(Mapping[str, Measure]):
    """Measures by name, the net their features are from, with its hash, and what a reader should know: `m["fid"].value`."""

    measures: Mapping[str, Measure]
    net: str = ""
    net_hash: str = ""
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Measure:
        if name not in self.measures:
            raise KeyError(f"There is no measure {name!r} here; there are {', '.join(self.measures)}.")
        return self.measures[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.measures)

    def __len__(self) -> int:
        return len(self.measures)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and words, for JSON; NaN is None."""
        rows = {k: {n: _plain(v) for n, v in asdict(m).items()} for k, m in self.measures.items()}
        return {"measures": rows, "net": self.net, "net_hash": self.net_hash, "notes": list(self.notes)}

    def table(self) -> Any:
        """A pandas table, a row a measure."""
        import pandas as pd

        rows = {k: {n: v for n, v in asdict(m).items() if n not in ("name", "more")} for k, m in self.measures.items()}
        return pd.DataFrame.from_dict(rows, orient="index")

    def __repr__(self) -> str:
        lines = [("measure", "value", "+-", "perfect", "best", "rows", "what +- is; what it is")]
        for m in self.measures.values():
            told = "; ".join(word for word in (m.error_kind, m.kind) if word)
            rows = f"{m.num_samples} | {m.num_reference}" if m.num_reference else f"{m.num_samples}"
            lines.append((m.name, number(m.value), number(m.error), number(m.perfect), m.better, rows, told))
        widths = [max(len(line[i]) for line in lines) for i in range(6)]
        told = [
            "  ".join([*(w.ljust(n) for w, n in zip(line, widths, strict=False)), line[6]]).rstrip() for line in lines
        ]
        told += [f"net: {self.net}, sha256 {self.net_hash[:12]}"] if self.net else []
        return "\n".join([*told, *(f"note: {note}" for note in self.notes)])


def number(value: float) -> str:
    """A number in four digits; a dash where there is none."""
    return f"{value:.4g}" if np.isfinite(value) else "inf" if np.isinf(value) else "-"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, str):
        return value
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value
