"""Thinning: after warm-up only every so-many-th transition is kept, and what the others told is not lost.

The kept draws are those of the same run without thinning, up to rounding: transition n has the same key in both.
"""

from __future__ import annotations

from typing import Any

SUMMED = ("n_steps",)  # of what the transitions between two draws tell: costs are added up,
EVER = ("diverging",)  # an alarm of any of them counts,
LARGEST = ("tree_depth",)  # as does the largest; all else is told of the last one


def asked(kernel: Any) -> bool:
    """Whether a kernel's steps are to be thinned here."""
    return getattr(kernel, "thin", 1) > 1 and not kernel.thins_itself


def step(kernel: Any, key: Any, i: Any, state: Any, target: Any) -> tuple[Any, Any]:
    """Step i of a chain: one transition in warm-up, `kernel.thin` of them afterwards."""
    thin, ops = kernel.thin, target.ops
    xp, after = ops.xp, i - kernel.num_warmup
    first = xp.where(after < 0, i, kernel.num_warmup + after * thin)
    count = xp.where(after < 0, 1, thin)
    move = lambda j, state: kernel.step(ops.fold_in(key, first + j), state, target)  # noqa: E731

    def more(carry: Any) -> Any:
        j, state, told = carry
        state, info = move(j, state)
        return j + 1, state, _together(xp, told, info)

    state, info = move(0, state)
    return ops.while_loop(lambda carry: carry[0] < count, more, (first * 0 + 1, state, info))[1:]


def _together(xp: Any, before: Any, last: Any) -> Any:
    """What transitions told, as one."""
    old = before if isinstance(before, dict) else before._asdict()
    new = dict(last) if isinstance(last, dict) else last._asdict()
    new |= {k: old[k] + new[k] for k in SUMMED if k in new}
    new |= {k: xp.logical_or(old[k], new[k]) for k in EVER if k in new}
    new |= {k: xp.maximum(old[k], new[k]) for k in LARGEST if k in new}
    return new if isinstance(last, dict) else type(last)(**new)
