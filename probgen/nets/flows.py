"""Normalizing flows: FlowJAX's layers, and those that it lacks, as distributions.

    x = T(u),  u ~ N(0, I),   log p(x) = log N(T^-1(x)) + log|det dT^-1/dx|

All but the inverse autoregressive flow go from x to u in one pass, which is what likelihoods ask for. Masks and permutations are
the same for every seed, since a program that runs again must mean the same flow.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from flowjax.bijections import AbstractBijection, Affine, Chain, Invert, Permute, RationalQuadraticSpline, Scan
from flowjax.distributions import StandardNormal, Transformed
from flowjax.flows import coupling_flow, masked_autoregressive_flow
from numpyro import handlers
from numpyro.distributions import Distribution, constraints
from paramax import Parameterize, unwrap

from probgen import runtime
from probgen.algorithm import Incompatible

NO_FLOW = "The program has no latent space: flows have one, and programs with hidden sites, learned by inference='svi'."


class Flow(Distribution):
    """A FlowJAX distribution as a NumPyro one.

    condition: what a conditional flow is given, (cond_dim,); None for one that is not.
    """

    def __init__(self, flow: Transformed, condition: Any = None, *, validate_args: bool | None = None):
        self.flow, self.condition = flow, condition
        super().__init__((), flow.shape, validate_args=validate_args)

    @constraints.dependent_property
    def support(self) -> Any:
        return constraints.independent(constraints.real, self.event_dim)

    @property
    def bijection(self) -> AbstractBijection:
        """T, of one point: `transform_and_log_det(u, condition)`, `inverse_and_log_det(x, condition)`."""
        return unwrap(self.flow.bijection)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
        return self.flow.sample(key if typed else jax.random.wrap_key_data(key), sample_shape, self.condition)

    def sample_with_intermediates(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        """Draws, and their log densities from the same pass: one that only goes from u to x needs no inverse of its own draws."""
        typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
        key = key if typed else jax.random.wrap_key_data(key)
        x, log_prob = self.flow.sample_and_log_prob(key, sample_shape, self.condition)
        return x, [log_prob]

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        return intermediates[0] if intermediates else self.flow.log_prob(value, self.condition)

    def tree_flatten(self) -> tuple[Any, Any]:
        arrays, rest = eqx.partition(self.flow, eqx.is_array)
        return (arrays, self.condition), rest

    @classmethod
    def tree_unflatten(cls, aux: Any, leaves: Any) -> Any:
        return cls(eqx.combine(leaves[0], aux), leaves[1])


def learned(fit: Any, **given: Any) -> Flow:
    """The flow that a fit has learned, to look inside or to use in another program: `numpyro.sample("z", learned(fit))`.

    given: the input of a conditional flow. Raises Incompatible where the program has no flow.
    """
    return _site(fit.condition(**given))[1]


def interpolated(fit: Any, ends: Any, num_points: int, **given: Any) -> dict[str, np.ndarray]:
    """Points whose noise u lies on the straight line between those of two points: {site: (num_points, *event)}.

    ends: (2, *event). Raises Incompatible where the program has no flow.
    """
    target = fit.condition(**given)
    with runtime.jax_scope(target.precision):
        if target.engine != "numpyro":
            raise Incompatible(NO_FLOW)
        return {k: np.asarray(v) for k, v in _line(target, jnp.asarray(ends, target.precision), num_points).items()}


@functools.partial(jax.jit, static_argnums=2)
def _line(target: Any, ends: Any, num_points: int) -> dict[str, Any]:
    name, flow = _site(target)
    inverse = lambda x: flow.bijection.inverse(x, flow.condition)  # noqa: E731
    between = lambda w: flow.bijection.transform((1 - w) * inverse(ends[0]) + w * inverse(ends[1]), flow.condition)  # noqa: E731
    return {name: jax.vmap(between)(jnp.linspace(0, 1, num_points))}


def _site(target: Any) -> tuple[str, Flow]:
    """The first site of a target that has a flow, and that; Incompatible where there is none."""
    for name, site in handlers.trace(target.structure.closed(target.arrays)).get_trace().items():
        if isinstance(site.get("fn"), Flow):
            return name, site["fn"]
    raise Incompatible(NO_FLOW)


def registered(name: str, make: Callable[[Any], Any], begin: Callable[[Any], Any] = lambda made: made) -> Any:
    """What make(key) returns, its real arrays registered as parameters under a name; all else must be the same for every key.

    begin: what is done to it before the first step of learning, where that depends on data.
    """
    rest = eqx.filter(make(_quick(jax.random.key(0))), eqx.is_inexact_array, inverse=True)
    initial = lambda key: eqx.filter(begin(make(_quick(key))), eqx.is_inexact_array)  # noqa: E731
    return eqx.combine(numpyro.param(f"{name}$params", initial), rest)


def _quick(key: Any) -> Any:
    """A key of XLA's own generator: dozens of draws compile in a fraction of the time that JAX's default takes."""
    return jax.random.wrap_key_data(jax.random.bits(key, (4,), jnp.uint32), impl="unsafe_rbg")


def coupling(
    name: str, dim: int, transformer: AbstractBijection, num_layers: int, width: int, depth: int, given: Any = None
) -> Flow:
    """A flow of coupling layers, its parameters registered under a name; dim is 2 or more.

    given: a vector, or a number, that every layer's network sees as well.
    """
    if dim < 2:
        raise ValueError(f"A coupling layer needs 2 coordinates or more; the data have {dim}. Use 'maf'.")
    return _layers(coupling_flow, name, dim, transformer, num_layers, width, depth, given)


def autoregressive(
    name: str, dim: int, transformer: AbstractBijection, num_layers: int, width: int, depth: int, given: Any = None,
    invert: bool = True,
) -> Flow:  # fmt: skip
    """A flow of masked autoregressive layers, its parameters registered under a name.

    given: as for `coupling`. invert: whether x to u is the way that takes one pass; else u to x is.
    """
    return _layers(masked_autoregressive_flow, name, dim, transformer, num_layers, width, depth, given, invert=invert)


def _layers(
    flow: Callable[..., Transformed], name: str, dim: int, transformer: AbstractBijection, num_layers: int, width: int,
    depth: int, given: Any, **settings: Any,
) -> Flow:  # fmt: skip
    if given is not None:
        given = jnp.atleast_1d(given)
        if given.ndim != 1:
            raise ValueError(f"given has shape {given.shape}; expected a vector: what one point is given.")

    def make(key: Any) -> Transformed:
        made = flow(
            key, base_dist=StandardNormal((dim,)), transformer=transformer, flow_layers=num_layers, nn_width=width,
            nn_depth=depth, nn_activation=jax.nn.relu, cond_dim=None if given is None else len(given), **settings,
        )  # fmt: skip
        return _arranged(made, num_layers, dim)

    return Flow(registered(name, make), given)


def _arranged(flow: Transformed, num_layers: int, dim: int) -> Transformed:
    """The flow with other permutations of its own: halves swap after every other layer, so that two layers move all of x."""
    rng = np.random.default_rng(0)
    swap = np.roll(np.arange(dim), -(dim // 2))
    orders = np.stack([rng.permutation(dim) if i % 2 else swap for i in range(num_layers)])
    found = (jnp.asarray(orders),), (jnp.asarray(np.argsort(orders, axis=1)),)

    def arrange(node: Any) -> Any:
        if not isinstance(node, Permute):
            return node
        return eqx.tree_at(lambda p: (p.permutation, p.inverse_permutation), node, found)

    return jax.tree.map(arrange, flow, is_leaf=lambda node: isinstance(node, Permute))


def stacked(name: str, dim: int, layer: Callable[[Any, int], AbstractBijection], num_layers: int) -> Flow:
    """A flow of unconditional layers from x to u, with a scale and a shift before them, registered under a name.

    layer: `(key, dim) -> AbstractBijection`.
    """

    def make(key: Any) -> Transformed:
        layers = Scan(eqx.filter_vmap(lambda key: layer(key, dim))(jax.random.split(key, num_layers)))
        scaled = Affine(jnp.zeros(dim), jnp.ones(dim))
        return Transformed(StandardNormal((dim,)), Invert(Chain([scaled, layers])))

    return Flow(registered(name, make))


def standardised(flow: Flow, centre: Any = 0.0, spread: Any = 1.0) -> Flow:
    """The flow of x = centre + spread y, y as the given flow says: an exact affine layer, which is not learned.

    centre, spread: numbers, or arrays that fill up to the shape of one point, such as (1, dim); `probgen.data.scales` finds them.
    """
    if _own_units(centre, spread):
        return flow
    shape = flow.event_shape
    to = lambda value: jnp.broadcast_to(fitting(value, shape), shape)  # noqa: E731
    outer = Transformed(flow.flow.base_dist, Chain([flow.flow.bijection, Units(to(centre), to(spread))]))
    return type(flow)(outer, flow.condition)


def _own_units(centre: Any, spread: Any) -> bool:
    """Whether these are the defaults, which change nothing."""
    return isinstance(centre, float | int) and isinstance(spread, float | int) and (centre, spread) == (0, 1)


def fitting(value: Any, shape: tuple[int, ...]) -> Any:
    """An array without the leading axis of one row, where it has one."""
    array = jnp.asarray(value, jnp.result_type(float))
    return array.reshape(array.shape[1:]) if array.ndim > len(shape) and array.shape[0] == 1 else array


def measured(given: Any, centre: Any = 0.0, spread: Any = 1.0) -> Any:
    """An input in units of its spread about its centre; None, or nothing, as it is."""
    if given is None or np.size(given) == 0 or _own_units(centre, spread):
        return given
    shape = np.shape(given)
    return (given - fitting(centre, shape)) / fitting(spread, shape)


class Units(AbstractBijection):
    """y -> centre + spread y, spread > 0."""

    centre: Any
    spread: Any
    shape: tuple[int, ...]
    cond_shape: None = None

    def __init__(self, centre: Any, spread: Any):
        self.centre, self.spread, self.shape = centre, spread, jnp.shape(centre)

    def transform_and_log_det(self, x: Any, condition: Any = None) -> tuple[Any, Any]:
        return self.centre + self.spread * x, jnp.log(self.spread).sum()

    def inverse_and_log_det(self, y: Any, condition: Any = None) -> tuple[Any, Any]:
        return (y - self.centre) / self.spread, -jnp.log(self.spread).sum()


# ---- layers that FlowJAX lacks -----------------------------------------------------------------------------------

LEAST = 0.01  # the least slope of a planar or radial layer, along its direction


def _slope(raw: Any) -> Any:
    """A slope above LEAST, less one; zero at zero."""
    return jax.nn.softplus(raw + jnp.log(jnp.expm1(1 - LEAST))) + LEAST - 1


class Planar(AbstractBijection):
    """x -> x + a tanh(w' x + b), where w' a > -1 by construction: a = v + (m(w' v) - w' v) w / |w|^2, m > -1.

    The identity at first, v = 0. Backwards, w' x is the root of r + w' a tanh(r + b) = w' y, which rises in r, by bisection.
    """

    w: Any
    v: Any
    b: Any
    shape: tuple[int, ...]
    cond_shape: None = None

    def __init__(self, key: Any, dim: int):
        normal = jax.random.normal(key, (dim + 1,))
        self.w, self.v, self.b, self.shape = normal[:-1], jnp.zeros(dim), normal[-1], (dim,)

    def _direction(self) -> tuple[Any, Any]:
        """a, and w' a."""
        along = self.w @ self.v
        slope = _slope(along)
        return self.v + (slope - along) * self.w / (self.w @ self.w), slope

    def transform_and_log_det(self, x: Any, condition: Any = None) -> tuple[Any, Any]:
        (a, slope), bend = self._direction(), jnp.tanh(self.w @ x + self.b)
        return x + a * bend, jnp.log1p(slope * (1 - bend**2))

    def inverse_and_log_det(self, y: Any, condition: Any = None) -> tuple[Any, Any]:
        (a, slope), along = self._direction(), self.w @ y
        reach = jax.lax.stop_gradient(jnp.abs(slope))
        low, high = jax.lax.stop_gradient(along) - reach, jax.lax.stop_gradient(along) + reach
        bend = jnp.tanh(rising_root(lambda r: r + slope * jnp.tanh(r + self.b) - along, low, high) + self.b)
        return y - a * bend, -jnp.log1p(slope * (1 - bend**2))


class Radial(AbstractBijection):
    """x -> x + beta h(r) (x - c), h(r) = 1 / (alpha + r), r = |x - c|, where alpha > 0 and beta > -alpha by construction.

    The identity at first, beta = 0. Backwards, r is the positive root of a quadratic equation.
    """

    centre: Any
    log_alpha: Any
    raw: Any
    shape: tuple[int, ...]
    cond_shape: None = None

    def __init__(self, key: Any, dim: int):
        self.centre, self.log_alpha, self.raw = jax.random.normal(key, (dim,)), jnp.zeros(()), jnp.zeros(())
        self.shape = (dim,)

    def _log_det(self, r: Any, alpha: Any, beta: Any) -> Any:
        """The slope is 1 + beta h across the radius and 1 + alpha beta h^2 along it."""
        h = 1 / (alpha + r)
        return (self.shape[0] - 1) * jnp.log1p(beta * h) + jnp.log1p(alpha * beta * h**2)

    def _numbers(self) -> tuple[Any, Any]:
        alpha = jnp.exp(self.log_alpha)
        return alpha, alpha * _slope(self.raw)

    def transform_and_log_det(self, x: Any, condition: Any = None) -> tuple[Any, Any]:
        alpha, beta = self._numbers()
        r = _length(x - self.centre)
        return x + beta / (alpha + r) * (x - self.centre), self._log_det(r, alpha, beta)

    def inverse_and_log_det(self, y: Any, condition: Any = None) -> tuple[Any, Any]:
        alpha, beta = self._numbers()
        length = _length(y - self.centre)
        half = (alpha + beta - length) / 2  # r^2 + 2 half r - alpha length = 0
        root = jnp.sqrt(half**2 + alpha * length)
        r = jnp.where(half > 0, alpha * length / (jnp.abs(half) + root), root - half)
        return self.centre + (y - self.centre) / (1 + beta / (alpha + r)), -self._log_det(r, alpha, beta)


def _length(x: Any) -> Any:
    """|x|, whose gradient at zero is zero."""
    square = x @ x
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def rising_root(f: Callable[[Any], Any], low: Any, high: Any) -> Any:
    """The root of a rising function of one number between two bounds, by bisection to the last bit.

    Derivatives of any order are those of the implicit function.
    """

    def solve(f: Callable[[Any], Any], _: Any) -> Any:
        def halve(_: Any, ends: tuple[Any, Any]) -> tuple[Any, Any]:
            middle = (ends[0] + ends[1]) / 2
            above = f(middle) > 0
            return jnp.where(above, ends[0], middle), jnp.where(above, middle, ends[1])

        ends = jax.lax.fori_loop(0, jnp.finfo(low.dtype).nmant + 4, halve, (low, high))
        return (ends[0] + ends[1]) / 2

    return jax.lax.custom_root(f, low, solve, lambda slope, y: y / slope(jnp.ones_like(y)))


# ---- transformers ------------------------------------------------------------------------------------------------


class BoundedAffine(AbstractBijection):
    """x -> shift + x exp(s), s = bound tanh(raw / bound): the transformer of coupling and autoregressive layers."""

    shift: Any
    raw: Any
    bound: float
    shape: tuple[int, ...] = ()
    cond_shape: None = None

    def __init__(self, bound: float):
        self.shift, self.raw, self.bound = jnp.zeros(()), jnp.zeros(()), bound

    def _log_scale(self) -> Any:
        return self.bound * jnp.tanh(self.raw / self.bound)

    def transform_and_log_det(self, x: Any, condition: Any = None) -> tuple[Any, Any]:
        log_scale = self._log_scale()
        return self.shift + x * jnp.exp(log_scale), log_scale.sum()

    def inverse_and_log_det(self, y: Any, condition: Any = None) -> tuple[Any, Any]:
        log_scale = self._log_scale()
        return (y - self.shift) * jnp.exp(-log_scale), -log_scale.sum()


def smooth_spline(knots: int, interval: float) -> AbstractBijection:
    """A rational-quadratic spline, the identity at first, whose slope is one at the ends of its interval, as outside.

    FlowJAX's own lets the slope jump there; log q then jumps too, and path gradients, blind to a jump, let a guide cut
    off a tail. Slopes are at least 0.05 and bins at least 0.05 wide for the same reason.
    """
    least = 0.05

    def slopes(raw: Any) -> Any:
        inner = least + (1 - least) * jax.nn.softplus(raw + jnp.log(jnp.e - 1))
        return jnp.pad(inner, [(0, 0)] * (inner.ndim - 1) + [(1, 1)], constant_values=1.0)

    spline = RationalQuadraticSpline(knots=knots, interval=interval, min_derivative=least, min_width=least)
    return eqx.tree_at(lambda node: node.derivatives, spline, Parameterize(slopes, jnp.zeros(knots)))
