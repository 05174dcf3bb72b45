"""The page of where libraries differ: its rows of the libraries that are here are run again; those of one fact are held to it."""

import sys
from pathlib import Path

import jax
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "libraries.md").read_text()
sys.path.insert(0, str(ROOT / "benchmarks"))

import conventions  # noqa: E402

SLOW_TO_BUILD = {"pymc", "sbi", "blackjax", "zuko"}


@pytest.fixture(autouse=True)
def without_what_is_slow(monkeypatch):
    found = conventions.find_spec
    monkeypatch.setattr(conventions, "find_spec", lambda name: name not in SLOW_TO_BUILD and found(name))


@pytest.mark.parametrize("name", [name for name in conventions.TABLES if name != "flows"])
def test_a_table_is_what_its_rows_say_today(name):
    makers, head = conventions.TABLES[name]
    assert conventions.line(head) in PAGE
    with jax.enable_x64(True):
        rows = [row for make in makers for row in make()]
    assert len(rows) >= 3
    for row in rows:
        assert conventions.line(row) in PAGE


def test_the_facts_behind_them():
    """By hand: the evidence, Bayes' rule, split R-hat of a trend."""
    from scipy.stats import norm

    assert pytest.approx(norm.logpdf(1.0, 0.0, 2**0.5)) == conventions.LOG_EVIDENCE
    exact = np.array([1 * 0.2, 0.5 * 0.5, 0.25 * 0.8]) / (3 * np.mean([1 * 0.2, 0.5 * 0.5, 0.25 * 0.8]))
    truth, *_ = conventions.failed()
    assert truth[1] == ", ".join(f"{p:.2f}" for p in exact)
    # Of a trend of b in unit noise the halves' means are -b/4 and b/4, four each; within a half the variance is 1 + b^2 / 48.
    b = 3.0
    halves = 1 + (b / 4) ** 2 * 8 / 7 / (1 + b**2 / 48)
    (split,) = [row[2] for row in conventions.r_hat() if row[0] == 'ArviZ, `method="split"`']
    assert float(split) == pytest.approx(halves**0.5, abs=0.02)
