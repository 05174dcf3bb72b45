"""Perceptrons of variational autoencoders, their parameters registered under a name, and what they say of an observation."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import Distribution, constraints

from probgen.distributions.discretised import DiscretisedLogistic
from probgen.nets.flows import fitting, measured, registered

LIKELIHOODS = ("bernoulli", "normal", "levels")
LEVELS = 256  # of "levels"


class Affine(eqx.Module):
    """x -> W x + b, written so that many points, and many draws of each, become one product in which points stay rows."""

    weight: Any
    bias: Any

    def __call__(self, x: Any, *, key: Any = None) -> Any:
        if x.ndim > 2:  # rows in one axis: else the gradient's products would turn them round first
            return self(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)
        return x @ self.weight.T + self.bias


def mlp(name: str, num_inputs: int, num_outputs: int, width: int, depth: int, activation: Any = jax.nn.relu) -> Any:
    """A perceptron (num_inputs,) -> (num_outputs,) with `depth` hidden layers, biases at zero."""
    for label, size in {"inputs": num_inputs, "outputs": num_outputs, "width": width}.items():
        if size < 1:
            raise ValueError(f"A network's {label} is {size}; it must be at least 1.")

    def make(key: Any) -> Any:
        net: Any = eqx.nn.MLP(num_inputs, num_outputs, width, depth, activation=activation, key=key)
        layers = tuple(Affine(layer.weight, jnp.zeros_like(layer.bias)) for layer in net.layers)
        return eqx.tree_at(lambda n: n.layers, net, layers)

    return registered(name, make)


def linear(name: str, num_inputs: int, num_outputs: int) -> Any:
    """A linear map (num_inputs,) -> (num_outputs,), its bias at zero."""
    return mlp(name, num_inputs, num_outputs, width=1, depth=0)


def normal(outputs: Any) -> Distribution:
    """The normal with independent coordinates of which a network gives means and log variances, (2 * dim,)."""
    mean, log_variance = jnp.split(outputs, 2, axis=-1)
    return dist.Normal(mean, jnp.exp(0.5 * log_variance)).to_event(1)


def standard(dim: int) -> Distribution:
    """N(0, I) of some coordinates; ValueError for none."""
    if dim < 1:
        raise ValueError(f"The number of latents is {dim}; it must be at least 1.")
    return dist.Normal(0, 1).expand([dim]).to_event(1)


def shown(likelihood: str, x: Any, centre: Any = 0.0, spread: Any = 1.0) -> Any:
    """Points as an encoder takes them: levels from -1 to 1, reals from their centre in units of their spread, bits as they are."""
    if likelihood == "levels":
        return x / 127.5 - 1
    return measured(x, centre, spread) if likelihood == "normal" else x


def observed(likelihood: str, f: Any, centre: Any = 0.0, spread: Any = 1.0) -> Distribution:
    """The distribution of a point, (dim,) or a picture, whose logits, or means, are f.

    "bernoulli": bits. "normal": reals with an sd "sigma", f (about `centre`) and sigma in units of `spread`. "levels":
    integers 0 ... 255, a logistic with centre 127.5 (1 + f) and one scale, the parameter "scale", its mass between half-integers.
    """
    if likelihood == "bernoulli":
        return dist.Bernoulli(logits=f).to_event(jnp.ndim(f))
    if likelihood == "normal":
        sigma = numpyro.param("sigma", jnp.ones(()), constraint=constraints.positive)
        centre, spread = (fitting(value, jnp.shape(f)) for value in (centre, spread))
        return dist.Normal(centre + spread * f, spread * sigma).to_event(jnp.ndim(f))
    if likelihood == "levels":
        scale = numpyro.param("scale", jnp.full((), 20.0), constraint=constraints.positive)
        return DiscretisedLogistic(127.5 * (1 + f), scale).to_event(jnp.ndim(f))
    raise ValueError(f"likelihood is {likelihood!r}; known: {', '.join(LIKELIHOODS)}.")
