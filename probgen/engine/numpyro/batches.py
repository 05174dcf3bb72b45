"""NumPyro programs of a batch of rows, as the library's examples write them, read as programs of one row.

    decode = numpyro.module("decoder", net, (len(x), 8))
    with numpyro.plate("batch", len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1).expand([8]).to_event(1))
        numpyro.sample("x", dist.Bernoulli(decode(z)).to_event(1), obs=x)

Where every site stands in a plate over the rows, its first axis, the program is run on a batch of one, whose sites lose the axis.
The rows are independent then; that this holds is looked at, as networks that mix the rows of a batch break it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.interpreters import partial_eval
from numpyro import handlers
from numpyro.distributions import Delta, Distribution, ExpandedDistribution, Independent
from numpyro.infer import init_to_uniform
from numpyro.infer.util import log_density
from numpyro.primitives import Messenger

from probgen.data.checks import taken
from probgen.engine.numpyro import row_data
from probgen.engine.numpyro.one_row import First
from probgen.engine.numpyro.programs.messengers import Free, FullPlates
from probgen.engine.numpyro.programs.parameters import Learned
from probgen.engine.numpyro.targets import draws
from probgen.engine.numpyro.wrapped import innermost
from probgen.programs.about import About
from probgen.target import Implicit

FEW = 3  # rows on which a program is looked at


TOLERANCE = 1e-3  # of the log density of rows at once against the sum of theirs


Arrays = Mapping[str, Any]


@dataclass(frozen=True)
class OfBatch(About):
    """The program of one row.

    rows: keywords of observed rows, their sites, and the shape of a row as the program takes it, which may be another than its
    site's; inputs: keywords of which a row has a slice. A row that is not given stands as zeros.
    """

    program: Callable[..., Any]
    rows: tuple[tuple[str, str, tuple[int, ...], str], ...]
    inputs: tuple[str, ...]
    subsample: int = 0  # rows that the program's plate draws a step, where it does

    def __call__(self, **data: Any) -> Any:
        batches, known = {k: data[k][None] for k in self.inputs if data.get(k) is not None}, {}
        for keyword, site, shape, kind in self.rows:
            row = data.get(keyword)
            if row is None:
                known[site] = None
            elif keyword in data:
                known[site] = row
            zeros = jnp.zeros((1, *shape), jax.dtypes.canonicalize_dtype(kind))
            batches[keyword] = zeros if row is None else jnp.reshape(row, (1, *shape))
        wanted = inspect.signature(self.program).parameters
        batches = {k: v for k, v in batches.items() if k in wanted or k in data}
        with _One(known):
            return self.program(**{**data, **batches})

    @property
    def __signature__(self) -> inspect.Signature:
        """The program's, but that the observed rows need not be given."""
        said, rows = inspect.signature(self.program), {k for k, *_ in self.rows}
        free = lambda p: p.replace(default=None, kind=p.KEYWORD_ONLY) if p.name in rows else p  # noqa: E731
        kept = [free(p) for p in said.parameters.values()]
        return said.replace(parameters=sorted(kept, key=lambda p: (p.kind, p.default is not p.empty)))


class _One(Messenger):
    """Effect handler: sites of a batch of one lose its axis; what is known of them is put in, None for what is drawn."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        self.known = known
        super().__init__()

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "plate":
            msg["args"], msg["value"] = (msg["args"][0], None), jnp.arange(msg["args"][0])
            msg["stop"] = True  # nobody outside needs its indices
        if msg["type"] == "sample":
            msg["fn"] = first(msg["fn"])
            msg["cond_indep_stack"] = [f for f in msg["cond_indep_stack"] if f.dim != -1 - len(msg["fn"].batch_shape)]
            if msg["name"] in self.known:
                msg["value"], msg["is_observed"] = self.known[msg["name"]], self.known[msg["name"]] is not None
            elif msg["value"] is not None:
                msg["value"] = msg["value"][0]
        if msg["type"] == "deterministic":
            value: Any = msg["value"]
            msg["value"] = value[0] if jnp.shape(value)[:1] == (1,) else value

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "sample":
            msg["value"] = msg["value"][None]


def first(fn: Distribution) -> Distribution:
    """The distribution of the one row of a batch: of the same class where that is known to be possible."""
    if isinstance(fn, Delta):
        point: Any = fn
        return Delta(point.v[0], jnp.broadcast_to(point.log_density, fn.batch_shape)[0], fn.event_dim)
    if isinstance(fn, Independent):
        if fn.batch_shape:
            return first(fn.base_dist).to_event(fn.reinterpreted_batch_ndims)
    elif isinstance(fn, ExpandedDistribution):
        base = fn.base_dist
        base = first(base) if len(base.batch_shape) == len(fn.batch_shape) else base
        return base.expand(fn.batch_shape[1:]) if base.batch_shape != fn.batch_shape[1:] else base
    elif made := _made_anew(fn):
        return made
    return First(fn)


def _made_anew(fn: Distribution) -> Distribution | None:
    """The same class at its parameters' first row; None where parameters do not say all of it."""
    kind, count = type(fn), len(fn.batch_shape)
    words = [p for p in inspect.signature(kind.__init__).parameters if p not in ("self", "validate_args")]
    if not words or set(words) != set(kind.arg_constraints) or not set(words) <= {*vars(fn)}:
        return None
    parameters = {}
    for word in words:
        value, event = getattr(fn, word), kind.arg_constraints[word].event_dim
        parameters[word] = value[0] if jnp.ndim(value) - event == count else value
    made = kind(**parameters)
    return made if made.batch_shape == fn.batch_shape[1:] and made.event_shape == fn.event_shape else None


