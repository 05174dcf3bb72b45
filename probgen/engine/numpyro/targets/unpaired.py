"""Maps between rows of two kinds that are no pairs: a program from a to b without noise, a guide back, a critic of each.

def program(a, b=None):
    numpyro.sample("b", dist.Delta(g(a), event_dim=2), obs=b)

def guide(b):
    numpyro.sample("a", dist.Delta(h(b), event_dim=2))

A critic is called with a alone, or with b alone, and its parameters are learned apart for each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro import handlers

from probgen import runtime
from probgen.data.checks import taken
from probgen.engine import drawable
from probgen.engine.numpyro.programs.parameters import initial_arrays
from probgen.engine.numpyro.targets import critics
from probgen.engine.numpyro.targets.draws import ROWS
from probgen.engine.numpyro.targets.implicit import NumpyroImplicit
from probgen.engine.numpyro.wrapped import innermost


class NumpyroUnpaired(NumpyroImplicit):
    """Rows of both kinds, the program, the guide back, and the critics.

    Rows of what is given may differ in number from those of what is drawn, and go round where there are fewer.
    """

    @property
    def given(self) -> str:
        """The keyword of what is mapped."""
        return self.inputs[0]

    @property
    def made(self) -> str:
        """The keyword of what it is mapped to."""
        return next(iter(self.keywords))

    @property
    def unpaired(self) -> bool:
        """Whether rows of both kinds are no partners; paired ones are learned without a way back."""
        return self.structure.guide is not None

    @property
    def num_given(self) -> int:
        """How many rows are given."""
        return len(self.arrays[self.given])

    def rows(self, index: Any, key: Any = None) -> dict[str, Any]:
        if isinstance(index, slice):
            index = np.arange(self.num_rows)[index]
        found = {site: self.arrays[k][index].astype(self.precision) for k, site in self.structure.rows}
        return found | self.rows_given(index)

    def rows_given(self, index: Any) -> dict[str, Any]:
        """Rows of what is mapped: {keyword: (row, *event)}."""
        return {k: self.arrays[k][index % len(self.arrays[k])].astype(self.precision) for k in self.inputs}

    def initial(self, key: Any, from_data: bool = True) -> dict[str, Any]:
        found = super().initial(key, from_data)
        if (back := self.structure.guide) is None:
            return found
        arrays = self._taken(back.program, {self.made: jnp.zeros(self._shape(self.made), self.precision)})
        mine = initial_arrays(back, arrays, {}, jax.random.fold_in(key, 2))
        return found | self.started({k: jnp.asarray(v, self.precision) for k, v in mine.items()})

    def played(self, key: Any) -> Any:
        if self.structure.guide is None:
            return super().played(key)
        parameters, critics, rows = self.initial(key), self.critics_initial(key), self.rows(jnp.arange(2))
        found = {self.given: self.back(parameters, rows[self.keywords[self.made]])}
        found[self.made] = self.forth(parameters, rows[self.given])
        return found, {k: self.said(k, critics[k], x) for k, x in found.items()}

    # ---- both ways

    def forth(self, parameters: Any, x: Any) -> Any:
        """What the program makes of rows (row, *event)."""
        site = self.keywords[self.made]
        one = lambda x: self.simulated(jax.random.key(0), parameters, {self.given: x})[site]  # noqa: E731
        return jax.vmap(one, axis_name=ROWS)(x)

    def back(self, parameters: Any, x: Any) -> Any:
        """What the guide makes of rows (row, *event)."""

        def one(x: Any) -> Any:
            site = self._returned(parameters, x)
            if not isinstance(innermost(site["fn"]), dist.Delta):
                raise ValueError(
                    f"The guide draws {self.given!r} with noise; a way back has none: Delta(h({self.made}))."
                )
            return site["value"]

        return jax.vmap(one, axis_name=ROWS)(x)

    def _returned(self, parameters: Any, x: Any, shown: Any = None) -> dict[str, Any]:
        """The guide's site given a row; shown: a value that stands for its draw."""
        guide = self.structure.guide
        own = {k: parameters[k] for k in guide.parameters}
        run = lambda: guide(**self._taken(guide.program, {self.made: x}), **own)  # noqa: E731
        with handlers.block():
            seeded = handlers.seed(handlers.substitute(run, data=shown or {}), jax.random.key(0))
            trace = handlers.trace(seeded).get_trace()
        drawn = {k: s for k, s in trace.items() if s["type"] == "sample"}
        if list(drawn) != [self.given]:
            raise ValueError(
                f"The guide draws {', '.join(drawn) or 'nothing'}; expected {self.given!r} alone, given {self.made}."
            )
        return drawn[self.given]

    def said(self, keyword: str, parameters: Any, x: Any) -> Any:
        """What the critic of one kind says of rows of it: (row,), of one of patches (row, height, width)."""
        critic = self._critic(keyword)

        def one(x: Any) -> Any:
            found = critic(**self._taken(critic.program, {keyword: x}), **parameters)
            return found[0] if isinstance(found, tuple) else found

        return jax.vmap(one, axis_name=ROWS)(x)

    def critic_initial(self, key: Any) -> dict[str, Any]:
        return self.critics_initial(key)[self.made]

    def logits(self, parameters: Any, points: Any) -> Any:
        return self.said(self.made, parameters, points[self.keywords[self.made]])

    def critics_initial(self, key: Any) -> dict[str, dict[str, Any]]:
        """The critics' parameters before learning, by the keyword of what they see."""
        keys, found = jax.random.split(key), {}
        for keyword, k in zip((self.given, self.made), keys, strict=True):
            learned = self._critic(keyword)
            arrays = self._taken(learned.program, {keyword: jnp.zeros(self._shape(keyword), self.precision)})
            mine = initial_arrays(learned, arrays, {}, k)
            starts = self.starts
            found[keyword] = {
                n: jnp.asarray(starts.get(of_critic(n, keyword), v), self.precision) for n, v in mine.items()
            }
        return found

    def rivals(self, key: Any) -> dict[str, Any]:
        own = self.critics_initial(key)
        return {of_critic(n, keyword): v for keyword, found in own.items() for n, v in found.items()}

    def _critic(self, keyword: str) -> Any:
        return self.structure.critic if keyword == self.given else self.structure.opponent

    def _shape(self, keyword: str) -> tuple[int, ...]:
        return tuple(self.arrays[keyword].shape[1:])

    def _taken(self, program: Any, data: Mapping[str, Any]) -> dict[str, Any]:
        """What a program takes of data and of all that is shared."""
        rest = {k: v for k, v in self.structure.static.items() if k not in self.keywords}
        return taken(program, {**rest, **self.rest, **data})


