"""A critic of a Pyro program's draws: a program too, of a batch of rows, whose parameters are its own.

    def critic(x, label):
        net = pyro.module("critic", net)
        return net(x).squeeze(-1)                         a logit, large for data: (row,); or a logit, and features (row, feature)

pack: how many rows it judges at once (Lin et al. 2018, arXiv:1712.04086): vectors one after the other, pictures as channels.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from probgen.engine import drawable
from probgen.engine.pyro.programs.density import scoped
from probgen.engine.pyro.programs.looks import FEW, identities, looked
from probgen.engine.pyro.programs.parameters import Parameter
from probgen.programs.pinned import innermost_pin, pinned


class Opponent(NamedTuple):
    """A critic as a look at it tells; keywords: those of its data that it takes, None for all."""

    program: Callable[..., Any]
    parameters: tuple[Parameter, ...]
    roots: tuple[Any, ...]
    keywords: frozenset[str] | None


def judged_by(target: Any, critic: Callable[..., Any] | None, pack: int) -> Any:
    """The target with a critic, by default one made for the shape of its rows.

    Raises ValueError where it does not run on packs of rows, does not look at them, has batch normalisation or no parameters, or
    returns something else than logits, with features or without.
    """
    import copy

    from probgen.nets.adversarial.pyro_critic import Critic

    program = pinned(critic or Critic((*target.keywords, *target.inputs)))
    found = copy.copy(target)
    found.opponent, found.pack = Opponent(program, (), (), _keywords(program)), pack
    try:
        with scoped(target.precision):
            seen = looked_at(found, _example(found), 0)
        found.opponent = Opponent(program, tuple(seen.found.values()), tuple(seen.roots), _keywords(program))
        shape, looks, slopes = _judgement(found, seen.values)
    except (TypeError, ValueError, IndexError, RuntimeError, AttributeError) as error:
        beside = f" of {pack} at once" if pack > 1 else ""
        raise ValueError(f"The critic does not run on rows{beside}: {str(error).partition(chr(10))[0]}") from error
    if shape != (FEW,):
        raise ValueError(
            f"The critic returns logits of shape {shape} for {FEW} rows; expected ({FEW},), alone or with features.\n"
            "Use .squeeze(-1) on an output (row, 1)."
        )
    if not looks:
        raise ValueError("The critic does not look at the rows: what it says does not depend on them.")
    if not seen.found:
        raise ValueError("The critic has no parameters to be learned: register its network with pyro.module.")
    if not slopes:
        raise ValueError(drawable.FLAT_CRITIC)
    _refuse_batch_norm(seen.roots)
    if (held := innermost_pin(program)) is not None:
        held.given(functools.partial(identities, found.opponent.parameters))
    return found


def _keywords(program: Callable[..., Any]) -> frozenset[str] | None:
    known = inspect.signature(program).parameters.values()
    return None if any(p.kind is p.VAR_KEYWORD for p in known) else frozenset(p.name for p in known)


def _refuse_batch_norm(roots: Any) -> None:
    if bad := [type(m).__name__ for root in roots for m in root.modules() if isinstance(m, _BatchNorm)]:
        raise ValueError(
            f"With {bad[0]} what the critic says of a row depends on the rows beside it.\nUse GroupNorm or LayerNorm."
        )


def _example(target: Any) -> dict[str, torch.Tensor]:
    """Rows enough for a few packs."""
    return as_reals(target, target.batch(torch.arange(FEW * target.pack) % target.num_rows))


def as_reals(target: Any, rows: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rows whose visible sites are reals, as draws are."""
    kind, visible = getattr(torch, target.precision), {v.name for v in target.visible}
    return {k: v.to(kind) if k in visible else v for k, v in rows.items()}


def looked_at(target: Any, rows: Mapping[str, torch.Tensor], seed: int) -> Any:
    """What the critic registers in a run on rows."""
    return looked(target.opponent.program, _shown(target, as_reals(target, rows)), target.precision, seed)[1]


def initial(target: Any, seed: int) -> dict[str, torch.Tensor]:
    """The critic's parameters before learning."""
    return dict(looked_at(target, _example(target), seed).values)


def _judgement(target: Any, values: Mapping[str, torch.Tensor]) -> tuple[tuple[int, ...], bool, bool]:
    """The shape of the logits, whether they depend on the rows, not on the inputs alone, and whether their slope is not zero."""
    rows, noise = _example(target), torch.Generator().manual_seed(0)
    values = {
        k: v + 0.1 * torch.randn(v.shape, generator=noise, dtype=v.dtype).to(v) for k, v in values.items()
    }  # none at 0
    points = {v.name: rows[v.name].requires_grad_() for v in target.visible}
    with scoped(target.precision), target.judging(values), torch.enable_grad():
        said = logits(target, {**rows, **points})
        if not isinstance(said, torch.Tensor):
            raise TypeError(f"it returns {type(said).__name__}; expected logits, a tensor (row,)")
        if not said.requires_grad:
            return tuple(said.shape), False, False
        slopes = torch.autograd.grad(said.sum(), list(points.values()), allow_unused=True)
    found = [s for s in slopes if s is not None]
    return tuple(said.shape), bool(found), any(bool(s.any()) for s in found)


def packed(points: Mapping[str, torch.Tensor], pack: int) -> Mapping[str, torch.Tensor]:
    """Rows (row, *event) as packs: vectors one after the other, (pack, size), pictures as channels, (pack, height, width, n)."""
    if pack == 1:
        return points

    def one(x: torch.Tensor) -> torch.Tensor:
        x = x.reshape(-1, pack, *x.shape[1:])
        if x.dim() == 4:
            return x.movedim(1, -1)
        return x.movedim(1, -2).flatten(-2) if x.dim() > 2 else x

    return {k: one(v) for k, v in points.items()}


def _shown(target: Any, points: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """What the critic takes of points, by keyword."""
    points = packed(points, target.pack)
    values = {k: points[site] for k, site in target.keywords.items()} | {k: points[k] for k in target.inputs}
    values, known = {**target.structure.static, **values}, target.opponent.keywords
    return values if known is None else {k: v for k, v in values.items() if k in known}


def logits(target: Any, points: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """What the critic says of points, inside the scope of its parameters: (row / pack,)."""
    said = target.opponent.program(**_shown(target, points))
    return said[0] if isinstance(said, tuple) else said
