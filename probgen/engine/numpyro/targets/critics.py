"""A critic of a program's draws: a program too, of one row or of several at once, whose parameters are its own.

    critic(x, label) = logit, or logit and features          logit: large for data, (), or (height, width) of patches of a picture

pack: how many rows it judges at once (Lin et al. 2018, arXiv:1712.04086): vectors one after the other, pictures as channels. Rows
of a batch can be looked across, by the axis `probgen.engine.numpyro.targets.draws.ROWS`, as the spread of a batch is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from probgen import runtime
from probgen.data.checks import taken
from probgen.engine import drawable
from probgen.engine.numpyro import moves
from probgen.engine.numpyro.programs.parameters import Learned, initial_arrays, moved, wrapped
from probgen.engine.numpyro.programs.structure import settings
from probgen.engine.numpyro.targets.draws import ROWS

MANY = 32  # packs of rows by which a critic's gradient is judged


def judged_by(target: Any, critic: Callable[..., Any] | None, pack: int) -> Any:
    """The target with a critic, by default one made for the shape of its rows.

    Raises ValueError where it does not run on a pack of rows, does not look at them, or returns something else than a logit, with
    features or without.
    """
    from probgen.nets.adversarial.critic import Critic

    made = critic or Critic((*target.keywords, *target.inputs))
    with runtime.jax_scope(target.precision):
        row = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in _example(target, pack).items()}
        try:
            learned = _learned(target, made, row)
            found = type(target)(target.structure.but(opponent=learned, pack=pack), target.arrays)
            found.notes = target.notes
            if not learned.parameters:
                raise ValueError("it has no parameters to be learned (numpyro.param, or a network's)")
            shape, looks, slopes = _judgement(found, row)
        except AssertionError as error:
            raise ValueError(
                "The critic draws at random, which it has no key for: write it without sample sites."
            ) from error
        except (TypeError, ValueError, IndexError) as error:
            beside = f" of {pack} at once" if pack > 1 else ""
            raise ValueError(f"The critic does not run on a row{beside}: {error}") from error
    if len(shape) not in (0, 2):
        raise ValueError(
            f"The critic returns a logit of shape {shape}; expected (), or one for each patch (height, width), alone or with "
            "features (feature,)."
        )
    if not looks:
        raise ValueError("The critic does not look at the rows: what it says does not depend on them.")
    if not slopes or not _any_slope(found):
        raise ValueError(drawable.FLAT_CRITIC)
    return found


def _any_slope(target: Any) -> bool:
    """Whether the critic's gradient at rows of the data is anything but 0, where it begins or near."""
    with runtime.jax_scope(target.precision):
        rows = target.rows(jnp.arange(MANY * target.structure.pack) % target.num_rows)
        points = {v.name: rows[v.name] for v in target.visible}
        say = lambda parameters, points: logits(target, parameters, {**rows, **points})  # noqa: E731
        return is_steep(say, target.critic_initial(jax.random.key(0)), points)


def is_steep(say: Callable[[Any, Any], Any], parameters: Any, points: Any) -> bool:
    """Whether what is said of points has a gradient there that is not all 0, under parameters or under ones a bit off.

    What a program's operations tell is not enough: 0 * x + c depends on x by them. Parameters may begin at 0.
    """
    slope = jax.jit(jax.grad(lambda points, parameters: say(parameters, points).sum()))
    return any(bool(jnp.any(s != 0)) for p in (parameters, moved(parameters)) for s in slope(points, p).values())


def _learned(target: Any, critic: Callable[..., Any], row: Any) -> Learned:
    known = {k: jax.ShapeDtypeStruct(jnp.shape(v), jnp.asarray(v).dtype) for k, v in target.rest.items()}
    arrays = taken(critic, {**known, **row})
    rest = {k: v for k, v in target.structure.static.items() if k not in arrays and k not in target.keywords}
    shapes = tuple(sorted((k, v.shape, str(v.dtype)) for k, v in arrays.items()))
    return wrapped(critic, settings(taken(critic, rest)), shapes)


def _example(target: Any, pack: int) -> dict[str, Any]:
    """Shapes of what a critic takes, by keyword."""
    rows = lambda: jax.tree.map(lambda x: x[0], _shown(target, packed(target.rows(jnp.zeros(pack, int)), pack)))  # noqa: E731
    return jax.eval_shape(rows)


def _shown(target: Any, points: Any) -> dict[str, Any]:
    """Points by keyword."""
    values = {k: points[site] for k, site in target.keywords.items()}
    return values | {k: points[k] for k in target.inputs}


def packed(points: Any, pack: int) -> Any:
    """Rows (row, *event) as packs: vectors one after the other, (pack, size), pictures as channels, (pack, height, width, n)."""
    if pack == 1:
        return points

    def one(x: Any) -> Any:
        x = x.reshape(-1, pack, *x.shape[1:])
        if x.ndim == 4:
            return jnp.moveaxis(x, 1, -1)
        x = jnp.moveaxis(x, 1, -2) if x.ndim > 2 else x
        return x.reshape(*x.shape[:-2], -1) if x.ndim > 2 else x

    return {k: one(v) for k, v in points.items()}


def _judgement(target: Any, row: Any) -> tuple[tuple[int, ...], bool, bool]:
    """The logit's shape, whether it depends on the row, not on the inputs alone, and whether its gradient there is not all zero."""

    def judge(points: Any, row: Any, key: Any) -> Any:
        return _one(target, target.critic_initial(key), {**row, **points})

    points = {k: row[k] for k in target.keywords}
    key = jax.random.key(0)
    batch = lambda f: jax.vmap(f, axis_name=ROWS, in_axes=(0, 0, None))  # noqa: E731
    some = lambda tree: {k: jax.ShapeDtypeStruct((2, *v.shape), v.dtype) for k, v in tree.items()}  # noqa: E731

    def both(points: Any, directions: Any, row: Any) -> Any:
        return jax.jvp(lambda p: batch(judge)(p, row, key), (points,), (directions,))

    jaxpr = jax.make_jaxpr(both)(some(points), some(points), some(row))
    turns = [frozenset([(turn, k)]) for turn in (0, 1) for k in points]
    said, slope = moves.causes(jaxpr.jaxpr, [*turns, *[frozenset()] * len(row)])
    shape = jaxpr.jaxpr.outvars[0].aval.shape[1:]
    return shape, any(turn == 0 for turn, _ in said), any(turn == 1 for turn, _ in slope)


def _one(target: Any, parameters: Any, shown: Any) -> Any:
    """The critic's logit of one pack: ()."""
    learned = target.structure.opponent
    given = taken(learned.program, {**target.structure.static, **target.rest, **shown})
    said = learned(**given, **{k: parameters[k] for k in learned.parameters})
    said = said[0] if isinstance(said, tuple) else said
    if not isinstance(said, jax.Array):
        raise TypeError(f"it returns a {type(said).__name__}; expected a logit")
    return said


def initial(target: Any, key: Any) -> dict[str, Any]:
    """The critic's parameters before learning, as labelled arrays."""
    learned = target.structure.opponent
    shown = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), _example(target, target.structure.pack))
    given = taken(learned.program, {**target.structure.static, **target.rest, **shown})
    found = initial_arrays(learned, given, {}, key)
    return {k: jnp.asarray(v, target.precision) for k, v in found.items()}


def logits(target: Any, parameters: Any, points: Any) -> Any:
    """What the critic says of points: (row / pack,), of one of patches (row / pack, height, width)."""
    shown = _shown(target, packed(points, target.structure.pack))
    return jax.vmap(lambda row: _one(target, parameters, row), axis_name=ROWS)(shown)