def as_map(target: NumpyroImplicit) -> NumpyroImplicit:
    """The target of a program with inputs and without noise as a map; another as it is."""
    if target.inputs and not target.hidden:
        return NumpyroUnpaired(target.structure, target.arrays)
    return target


def of_critic(label: str, keyword: str) -> str:
    """The name in an answer of a parameter of the critic of one kind."""
    return f"{label} (critic of {keyword})"


def both_ways(target: Any, guide: Callable[..., Any], critic: Callable[..., Any] | None) -> NumpyroUnpaired:
    """The target of a map with its way back, and its critics, by default made for the shapes of rows.

    Raises ValueError where guide or critic do not run, draw something else, or share parameters with the program.
    """
    from probgen.nets.adversarial.critic import Critic

    made, given = next(iter(target.keywords)), target.inputs[0]
    learned = {}
    with runtime.jax_scope(target.precision):
        for name, program, keyword in (
            ("guide", guide, made), ("critic", critic or Critic((given,)), given), ("opponent", critic or Critic((made,)), made),
        ):  # fmt: skip
            row = {keyword: jax.ShapeDtypeStruct(target.arrays[keyword].shape[1:], target.precision)}
            try:
                learned[name] = critics._learned(target, program, row)
            except (TypeError, ValueError, IndexError) as error:
                what = "guide" if name == "guide" else "critic"
                raise ValueError(f"The {what} does not run on a row of {keyword} alone: {error}") from error
        if shared := set(learned["guide"].parameters) & set(target.structure.parameters):
            raise ValueError(f"The guide's parameter {min(shared)!r} is the program's as well; rename it.")
        own = {given: target.arrays[given].astype(target.precision)}  # whole numbers too: what comes back is none
        found = NumpyroUnpaired(target.structure.but(**learned), {**target.arrays, **own})
        found.notes = target.notes
        _check(found)
    return found


def _check(target: NumpyroUnpaired) -> None:
    """Raise ValueError where what the guide draws, or a critic says, has another shape than it must."""
    key = jax.random.key(0)
    x = jnp.zeros((1, *target._shape(target.made)), target.precision)
    drawn = jax.eval_shape(lambda: target.back(target.initial(key), x))
    shape, own = drawn.shape[1:], target._shape(target.given)
    if shape != own:
        raise ValueError(f"The guide draws {target.given!r} of shape {shape}; rows of it have {own}.")
    for keyword in (target.given, target.made):
        x = jnp.zeros((2, *target._shape(keyword)), target.precision)
        say = lambda x, k=keyword: target.said(k, target.critics_initial(key)[k], x)  # noqa: E731
        said = jax.eval_shape(say, x).shape[1:]
        if len(said) not in (0, 2):
            raise ValueError(
                f"The critic of {keyword} returns {said}; expected a logit, (), or one a patch (height, width)."
            )
        points = {keyword: jnp.asarray(target.arrays[keyword][: critics.MANY], target.precision)}
        if not critics.is_steep(
            lambda p, x, k=keyword: target.said(k, p, x[k]), target.critics_initial(key)[keyword], points
        ):
            raise ValueError(f"Of {keyword}: {drawable.FLAT_CRITIC}")
