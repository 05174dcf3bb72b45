"""Flows of pictures: several scales, each with steps of an affine map per channel, a mixing of channels and a coupling.

    encode: x -> z_1, ..., z_L    decode: z_1, ..., z_L -> x

A scale squeezes 2 x 2 pixels into channels; after its steps half of the channels leave as its latent variables, the last scale
keeps all. Bijections here are of one picture, (height, width, channel), and go from data to noise.
Dinh, Sohl-Dickstein and Bengio 2017 (arXiv:1605.08803); Kingma and Dhariwal 2018 (arXiv:1807.03039).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flowjax.bijections import AbstractBijection, Chain, Invert, RationalQuadraticSpline, Scan
from flowjax.distributions import StandardNormal, Transformed

from probgen.nets.autoregressive import check_sizes
from probgen.nets.flows import BoundedAffine, Flow, registered
from probgen.nets.glow_layers import (
    ActNorm,
    Halves,
    Masked,
    Mix,
    Shape,
    Squeeze,
    checkerboard,
    halves,
    rotation,
    squeezed,
)


class ImageFlow(Flow):
    """A multi-scale flow as a NumPyro distribution of one picture, (height, width, channel)."""

    def encode(self, x: Any) -> list[Any]:
        """The latent variables of one picture, a level each: (height / 2^i, width / 2^i, channel_i)."""
        scales, units = self._parts
        return scales.encode(units.inverse(x) if units else x)[0]

    def decode(self, z: list[Any]) -> Any:
        """The picture of latent variables as `encode` gives them."""
        scales, units = self._parts
        x = scales.decode(z)[0]
        return units.transform(x) if units else x

    @property
    def _parts(self) -> tuple[Any, Any]:
        """The scales from x to noise, and the units that x is measured in before; None for none."""
        found: Any = self.bijection
        parts: Any = found.bijections if isinstance(found, Chain) else (found, None)
        inner, units = parts
        return inner.bijection, units


def glow_flow(
    name: str, shape: Shape, num_levels: int, num_steps: int, width: int, transformer: AbstractBijection, start: Any = (),
) -> ImageFlow:  # fmt: skip
    """Glow, its parameters registered under a name; `start` as for `multiscale`."""

    def level(key: Any, shape: Shape, last: bool) -> Level:
        *keys, k_split = jax.random.split(key, num_steps + 1)
        inner = squeezed(shape)
        mixes = [rotation(inner[2], seed=i) for i in range(num_steps)]
        steps = [
            Chain([ActNorm(inner), Mix(inner, *mix), Halves(key, inner, width, transformer)])
            for key, mix in zip(keys, mixes, strict=True)
        ]
        split = None if last else Halves(k_split, inner, 0, BoundedAffine(2.0))
        return Level((Squeeze(shape), _scan(steps)), split, inner)

    return multiscale(name, shape, num_levels, level, start)


def realnvp_flow(
    name: str, shape: Shape, num_levels: int, num_steps: int, width: int, transformer: AbstractBijection, start: Any = (),
) -> ImageFlow:  # fmt: skip
    """RealNVP of pictures, its parameters registered under a name; `start` as for `multiscale`.

    num_steps: couplings with checkerboards, and as many again with channels, in every scale; the last has the former alone, and
    one more.
    """

    def masked(keys: Any, shape: Shape, mask: Callable[[Shape], Any]) -> Scan:
        masks = [mask(shape) ^ bool(i % 2) for i in range(len(keys))]
        couplings = [Masked(k, m, width, transformer) for k, m in zip(keys, masks, strict=True)]
        return _scan([Chain([ActNorm(shape), coupling]) for coupling in couplings])

    def level(key: Any, shape: Shape, last: bool) -> Level:
        keys = jax.random.split(key, 2 * num_steps + 1)
        if last:
            return Level((masked(keys[: num_steps + 1], shape, checkerboard),), None, shape)
        inner = squeezed(shape)
        first, second = masked(keys[:num_steps], shape, checkerboard), masked(keys[num_steps:-1], inner, halves)
        return Level((first, Squeeze(shape), second), None, inner)

    return multiscale(name, shape, num_levels, level, start)


def transformer(bound: float, knots: int, interval: float) -> AbstractBijection:
    """x -> t + x exp(s) with |s| < bound; with knots a rational-quadratic spline of so many on [-interval, interval]."""
    check_sizes(**({"knots": knots} if knots else {}))
    if bound <= 0 or interval <= 0:
        raise ValueError(f"bound is {bound} and interval {interval}; both must be above 0.")
    return RationalQuadraticSpline(knots=knots, interval=interval) if knots else BoundedAffine(bound)


def multiscale(
    name: str, shape: Shape, num_levels: int, level: Callable[[Any, Shape, bool], Level], start: Any
) -> ImageFlow:
    """A flow of levels, made by `level(key, shape, last)`, its parameters registered under a name.

    start: pictures, (row, *shape), on which every ActNorm begins with zero means and unit variances; () for the identity.
    Raises ValueError where the sides cannot be halved so often, or `start` has another shape.
    """
    if shape[0] % 2**num_levels or shape[1] % 2**num_levels:
        raise ValueError(
            f"Pictures of {shape[0]} x {shape[1]} cannot be halved {num_levels} times; pad them or use fewer num_levels."
        )
    if np.size(start) and np.shape(start)[1:] != shape:
        raise ValueError(f"start has shape {np.shape(start)}; expected pictures of shape {shape}: (row, *{shape}).")

    def make(key: Any) -> Transformed:
        levels, inner = [], shape
        for i, own in enumerate(jax.random.split(key, num_levels)):
            levels.append(level(own, inner, i == num_levels - 1))
            inner = levels[-1].rest
        return Transformed(StandardNormal(shape), Invert(MultiScale(levels=tuple(levels), shape=shape)))

    def begin(flow: Transformed) -> Transformed:
        inner = lambda node: node.bijection.bijection  # noqa: E731
        return eqx.tree_at(inner, flow, started(inner(flow), start)) if np.size(start) else flow

    return ImageFlow(registered(name, make, begin))


class Level(eqx.Module):
    """Stages of one scale; then, if it is not the last, the split of its channels, after a coupling `split` where there is one.

    shape: after the stages. The coupling is Glow's learned prior: N(z; m, s^2) given the other half is z = m + s times noise.
    """

    stages: tuple[Any, ...]
    split: Any
    shape: Shape

    @property
    def rest(self) -> Shape:
        """The shape of what goes on."""
        return (*self.shape[:2], self.shape[2] // 2)

    @property
    def bijections(self) -> list[Any]:
        """The stages and the coupling of the split."""
        return [*self.stages, *([] if self.split is None else [self.split])]


class MultiScale(AbstractBijection):
    """Levels one after the other; as a bijection of arrays it packs the latent variables into the picture's shape."""

    levels: tuple[Level, ...]
    shape: tuple[int, ...]
    cond_shape: None = None

    def encode(self, x: Any) -> tuple[list[Any], Any]:
        """The latent variables of every level, and the log determinant."""
        found, total = [], 0.0
        for level in self.levels:
            for stage in level.bijections:
                x, log_det = stage.transform_and_log_det(x)
                total = total + log_det
            if level is not self.levels[-1]:
                x, z = jnp.split(x, 2, axis=-1)
                found.append(z)
        return [*found, x], total

    def decode(self, z: list[Any]) -> tuple[Any, Any]:
        """The picture, and the log determinant of this direction."""
        x, total = z[-1], 0.0
        for level, own in zip(reversed(self.levels), [None, *reversed(z[:-1])], strict=True):
            x = x if own is None else jnp.concatenate([x, own], axis=-1)
            for stage in reversed(level.bijections):
                x, log_det = stage.inverse_and_log_det(x)
                total = total + log_det
        return x, total

    @property
    def latent_shapes(self) -> list[Shape]:
        """Of every level."""
        return [level.rest for level in self.levels[:-1]] + [self.levels[-1].shape]

    def transform_and_log_det(self, x: Any, condition: Any = None) -> tuple[Any, Any]:
        z, log_det = self.encode(x)
        return jnp.concatenate([level.ravel() for level in z]).reshape(self.shape), log_det

    def inverse_and_log_det(self, y: Any, condition: Any = None) -> tuple[Any, Any]:
        sizes = [int(np.prod(shape)) for shape in self.latent_shapes]
        parts = jnp.split(y.ravel(), np.cumsum(sizes)[:-1])
        return self.decode([part.reshape(shape) for part, shape in zip(parts, self.latent_shapes, strict=True)])


