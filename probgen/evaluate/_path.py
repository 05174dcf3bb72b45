"""Paths of densities from a base whose constant is known to a target: f_beta = (1 - beta) f_0 + beta f.

A path says how to start at the base, by how much a point's log weight grows between two temperatures, and how to move a
point under one of them. The base is factorised, so f_beta has the structure of f and the same conditionals.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from probgen.engine.numpyro.sums import energy
from probgen.engine.numpyro.sums.energy import Block
from probgen.target import Variable

QUICKLY = {"xla_backend_optimization_level": 1}  # of code that runs for less time than it takes to compile
SMOOTHING = 1.0  # rows of even odds (of unit variance) that are added to the data


def quadratic(linear: Any, precision: Any) -> Any:
    """log of the integral of exp(a x - p x^2 / 2) over reals, summed over units."""
    return jnp.sum(linear**2 / (2 * precision) + 0.5 * jnp.log(2 * jnp.pi / precision))


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["target", "linear", "precision"], meta_fields=["summed"]
)
@dataclass(frozen=True)
class GibbsPath:
    """Bits, levels and reals by blocks, one of them summed out of the weights.

        f_0(x) = sum_i a_i x_i - p_i x_i^2 / 2,   F_beta(x_A) = log sum_B exp f_beta(x_A, x_B)

    linear, precision: a and p of every site, in its shape (p = 0 for bits, both 0 for levels).
    summed: the sites B of a block whose units do not interact; a point of the path holds the sites A.
    """

    target: Any
    linear: Mapping[str, Any]
    precision: Mapping[str, Any]
    summed: tuple[str, ...]

    @property
    def variables(self) -> dict[str, Variable]:
        return {v.name: v for v in self.target.variables}

    @property
    def blocks(self) -> list[Block]:
        """The blocks of A."""
        return [b for b in self.target.structure.blocks if b.sites != self.summed]

    def tempered(self, beta: Any) -> Any:
        """f_beta, a function of the values of all sites."""
        return lambda values: (1 - beta) * self._base(values) + beta * self.target.joint(values)

    def _base(self, values: Any) -> Any:
        return sum(
            jnp.sum(self.linear[k] * x - 0.5 * self.precision[k] * x**2)
            for k, x in values.items()
            if self.variables[k].kind != "levels"
        )

    def log_z(self) -> Any:
        """log of the base's constant, in nats."""
        total = jnp.zeros(())
        for k, v in self.variables.items():
            if v.kind == "bits":
                total = total + jnp.sum(jax.nn.softplus(self.linear[k]))
            elif v.kind == "levels":
                total = total + v.size * np.log(v.levels)
            else:
                total = total + quadratic(self.linear[k], self.precision[k])
        return total

    def start(self, key: Any) -> dict[str, Any]:
        """A point from the base."""
        values = {}
        for i, (k, v) in enumerate(self.variables.items()):
            own = jax.random.fold_in(key, i)
            if v.kind == "levels":
                values[k] = jax.random.randint(own, v.shape, 0, v.levels).astype(self.linear[k].dtype)
            else:
                values[k] = _drawn(own, v, self.linear[k], self.precision[k])
        return self.kept(values)

    def kept(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The sites A of all."""
        return {k: x for k, x in values.items() if k not in self.summed}

    def packed(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """The point with bits and levels as bytes, to be kept."""
        return {k: x.astype(jnp.uint8) if 0 < self.variables[k].levels <= 256 else x for k, x in point.items()}

    # ---- what the summed block feels

    def fields(self, point: Any) -> tuple[Any, Any, Any, Any]:
        """At x_B = 0: f, f_0, and of each summed site df/dx_B and -d2f/dx_B^2."""
        f, zero = self.target.joint, {k: jnp.zeros_like(self.linear[k]) for k in self.summed}
        value, slope = jax.value_and_grad(lambda x: f({**point, **x}))(zero)
        reals = [k for k in self.summed if self.variables[k].kind == "reals"]
        curvature = energy.curvatures(f, {**point, **zero}, reals) if reals else {}
        return value, self._base(point), slope, {k: -c for k, c in curvature.items()}

    def increment(self, fields: Any, beta: Any, new: Any) -> Any:
        """F_new - F_beta at the point with these fields, summed from differences, unit by unit."""
        value, base, slope, precision = fields
        total = (new - beta) * (value - base)
        for k in self.summed:
            a, b = (self._mixed(k, slope, precision, t) for t in (beta, new))
            if self.variables[k].kind == "bits":
                total = total + jnp.sum(jnp.log1p(jax.nn.sigmoid(a[0]) * jnp.expm1(b[0] - a[0])))
            else:
                total = total + quadratic(*b) - quadratic(*a)
        return total

    def _mixed(self, site: str, slope: Any, precision: Any, beta: Any) -> tuple[Any, Any]:
        linear = (1 - beta) * self.linear[site] + beta * slope[site]
        return linear, (1 - beta) * self.precision[site] + beta * precision.get(site, 0.0)

    # ---- moves

    def move(self, key: Any, point: Any, fields: Any, beta: Any, step: Any, backward: bool = False) -> tuple[Any, Any]:
        """The summed sites given A, then A block by block, in the opposite order if `backward`; acceptance 1."""
        del step
        values, keys = dict(point), jax.random.split(key, len(self.summed) + len(self.blocks))
        for i, k in enumerate(self.summed):
            linear, precision = self._mixed(k, fields[2], fields[3], beta)
            values[k] = _drawn(keys[i], self.variables[k], linear, precision)
        blocks = self.blocks[::-1] if backward else self.blocks
        for own, block in zip(keys[len(self.summed) :], blocks, strict=True):
            values = self._redrawn(own, self.tempered(beta), values, block, backward)
        return self.kept(values), jnp.ones(())

    def _redrawn(self, key: Any, f: Any, values: Any, block: Block, backward: bool = False) -> dict[str, Any]:
        """The values with a block drawn anew, colour after colour where it has them."""
        chosen = [self.variables[k] for k in block.sites]
        if block.colours is None:
            return {**values, **energy.draw(key, f, values, chosen)[0]}
        (v,) = chosen
        return {**values, v.name: energy.draw_by_colour(key, f, values, v, block.colours, backward=backward)}


def _drawn(key: Any, v: Variable, linear: Any, precision: Any) -> Any:
    """Bits of logits, or reals of a linear term and a precision."""
    if v.kind == "bits":
        return (jax.random.uniform(key, linear.shape) < jax.nn.sigmoid(linear)).astype(linear.dtype)
    return linear / precision + jax.random.normal(key, linear.shape) / jnp.sqrt(precision)


def gibbs_path(target: Any, points: Mapping[str, Any], summed: tuple[str, ...] | None = None) -> GibbsPath:
    """The path to a conditional target from independent units with the smoothed means (and variances) of points of it.

    points: every site, (point, *event). Summed out by default: the largest block.
    """
    whole: dict[tuple[str, ...], int] = {b.sites: sum(v.size for v in target.variables if v.name in b.sites)
             for b in target.structure.blocks if b.colours is None}  # fmt: skip
    if summed is None:
        summed = max(whole, key=whole.__getitem__, default=())
    linear, precision = {}, {}
    for v in target.variables:
        x = jnp.asarray(points[v.name], "float32")
        linear[v.name] = precision[v.name] = jnp.zeros(v.shape)
        if v.kind == "bits":
            ones, count = x.sum(0) + SMOOTHING / 2, len(x) + SMOOTHING
            linear[v.name] = jnp.log(ones) - jnp.log(count - ones)
        elif v.kind == "reals":
            precision[v.name] = 1 / (x.var(0) + 1e-6)
            linear[v.name] = precision[v.name] * x.mean(0)
    return GibbsPath(target, linear, precision, summed)


@functools.partial(jax.jit, static_argnums=3, compiler_options=QUICKLY)
def typical(key: Any, target: Any, rows: Mapping[str, Any], count: int = 500) -> dict[str, Any]:
    """Points of a target, the visible sites at `rows` (point, *event) and the others after some sweeps given them.

    Without rows all sites are free: `count` chains from a random start.
    """
    count = len(next(iter(rows.values()))) if rows else count
    held = {k: jnp.ones(v.shape[1:], bool) for k, v in rows.items()}
    variables, blocks = {v.name: v for v in target.variables}, target.structure.blocks
    free = [b for b in blocks if not set(b.sites) <= set(rows)]
    values = {**jax.vmap(target.start)(jax.random.split(key, count)), **rows}

    def one(i: Any, values: Any) -> Any:
        keys = jax.random.split(jax.random.fold_in(key, i), count)
        return jax.vmap(lambda k, x: energy.sweep(k, target.joint, x, variables, free, held)[0])(keys, values)

    return jax.lax.fori_loop(0, 50, one, values)


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["target", "mean", "scale"], meta_fields=["num_leapfrog"]
)
@dataclass(frozen=True)
class HamiltonianPath:
    """Reals alone, by Hamiltonian Monte Carlo, from a normal base with independent coordinates.

    mean, scale: of the base, (dim,). num_leapfrog: steps of a move, of a size in units of `scale`.
    """

    target: Any
    mean: Any
    scale: Any
    num_leapfrog: int = 5

    def log_z(self) -> Any:
        """The base is normalised."""
        return jnp.zeros(())

    def start(self, key: Any) -> Any:
        return self.mean + self.scale * jax.random.normal(key, self.mean.shape)

    def kept(self, point: Any) -> Any:
        return point

    packed = kept

    def _base(self, z: Any) -> Any:
        return jax.scipy.stats.norm.logpdf(z, self.mean, self.scale).sum()

    def fields(self, z: Any) -> tuple[Any, Any]:
        """f and f_0."""
        return self.target.log_density(z), self._base(z)

    def increment(self, fields: Any, beta: Any, new: Any) -> Any:
        return (new - beta) * (fields[0] - fields[1])

    def move(self, key: Any, z: Any, fields: Any, beta: Any, step: Any, backward: bool = False) -> tuple[Any, Any]:
        """One proposal by leapfrog steps, which is its own reverse; and its acceptance."""
        del backward
        f = lambda x: (1 - beta) * self._base(x) + beta * self.target.log_density(x)  # noqa: E731
        slope, size = jax.grad(f), step * self.scale
        k_momentum, k_accept = jax.random.split(key)
        p = jax.random.normal(k_momentum, z.shape)

        def leap(_: Any, carry: Any) -> Any:
            x, p = carry
            x = x + size * p
            return x, p + size * slope(x)

        x, q = jax.lax.fori_loop(0, self.num_leapfrog - 1, leap, (z, p + 0.5 * size * slope(z)))
        x = x + size * q
        q = q + 0.5 * size * slope(x)
        change = f(x) - 0.5 * q @ q - (1 - beta) * fields[1] - beta * fields[0] + 0.5 * p @ p
        accept = jnp.where(jnp.isfinite(change), jnp.exp(jnp.minimum(change, 0.0)), 0.0)
        return jnp.where(jax.random.uniform(k_accept) < accept, x, z), accept


def hamiltonian_path(target: Any, points: np.ndarray | None) -> HamiltonianPath:
    """The path to a continuous target from a normal: of the points' mean and spread (point, dim), else a standard one."""
    if points is None or len(points) < 2:
        return HamiltonianPath(target, jnp.zeros(target.dim), jnp.ones(target.dim))
    return HamiltonianPath(target, jnp.asarray(points.mean(0)), jnp.asarray(points.std(0) + 1e-3))
