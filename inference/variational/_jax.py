"""Guides on NumPyro targets: FlowJAX distributions, split into a flat vector of parameters and a static rest."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from flowjax.bijections import AbstractBijection, Chain
from flowjax.distributions import AbstractDistribution, StandardNormal, Transformed
from jax.flatten_util import ravel_pytree

from probgen import runtime
from probgen.inference.variational._guide import LARGEST, Anchor, Guide, parted
from probgen.target import SubsampledContinuous


class Parts(NamedTuple):
    """A guide taken apart: initial parameters (parameter,), and the function that builds the guide from parameters."""

    flat: Any
    build: Callable[[Any], AbstractDistribution]


@functools.lru_cache(maxsize=64)
def parts(settings: Guide, dim: int, precision: str) -> Parts:
    """The guide of some settings, its static rest made once: masks and permutations are constants of compiled code."""

    def make() -> Parts:
        with runtime.in_precision(precision):
            guide = settings.jax_guide(jax.random.key(0), dim)
            arrays, static = eqx.partition(guide, eqx.is_inexact_array)
            flat, unravel = ravel_pytree(arrays)
            return Parts(flat, lambda parameters: eqx.combine(unravel(parameters), static))

    with ThreadPoolExecutor(1) as pool:  # a thread of its own stands outside of any trace
        return pool.submit(make).result()


def initial(settings: Guide, key: Any, target: Any) -> Any:
    """The parameters before the first step: (parameter,)."""
    del key  # guides begin at the whitened normal, whose noise alone depends on the seed
    return parts(settings, target.dim, target.precision).flat


def loss_and_gradient(settings: Guide, key: Any, parameters: Any, anchor: Anchor, target: Any) -> tuple[Any, Any]:
    """Minus the ELBO, estimated from `num_particles` draws, and its gradient: (), (parameter,)."""
    k_draw, k_rows = jax.random.split(key)
    estimate = lambda z: target.minibatch_log_density(k_rows, z)  # noqa: E731
    minibatch = settings.minibatch and isinstance(target, SubsampledContinuous)
    batch = jax.vmap(estimate) if minibatch else target.log_density_batch

    def loss(parameters: Any) -> Any:
        parameters, unknowns = parted(target, parameters)
        build = parts(settings, unknowns.dim, target.precision).build
        density = (lambda u: batch(unknowns.whole(u))) if target.points else batch
        if settings.gradient == "path":
            u = build(parameters).sample(k_draw, (settings.num_particles,))
            log_q = build(jax.lax.stop_gradient(parameters)).log_prob(u)
        else:
            u, log_q = build(parameters).sample_and_log_prob(k_draw, (settings.num_particles,))
        return jnp.mean(log_q - density(anchor.place(u))) - anchor.log_det(jnp)

    return jax.value_and_grad(loss)(parameters)


def draws(settings: Guide, key: Any, parameters: Any, anchor: Anchor, target: Any) -> tuple[Any, Any]:
    """`num_draws` draws of the guide, (draw, dim), and their log q, (draw,)."""
    parameters, unknowns = parted(target, parameters)
    guide = parts(settings, unknowns.dim, target.precision).build(parameters)
    u, log_q = guide.sample_and_log_prob(key, (settings.num_draws,))
    z = anchor.place(u)
    return unknowns.whole(z) if target.points else z, log_q - anchor.log_det(jnp)


def affine(dim: int, dense: bool = True) -> AbstractBijection:
    """u -> shift + A u, the identity at first; A is lower triangular with a positive diagonal, or diagonal."""
    return Affine(dim, dense)


def normal(bijection: AbstractBijection) -> Transformed:
    """The distribution of a bijection of standard normal noise."""
    return Transformed(StandardNormal(bijection.shape), bijection)


def flow(transformed: Transformed) -> Transformed:
    """A flow that begins near the identity, with an affine map behind it."""
    dim = transformed.shape[0]
    return normal(Chain([_near_identity(transformed.bijection), affine(dim, dense=dim <= LARGEST)]))


def _near_identity(bijection: AbstractBijection) -> AbstractBijection:
    """The bijection with the last layer of each of its networks made small."""
    is_net = lambda node: isinstance(node, eqx.nn.MLP)  # noqa: E731
    small = lambda leaf: 0.01 * leaf if eqx.is_inexact_array(leaf) else leaf  # noqa: E731

    def calm(node: Any) -> Any:
        return (
            eqx.tree_at(lambda net: net.layers[-1], node, replace_fn=lambda last: jax.tree.map(small, last))
            if is_net(node)
            else node
        )

    return jax.tree.map(calm, bijection, is_leaf=is_net)


class Affine(AbstractBijection):
    """u -> shift + A u, the identity at first; A is exp(log_scale) on the diagonal, and below it `lower` or zero."""

    shift: Any
    log_scale: Any
    lower: Any
    shape: tuple[int, ...]
    cond_shape: None = None

    def __init__(self, dim: int, dense: bool):
        self.shift, self.log_scale, self.shape = jnp.zeros(dim), jnp.zeros(dim), (dim,)
        self.lower = jnp.zeros((dim, dim)) if dense else None

    def _factor(self) -> Any:
        return jnp.tril(self.lower, -1) + jnp.diag(jnp.exp(self.log_scale))

    def transform_and_log_det(self, x: Any, condition: Any = None) -> tuple[Any, Any]:
        spread = x * jnp.exp(self.log_scale) if self.lower is None else self._factor() @ x
        return self.shift + spread, self.log_scale.sum()

    def inverse_and_log_det(self, y: Any, condition: Any = None) -> tuple[Any, Any]:
        y = y - self.shift
        if self.lower is None:
            return y * jnp.exp(-self.log_scale), -self.log_scale.sum()
        return jax.scipy.linalg.solve_triangular(self._factor(), y, lower=True), -self.log_scale.sum()


class LowRankNormal(AbstractDistribution):
    """N(shift, D (I + W W') D) with D = diag(exp(log_scale)); loading, W: (dim, rank), begins small but not at zero."""

    shift: Any
    log_scale: Any
    loading: Any
    shape: tuple[int, ...]
    cond_shape: None = None

    def __init__(self, key: Any, dim: int, rank: int):
        self.shift, self.log_scale, self.shape = jnp.zeros(dim), jnp.zeros(dim), (dim,)
        self.loading = 0.1 * jax.random.normal(key, (dim, rank))

    def _sample(self, key: Any, condition: Any = None) -> Any:
        dim, rank = self.loading.shape
        noise = jax.random.normal(key, (dim + rank,))
        return self.shift + jnp.exp(self.log_scale) * (noise[:dim] + self.loading @ noise[dim:])

    def _log_prob(self, x: Any, condition: Any = None) -> Any:
        dim, rank = self.loading.shape
        white = (x - self.shift) * jnp.exp(-self.log_scale)
        root = jnp.linalg.cholesky(jnp.eye(rank) + self.loading.T @ self.loading)
        inner = jax.scipy.linalg.solve_triangular(root, self.loading.T @ white, lower=True)
        log_det = jnp.log(jnp.diagonal(root)).sum() + self.log_scale.sum()
        return -0.5 * (white @ white - inner @ inner + dim * jnp.log(2 * jnp.pi)) - log_det
