"""Programs of one row with hidden sites, and a guide that draws them: a bound on the row's log probability.

    log p(x) >= E_{h ~ q(h | x)} [log p(x, h) - log q(h | x)]

The guide is a program too: it takes the row that the program would observe, and samples the hidden sites by their names. Parameters
that both call by one name are one parameter. Hidden sites of finitely many values are not drawn but summed over: terms count with
the guide's probability of the values. What the guide itself observes is learned beside the bound, such as known labels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.distributions import ExpandedDistribution, Independent, TransformedDistribution
from numpyro.distributions.kl import kl_divergence

from probgen import runtime
from probgen.data.checks import check_drawn, taken
from probgen.engine.numpyro.moves import heeded
from probgen.engine.numpyro.programs.parameters import Learned, initial_arrays, wrapped
from probgen.engine.numpyro.programs.structure import settings
from probgen.engine.numpyro.targets.learnable import NumpyroLearnable
from probgen.target import Arrays, Bounded, Variable


class Terms(NamedTuple):
    """Of one row and one draw h of the guide, in nats.

    likelihood: log p(x | h), (); kl: by hidden site log q(h | x) - log p(h), or its mean in closed form, then an array of the
    site's coordinates; log_ratio: log p(x, h) - log q(h | x), (), finite sites summed out of p; beside: log q of what the guide
    observes, ().
    """

    likelihood: Any
    kl: dict[str, Any]
    log_ratio: Any
    beside: Any


class NumpyroBounded(NumpyroLearnable, Bounded):
    """Rows, a program of one row with hidden sites, and its guide."""

    @property
    def guide(self) -> Learned:
        """The guide, its parameters as data."""
        return self.structure.guide

    def initial(self, key: Any, from_data: bool = True) -> dict[str, Any]:
        """The parameters of program and guide as labelled arrays, unconstrained, before learning."""
        found = initial_arrays(self.guide, self._seen(self._first()), {}, jax.random.fold_in(key, 1))
        found = {k: jnp.asarray(v, self.precision) for k, v in found.items()}
        begin = getattr(self.guide.program, "begin", None)  # of the default guide
        if begin and from_data:
            found |= {k: v.astype(self.precision) for k, v in begin(self.arrays).items()}
        return self.started(found) | super().initial(key, from_data)

    def constrained(self, answer: Mapping[str, Any]) -> dict[str, np.ndarray]:
        with runtime.jax_scope(self.precision):
            own = {k: np.asarray(v) for k, v in self.guide.constrained(answer).items()}
        return own | super().constrained(answer)

    def lowered(self) -> str:
        with runtime.jax_scope(self.precision):
            key = jax.random.key(0)
            parameters = self.first_shapes()
            row = jax.eval_shape(lambda arrays: type(self)(self.structure, arrays)._first(), self.arrays)
            terms = jax.jit(lambda arrays, *given: type(self)(self.structure, arrays).terms(*given))
            text = terms.lower(self.arrays, key, parameters, row).as_text()
        return super().lowered() + text

    def _first(self) -> dict[str, Any]:
        return jax.tree.map(lambda x: x[0], self.rows(jnp.arange(1)))

    @property
    def plain(self) -> NumpyroLearnable:
        """The same without its guide."""
        s = self.structure
        return NumpyroLearnable(s.but(guide=None, critic=None), self.arrays)

    def biased(self) -> NumpyroLearnable:
        return self.plain.biased()

    # ---- one row {site: array}, with its inputs by keyword

    def joint(self, parameters: Any, values: Any, key: Any = None) -> Any:
        return super().joint(parameters, values | {v.name: values[v.name].astype(int) for v in self.finite}, key)

    def _whole(self, row: Any) -> dict[str, Any]:
        """The row with levels as whole numbers, which programs use as indices, and inputs of their own dtype."""
        levels = {v.name: int for v in self.visible if v.kind == "levels"}
        kinds = levels | {k: self.arrays[k].dtype for k in self.inputs}
        return {k: v.astype(kinds[k]) if k in kinds else v for k, v in row.items()}

    def _seen(self, row: Any) -> dict[str, Any]:
        """What the guide takes."""
        row = self._whole(row)
        values = {k: row[site] for k, site in self.keywords.items()} | {k: row[k] for k in self.inputs}
        return taken(self.guide.program, {**self.structure.static, **self.rest, **values})

    @property
    def finite(self) -> list[Variable]:
        """Hidden sites of finitely many values."""
        return [v for v in self.hidden if v.kind in ("bits", "levels")]

    @property
    def beside(self) -> tuple[str, ...]:
        """Sites that the guide observes, whose log probability is learned beside the bound."""
        return self._of_guide(lambda site: not _drawn(site))

    @property
    def weighed_by_guide(self) -> tuple[str, ...]:
        """Hidden sites whose density in the guide a scale counts more or less than once, so that what it learns is no bound."""
        return self._of_guide(lambda site: _drawn(site) and site["scale"] is not None and not _is_one(site["scale"]))

    def _of_guide(self, which: Callable[[Any], bool]) -> tuple[str, ...]:
        """Names of some of the guide's sites."""
        guided = lambda parameters: self.guided(jax.random.key(0), parameters, self._first())  # noqa: E731
        found: list[str] = []
        look = lambda parameters: found.extend(k for k, site in guided(parameters).items() if which(site))  # noqa: E731
        with runtime.jax_scope(self.precision):
            jax.eval_shape(look, self.first_shapes())
        return tuple(found)

    def guided(
        self, key: Any, parameters: Any, row: Any, centre: bool = False, given: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The guide's sites: NumPyro's messages, by name; centre: every site at its middle instead of a draw; given: by name."""
        own = {k: parameters[k] for k in self.guide.parameters}
        program = handlers.seed(lambda: self.guide(**self._seen(row), **own), key)
        if centre:
            mode = {v.name for v in self.finite}
            middle = lambda site: (_mode if site["name"] in mode else _centre)(site["fn"]) if _drawn(site) else None  # noqa: E731
            program = handlers.substitute(program, substitute_fn=middle)
        if given:
            program = handlers.substitute(program, data=dict(given))
        with handlers.block():
            trace = handlers.trace(program).get_trace()
        return {k: site for k, site in trace.items() if site["type"] == "sample"}

    def draw(self, key: Any, parameters: Any, row: Any, centre: bool = False) -> dict[str, Any]:
        """Hidden sites drawn from the guide; centre: its middle."""
        sites = self.guided(key, parameters, row, centre)
        return {k: site["value"] for k, site in sites.items() if _drawn(site)}

    def told(self, parameters: Any, row: Any, hidden: Any, key: Any = None) -> dict[str, Any]:
        """The program's sites, hidden ones as given: NumPyro's messages, by name; those that lack are drawn."""
        row = self._whole(row)
        inputs = {k: row[k] for k in self.inputs}
        own = {k: parameters[k] for k in self.structure.parameters}
        program = lambda: self.structure.one.program(**self.structure.static, **self.rest, **inputs, **own)  # noqa: E731
        values = {k: v for k, v in row.items() if k not in inputs} | hidden
        seeded = handlers.seed(handlers.substitute(program, data=values), jax.random.key(0) if key is None else key)
        with handlers.block():
            trace = handlers.trace(seeded).get_trace()
        return {k: site for k, site in trace.items() if site["type"] == "sample"}

    def means(self, parameters: Any, values: Any) -> dict[str, Any]:
        """The visible sites' means given hidden sites and inputs, and visible ones that others depend on."""
        hidden = {v.name: values[v.name] for v in self.hidden}
        row = {k: v for k, v in values.items() if k not in hidden}
        hidden |= {v.name: hidden[v.name].astype(int) for v in self.finite}
        return self._middles(self.told(parameters, row, hidden))

    def imagined(self, key: Any, parameters: Any, row: Any) -> dict[str, Any]:
        """The visible sites' means, hidden sites and visible ones that others depend on drawn, with the inputs of a row, theirs."""
        inputs = {k: row[k] for k in self.inputs}
        told = self.told(parameters, inputs, {}, key)
        return self._middles(told) | self._leading(parameters, row, told) | inputs

    def rebuilt(self, key: Any, parameters: Any, row: Any) -> dict[str, Any]:
        """The visible sites' means given a draw of the guide, beside the row's own values of sites that others depend on."""
        told = self.told(parameters, row, self.draw(key, parameters, row))
        return self._middles(told) | self._leading(parameters, row, told) | {k: row[k] for k in self.inputs}

    def _leading(self, parameters: Any, row: Any, told: Any) -> dict[str, Any]:
        """The values, as reals, of visible sites that the distribution of another site depends on: by an abstract run."""
        hidden = {v.name: told[v.name]["value"] for v in self.hidden}
        values = {v.name: row[v.name] for v in self.visible}

        def laws(values: Any) -> Any:
            found = self.told(parameters, row | values, hidden)
            return {k: [x for x in jax.tree.leaves(found[k]["fn"]) if hasattr(x, "dtype")] for k in (*values, *hidden)}

        leading = heeded(laws, values)
        return {k: jnp.asarray(told[k]["value"], values[k].dtype) for k in values if k in leading}

    def _middles(self, told: Any) -> dict[str, Any]:
        return {v.name: _centre(told[v.name]["fn"]) for v in self.visible}

    def terms(self, key: Any, parameters: Any, row: Any) -> Terms:
        """What a bound is made of, by one draw of the guide; finite sites at all their values."""
        if not self.finite:
            return self._terms(key, parameters, row, {})[0]
        one = lambda given: self._terms(key, parameters, row, given)  # noqa: E731
        terms, log_q = jax.vmap(one)(_states(self.finite))
        mean = jax.tree.map(lambda x: jnp.tensordot(jnp.exp(log_q), x, 1), terms)
        return mean._replace(log_ratio=jax.nn.logsumexp(terms.log_ratio + log_q))

    def _terms(self, key: Any, parameters: Any, row: Any, given: dict[str, Any]) -> tuple[Terms, Any]:
        """The terms with some hidden sites given, and log q of those: ()."""
        sites = self.guided(key, parameters, row, given=given)
        q = {k: site for k, site in sites.items() if _drawn(site)}
        p = self.told(parameters, row, {k: site["value"] for k, site in q.items()}, jax.random.fold_in(key, 1))
        likelihood = sum(site_log_prob(site) for k, site in p.items() if k not in q)
        log_q = {k: site_log_prob(site) for k, site in q.items()}
        apart = {k: log_q[k] - site_log_prob(p[k]) for k in q}
        ordered = [k for k in p if k in q] == list(q)  # else a site's prior depends on what is drawn after it
        plain = [k for k in q if ordered and k not in given and q[k]["scale"] is None and p[k]["scale"] is None]
        closed = {k: _kl(q[k]["fn"], p[k]["fn"]) for k in plain}
        kl = {k: apart[k] if closed.get(k) is None else closed[k] for k in q}
        beside = sum((site_log_prob(site) for k, site in sites.items() if k not in q), jnp.zeros(()))
        terms = Terms(likelihood, kl, likelihood - sum(apart.values()), beside)
        return terms, sum((log_q[k] for k in given), jnp.zeros(()))

    def log_ratio(self, parameters: Any, fixed: Any, row: Any, hidden: Any, key: Any) -> Any:
        """log p(x, h) - log q(h | x) at given h, the guide under parameters of its own: (); and log p(x | h).

        key: that h was drawn by, so that noise of the guide's own, such as dropout's, is that of the draw.
        """
        q = self.guided(key, fixed, row, given=hidden)
        log_q = sum(site_log_prob(site) for site in q.values() if _drawn(site))
        p = self.told(parameters, row, hidden, jax.random.fold_in(key, 1))
        log_p = {k: site_log_prob(site) for k, site in p.items()}
        return sum(log_p.values()) - log_q, sum(x for k, x in log_p.items() if k not in hidden)

    # ---- many rows at once, of NumPy arrays

    def log_ratios(self, answer: Arrays, rows: Arrays, seed: tuple[int, int], num_particles: int) -> np.ndarray:
        with runtime.jax_scope("float32"):
            found = _log_ratios(self, _single(answer), _single(rows), _keys(seed, num_particles))
        return np.asarray(found, float)

    def codes(self, answer: Arrays, rows: Arrays, seed: tuple[int, int], num_samples: int) -> dict[str, np.ndarray]:
        with runtime.jax_scope("float32"):
            found = _draws(self, _single(answer), _single(rows), _keys(seed, max(num_samples, 1)), not num_samples)
        return {k: np.asarray(v) for k, v in found.items()}

    def decoded(self, answer: Arrays, values: Arrays) -> dict[str, np.ndarray]:
        with runtime.jax_scope("float32"):
            found = _means(self, _single(answer), _single(values))
        return {k: np.asarray(v) for k, v in found.items()}


def _single(arrays: Arrays) -> dict[str, Any]:
    return {k: jnp.asarray(v, "float32") for k, v in arrays.items()}


def _keys(seed: tuple[int, int], count: int) -> Any:
    return jax.random.split(jax.random.fold_in(jax.random.key(seed[0]), seed[1]), count)


@jax.jit
def _log_ratios(target: Any, parameters: Any, rows: Any, keys: Any) -> Any:
    """(row, draw)."""
    one = lambda row, i: jax.vmap(lambda k: target.terms(jax.random.fold_in(k, i), parameters, row).log_ratio)(keys)  # noqa: E731
    return jax.vmap(one)(rows, jnp.arange(len(next(iter(rows.values())))))


@functools.partial(jax.jit, static_argnums=4)
def _draws(target: Any, parameters: Any, rows: Any, keys: Any, centre: bool) -> Any:
    """(row, draw, *event)."""
    one = lambda row, i: jax.vmap(lambda k: target.draw(jax.random.fold_in(k, i), parameters, row, centre))(keys)  # noqa: E731
    return jax.vmap(one)(rows, jnp.arange(len(next(iter(rows.values())))))


@jax.jit
def _means(target: Any, parameters: Any, values: Any) -> Any:
    return jax.vmap(lambda row: target.means(parameters, row))(values)


def guided(target: NumpyroLearnable, guide: Callable[..., Any] | None) -> NumpyroLearnable:
    """The target with a guide, a default one where none is given; as it was where no guide can be.

    Raises ValueError where the guide does not run on a row, or does not draw just the hidden sites.
    """
    hidden = {v.name: v for v in target.hidden}
    if guide is None:
        if not hidden or not target.proper or any(v.kind != "reals" for v in hidden.values()):
            return target
        from probgen.nets.encoder import Encoder

        shapes = tuple((v.name, v.shape) for v in hidden.values())
        guide = Encoder(shapes, (*target.keywords, *target.inputs))
    with runtime.jax_scope(target.precision):
        kinds = {
            k: "int32" if target.variables[site].kind == "levels" else target.precision
            for k, site in target.keywords.items()
        }
        try:
            found = NumpyroBounded(target.structure.but(guide=companion(target, guide, kinds)), target.arrays)
            draw = lambda parameters: found.draw(jax.random.key(0), parameters, found._first())  # noqa: E731
            drawn = jax.eval_shape(draw, found.first_shapes())
        except (TypeError, ValueError) as error:
            raise ValueError(f"The guide does not run on a row: {error}") from error
    check_drawn({k: v.shape for k, v in hidden.items()}, {k: v.shape for k, v in drawn.items()})
    found.notes = target.notes
    with runtime.jax_scope(target.precision):
        _check_beside(found)
    return found


def companion(target: NumpyroLearnable, program: Callable[..., Any], kinds: Mapping[str, str]) -> Learned:
    """A program of what the data give for one row, such as a guide, with its parameters as data; kinds: of the rows by keyword."""
    row = {k: jax.ShapeDtypeStruct(target.arrays[k].shape[1:], kind) for k, kind in kinds.items()}
    row |= {k: jax.ShapeDtypeStruct(target.arrays[k].shape[1:], target.arrays[k].dtype) for k in target.inputs}
    known = {k: jax.ShapeDtypeStruct(jnp.shape(v), jnp.asarray(v).dtype) for k, v in target.rest.items()}
    arrays = taken(program, {**known, **row})
    rest = {k: v for k, v in target.structure.static.items() if k not in arrays and k not in target.keywords}
    shapes = tuple(sorted((k, v.shape, str(v.dtype)) for k, v in arrays.items()))
    return wrapped(program, settings(taken(program, rest)), shapes)


def _check_beside(target: NumpyroBounded) -> None:
    """Raise ValueError for the first row of which the guide observes something outside the support of its site."""
    names = target.beside
    if not names:
        return
    parameters = target.initial(jax.random.key(0))

    @jax.jit
    def good(rows: Any) -> Any:
        def one(row: Any) -> Any:
            sites = target.guided(jax.random.key(0), parameters, row)
            return {k: jnp.all(sites[k]["fn"].support(sites[k]["value"])) for k in names}

        return jax.vmap(one)(rows)

    for name, inside in good(target.rows(jnp.arange(target.num_rows))).items():
        if not inside.all():
            row = int(jnp.argmin(inside))
            told = {k: v[row].tolist() for k, v in target.arrays.items() if k in target.inputs and v.ndim == 1}
            which = f" ({', '.join(f'{k}: {v}' for k, v in told.items())})" if told else ""
            raise ValueError(
                f"Row {row}{which} is outside the support of what the guide observes at its site {name!r}."
            )


def _drawn(site: Mapping[str, Any]) -> bool:
    return site["type"] == "sample" and not site["is_observed"]


def _is_one(scale: Any) -> bool:
    return isinstance(scale, int | float) and scale == 1


def _states(sites: list[Variable]) -> dict[str, Any]:
    """All values of finite sites together: arrays (state, *event)."""
    units = [v.levels for v in sites for _ in range(v.size)]
    grid = np.stack([axis.ravel() for axis in np.meshgrid(*(np.arange(n) for n in units), indexing="ij")], -1)
    ends = np.cumsum([v.size for v in sites])[:-1]
    parts = np.split(grid.astype(np.int32), ends, axis=1)
    return {v.name: jnp.asarray(part.reshape(-1, *v.shape)) for v, part in zip(sites, parts, strict=True)}


def site_log_prob(site: Mapping[str, Any]) -> Any:
    """log p of a site's value, in nats, with its scale: ()."""
    fn, value = site["fn"], site["value"]
    log_prob = fn.log_prob(value, site["intermediates"]) if site["intermediates"] else fn.log_prob(value)
    scale = site["scale"]
    return jnp.sum(log_prob if scale is None else scale * log_prob)


def _kl(q: Any, p: Any) -> Any:
    """KL(q || p) in closed form, of every coordinate where they are independent; None where there is no such form."""
    while isinstance(q, Independent) and isinstance(p, Independent):
        q, p = q.base_dist, p.base_dist
    try:
        return kl_divergence(q, p)
    except NotImplementedError:
        return None


def _mode(fn: Any) -> Any:
    """The most probable value of a distribution over finitely many, its units independent."""
    while isinstance(fn, Independent):
        fn = fn.base_dist
    values = fn.enumerate_support()
    best = jnp.argmax(fn.log_prob(values), 0)
    return jnp.take_along_axis(values, best[None], 0)[0]


def _centre(fn: Any) -> Any:
    """The middle of a distribution: its mean, or what its transforms make of their base's."""
    if isinstance(fn, TransformedDistribution):
        x = _centre(fn.base_dist)
        for transform in fn.transforms:
            x = transform(x)
        return x
    if hasattr(fn, "flow"):  # of `probgen.nets.flows`
        return fn.bijection.transform(jnp.zeros(fn.event_shape), fn.condition)
    if isinstance(fn, Independent | ExpandedDistribution):
        return jnp.broadcast_to(_centre(fn.base_dist), fn.shape())
    return fn.mean
