"""A NumPyro program on its whole data, with the author's guide of its unknowns: their ELBO, and draws of the guide."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from numpyro import handlers, infer
from numpyro.distributions import ExpandedDistribution, Independent, Kumaraswamy, MaskedDistribution, biject_to
from numpyro.infer import init_to_uniform

from probgen.data.checks import LISTED, check_drawn, taken
from probgen.engine.numpyro.programs.automatic import automatic
from probgen.engine.numpyro.programs.messengers import FullPlates
from probgen.engine.numpyro.programs.parameters import Learned, initial, initial_arrays, labels, wrapped
from probgen.engine.numpyro.programs.stated import Stated, left, with_state
from probgen.engine.numpyro.programs.structure import Structure, settings, with_guide
from probgen.engine.numpyro.programs.whole import Whole
from probgen.engine.numpyro.targets.continuous import NumpyroContinuous
from probgen.programs.autoguides import is_auto, unwrapped


class NumpyroGuided(NumpyroContinuous):
    """Unknowns, parameters, and a guide that draws the unknowns.

    Parameters of program and guide are one flat array, (parameter,), unconstrained; what both call by one name is one parameter.
    """

    @property
    def _program(self) -> Learned:
        return self.structure.guide[0]

    @property
    def _guide(self) -> Learned:
        return self.structure.guide[1]

    @property
    def guide_is_point(self) -> bool:
        """Whether the guide draws an unknown as a point mass, which says nothing of its uncertainty."""
        return self.structure.guide[2]

    def lowered(self) -> str:
        key, begin = jax.random.key(0), functools.partial(_first, type(self), self.structure)
        count = sum(math.prod(a.shape) for a in jax.eval_shape(begin, self.arrays, key).values())
        parameters = jax.ShapeDtypeStruct((count,), self.precision)
        bound = ("trace", 2, 0.0)
        of = lambda arrays: type(self)(self.structure, arrays)  # noqa: E731
        loss = lambda arrays, key, p: of(arrays).guide_loss_and_gradient(key, p, bound)  # noqa: E731
        draw = lambda arrays, key, p: of(arrays).guide_draws(key, p, 2)  # noqa: E731
        texts = [_first.lower(type(self), self.structure, self.arrays, key).as_text()]
        texts += [jax.jit(f).lower(self.arrays, key, parameters).as_text() for f in (loss, draw)]
        return super().lowered() + "".join(texts)

    def _initial(self, key: Any) -> dict[str, Any]:
        static = self.structure.static
        own = initial_arrays(self._program, self.arrays, static, key)
        guide = initial_arrays(self._guide, taken(self._guide.program, {**self.arrays, **static}), {}, key)
        return {k: jnp.asarray(v, self.precision) for k, v in (guide | own).items()}

    def guide_start(self, key: Any) -> Any:
        """The parameters before the first step: (parameter,)."""
        return ravel_pytree(self._initial(key))[0].astype(self.precision)

    def _named(self, parameters: Any) -> dict[str, Any]:
        like = jax.eval_shape(functools.partial(_first, type(self), self.structure), self.arrays, jax.random.key(0))
        return ravel_pytree(jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), like))[1](parameters)

    def _bound(self, named: Mapping[str, Any]) -> tuple[Callable[[], Any], Callable[[], Any]]:
        """Program and guide on their data at parameters."""
        data = {**self.arrays, **self.structure.static}
        seen = taken(self._guide.program, data)
        own, guide = ({k: named[k] for k in learned.parameters} for learned in (self._program, self._guide))
        return lambda: self._program(**data, **own), lambda: self._guide(**seen, **guide)

    def guide_at_start(self, key: Any) -> Callable[[], Any]:
        """The guide on its data, at the parameters before the first step."""
        return self._bound(self._initial(key))[1]

    def guide_loss_and_gradient(self, key: Any, parameters: Any, bound: Any) -> tuple[Any, Any]:
        """Minus the ELBO by draws of the guide, and its gradient: (), (parameter,); bound: its kind, particles, and alpha."""

        def loss(parameters: Any) -> Any:
            program, guide = self._bound(self._named(parameters))
            kind, *settings = bound
            kind = "trace" if kind == "mean_field" and _has_series(guide) else kind
            return self._elbo(kind, *settings).loss(key, {}, self._listed(program), self._listed(guide))

        with handlers.block():
            return jax.value_and_grad(loss)(parameters)

    @property
    def guide_has_state(self) -> bool:
        """Whether program or guide have state that changes as they run; see `stated`."""
        return bool(self._state)

    @property
    def _state(self) -> tuple[str, ...]:
        pair = (self._program.program, self._guide.program)
        return tuple(name for each in pair if isinstance(each, Stated) for name, _ in each.kinds)

    def guide_moved(self, key: Any, before: Any, after: Any) -> Any:
        """The parameters after a step, (parameter,), with what a run at them leaves in the states of before; NaN leaves none."""
        old, named = self._named(before), self._named(after)
        states = [k for k in named if k.split("[")[0] in self._state]
        named |= {k: old[k] for k in states}
        program, guide = self._bound(named)
        k_guide, k_program = jax.random.split(key)
        drawn = handlers.trace(handlers.seed(guide, k_guide)).get_trace()
        told = handlers.trace(handlers.seed(handlers.replay(program, drawn), k_program)).get_trace()
        for name, tree in (left(drawn, self._state) | left(told, self._state)).items():
            leaves, form = jax.tree.flatten(tree)
            for label, leaf in zip(labels(name, form), leaves, strict=True):
                named[label] = jnp.where(jnp.all(jnp.isfinite(leaf)), leaf, named[label])
        return ravel_pytree(named)[0].astype(self.precision)

    def _elbo(self, kind: str, num_particles: int, alpha: float) -> Any:
        kind = "enum" if self.structure.discrete else kind
        if kind == "enum":
            return infer.TraceEnum_ELBO(num_particles=num_particles, max_plate_nesting=self.structure.plate_nesting)
        if kind == "renyi":
            return infer.RenyiELBO(alpha=alpha, num_particles=num_particles)
        kinds = {"trace": infer.Trace_ELBO, "mean_field": infer.TraceMeanField_ELBO, "graph": infer.TraceGraph_ELBO}
        return kinds[kind](num_particles=num_particles)

    def _listed(self, program: Callable[[], Any]) -> Callable[[], Any]:
        """A program, or the guide, with its finite unknowns marked to be summed over."""
        if not self.structure.discrete:
            return program
        from numpyro.contrib.funsor import config_enumerate

        return config_enumerate(program)

    def guide_draws(self, key: Any, parameters: Any, num_draws: int) -> tuple[Any, Any]:
        """Draws of the guide as points z, (draw, dim), and log q with the log-Jacobians of the unknowns' bijections, (draw,)."""
        named = self._named(parameters)
        return jax.vmap(lambda k: self._draw(k, named))(jax.random.split(key, num_draws))

    @property
    def guide_has_density(self) -> bool:
        """Whether log q of a draw is that of its unknowns, and not of more that the guide draws on the way to them."""
        return not self.guide_is_point and self.structure.guide[3]

    @property
    def guide_is_laplace(self) -> bool:
        """Whether the guide learns a mode, about which its draws are normal."""
        return getattr(self._guide.program, "laplace", False)

    def _draw(self, key: Any, named: Mapping[str, Any]) -> tuple[Any, Any]:
        program, guide = self._bound(named)
        with handlers.block():
            drawn = handlers.trace(handlers.seed(FullPlates(guide), key)).get_trace()
            drawn = {k: s for k, s in drawn.items() if s["type"] == "sample" and not s["is_observed"]}
            values = {k: drawn[k]["value"] for k in self.structure.shapes if k in drawn}
            told = handlers.trace(
                handlers.seed(handlers.substitute(FullPlates(program), data=values), jax.random.key(0))
            ).get_trace()
        finite = self.structure.finite
        log_q = sum((_log_q(site) for k, site in drawn.items() if k not in finite), jnp.zeros((), self.precision))
        parts = []
        for name in self.structure.shapes:
            if name in self.points:
                parts.append(jnp.ravel(named[name]))
                continue
            transform = biject_to(told[name]["fn"].support)
            u = transform.inv(values[name])
            log_q += jnp.sum(transform.log_abs_det_jacobian(u, values[name]))
            parts.append(jnp.ravel(u))
        return jnp.concatenate(parts), log_q


