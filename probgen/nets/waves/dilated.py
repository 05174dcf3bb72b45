"""WaveNet's convolutions: causal, of two places so far apart, in stacks whose distances double.

    z = tanh(W * h) sigmoid(V * h),   h' = h + A z,   outputs = C relu(B relu(sum of S z over all layers) + b) + c

No zeros are put before a series: of so many samples as the network sees at once, its field, comes one output. Drawing keeps of
every layer the last inputs that it still needs, so that a sample costs no more than one output of each.
Shapes: series (time, feature) or (time,). Van den Oord et al. 2016 (arXiv:1609.03499); Le Paine et al. 2016 (arXiv:1611.09482).
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from probgen.data.values.sounds import dilations
from probgen.nets.pixel_layers import Linear
from probgen.nets.pixel_networks import gate


class Pair(eqx.Module):
    """A convolution of a sample and of the one `distance` before it: (time, in) -> (time - distance, out).

    earlier, now: (in, out) each; arrays of their own, as a slice of one would be a copy at every step of drawing. Kept in
    drawing: the last `distance` inputs, the one of step t at t mod distance.
    """

    earlier: Any
    now: Any
    bias: Any
    distance: int = eqx.field(static=True)

    def __init__(self, num_in: int, num_out: int, distance: int):
        self.earlier = self.now = jnp.full((num_in, num_out), (2 * num_in) ** -0.5)
        self.bias, self.distance = jnp.zeros(num_out), distance

    def __call__(self, x: Any) -> Any:
        return x[: -self.distance] @ self.earlier + x[self.distance :] @ self.now + self.bias

    def step(self, kept: Any, t: Any, x: Any) -> tuple[Any, Any]:
        """The output at one sample x (in,), and what is kept with it.

        The place is always one of those kept; "clip" says so, and nobody has to look whether it is.
        """
        at = t % self.distance
        out = jnp.take(kept, at, axis=0, mode="clip") @ self.earlier + x @ self.now + self.bias
        return out, kept.at[at].set(x, mode="clip")


class Layer(eqx.Module):
    """One gated unit; out: what it adds to the next layer's input, None for the last."""

    pair: Pair
    skip: Linear
    out: Linear | None


class Dilated(eqx.Module):
    """(time,) -> (time - field + 1, output), the output at a sample of it and of the field - 1 before it."""

    first: Pair
    layers: list[Layer]
    last: tuple[Linear, Linear]

    def __init__(self, num_outputs: int, num_blocks: int, num_layers: int, num_filters: int, num_skips: int):
        n, distances = num_filters, dilations(num_blocks, num_layers)
        self.first = Pair(1, n, 1)
        pairs = [Pair(n, 2 * n, distance) for distance in distances]
        outs = [*(Linear(n, n) for _ in pairs[1:]), None]
        self.layers = [Layer(pair, Linear(n, num_skips), out) for pair, out in zip(pairs, outs, strict=True)]
        self.last = Linear(num_skips, num_skips), Linear(num_skips, num_outputs)

    @property
    def field(self) -> int:
        """How many samples an output depends on."""
        return 2 + sum(layer.pair.distance for layer in self.layers)

    def __call__(self, x: Any) -> Any:
        count = len(x) - self.field + 1
        h, skipped = self.first(x[:, None]), 0.0
        for layer in self.layers:
            gated = gate(layer.pair(h))
            skipped = skipped + layer.skip(gated[-count:])
            h = h if layer.out is None else h[layer.pair.distance :] + layer.out(gated)
        return self._outputs(skipped)

    def begin(self, x: Any) -> Any:
        """What is kept after the samples x (field - 1,), before step 0."""
        kept, h = [x[-1:, None]], self.first(x[:, None])
        for layer in self.layers:
            distance = layer.pair.distance
            kept.append(h[-distance:])
            h = h if layer.out is None else h[distance:] + layer.out(gate(layer.pair(h)))
        return kept

    def step(self, kept: Any, t: Any, x: Any) -> tuple[Any, Any]:
        """The outputs (output,) at the sample x () of step t, and what is kept with it."""
        h, first = self.first.step(kept[0], t, x[None])
        skipped, new = 0.0, [first]
        for layer, old in zip(self.layers, kept[1:], strict=True):
            sums, changed = layer.pair.step(old, t, h)
            gated = gate(sums)
            skipped = skipped + layer.skip(gated)
            h = h if layer.out is None else h + layer.out(gated)
            new.append(changed)
        return self._outputs(skipped), new

    def _outputs(self, skipped: Any) -> Any:
        return self.last[1](jax.nn.relu(self.last[0](jax.nn.relu(skipped))))
