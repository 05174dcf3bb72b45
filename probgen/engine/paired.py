"""A NumPyro program on its whole data, with the author's guide of its unknowns: their ELBO, and draws of the guide."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.distributions import Delta, ExpandedDistribution, Independent, MaskedDistribution, biject_to
from numpyro.infer import Trace_ELBO

from probgen.data import check_drawn, taken
from probgen.engine.learned import Learned, initial_arrays, wrapped
from probgen.engine.messengers import FullPlates
from probgen.engine.numpyro import NumpyroContinuous
from probgen.engine.structure import Structure, settings, with_guide
from probgen.engine.whole import Whole


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
        key = jax.random.key(0)
        start = lambda arrays, key: type(self)(self.structure, arrays).guide_start(key)  # noqa: E731
        loss = lambda arrays, *given: type(self)(self.structure, arrays).guide_loss_and_gradient(*given, 2)  # noqa: E731
        draw = lambda arrays, *given: type(self)(self.structure, arrays).guide_draws(*given, 2)  # noqa: E731
        parameters = jax.eval_shape(start, self.arrays, key)
        texts = [jax.jit(start).lower(self.arrays, key).as_text()]
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
        like = jax.eval_shape(self._initial, jax.random.key(0))
        return ravel_pytree(jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), like))[1](parameters)

    def _bound(self, named: Mapping[str, Any]) -> tuple[Callable[[], Any], Callable[[], Any]]:
        """Program and guide on their data at parameters."""
        data = {**self.arrays, **self.structure.static}
        seen = taken(self._guide.program, data)
        own, guide = ({k: named[k] for k in learned.parameters} for learned in (self._program, self._guide))
        return lambda: self._program(**data, **own), lambda: self._guide(**seen, **guide)

    def guide_loss_and_gradient(self, key: Any, parameters: Any, num_particles: int) -> tuple[Any, Any]:
        """Minus the ELBO by draws of the guide, and its gradient: (), (parameter,)."""

        def loss(parameters: Any) -> Any:
            program, guide = self._bound(self._named(parameters))
            return self._elbo(num_particles).loss(key, {}, self._listed(program), guide)

        with handlers.block():
            return jax.value_and_grad(loss)(parameters)

    def _elbo(self, num_particles: int) -> Any:
        if not self.structure.discrete:
            return Trace_ELBO(num_particles=num_particles)
        from numpyro.infer import TraceEnum_ELBO

        return TraceEnum_ELBO(num_particles=num_particles, max_plate_nesting=self.structure.plate_nesting)

    def _listed(self, program: Callable[[], Any]) -> Callable[[], Any]:
        """The program with its finite unknowns marked to be summed over."""
        if not self.structure.discrete:
            return program
        from numpyro.contrib.funsor import config_enumerate

        return config_enumerate(program)

    def guide_draws(self, key: Any, parameters: Any, num_draws: int) -> tuple[Any, Any]:
        """Draws of the guide as points z, (draw, dim), and log q with the log-Jacobians of the unknowns' bijections, (draw,)."""
        named = self._named(parameters)
        return jax.vmap(lambda k: self._draw(k, named))(jax.random.split(key, num_draws))

    def _draw(self, key: Any, named: Mapping[str, Any]) -> tuple[Any, Any]:
        program, guide = self._bound(named)
        with handlers.block():
            drawn = handlers.trace(handlers.seed(FullPlates(guide), key)).get_trace()
            values = {k: s["value"] for k, s in drawn.items() if s["type"] == "sample" and not s["is_observed"]}
            told = handlers.trace(
                handlers.seed(handlers.substitute(FullPlates(program), data=values), jax.random.key(0))
            ).get_trace()
        log_q, parts = jnp.zeros((), self.precision), []
        for name in self.structure.shapes:
            if name in self.points:
                parts.append(jnp.ravel(named[name]))
                continue
            transform = biject_to(told[name]["fn"].support)
            u = transform.inv(values[name])
            log_q += jnp.sum(drawn[name]["fn"].log_prob(values[name]))
            log_q += jnp.sum(transform.log_abs_det_jacobian(u, values[name]))
            parts.append(jnp.ravel(u))
        return jnp.concatenate(parts), log_q


@functools.lru_cache(maxsize=64)
def _pair(structure: Structure, guide: Callable[..., Any], shapes: tuple) -> Structure:
    """The structure with program and guide as functions of their parameters.

    Raises ValueError where the guide does not run on the data, or does not draw just the unknowns.
    """
    base = structure.program.program if isinstance(structure.program, Whole) else structure.program
    program = wrapped(base, settings(structure.static), shapes)
    abstract = {k: jax.ShapeDtypeStruct(shape, dtype) for k, shape, dtype in shapes}
    try:
        seen = taken(guide, {**abstract, **structure.static})
        arrays = {k: v for k, v in seen.items() if k in abstract}
        static = {k: v for k, v in seen.items() if k not in abstract}
        learned = wrapped(guide, settings(static), tuple(sorted((k, v.shape, str(v.dtype)) for k, v in arrays.items())))
        drawn = _sites(guide, arrays, static)
    except (TypeError, ValueError) as error:
        raise ValueError(f"The guide does not run on the data: {error}") from error
    finite = {site.name for site in structure.sites if site.kind == "latent" and site.discrete}
    if found := sorted(finite & set(drawn)):
        raise ValueError(
            f"The guide draws {found[0]!r}, which is finite and is summed out exactly: leave it out of the guide."
        )
    hidden = {s.name: s.shape for s in structure.sites if s.kind == "latent" and s.name not in finite}
    hidden = {k: v for k, v in hidden.items() if k not in program.parameters}
    check_drawn(hidden, {k: shape for k, (shape, _) in drawn.items()})
    return with_guide(structure, (program, learned, any(point for _, point in drawn.values())))


def _sites(
    guide: Callable[..., Any], arrays: Mapping[str, Any], static: Mapping[str, Any]
) -> dict[str, tuple[Any, bool]]:
    """The sites that a guide draws on the whole data: their shapes, and whether they are point masses."""
    found: dict[str, tuple[Any, bool]] = {}

    def look(arrays: Mapping[str, Any]) -> None:
        seeded = handlers.seed(FullPlates(lambda: guide(**arrays, **static)), jax.random.key(0))
        for name, site in handlers.trace(seeded).get_trace().items():
            if site["type"] == "sample" and not site["is_observed"]:
                found[name] = jnp.shape(site["value"]), isinstance(_innermost(site["fn"]), Delta)

    jax.eval_shape(look, arrays)
    return found


def _innermost(fn: Any) -> Any:
    while isinstance(fn, Independent | MaskedDistribution | ExpandedDistribution):
        fn = fn.base_dist
    return fn


def paired(target: NumpyroContinuous) -> NumpyroGuided:
    """The target with its author's guide; see `_pair`."""
    shapes = tuple(sorted((k, v.shape, str(v.dtype)) for k, v in target.arrays.items()))
    found = NumpyroGuided(_pair(target.structure, target.author_guide, shapes), target.arrays)
    found.author_guide, found.notes = target.author_guide, target.notes
    return found
