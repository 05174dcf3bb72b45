"""What a program of one point says as a mixture: its weights, the family of its components, and which parameter is which argument.

    p(x) = sum_k w_k p(x; theta_k)

A program without a mixture is one of a single component.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro import handlers

from probgen import runtime
from probgen.algorithm import Incompatible
from probgen.distributions import families, real_families

CHUNK = 1024  # rows at a time
LOOKAHEAD = 10  # steps by which starts are compared
POOLED = ("scale", "scale_tril")  # arguments that components or coordinates may share, of normal distributions


@dataclass(frozen=True)
class Mixture:
    """The parts of a mixture. site: of the point; arguments: of the components, with the label of the parameter that each is."""

    site: str
    num_components: int
    arguments: tuple[tuple[str, str], ...]
    weights: str  # its label; "" where they are not learned

    def of(self, target: Any, parameters: Mapping[str, Any]) -> tuple[Any, Any]:
        """log weights (component,) and the components' distribution, batch shape (component,), at constrained parameters."""
        return _parts(_distribution(target, parameters, self.site))

    def log_terms(self, target: Any, parameters: Mapping[str, Any], x: Any, units: Units) -> Any:
        """log w_k + log p(x; theta_k) of points (row, *event), one matrix product: (row, component)."""
        log_weights, components = self.of(target, parameters)
        family = families.of(components)
        eta, x = family.natural(units.measured(family, components)), units.inner(x)
        linear = family.statistics(x) @ eta.T + (log_weights - family.log_normaliser(eta))
        return linear + family.log_base(x)[:, None] - units.log_det

    def fitted(self, target: Any, parameters: Any, counts: Any, means: Any, units: Units) -> dict[str, Any]:
        """The parameters of largest likelihood, given how many rows each component has and its mean statistics.

        counts: (component,); means: (component, s), in the components' order and in units of the rows.
        """
        _, components = self.of(target, parameters)
        family = families.of(components)
        order = jnp.argsort(means[:, 0])  # components keep their names
        counts, means = counts[order], means[order]
        found = units.outer(family.arguments(family.fitted(means)))
        new = dict(parameters)
        for name, label in self.arguments:
            new[label] = _pooled(name, found[name], counts, parameters[label].shape)
        if self.weights:
            new[self.weights] = counts / counts.sum()
        return {k: v.astype(parameters[k].dtype) for k, v in new.items()}


