"""Checks of pictures grown from a sample: copied whole, stuck in a part of it, or grown out of the texture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from probgen.diagnostics.evidence import Evidence
from probgen.diagnostics.verdict import Finding, beside, grade
from probgen.evaluate import textures

COPIED = 0.35, 0.7  # of a picture, in one piece of the sample
USED = 0.25, 0.1  # effective share of the sample's pixels that were drawn
GARBAGE = 1.5, 3.0  # distance of grown patches to the nearest of the sample, in that of the sample's own to its others
RESPONSES = (
    1.6,
    3.0,
)  # distance of the laws of filters' responses, in that of halves of the sample; of other parts about 1
SIDE = 9  # of patches, in pixels
FEWEST = 4  # pixels a side of a sample, whose halves filters compare


def _copied(evidence: Evidence) -> Finding | None:
    """The largest piece that a picture has from one place of the sample, as a share of the picture."""
    fit: Any = evidence.fit
    sources = fit.answer["sources"][0]
    largest = max(int(textures.pieces(one, fit.target.picture.shape[1])[:1].sum()) for one in sources)
    value = largest / sources[0].size
    shown = beside(value, COPIED[0], ".0%")
    message = (
        f"the largest piece copied from one place is {shown} of its picture ({largest} pixels); at most {COPIED[0]:.0%}"
    )
    remedy = "grow a larger picture, fit.sample(size=...), pass a larger sample, or 'quilting' with a smaller block"
    return Finding("copied", grade(value, *COPIED), value, COPIED[0], message, remedy)


def _used(evidence: Evidence) -> Finding | None:
    """How much of the sample a picture is made of."""
    fit: Any = evidence.fit
    height, width = fit.target.picture.shape[:2]
    value = min(textures.used(one, height * width) for one in fit.answer["sources"][0])
    message = f"a picture is made of effectively {beside(value, USED[0], '.0%')} of the sample's pixels; at least {USED[0]:.0%}"
    remedy = "it got stuck in a part of the sample: cut plain parts of it away, another seed, or " + _larger(fit)
    return Finding("used", grade(-value, -USED[0], -USED[1]), value, USED[0], message, remedy)


def _worst(evidence: Evidence, of: Callable[[np.ndarray, np.ndarray], float]) -> float | None:
    """The largest number of a grown picture beside the sample; None where no picture is whole, or it is not defined."""
    fit: Any = evidence.fit
    sample = np.asarray(fit.target.picture, float)
    pictures = [np.asarray(x, float) for x in next(iter(fit.draws.values()))[0] if np.isfinite(x).all()]
    found = [of(x, sample) for x in pictures]
    return max(found) if found and np.isfinite(found).all() else None


def _garbage(evidence: Evidence) -> Finding | None:
    """Whether grown patches look like the sample's."""
    fit: Any = evidence.fit
    side = max(1, min(SIDE, *fit.target.shape[:2], *(n // 2 for n in fit.target.picture.shape[:2])))
    value = _worst(evidence, lambda x, sample: textures.strangeness(x, sample, side, fit.seed))
    if value is None:
        return None
    shown = beside(value, GARBAGE[0], ".2f")
    message = f"grown patches are {shown} times as far from the sample's as those from each other; at most {GARBAGE[0]}"
    remedy = "cut plain parts of the sample away, neighbours=1, or " + _larger(fit)
    return Finding("garbage", grade(value, *GARBAGE), value, GARBAGE[0], message, remedy)


def _responses(evidence: Evidence) -> Finding | None:
    """Whether filters respond to the pictures as to the sample."""
    value = _worst(evidence, textures.difference)
    fit: Any = evidence.fit
    height, width = fit.target.picture.shape[:2]
    if value is None and min(height, width) < FEWEST:
        message = (
            f"the sample has {height} by {width} pixels: whether filters respond to the pictures as to it cannot be told; at "
            f"least {FEWEST} a side"
        )
        return Finding("responses", "warn", min(height, width), FEWEST, message, "pass a larger sample")
    if value is None:
        return None
    shown = beside(value, RESPONSES[0], ".2f")
    message = f"filters' responses differ {shown} times as much from the sample's as those of its halves; at most {RESPONSES[0]}"
    remedy = "part of the texture did not grow, or too much: another seed, a larger picture, or " + _larger(fit)
    return Finding("responses", grade(value, *RESPONSES), value, RESPONSES[0], message, remedy)


def _larger(fit: Any) -> str:
    """What sees more of a texture at once."""
    blocks = fit.inference.name == "quilting"
    return "a larger block" if blocks else "a window of the size of the texture's parts, or inference='quilting'"


CHECKS = (_copied, _used, _garbage, _responses)