@functools.partial(jax.jit, static_argnums=(0, 1))
def _first(kind: type[NumpyroGuided], structure: Structure, arrays: Any, key: Any) -> dict[str, Any]:
    """The parameters before learning, whose shapes are asked for at every use and traced once."""
    return kind(structure, arrays)._initial(key)


def _log_q(site: Mapping[str, Any]) -> Any:
    """log q of what a guide draws, by the draw itself where it is one of transforms: ()."""
    fn, value = site["fn"], site["value"]
    return jnp.sum(fn.log_prob(value, site["intermediates"]) if site["intermediates"] else fn.log_prob(value))


@functools.lru_cache(maxsize=64)
def _pair(structure: Structure, guide: Callable[..., Any], shapes: tuple) -> Structure:
    """The structure with program and guide as functions of their parameters.

    Raises ValueError where the guide does not run on the data, or does not draw just the unknowns.
    """
    program = wrapped(_base(structure), settings(structure.static), shapes)
    abstract = {k: jax.ShapeDtypeStruct(shape, dtype) for k, shape, dtype in shapes}
    try:
        seen = taken(guide, {**abstract, **structure.static})
        arrays = {k: v for k, v in seen.items() if k in abstract}
        static = {k: v for k, v in seen.items() if k not in abstract}
        guide = with_state(guide, arrays, static)
        learned = wrapped(guide, settings(static), tuple(sorted((k, v.shape, str(v.dtype)) for k, v in arrays.items())))
        drawn = _sites(guide, arrays, static)
    except (TypeError, ValueError) as error:
        raise ValueError(f"The guide does not run on the data: {error}") from error
    finite = {site.name for site in structure.sites if site.kind == "latent" and site.discrete}
    hidden = {k: shape for k, shape in _unknowns(structure, abstract).items() if k not in finite}
    check_drawn(hidden, {k: site.shape for k, site in drawn.items() if not site.auxiliary and k not in finite})
    listed = tuple(sorted(finite & set(drawn)))
    points = any(site.point for k, site in drawn.items() if k not in finite)
    known = not listed and _sized(drawn) <= sum(map(math.prod, hidden.values()))
    return with_guide(structure, (program, learned, points, known, listed))


