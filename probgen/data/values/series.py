"""Rows that are windows of one series, each begun some entries after the one before: how far they overlap."""

from __future__ import annotations

import numpy as np

FEW = 8  # rows that are looked at first


def step(rows: np.ndarray) -> int:
    """By how many entries each row (row, entry) is the one before it moved on; 0 for rows that are not windows of one series.

    Windows that overlap by less than half are not told: other rows may agree there by chance.
    """
    if rows.ndim != 2 or len(rows) < 3:
        return 0
    for by in range(1, rows.shape[1] // 2 + 1):
        if all(np.array_equal(part[1:, :-by], part[:-1, by:]) for part in (rows[:FEW], rows)):
            return by
    return 0


def overlapping(rows: np.ndarray) -> int:
    """How many rows after each share entries with it."""
    by = step(rows)
    return -(-rows.shape[1] // by) - 1 if by else 0


def note(keyword: str, overlap: int) -> str:
    """What a result says of such rows."""
    return (
        f"Rows of {keyword} are windows of one series that overlap: those held out are the last, and the {overlap} before them are "
        "not learned from."
    )
