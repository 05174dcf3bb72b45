"""Programs with parameters beside unknowns, on their whole data: a parameter is a point to be learned, an unknown has a posterior.

    s = numpyro.param("s", 1.0, constraint=positive)       a point
    mu = numpyro.sample("mu", dist.Normal(0, 10))          an unknown
    numpyro.sample("y", dist.Normal(mu, s), obs=y)

Every parameter becomes a site whose measure is flat in the coordinates of R^n, so that the log density of the program is one
function of points and unknowns together. Which algorithms may move points is said by `Inference.learns_points`. A parameter that
reaches nothing, as the weights of a network under `random_eqx_module`, which all have priors, is none.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
from numpyro import handlers
from numpyro.distributions import Distribution, biject_to, constraints
from numpyro.infer import init_to_uniform

from probgen.engine.numpyro.moves import NOISE, causes
from probgen.engine.numpyro.programs.parameters import initial, initial_arrays, labels


class PointMeasure(Distribution):
    """A measure on a constrained array that is flat in unconstrained coordinates: its log density is minus the log-Jacobian."""

    def __init__(self, shape: tuple[int, ...], constraint: Any):
        rest = len(shape) - constraint.event_dim
        self.constraint = constraints.independent(constraint, rest) if rest else constraint
        super().__init__((), shape, validate_args=False)

    @property
    def support(self) -> Any:
        return self.constraint

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        """The image of zero: a point has no prior to be drawn from."""
        transform = biject_to(self.constraint)
        return transform(jnp.zeros((*sample_shape, *transform.inverse_shape(self.event_shape))))

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        transform = biject_to(self.constraint)
        return -transform.log_abs_det_jacobian(transform.inv(value), value)


@dataclass(frozen=True)
class Whole:
    """A program whose parameters are sites of a flat measure, `w` or `net$params[0]` for the arrays of a tree."""

    program: Callable[..., Any]
    trees: tuple[tuple[str, Any], ...]  # parameter site and the tree of its value
    shapes: tuple[tuple[int, ...], ...]  # of the arrays of all of them
    constraints: tuple[Any, ...] = field(compare=False)
    idle: frozenset[str] = frozenset()  # arrays that reach nothing: no sites

    def __call__(self, **data: Any) -> Any:
        values, shapes = {}, iter(self.shapes)
        for (site, tree), constraint in zip(self.trees, self.constraints, strict=True):
            leaves = [self._leaf(label, next(shapes), constraint) for label in labels(site, tree)]
            values[site] = jax.tree.unflatten(tree, leaves)
        hidden = lambda site: site["type"] == "param"  # noqa: E731
        return handlers.block(handlers.substitute(self.program, data=values), hide_fn=hidden)(**data)

    def _leaf(self, label: str, shape: tuple[int, ...], constraint: Any) -> Any:
        return jnp.zeros(shape) if label in self.idle else numpyro.sample(label, PointMeasure(shape, constraint))

    def initial(self, arrays: Mapping[str, Any], static: Mapping[str, Any], key: Any) -> dict[str, Any]:
        """Where the program says that its parameters begin: unconstrained arrays by label."""
        return initial_arrays(self, arrays, static, key)

    @property
    def base(self) -> Callable[..., Any]:
        """The program as its author wrote it."""
        return self.program

    @property
    def __name__(self) -> str:
        return getattr(self.program, "__name__", "program")


@functools.lru_cache(maxsize=64)
def whole(program: Callable[..., Any], static: tuple, shapes: tuple) -> Whole:
    """The program with its parameters as sites."""
    abstract = {k: jax.ShapeDtypeStruct(shape, dtype) for k, shape, dtype in shapes}
    seen: list[tuple[str, Any, Any, list[tuple[int, ...]]]] = []

    def look(data: Mapping[str, Any]) -> None:
        for site, (value, constraint) in initial(
            program, {**data, **{k: v for k, v, _ in static}}, jax.random.key(0)
        ).items():
            leaves, tree = jax.tree.flatten(value)
            seen.append((site, tree, constraint, [jnp.shape(leaf) for leaf in leaves]))

    jax.eval_shape(look, abstract)
    trees = tuple((site, tree) for site, tree, *_ in seen)
    found = Whole(program, trees, tuple(s for *_, own in seen for s in own), tuple(c for _, _, c, _ in seen))
    return dataclasses.replace(found, idle=_idle(found, abstract, {k: v for k, v, _ in static}))


def _idle(found: Whole, arrays: Mapping[str, Any], static: Mapping[str, Any]) -> frozenset[str]:
    """The arrays of parameters on which no distribution and no value of the program depends; state that moves is none of these."""
    names = [label for site, tree in found.trees for label in labels(site, tree)]
    moving = {label for site, tree in found.trees if site in _states(found.program) for label in labels(site, tree)}

    def run(leaves: list[Any], data: Mapping[str, Any]) -> Any:
        rest, values = iter(leaves), {}
        for site, tree in found.trees:
            values[site] = jax.tree.unflatten(tree, [next(rest) for _ in labels(site, tree)])
        returned: list[Any] = []
        program = handlers.seed(lambda: returned.append(found.program(**data, **static)), jax.random.key(0))
        program = handlers.substitute(program, substitute_fn=init_to_uniform)
        trace = handlers.trace(handlers.substitute(program, data=values)).get_trace()
        sites = [site for site in trace.values() if site["type"] != "param"]
        given = [(site["fn"], site.get("scale")) for site in sites if site["type"] == "sample"]
        return [
            leaf for leaf in jax.tree.leaves((given, returned, [s["value"] for s in sites])) if hasattr(leaf, "dtype")
        ]

    leaves = [jnp.zeros(shape) for shape in found.shapes]
    jaxpr = jax.make_jaxpr(run)(leaves, arrays).jaxpr
    ends = [frozenset([(0, name)]) for name in names]
    ends += [frozenset([NOISE])] * (len(jaxpr.invars) - len(ends))
    reached = frozenset().union(*causes(jaxpr, ends))
    return frozenset(name for name in names if (0, name) not in reached) - moving


def _states(program: Any) -> set[str]:
    """The sites of state (`stated`) of a program, whatever it is wrapped in."""
    found: set[str] = set()
    while program is not None:
        found |= {name for name, _ in getattr(program, "kinds", ())}
        program = getattr(program, "program", None)
    return found