def started(flow: MultiScale, batch: Any) -> MultiScale:
    """The flow with every ActNorm measured on what reaches it of a batch, (row, height, width, channel)."""
    batch = jnp.asarray(batch, jnp.result_type(float))
    levels = []
    for level in flow.levels:
        stages = []
        for stage in level.stages:
            stage, batch = _measured(stage, batch)
            stages.append(stage)
        levels.append(eqx.tree_at(lambda node: node.stages, level, tuple(stages)))
        if level.split is not None:
            batch = jax.vmap(level.split.transform)(batch)
        batch = batch[..., : level.rest[2]]
    return eqx.tree_at(lambda node: node.levels, flow, tuple(levels))


def _measured(stage: Any, batch: Any) -> tuple[Any, Any]:
    """A stage whose steps begin with measured ActNorms, and the batch behind it."""
    if not isinstance(stage, Scan):
        return stage, jax.vmap(stage.transform)(batch)
    arrays, rest = eqx.partition(stage.bijection, eqx.is_array)

    def one(batch: Any, arrays: Any) -> tuple[Any, Any]:
        step = eqx.combine(arrays, rest)
        step = eqx.tree_at(lambda node: node.bijections[0], step, step.bijections[0].measured(batch))
        return jax.vmap(step.transform)(batch), eqx.filter(step, eqx.is_array)

    batch, arrays = jax.lax.scan(one, batch, arrays)
    return eqx.tree_at(lambda node: node.bijection, stage, eqx.combine(arrays, rest)), batch


def _scan(steps: list[Any]) -> Scan:
    """Steps of equal structure as one scan."""
    rest = eqx.filter(steps[0], eqx.is_array, inverse=True)
    arrays = [eqx.filter(step, eqx.is_array) for step in steps]
    return Scan(eqx.combine(jax.tree.map(lambda *leaves: jnp.stack(leaves), *arrays), rest))
