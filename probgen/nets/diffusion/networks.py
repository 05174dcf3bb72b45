"""Networks of denoisers: a point and a level of noise -> an array of the point's shape."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from probgen.nets.diffusion.denoiser import KINDS, Denoiser, Mixed, Network
from probgen.nets.diffusion.schedules import Schedule
from probgen.nets.flows import registered
from probgen.nets.vae import Affine

SLOWEST, FASTEST = 0.25, 8.0  # waves a unit of log sigma / alpha
COMPONENTS = 3  # of a coordinate's mixture
WIDER = 2.0  # units of such waves in the whole of time, where times themselves are seen


class Waves(eqx.Module):
    """Sines and cosines of a number, with frequencies between two: () -> (2 * count,)."""

    count: int = eqx.field(static=True, default=16)

    def __call__(self, level: Any) -> Any:
        angles = level * jnp.geomspace(SLOWEST, FASTEST, self.count)
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)])


class Block(eqx.Module):
    """h + W swish(h + U e): a residual layer that sees the level."""

    level: Affine
    weight: Affine

    def __call__(self, h: Any, e: Any) -> Any:
        return h + self.weight(jax.nn.swish(h + self.level(e)))


class Perceptron(eqx.Module):
    """A residual perceptron on the flattened point; its last layer begins at zero.

    given: what the point is given besides, such as a class: (num_given,). by: how much of the point passes by a network that is
    narrower than it, a number for each level: noise does not fit through, and draws would be full of specks.
    """

    begin: Affine
    blocks: tuple[Block, ...]
    end: Affine
    waves: Waves
    by: Affine | None = None

    def __call__(self, z: Any, level: Any, given: Any = None) -> Any:
        waves = self.waves(level)
        e = waves if given is None else jnp.concatenate([waves, given])
        h = self.begin(jnp.ravel(z))
        for block in self.blocks:
            h = block(h, e)
        said = self.end(jax.nn.swish(h))
        said = said.reshape(jnp.shape(z) if said.size == z.size else (-1, *jnp.shape(z)))
        return said if self.by is None else said + self.by(waves) * z


class BetweenTimes(eqx.Module):
    """A perceptron that sees a time and how far it is to an earlier one, by waves of both: smooth in them, to be differentiated.

    given: what the point is given besides, such as a class: (num_given,).
    """

    net: Perceptron

    def __call__(self, z: Any, t: Any, gap: Any, given: Any = None) -> Any:
        e = self.net.waves(WIDER * gap)
        return self.net(z, WIDER * t, e if given is None else jnp.concatenate([e, given]))


def between_times(name: str, size: int, width: int = 256, depth: int = 3, num_given: int = 0) -> BetweenTimes:
    """A `perceptron` of two times, registered under a name."""
    return BetweenTimes(perceptron(name, size, width, depth, num_given + 2 * Waves().count))


def perceptron(
    name: str, size: int, width: int = 256, depth: int = 3, num_given: int = 0, numbers: int = 1
) -> Perceptron:
    """A perceptron of `size` coordinates with `depth` residual layers of `width` units, registered under a name.

    numbers: how many it says of each coordinate; of more than one, an array (numbers, *event).
    """
    for label, value in {"size": size, "width": width}.items():
        if value < 1:
            raise ValueError(f"A network's {label} is {value}; it must be at least 1.")
    waves = Waves()
    seen = 2 * waves.count + num_given

    def make(key: Any) -> Perceptron:
        keys = iter(jax.random.split(key, 2 + 2 * depth))
        blocks = tuple(Block(_affine(next(keys), seen, width), _affine(next(keys), width, width)) for _ in range(depth))
        begin, end = _affine(next(keys), size, width), _affine(next(keys), width, numbers * size)
        by = Affine(jnp.zeros((1, 2 * waves.count)), jnp.zeros(1)) if size > width and numbers == 1 else None
        return Perceptron(begin, blocks, jax.tree.map(jnp.zeros_like, end), waves, by)

    return registered(name, make)


def denoiser(
    name: str, schedule: Schedule, kind: str, size: int, width: int = 256, depth: int = 3, given: Any = None
) -> Denoiser:
    """A denoiser by a `perceptron`, which says what `kind` is the word for: of `KINDS`, or "mixture", see `Mixed`.

    given: what it is given besides a point, such as a class: (num_given,).
    """
    if kind not in (*KINDS, "mixture"):
        raise ValueError(f"A denoiser says {kind!r}; known: {', '.join(KINDS)}, mixture.")
    num_given = 0 if given is None else len(given)
    net: Any = perceptron(name, size, width, depth, num_given, 3 * COMPONENTS if kind == "mixture" else 1)
    net = net if given is None else eqx.Partial(net, given=given)
    return Mixed(schedule, net) if kind == "mixture" else Network(schedule, net, kind)


def _affine(key: Any, num_inputs: int, num_outputs: int) -> Affine:
    weight = jax.random.normal(key, (num_outputs, num_inputs)) / math.sqrt(num_inputs)
    return Affine(weight, jnp.zeros(num_outputs))
