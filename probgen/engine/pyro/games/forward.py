"""Learned Pyro programs run forward for many rows at once, and what a learned critic says of points: NumPy arrays in and out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample

from probgen.engine.pyro.games.critics import as_reals
from probgen.engine.pyro.games.draws import READS, Drawn, run
from probgen.engine.pyro.games.unpaired import PyroUnpaired
from probgen.engine.pyro.programs.data import Unobserved, innermost
from probgen.engine.pyro.programs.density import scoped
from probgen.programs.pinned import check_pins
from probgen.target import CRITIC

CHUNK = 4096  # rows at once


class Given(Messenger):
    """Values stand for draws of some sites, (row, *event); start: the first row's place among all that are asked for."""

    def __init__(self, values: Mapping[str, torch.Tensor], start: int) -> None:
        super().__init__()
        self.values, self.start = values, start

    def _pyro_sample(self, msg: Any) -> None:
        name, fn = msg["name"], msg["fn"]
        if name not in self.values or isinstance(fn, _Subsample):
            return
        value = self.values[name].reshape(fn.shape())
        self._check(name, fn, value)
        msg["value"], msg["done"], msg["is_observed"] = value.long() if fn.support.is_discrete else value, True, False

    def _check(self, name: str, fn: Any, value: torch.Tensor) -> None:
        inside = fn.support.check(value).reshape(len(value), -1).all(1)
        if not inside.all():
            at = int((~inside).nonzero()[0])
            shown = value[at].cpu().numpy()
            raise ValueError(f"{name} of row {self.start + at} is {shown}, outside the support of its distribution.")


def forward(
    target: Any, answer: Mapping[str, Any], rows: Mapping[str, Any], count: int, seed: int, given: Mapping[str, Any],
    once: bool = False,
) -> dict[str, np.ndarray]:  # fmt: skip
    """All sites run forward, parameters as learned: {site: (count, *event)}.

    rows: inputs by keyword, (count, *event); given: values (count, *event) that stand for draws of some sites. Bits are drawn.
    once: nothing is compiled here.
    """
    from probgen.algorithm import Incompatible

    check_pins(target)
    if target.reads_rows(_own(target, answer)):
        raise Incompatible(READS)
    inputs = target.from_host({k: rows[k] for k in target.inputs})
    values = {k: torch.as_tensor(np.asarray(v)).to(getattr(torch, target.precision)) for k, v in given.items()}
    parts = []
    with target.running(target.as_tensors(_own(target, answer)), seed), torch.no_grad():
        for start in range(0, count, CHUNK):
            cut = lambda tree: {k: v[start : start + CHUNK] for k, v in tree.items()}  # noqa: B023, E731
            parts.append(_forward(target, cut(inputs), min(CHUNK, count - start), cut(values), start))
    return {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}


def _forward(target: Any, inputs: Any, count: int, given: Any, start: int) -> dict[str, np.ndarray]:
    arrays = target._named(target.stand_ins(count) | inputs)
    with Given(given, start), Unobserved():
        trace = poutine.trace(target.structure.program).get_trace(**{**target.structure.static, **arrays})
    nodes = {k: n for k, n in trace.nodes.items() if n["type"] == "sample" and not isinstance(n["fn"], _Subsample)}
    return {k: n["value"].cpu().numpy() for k, n in nodes.items()}


def noise(target: Any, answer: Mapping[str, Any], rows: Mapping[str, Any]) -> dict[str, tuple[tuple[int, ...], str]]:
    """The sites that are drawn and not shown: their shapes, and "standard normal", or the name of their distribution.

    rows: inputs of a few rows. A site is standard normal where its mean is 0 and its sd 1 at every coordinate, in every such row.
    """
    shown, inputs = {v.name for v in target.visible}, target.from_host({k: rows[k] for k in target.inputs})
    inputs = inputs or target.stand_ins(2)
    with target.running(target.as_tensors(_own(target, answer)), 0), torch.no_grad():
        drawn: Drawn = run(target, inputs, {})
    found = {}
    for name, msg in drawn.told.items():
        fn = innermost(msg["fn"])
        if name in shown or isinstance(fn, dist.Delta):
            continue
        is_standard = isinstance(fn, dist.Normal) and not fn.loc.any() and bool((fn.scale == 1).all())
        found[name] = (tuple(msg["value"].shape[1:]), "standard normal" if is_standard else type(fn).__name__)
    return found


def returned(target: Any, answer: Mapping[str, Any], rows: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """What the guide of a map learned in both directions makes of rows, by keyword; nothing of another target."""
    if getattr(target, "guide", None) is None or not isinstance(target, PyroUnpaired):
        return {}
    x = torch.as_tensor(np.asarray(rows[target.made])).to(getattr(torch, target.precision))
    with target.running(target.as_tensors(_own(target, answer)), 0), torch.no_grad():
        parts = [target.back(x[i : i + CHUNK]).cpu().numpy() for i in range(0, len(x), CHUNK)]
    return {target.given: np.concatenate(parts)}


def judged(target: Any, answer: Mapping[str, Any], rows: Mapping[str, Any]) -> np.ndarray:
    """The learned critic's logits of points, sites and inputs by name, (row, *event): (row,), or (row / pack,)."""
    critic = {k.removesuffix(CRITIC): v for k, v in answer.items() if k.endswith(CRITIC)}
    points = as_reals(
        target, target.from_host({k: rows[k] for k in (*(v.name for v in target.visible), *target.inputs)})
    )
    with scoped(target.precision), target.judging(target.as_tensors(critic)), torch.no_grad():
        return target.logits(points).cpu().numpy()


def pack(target: Any) -> int:
    """How many rows the critic judges at once; 0 where there is none."""
    return target.pack if target.opponent is not None else 0


def _own(target: Any, answer: Mapping[str, Any]) -> dict[str, Any]:
    return {p.name: answer[p.name] for p in target.parameters}