def rows_of(program: Callable[..., Any], arrays: Arrays, static: Arrays, precision: str) -> Any:
    """The target of learning of a program of a batch of rows; None for another."""
    try:
        found = _of_batch(program, arrays, static)
        if found is None:
            return None
        one, shapes = found
        rows = {k: np.reshape(v, (len(v), *shapes[k])) if k in shapes else v for k, v in arrays.items()}
        names = [k for k, *_ in one.rows]
        target = row_data.rows_with(one, rows, static, precision, names, [*names, *one.inputs])
    except Exception:
        return None
    return target if target is not None and _adds_up(one, target, arrays, static) else None


def guide_of(target: Any, guide: Callable[..., Any]) -> Callable[..., Any]:
    """A guide of batches as one of a row, where the target's program is such."""
    base = getattr(target.structure.one.program, "program", None)
    if not isinstance(base, OfBatch):
        return guide
    shapes = {k: shape for k, _, shape, _ in base.rows}
    arrays = {k: np.reshape(v, (len(v), *shapes[k])) if k in shapes else v for k, v in target.arrays.items()}
    data = taken(guide, {**target.structure.static, **arrays})
    arrays = {k: v for k, v in data.items() if k in arrays}
    static = {k: v for k, v in data.items() if k not in arrays}
    sliced = [k for k in (*shapes, *base.inputs) if k in arrays]
    few, more = (_seen(guide, arrays, static, sliced, count) for count in (FEW, FEW + 2))
    if few is None or more is None or few.parameters != more.parameters:
        raise ValueError(
            "The guide is not one of rows, as the program is: every site in a plate over them, parameters for all rows alike."
        )
    return OfBatch(guide, base.rows, base.inputs)


def _of_batch(program: Callable[..., Any], arrays: Arrays, static: Arrays) -> tuple[OfBatch, dict[str, Any]] | None:
    """The program of one row, and the shapes of the rows' sites by keyword."""
    counts = {len(v) for v in arrays.values() if np.ndim(v)}
    for count in sorted(counts, reverse=True):
        sliced = [k for k, v in arrays.items() if np.ndim(v) and len(v) == count]
        if count < 2 or (seen := _seen(program, arrays, static, sliced, FEW)) is None:
            continue
        again = _seen(program, arrays, static, sliced, FEW + 2)
        same = again is not None and again.parameters == seen.parameters and seen.parameters
        if not same or not seen.sources or seen.entangled:
            continue
        rows = tuple((k, site, np.shape(arrays[k])[1:], str(arrays[k].dtype)) for site, k in seen.sources.items())
        inputs = tuple(k for k in sliced if k not in seen.sources.values())
        shapes = {k: seen.shapes[site][1:] for site, k in seen.sources.items()}
        return OfBatch(program, rows, inputs, seen.subsample), shapes
    return None


@dataclass
class _Seen:
    """Of a program on a few rows: parameters' shapes; sites' shapes; observed sites that are rows of a keyword, reshaped at most;
    whether such a keyword is used for more than being observed; rows that a plate would draw."""

    parameters: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    sources: dict[str, str]
    entangled: bool
    subsample: int