class Units(NamedTuple):
    """Where sums over rows of a normal family are taken: (x - centre) / spread, (*event).

    Sums of x and x^2 about another point cancel: rows around 10^7 with sd 1 leave no digit of their variance. `plain` families,
    whose statistics are no powers, are taken as they are.
    """

    centre: Any
    spread: Any
    plain: bool

    def inner(self, x: Any) -> Any:
        """Points in these units."""
        return x if self.plain else (x - self.centre) / self.spread

    @property
    def log_det(self) -> Any:
        """log of the volume of one unit."""
        return 0.0 if self.plain else jnp.sum(jnp.log(self.spread))

    def measured(self, family: Any, components: Any) -> Any:
        """The components of points in these units."""
        if self.plain:
            return components
        own = family.arguments(components)
        loc = {"loc": (own["loc"] - self.centre) / self.spread}
        if "scale" in own:
            made = family.member(**loc, scale=own["scale"] / self.spread)
        else:
            made = family.member(**loc, scale_tril=own["scale_tril"] / self.spread[:, None])
        return made.to_event(len(family.coordinates))

    def outer(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments found in these units, in those of the rows."""
        if self.plain:
            return dict(arguments)
        wide = self.spread[:, None] if "scale_tril" in arguments else self.spread
        return {k: self.centre + self.spread * v if k == "loc" else wide * v for k, v in arguments.items()}


def units_of(mixture: Mixture, target: Any, parameters: Mapping[str, Any]) -> Units:
    """The mean and the sd of every coordinate of all rows; of a constant one 1."""
    x = rows_of(target)
    family = families.of(mixture.of(target, parameters)[1])
    if type(family) not in (real_families.Normal, real_families.MultivariateNormal):
        return Units(0.0, 1.0, True)
    away = x - x[0]
    centre = x[0] + away.mean(0)
    spread = jnp.sqrt(((x - centre) ** 2).mean(0))
    tiny = 4 * jnp.finfo(x.dtype).eps * jnp.abs(centre)
    return Units(centre, jnp.where(spread > tiny, spread, 1.0), False)


def found(target: Any) -> Mixture:
    """The mixture that a learnable program is, found before anything compiles; raises Incompatible, saying why, for another."""
    if target.structure not in _FOUND:
        with runtime.jax_scope(target.precision):
            _FOUND[target.structure] = _found(target)
    return _FOUND[target.structure]


def known(target: Any) -> Mixture | None:
    """What was found before, for compiled code."""
    return _FOUND.get(target.structure)


_FOUND: weakref.WeakKeyDictionary[Any, Mixture] = weakref.WeakKeyDictionary()  # by the structure of the target


def rows_of(target: Any) -> Any:
    """All rows of the one site: (row, *event)."""
    return next(iter(target.rows(slice(None)).values()))


def _found(target: Any) -> Mixture:
    if not target.normalised or len(target.visible) != 1:
        raise Incompatible("em needs a program that is a probability of one site; this has factors or several sites.")
    site = target.visible[0].name
    rng = np.random.default_rng(0)

    @jax.jit  # for one compilation in place of hundreds
    def look(target: Any, points: Any) -> tuple[Any, Any, Any]:
        parameters = target.structure.one.program.constrained(points)
        log_weights, components = _parts(_distribution(target, parameters, site))
        return parameters, log_weights, families.of(components).arguments(components)

    shapes = target.first_shapes()
    points = {k: rng.normal(size=v.shape).astype(v.dtype) for k, v in shapes.items()}  # in general position
    try:
        parameters, log_weights, values = jax.tree.map(np.asarray, look(target, points))
    except TypeError as error:
        raise Incompatible(f"em has no closed form for {site!r}: {error} Use inference='mle'.") from None
    labels = [(name, _label(parameters, value, name)) for name, value in values.items()]
    fixed = [name for name, label in labels if not label]
    if bad := [name for name in fixed if name not in POOLED]:
        raise Incompatible(
            f"em needs every argument of {site!r} to be a parameter; {bad[0]!r} is not one. Use inference='mle'."
        )
    arguments = tuple((name, label) for name, label in labels if label)
    weights = _label(parameters, np.exp(log_weights), "probs") if len(log_weights) > 1 else ""
    used = {label for _, label in arguments} | {weights}
    if unused := [k for k in parameters if k not in used]:
        raise Incompatible(f"em does not know what parameter {unused[0]!r} is to {site!r}. Use inference='mle'.")
    return Mixture(site, len(log_weights), arguments, weights)


def started(key: Any, mixture: Mixture, target: Any, parameters: Any, smoothing: float) -> dict[str, Any]:
    """Constrained parameters that fit the clusters of k-means.

    Clusters depend on the units: they are sought in rows of unit variances, and in rows without correlations; a few steps of
    expectation maximisation from either say which is better.
    """
    x, count = rows_of(target), mixture.num_components
    units = units_of(mixture, target, parameters)
    flat = units.inner(x).reshape(len(x), -1)
    keys = jax.random.split(key)
    tried = [kmeans(key, rows, count) for key, rows in zip(keys, (flat, whitened(flat)), strict=True)]
    if units.plain or flat.shape[1] == 1:
        tried = tried[:1]

    def from_labels(labels: Any) -> tuple[Any, Any]:
        hot = lambda rows, index: (jax.nn.one_hot(labels[index], count), jnp.zeros(len(index)))  # noqa: E731
        begun = maximised(mixture, target, parameters, x, hot, smoothing, units)[0]
        if len(tried) == 1:
            return begun, jnp.zeros(())

        def step(_: Any, carry: Any) -> Any:
            at = carry[0]
            new, _, log_p = maximised(mixture, target, at, x, shares(mixture, target, at, units), smoothing, units)
            return new, log_p

        return begun, jax.lax.fori_loop(0, LOOKAHEAD, step, (begun, jnp.zeros((), x.dtype)))[1]

    begun, log_p = jax.lax.map(from_labels, jnp.stack(tried))
    best = jnp.argmax(jnp.nan_to_num(log_p, nan=-jnp.inf))
    return {k: v[best] for k, v in begun.items()}


def whitened(x: Any) -> Any:
    """Rows (row, dim) of mean 0 without correlations and with unit variances; directions without any variance stay as they are."""
    values, vectors = jnp.linalg.eigh(x.T @ x / len(x))
    return x @ vectors / jnp.sqrt(jnp.where(values > 1e-9 * values[-1], values, 1.0))


def shares(mixture: Mixture, target: Any, parameters: Any, units: Units) -> Any:
    """Responsibilities of components at constrained parameters, and log p: (rows, their numbers) -> (row, component), (row,)."""

    def of(rows: Any, index: Any) -> tuple[Any, Any]:
        terms = mixture.log_terms(target, parameters, rows, units)
        return jax.nn.softmax(terms, axis=1), jax.nn.logsumexp(terms, axis=1)

    return of


def maximised(
    mixture: Mixture, target: Any, parameters: Any, x: Any, responsibilities: Any, smoothing: float, units: Units
) -> tuple[Any, Any, Any]:
    """Parameters of largest expected log likelihood, how many rows each component has, and the mean log p of a row.

    responsibilities: (rows, their numbers) -> shares (row, component) and log p (row,). Every component is given `smoothing` rows
    more, whose statistics are the mean over all rows and a ten thousandth of the program's own at its start: none can collapse
    onto a point.
    """
    _, components = mixture.of(target, parameters)
    family = families.of(components)
    index = jnp.arange(-(-len(x) // CHUNK) * CHUNK).reshape(-1, CHUNK)

    def add(total: Any, index: Any) -> Any:
        real = index < len(x)
        rows = x[jnp.minimum(index, len(x) - 1)]
        shares, log_p = responsibilities(rows, jnp.minimum(index, len(x) - 1))
        shares = shares * real[:, None]
        new = shares.sum(0), shares.T @ family.statistics(units.inner(rows)), jnp.sum(jnp.where(real, log_p, 0.0))
        return jax.tree.map(lambda a, b: a + b.astype(a.dtype), total, new), None

    size = family.statistics(x[:1]).shape[-1]
    zeros = lambda *shape: jnp.zeros(shape, x.dtype)  # noqa: E731
    zero = zeros(mixture.num_components), zeros(mixture.num_components, size), zeros()
    (counts, sums, log_p), _ = jax.lax.scan(add, zero, index)
    own = _own(family, components, units)
    imagined = (sums.sum(0) + 1e-4 * own) / (counts.sum() + 1e-4)
    means = (sums + smoothing * imagined) / (counts + smoothing)[:, None]
    return mixture.fitted(target, parameters, counts + smoothing, means, units), counts, log_p / len(x)


def _own(family: Any, components: Any, units: Units) -> Any:
    """The mean statistics of the program's own components; of those in units of the rows, which may be far off, a unit normal's."""
    if units.plain:
        return family.mean(components).mean(0)
    here = family.arguments(components)
    unit = {k: jnp.zeros_like(v) if k == "loc" else jnp.ones_like(v) for k, v in here.items()}
    if "scale_tril" in unit:
        unit["scale_tril"] = jnp.broadcast_to(jnp.eye(here["scale_tril"].shape[-1]), here["scale_tril"].shape)
    return family.mean(family.member(**unit).to_event(len(family.coordinates))).mean(0)


def kmeans(key: Any, x: Any, count: int, num_tries: int = 4, num_iterations: int = 30) -> Any:
    """The cluster of every point (row, dim): k-means++ starts, Lloyd's steps, the best of a few tries; (row,).

    Arthur and Vassilvitskii 2007, k-means++: the advantages of careful seeding.
    """
    norms = jnp.sum(x**2, axis=1)

    def squares(centres: Any) -> Any:
        return norms[:, None] - 2 * x @ centres.T + jnp.sum(centres**2, axis=1)

    def tried(key: Any) -> tuple[Any, Any]:
        first, *keys = jax.random.split(key, count)
        centres = jnp.zeros((count, x.shape[1]), x.dtype).at[0].set(x[jax.random.randint(first, (), 0, len(x))])

        def seed(i: Any, carry: Any) -> Any:
            centres, least = carry
            chosen = jax.random.categorical(jnp.stack(keys)[i - 1], jnp.log(jnp.maximum(least, 0.0)))
            centres = centres.at[i].set(x[chosen])
            return centres, jnp.minimum(least, squares(x[chosen][None])[:, 0])

        if count > 1:
            centres, _ = jax.lax.fori_loop(1, count, seed, (centres, squares(centres[:1])[:, 0]))

        def improve(_: Any, centres: Any) -> Any:
            hot = jax.nn.one_hot(jnp.argmin(squares(centres), axis=1), count, dtype=x.dtype)
            number = hot.sum(0)[:, None]
            return jnp.where(number > 0, hot.T @ x / jnp.maximum(number, 1), centres)

        centres = jax.lax.fori_loop(0, num_iterations, improve, centres)
        return squares(centres).min(1).sum(), centres

    costs, centres = jax.lax.map(tried, jax.random.split(key, num_tries))
    return jnp.argmin(squares(centres[jnp.argmin(costs)]), axis=1)


# ---- parts -------------------------------------------------------------------------------------------------------


def _distribution(target: Any, parameters: Mapping[str, Any], site: str) -> Any:
    program = target.structure.one.program.at(parameters)
    seeded = handlers.seed(lambda: program(**target.shared, **target.structure.static), jax.random.key(0))
    with handlers.block():
        fn = handlers.trace(seeded).get_trace()[site]["fn"]
    return getattr(fn, "bare", fn)


def _parts(fn: Any) -> tuple[Any, Any]:
    if isinstance(fn, dist.MixtureSameFamily):
        mixing: Any = fn.mixing_distribution
        return jnp.log(mixing.probs), fn.component_distribution
    return jnp.zeros(1), fn.expand((1,)) if not fn.batch_shape else fn


def _label(parameters: Mapping[str, Any], value: Any, name: str) -> str:
    """The parameter that an argument is, entry by entry; of scales also one that components or coordinates share."""
    for label, parameter in parameters.items():
        same = parameter.shape == value.shape or (len(value) == 1 and parameter.shape == value.shape[1:])
        shared = name in POOLED and parameter.ndim <= value.ndim
        try:
            if (same or shared) and bool(np.allclose(np.broadcast_to(parameter, value.shape), value, rtol=1e-5)):
                return label
        except ValueError:
            continue
    return ""


def _pooled(name: str, value: Any, counts: Any, shape: tuple[int, ...]) -> Any:
    """An argument (component, ...) in the shape of its parameter: shared variances are means over what shares them."""
    if value.shape == shape:
        return value
    if value.shape[1:] == shape and len(value) == 1:
        return value[0]
    weights = (counts / counts.sum()).reshape(-1, *(1,) * (value.ndim - 1))
    if name == "scale_tril":
        covariance = jnp.sum(weights * (value @ jnp.swapaxes(value, -1, -2)), axis=0)
        return jnp.linalg.cholesky(covariance).reshape(shape)
    variance, padded = value**2, (1,) * (value.ndim - len(shape)) + shape
    if padded[0] == 1:
        variance = jnp.sum(weights * variance, axis=0, keepdims=True)
    over = tuple(i for i in range(1, value.ndim) if padded[i] == 1)
    return jnp.sqrt(variance.mean(over, keepdims=True)).reshape(shape)