def _sized(drawn: Mapping[str, Drawn]) -> int:
    """How many numbers a guide draws that are its own."""
    return sum(math.prod(site.shape) for site in drawn.values() if site.auxiliary)


class Drawn(NamedTuple):
    """A site of a guide; point: whether its value depends on no draw; auxiliary: whether it is the guide's own, as of a base."""

    shape: tuple[int, ...]
    point: bool
    auxiliary: bool


def _sites(guide: Callable[..., Any], arrays: Mapping[str, Any], static: Mapping[str, Any]) -> dict[str, Drawn]:
    """The sites that a guide draws on the whole data."""
    found: dict[str, bool] = {}

    def look(key: Any, arrays: Mapping[str, Any]) -> dict[str, Any]:
        values = {}
        seeded = handlers.seed(FullPlates(lambda: guide(**arrays, **static)), key)
        begun = handlers.substitute(seeded, data=_parameters(guide, arrays, static))
        for name, site in handlers.trace(begun).get_trace().items():
            if site["type"] == "sample" and not site["is_observed"]:
                found[name], values[name] = bool(site["infer"].get("is_auxiliary")), site["value"]
        return values

    traced, shapes = jax.make_jaxpr(look, return_shape=True)(jax.random.key(0), arrays)
    moving = _moving(traced.jaxpr)
    return {k: Drawn(v.shape, not moves, found[k]) for (k, v), moves in zip(shapes.items(), moving, strict=True)}


def _unknowns(structure: Structure, arrays: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shapes of the program's unknowns, plates whole."""

    def look(arrays: Mapping[str, Any]) -> dict[str, Any]:
        base = dataclasses.replace(structure, program=_base(structure)).closed(arrays)
        trace = handlers.trace(handlers.substitute(FullPlates(base), substitute_fn=init_to_uniform)).get_trace()
        return {k: s["value"] for k, s in trace.items() if s["type"] == "sample" and not s["is_observed"]}

    return {k: v.shape for k, v in jax.eval_shape(look, arrays).items()}


def _parameters(guide: Callable[..., Any], arrays: Mapping[str, Any], static: Mapping[str, Any]) -> dict[str, Any]:
    """The guide's parameters where they begin for one key, which is none of a draw's."""
    return {k: value for k, (value, _) in initial(guide, {**arrays, **static}, jax.random.key(0)).items()}


def _moving(jaxpr: Any) -> list[bool]:
    """Which results of traced code depend on its first argument."""
    moved = {id(jaxpr.invars[0])}
    for equation in jaxpr.eqns:
        if any(id(v) in moved for v in equation.invars):
            moved |= {id(v) for v in equation.outvars}
    return [id(v) in moved for v in jaxpr.outvars]


def paired(target: NumpyroContinuous) -> NumpyroGuided:
    """The target with its author's guide; see `_pair`."""
    shapes = tuple(sorted((k, v.shape, str(v.dtype)) for k, v in target.arrays.items()))
    guide = target.author_guide
    if is_auto(unwrapped(guide)[0]):
        guide = automatic(guide, _base(target.structure), tuple(target.structure.finite))
    found = NumpyroGuided(_pair(target.structure, guide, shapes), target.arrays)
    listed = found.structure.guide[4]
    found.author_guide = guide
    found.notes = (*target.notes, *([LISTED.format(", ".join(map(repr, listed)))] if listed else []))
    return found


def _base(structure: Structure) -> Callable[..., Any]:
    """The program as its author wrote it, its parameters no sites."""
    return structure.program.program if isinstance(structure.program, Whole) else structure.program


def _has_series(guide: Callable[[], Any]) -> bool:
    """Whether a guide draws a Kumaraswamy: NumPyro's divergence of one is ten terms of a series, nats off where b is below 1."""
    drawn = handlers.trace(handlers.seed(guide, jax.random.key(0))).get_trace()
    return any(isinstance(_innermost(site["fn"]), Kumaraswamy) for site in drawn.values() if site["type"] == "sample")


def _innermost(law: Any) -> Any:
    wrapped = isinstance(law, Independent | ExpandedDistribution | MaskedDistribution)
    return _innermost(law.base_dist) if wrapped else law