def _seen(program: Callable[..., Any], arrays: Arrays, static: Arrays, sliced: list[str], count: int) -> _Seen | None:
    """What is seen of a program on so many rows; None where a site does not stand in a plate over them."""
    index = np.arange(count)
    some = {k: v[index % len(v)] if k in sliced else v for k, v in arrays.items()}
    sites: dict[str, Any] = {}
    parameters: dict[str, Any] = {}
    plates = _Noted()

    def look(some: Arrays) -> Any:
        free = Free()
        seeded = handlers.seed(lambda: program(**some, **static), jax.random.key(0))
        with free, plates:
            trace = handlers.trace(handlers.substitute(seeded, substitute_fn=init_to_uniform)).get_trace()
        parameters.update({k: jax.tree.map(jnp.shape, trace[k]["value"]) for k in free.names})
        found = {k: s for k, s in trace.items() if s["type"] == "sample"}
        if any(s["type"] == "mutable" for s in trace.values()):
            raise ValueError("state")
        sites.update({k: _site(s, count) for k, s in found.items()})
        return {k: s["value"] for k, s in found.items()}, {k: jax.tree.leaves(s["fn"]) for k, s in found.items()}

    jaxpr, (values, leaves) = jax.make_jaxpr(look, return_shape=True)(some)
    if not sites or not all(s["in_rows"] for s in sites.values()):
        return None
    names, out = sorted(some), jaxpr.jaxpr.outvars
    given = dict(zip(names, jaxpr.jaxpr.invars, strict=True))
    order = jax.tree.leaves(({k: k for k in values}, jax.tree.map(lambda _: "", leaves)))
    held = {site: v for site, v in zip(order, out, strict=True) if site and sites[site]["observed"]}
    sources = {site: _origin(jaxpr.jaxpr, v, given) for site, v in held.items()}
    if any(k not in sliced for k in sources.values()):
        return None
    rest = [v for site, v in zip(order, out, strict=True) if site not in held]
    used = _reached(jaxpr.jaxpr, [given[k] for k in sources.values()], rest)
    if sources and not _are(_values(jaxpr, order, [*sources], some), sources, some):
        return None
    return _Seen(parameters, {k: v.shape for k, v in values.items()}, sources, used, plates.subsample)


class _Noted(FullPlates):
    """The same; notes how many rows a plate would draw."""

    subsample = 0

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "plate" and msg["value"] is None and msg["args"][1]:
            self.subsample = msg["args"][1]
        super().process_message(msg)


def _values(jaxpr: Any, order: list[str], sites: list[str], some: Arrays) -> dict[str, Any]:
    """The values of some results of traced code, by the few equations that they come of: nothing else is run or compiled."""
    wanted = [site in sites for site in order]
    few, needed = partial_eval.dce_jaxpr(jaxpr.jaxpr, wanted)
    given = [v for v, is_needed in zip(jax.tree.leaves(some), needed, strict=True) if is_needed]
    found = jaxpr_as_fun(ClosedJaxpr(few, jaxpr.consts))(*given)
    return dict(zip([site for site in order if site in sites], found, strict=True))


def _are(values: Arrays, sources: Mapping[str, str], some: Arrays) -> bool:
    """Whether the values of sites are those of their keywords."""
    return all(np.array_equal(np.ravel(values[site]), np.ravel(some[k])) for site, k in sources.items())


def _site(site: Mapping[str, Any], count: int) -> dict[str, Any]:
    fn = site["fn"]
    frames = [f for f in site["cond_indep_stack"] if f.dim == -len(fn.batch_shape) and f.size == count]
    plain = site["scale"] is None or (isinstance(site["scale"], int | float) and site["scale"] == 1)
    whole = fn.batch_shape[:1] == (count,) and bool(frames) and plain and type(fn).__name__ != "Unit"
    return {"in_rows": whole, "observed": site["is_observed"]}


_SAME = ("reshape", "squeeze", "expand_dims", "convert_element_type", "copy", "device_put", "stop_gradient", "gather")


