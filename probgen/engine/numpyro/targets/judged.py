"""Programs of one row with hidden sites, a guide, and a critic of their points.

    critic(x) = logit, features          logit: large for data, (), or (height, width) of patches;   features: (feature,)

The critic is a program too, of what the data give. Its parameters are its own: no other program has one of their names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from probgen import runtime
from probgen.data.checks import taken
from probgen.engine.numpyro import moves
from probgen.engine.numpyro.programs.parameters import Learned, initial_arrays
from probgen.engine.numpyro.targets.bounded import NumpyroBounded, companion
from probgen.target import Judged


class NumpyroJudged(NumpyroBounded, Judged):
    """Rows, a program of one row with hidden sites, its guide, and its critic."""

    @property
    def critic(self) -> Learned:
        """The critic, its parameters as data."""
        return self.structure.critic

    @property
    def unjudged(self) -> NumpyroBounded:
        return NumpyroBounded(self.structure.but(critic=None), self.arrays)

    def initial(self, key: Any, from_data: bool = True) -> dict[str, Any]:
        found = initial_arrays(self.critic, self._shown(self._first()), {}, jax.random.fold_in(key, 2))
        found = {k: jnp.asarray(v, self.precision) for k, v in found.items()}
        return self.started(found) | super().initial(key, from_data)

    def constrained(self, answer: Mapping[str, Any]) -> dict[str, np.ndarray]:
        with runtime.jax_scope(self.precision):
            own = {k: np.asarray(v) for k, v in self.critic.constrained(answer).items()}
        return own | super().constrained(answer)

    def lowered(self) -> str:
        with runtime.jax_scope(self.precision):
            of = lambda arrays: type(self)(self.structure, arrays)  # noqa: E731
            parameters = self.first_shapes()
            judge = jax.jit(lambda arrays, p: of(arrays).judged(p, of(arrays)._first()))
            text = judge.lower(self.arrays, parameters).as_text()
        return super().lowered() + text

    def judged(self, parameters: Any, row: Any) -> tuple[Any, Any]:
        """What the critic says of a row {site: array}, with its inputs by keyword: logit, () or (height, width), and features."""
        return self.critic(**self._shown(row), **{k: parameters[k] for k in self.critic.parameters})

    @property
    def last_layer(self) -> str:
        """The last of the program's parameters of two axes or more that moves what it makes of hidden sites; "" for none."""
        with runtime.jax_scope(self.precision):
            shapes = self.first_shapes()
            given = {k: jax.ShapeDtypeStruct(self.arrays[k].shape[1:], self.arrays[k].dtype) for k in self.inputs}
            given |= {v.name: jax.ShapeDtypeStruct(v.shape, self.precision) for v in self.hidden}
            own = {k: shapes[k] for k in self.structure.parameters}
            jaxpr = jax.make_jaxpr(self.means)(own, given).jaxpr
        ends = [frozenset([(0, k)]) for k in sorted(own)] + [frozenset()] * len(given)
        moving = {k for found in moves.causes(jaxpr, ends) for _, k in found}
        layers = [k for k in self.structure.parameters if k in moving and len(own[k].shape) > 1]
        return layers[-1] if layers else ""

    def _shown(self, row: Any) -> dict[str, Any]:
        """What the critic takes; whole numbers as reals, since means of them are shown as well."""
        values = {k: row[site] for k, site in self.keywords.items()} | {k: row[k] for k in self.inputs}
        return taken(self.critic.program, {**self.structure.static, **self.rest, **values})


def judged(target: NumpyroBounded, critic: Callable[..., Any]) -> NumpyroJudged:
    """The target with a critic.

    Raises ValueError where the critic does not run on a row, returns something else than a logit and features, or has a
    parameter of the program's or the guide's.
    """
    s = target.structure
    with runtime.jax_scope(target.precision):
        try:
            learned = companion(target, critic, dict.fromkeys(target.keywords, target.precision))
            found = NumpyroJudged(s.but(critic=learned), target.arrays)
            begin = lambda: found.judged(found.initial(jax.random.key(0)), found._first())  # noqa: E731
            said = jax.eval_shape(begin)
        except (TypeError, ValueError) as error:
            raise ValueError(f"The critic does not run on a row: {error}") from error
    shapes = [getattr(x, "shape", None) for x in said] if isinstance(said, tuple) else said
    logit, features = shapes if isinstance(shapes, list) and len(shapes) == 2 else (None, None)
    if logit is None or len(logit) not in (0, 2) or len(features or ()) != 1:
        raise ValueError(
            f"The critic returns {shapes}; expected a logit, (), or one for each patch, (height, width), and features, (feature,)."
        )
    if shared := set(learned.parameters) & {*s.parameters, *s.guide.parameters}:
        raise ValueError(f"The critic's parameter {min(shared)!r} belongs to program or guide as well; rename it.")
    return found
