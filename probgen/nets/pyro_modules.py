"""Networks of Pyro programs, their parameters registered under a name, and what variational autoencoders make of their outputs."""

from __future__ import annotations

import contextlib
import functools
import itertools
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import nn
from torch.func import functional_call

from probgen.distributions.pyro_discretised import DiscretisedLogistic


@dataclass
class Runs:
    """How networks that are `registered` run: through `torch.compile`; with products in bfloat16 and outputs in float32.

    used: whether there was one.
    """

    compiled: bool = False
    mixed: bool = False
    used: bool = False


_RUNS: ContextVar[Runs] = ContextVar("runs", default=Runs())  # noqa: B039


def registered(name: str, make: Callable[..., nn.Module], *settings: Any) -> Callable[..., Any]:
    """The module `make(*settings)`, its parameters registered as `name.weight`, `name.0.bias`, ...

    Unlike `pyro.module`, it keeps no weights between runs: a program that makes its networks so is a function of its data, its
    settings and its parameters. The values that `make` draws are where learning begins.
    """
    skeleton = _skeleton(make, settings)
    fresh = functools.cache(lambda: dict(make(*settings).named_parameters()))
    values = {k: pyro.param(f"{name}.{k}", lambda k=k: fresh()[k].detach()) for k in _names(make, settings)}
    runs = _RUNS.get()
    runs.used = True
    call = _compiled(make, settings) if runs.compiled else functools.partial(functional_call, skeleton)
    return functools.partial(_mixed, call, values) if runs.mixed else functools.partial(call, values)


@contextlib.contextmanager
def running(compiled: bool, mixed: bool) -> Iterator[Runs]:
    """Inside, networks that are `registered` run so."""
    runs = Runs(compiled, mixed)
    token = _RUNS.set(runs)
    try:
        yield runs
    finally:
        _RUNS.reset(token)


def _mixed(call: Callable[..., Any], values: dict[str, torch.Tensor], x: Any) -> torch.Tensor:
    device = next(iter(values.values())).device.type
    with torch.autocast(device, torch.bfloat16):
        return call(values, x if isinstance(x, tuple) else (x,)).float()


@functools.lru_cache(maxsize=64)
def _compiled(make: Callable[..., nn.Module], settings: tuple[Any, ...]) -> Callable[..., Any]:
    call = torch.compile(functools.partial(functional_call, _skeleton(make, settings)))

    def quiet(values: dict[str, torch.Tensor], x: Any) -> Any:
        with warnings.catch_warnings():  # torch.compile looks at the gradient of everything that goes in
            warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
            return call(values, x)

    return quiet


@functools.lru_cache(maxsize=64)
def _skeleton(make: Callable[..., nn.Module], settings: tuple[Any, ...]) -> nn.Module:
    with torch.device("meta"):
        return make(*settings)


@functools.lru_cache(maxsize=64)
def _names(make: Callable[..., nn.Module], settings: tuple[Any, ...]) -> tuple[str, ...]:
    """Of a module's parameters, which take a while to be listed."""
    return tuple(k for k, _ in _skeleton(make, settings).named_parameters())


def perceptron(num_inputs: int, num_outputs: int, width: int, depth: int) -> nn.Module:
    """A perceptron (row, num_inputs) -> (row, num_outputs) with `depth` hidden layers, biases at zero."""
    sizes = [num_inputs, *[width] * depth, num_outputs]
    _positive(inputs=num_inputs, outputs=num_outputs, width=width)
    layers: list[nn.Module] = []
    for i, (n, m) in enumerate(itertools.pairwise(sizes)):
        layers += [nn.ReLU()] if i else []
        linear = nn.Linear(n, m)
        nn.init.zeros_(linear.bias)
        layers.append(linear)
    return nn.Sequential(*layers)