def _origin(jaxpr: Any, variable: Any, given: Mapping[str, Any]) -> str:
    """The keyword whose array a value is, reshaped or taken by a plate's indices at most; empty where there is none."""
    made = {id(v): equation for equation in jaxpr.eqns for v in equation.outvars}
    names = {id(v): k for k, v in given.items()}
    while id(variable) not in names:
        equation = made.get(id(variable))
        if equation is None:
            return ""
        if equation.primitive.name in ("pjit", "jit", "closed_call", "custom_jvp_call"):
            inner = next((p for p in equation.params.values() if hasattr(p, "jaxpr")), None)
            if inner is None:
                return ""
            at = [id(v) for v in equation.outvars].index(id(variable))
            own = {str(i): v for i, v in enumerate(inner.jaxpr.invars)}
            word = _origin(inner.jaxpr, inner.jaxpr.outvars[at], own)
            if not word:
                return ""
            variable = equation.invars[int(word)]
        elif equation.primitive.name in _SAME and math.prod(variable.aval.shape) == math.prod(
            equation.invars[0].aval.shape
        ):
            variable = equation.invars[0]
        else:
            return ""
    return names[id(variable)]


def _reached(jaxpr: Any, begins: list[Any], ends: list[Any]) -> bool:
    """Whether any of the ends depends on any of the begins."""
    moved = {id(v) for v in begins}
    for equation in jaxpr.eqns:
        if any(id(v) in moved for v in equation.invars):
            moved |= {id(v) for v in equation.outvars}
    return any(id(v) in moved for v in ends)


def _adds_up(one: OfBatch, target: Any, arrays: Arrays, static: Arrays) -> bool:
    """Whether the program's log density of a few rows at once is the sum of theirs, at values in general position."""
    rng, count = np.random.default_rng(0), min(FEW, target.num_rows)
    begun = target.initial(jax.random.key(0), from_data=False)
    parameters = {k: v + 0.1 * jnp.asarray(rng.normal(size=v.shape), v.dtype) for k, v in begun.items()}
    hidden = {v.name: _anywhere(v, count, rng, target.precision) for v in target.hidden}
    rows = target.rows(slice(count))
    if isinstance(target, Implicit):
        return _same_draws(one, target, arrays, static, parameters, hidden)
    single = [
        target.joint(parameters, {**{k: v[i] for k, v in rows.items()}, **{k: v[i] for k, v in hidden.items()}})
        for i in range(count)
    ]
    sliced = {*one.inputs, *(k for k, *_ in one.rows)}
    some = {k: jnp.asarray(v[:count]) if k in sliced else v for k, v in arrays.items()}
    whole = target.structure.one.program
    program = handlers.seed(FullPlates(_At(whole, parameters)), jax.random.key(0))
    both = log_density(program, (), {**some, **static}, hidden)[0]
    return bool(abs(sum(single) - both) <= TOLERANCE * (1 + abs(both)))


def _same_draws(one: OfBatch, target: Any, arrays: Arrays, static: Arrays, parameters: Arrays, hidden: Arrays) -> bool:
    """Whether the program draws the same points for a few rows at once as for each alone, at the same noise."""
    count = min(FEW, target.num_rows)
    noise = {k: v for k, v in hidden.items() if k in set(target.named("latent"))}
    alone = draws.of_rows(target, jax.random.key(0), parameters, target.rows(slice(count)), noise)
    sliced = {*one.inputs, *(k for k, *_ in one.rows)}
    some = {k: jnp.asarray(v[:count]) if k in sliced else v for k, v in arrays.items()}
    whole = FullPlates(_At(target.structure.one.program, parameters))
    seeded = handlers.seed(handlers.substitute(whole, data=noise), jax.random.key(0))
    trace = handlers.trace(seeded).get_trace(**some, **static)
    sites = [(v.name, jnp.asarray(innermost(trace[v.name]["fn"]).v)) for v in target.visible]
    return all(np.allclose(np.ravel(x), np.ravel(alone[k]), rtol=TOLERANCE, atol=TOLERANCE) for k, x in sites)


def _anywhere(variable: Any, count: int, rng: Any, precision: str) -> Any:
    """Values of a hidden site: (row, *shape)."""
    shape = (count, *variable.shape)
    if variable.levels:
        return jnp.asarray(rng.integers(0, variable.levels, shape))
    return jnp.asarray(rng.uniform(0.2, 0.8, shape), precision)


class _At:
    """The author's program at parameters."""

    def __init__(self, program: Learned, parameters: Arrays) -> None:
        self.program, self.parameters = program, parameters

    def __call__(self, **data: Any) -> Any:
        own = self.program.constrained({k: self.parameters[k] for k in self.program.parameters})
        base = self.program.at(own)
        return handlers.substitute(self.program.program.program, data=base.data)(**data)