def down(shape: tuple[int, int], num_outputs: int, halvings: int, num_filters: int) -> nn.Module:
    """Pictures (row, height, width) -> (row, num_outputs): convolutions of side 4 that halve the sides, then one matrix."""
    height, width = halved(shape, halvings)
    _positive(outputs=num_outputs, filters=num_filters)
    counts = [1, *(num_filters * 2**i for i in range(halvings))]
    layers: list[nn.Module] = [nn.Unflatten(1, (1, shape[0]))]
    for n, m in itertools.pairwise(counts):
        layers += [nn.Conv2d(n, m, 4, 2, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(counts[-1] * height * width, num_outputs))


def up(num_inputs: int, shape: tuple[int, int], halvings: int, num_filters: int) -> nn.Module:
    """The mirror image of `down`: (row, num_inputs) -> pictures (row, height, width)."""
    height, width = halved(shape, halvings)
    _positive(inputs=num_inputs, filters=num_filters)
    counts = [*(num_filters * 2**i for i in reversed(range(halvings))), 1]
    layers = [nn.Linear(num_inputs, counts[0] * height * width), nn.Unflatten(1, (counts[0], height, width))]
    for n, m in itertools.pairwise(counts):
        layers += [nn.ReLU(), nn.ConvTranspose2d(n, m, 4, 2, 1)]
    return nn.Sequential(*layers, nn.Flatten(1, 2))


def halved(shape: tuple[int, int], halvings: int) -> tuple[int, int]:
    """Height and width after so many halvings; ValueError where they do not come out whole."""
    _positive(height=shape[0], width=shape[1], halvings=halvings)
    if any(side % 2**halvings for side in shape):
        raise ValueError(
            f"Pictures of {shape[0]} by {shape[1]} cannot be halved {halvings} times; pad or crop them, or use fewer halvings."
        )
    return shape[0] // 2**halvings, shape[1] // 2**halvings


def standard(count: int, dim: int) -> dist.TorchDistribution:
    """N(0, I) of some coordinates for so many rows; ValueError for no coordinates."""
    if dim < 1:
        raise ValueError(f"The number of latents is {dim}; it must be at least 1.")
    return dist.Normal(torch.zeros(count, dim), 1.0).to_event(1)


def normal(outputs: torch.Tensor) -> dist.TorchDistribution:
    """The normal with independent coordinates of which a network gives means and log variances, (row, 2 * dim)."""
    mean, log_variance = outputs.chunk(2, -1)
    return dist.Normal(mean, torch.exp(0.5 * log_variance)).to_event(1)


def shown(likelihood: str, x: torch.Tensor, centre: Any = 0.0, spread: Any = 1.0) -> torch.Tensor:
    """Points as an encoder takes them: levels from -1 to 1, reals from their centre in units of their spread, bits as they are."""
    if likelihood == "levels":
        return x / 127.5 - 1
    return (x - centre) / spread if likelihood == "normal" else x


def observed(likelihood: str, f: torch.Tensor, centre: Any = 0.0, spread: Any = 1.0) -> dist.TorchDistribution:
    """The distribution of points whose logits, or means, are f (row, ...).

    "bernoulli": bits. "normal": reals with an sd "sigma", f (about `centre`) and sigma in units of `spread`. "levels":
    integers 0 ... 255, a logistic with centre 127.5 (1 + f) and one scale, the parameter "scale", its mass between half-integers.
    """
    if likelihood == "bernoulli":
        return dist.Bernoulli(logits=f).to_event(f.dim() - 1)
    if likelihood == "normal":
        sigma = pyro.param("sigma", lambda: torch.ones(()), constraint=dist.constraints.positive)
        return dist.Normal(centre + spread * f, spread * sigma).to_event(f.dim() - 1)
    if likelihood == "levels":
        scale = pyro.param("scale", lambda: torch.full((), 20.0), constraint=dist.constraints.positive)
        return DiscretisedLogistic(127.5 * (1 + f), scale).to_event(f.dim() - 1)
    raise ValueError(f"likelihood is {likelihood!r}; known: bernoulli, normal, levels.")


def _positive(**sizes: int) -> None:
    for label, size in sizes.items():
        if size < 1:
            raise ValueError(f"A network's {label} is {size}; it must be at least 1.")
