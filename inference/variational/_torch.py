"""Guides on Pyro targets: torch modules, Pyro's transforms among them, driven by one flat vector of parameters.

The gradient of log p comes from the target's compiled graph and that of the guide from autograd; the chain rule joins
them at the draws, so that torch's graph holds the guide alone.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from pyro.distributions.transforms import Permute
from torch import nn
from torch.func import functional_call

from probgen.engine.pyro.engine import scoped
from probgen.inference.variational._guide import LARGEST, Anchor, Guide, parted
from probgen.target import SubsampledContinuous


@functools.lru_cache(maxsize=64)
def module(settings: Guide, dim: int, precision: str) -> nn.Module:
    """The guide of some settings; its own parameters are the initial ones, and are never changed."""
    with scoped(precision):
        return settings.torch_guide(dim).requires_grad_(False)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One thread for the arrays of a guide: a team for such small ones costs up to fifty times more than it saves."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def initial(settings: Guide, key: Any, target: Any) -> np.ndarray:
    """The parameters before the first step: (parameter,)."""
    del key  # guides begin at the whitened normal, whose noise alone depends on the seed
    parts = module(settings, target.dim, target.precision).parameters()
    return torch.cat([p.flatten() for p in parts]).numpy().astype(np.float64)


@one_thread()
def loss_and_gradient(settings: Guide, key: Any, parameters: Any, anchor: Anchor, target: Any) -> tuple[Any, Any]:
    """Minus the ELBO, estimated from `num_particles` draws, and its gradient: (), (parameter,)."""
    own, unknowns = parted(target, parameters)
    guide = module(settings, unknowns.dim, target.precision)
    k_noise, k_rows = target.ops.split(key)
    flat = torch.from_numpy(own).requires_grad_()
    noise = _noise(guide, target, k_noise, settings.num_particles)
    with torch.enable_grad():
        u, log_q = functional_call(guide, _named(guide, flat), (noise,))
        log_p, pull, slope = _density(settings, k_rows, anchor, target, unknowns, u)
        if settings.gradient == "path":
            pull = pull - _score(guide, flat, u)
            (gradient,) = torch.autograd.grad(-(u * pull).mean(0).sum(), flat)
        else:
            (gradient,) = torch.autograd.grad(log_q.mean() - (u * pull).mean(0).sum(), flat)
    loss = np.float64(log_q.mean().item() - log_p.mean() - anchor.log_det(np))
    return loss, np.concatenate([gradient.numpy(), -slope])


def _density(
    settings: Guide, key: Any, anchor: Anchor, target: Any, unknowns: Any, u: torch.Tensor
) -> tuple[np.ndarray, torch.Tensor, np.ndarray]:
    """log p at the whitened draws (particle,), its gradient with respect to them (particle, dim), and its mean gradient with
    respect to the program's parameters (point,)."""
    evaluate = target.value_and_grad
    if settings.minibatch and isinstance(target, SubsampledContinuous):
        evaluate = functools.partial(target.minibatch_value_and_grad, key)
    points = anchor.place(u.detach().cpu().numpy().astype(np.float64))
    points = unknowns.whole(points) if target.points else points
    values, gradients = zip(*map(evaluate, points), strict=True)
    gradients, factor = np.stack(gradients), anchor.factor
    slope = gradients[:, target.point_index].mean(0)
    gradients = gradients[:, unknowns.free] if target.points else gradients
    pull = torch.from_numpy(gradients @ factor if factor.ndim == 2 else gradients * factor).to(u)
    return np.array(values), pull, slope


def _score(guide: nn.Module, flat: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """The gradient of log q at draws, its parameters held fixed: (particle, dim)."""
    point = u.detach().requires_grad_()
    _, log_q = functional_call(guide, _named(guide, flat.detach()), (None, point))
    return torch.autograd.grad(log_q.sum(), point)[0]


@one_thread()
def draws(settings: Guide, key: Any, parameters: Any, anchor: Anchor, target: Any) -> tuple[Any, Any]:
    """`num_draws` draws of the guide, (draw, dim), and their log q, (draw,)."""
    own, unknowns = parted(target, parameters)
    guide = module(settings, unknowns.dim, target.precision)
    with torch.no_grad():
        named = _named(guide, torch.from_numpy(own))
        u, log_q = functional_call(guide, named, (_noise(guide, target, key, settings.num_draws),))
    z = anchor.place(u.numpy().astype(np.float64))
    return unknowns.whole(z) if target.points else z, log_q.numpy().astype(np.float64) - anchor.log_det(np)


def _noise(guide: nn.Module, target: Any, key: Any, size: int) -> torch.Tensor:
    kind = getattr(torch, target.precision)
    return torch.from_numpy(target.ops.normal(key, (size, guide.noise_dim))).to(kind)


def _named(guide: nn.Module, flat: torch.Tensor) -> dict[str, torch.Tensor]:
    """The flat vector as named parameters of the guide."""
    own = dict(guide.named_parameters())
    parts = flat.split([p.numel() for p in own.values()])
    return {name: part.view(p.shape).to(p.dtype) for (name, p), part in zip(own.items(), parts, strict=True)}


def _log_normal(white: torch.Tensor) -> torch.Tensor:
    """Log density of standard normals, summed over the last axis."""
    return -0.5 * (white.square().sum(-1) + white.shape[-1] * math.log(2 * math.pi))


class Flow(nn.Module):
    """Layers in a row on standard normal noise; `invert` uses each layer from its output to its input.

    forward(noise) -> u, log q(u);  forward(None, u) -> u, log q(u).
    """

    def __init__(self, dim: int, layers: Sequence[nn.Module], last: nn.Module, invert: bool = False) -> None:
        super().__init__()
        self.layers, self.last = nn.ModuleList(layers), last
        self.noise_dim, self.invert = dim, invert

    def forward(self, noise: Any, u: torch.Tensor | None = None) -> tuple[Any, Any]:
        steps = [(layer, self.invert) for layer in self.layers] + [(self.last, False)]
        x: Any = noise if u is None else u
        log_det: Any = 0.0
        for layer, invert in steps if u is None else reversed(steps):
            x, change = _through(layer, x, invert != (u is not None))
            log_det = log_det + change
        return (x, _log_normal(noise) - log_det) if u is None else (u, _log_normal(x) + log_det)


def _through(layer: Any, x: torch.Tensor, backwards: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """A layer applied, or inverted, and the log determinant of what was done."""
    y = layer.inv(x) if backwards else layer(x)
    return y, -layer.log_abs_det_jacobian(y, x) if backwards else layer.log_abs_det_jacobian(x, y)


class Affine(nn.Module):
    """u -> shift + A u, the identity at first; A is lower triangular with a positive diagonal, or diagonal."""

    def __init__(self, dim: int, dense: bool = True) -> None:
        super().__init__()
        self.shift, self.log_scale = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(dim))
        self.lower = nn.Parameter(torch.zeros(dim, dim)) if dense else None

    def _factor(self) -> torch.Tensor:
        lower: Any = self.lower
        return lower.tril(-1) + torch.diag(self.log_scale.exp())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shift + (x * self.log_scale.exp() if self.lower is None else x @ self._factor().T)

    def inv(self, y: torch.Tensor) -> torch.Tensor:
        """The inverse map."""
        if self.lower is None:
            return (y - self.shift) * (-self.log_scale).exp()
        return torch.linalg.solve_triangular(self._factor(), (y - self.shift).T, upper=False).T

    def log_abs_det_jacobian(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """log |det A|, for every row."""
        return self.log_scale.sum().expand(x.shape[:-1])


class LowRankNormal(nn.Module):
    """N(shift, D (I + W W') D) with D = diag(exp(log_scale)); loading, W: (dim, rank), begins small but not at zero."""

    def __init__(self, dim: int, rank: int) -> None:
        super().__init__()
        self.shift, self.log_scale = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(dim))
        self.loading = nn.Parameter(0.1 * torch.randn(dim, rank))
        self.noise_dim = dim + rank

    def forward(self, noise: Any, u: Any = None) -> tuple[Any, Any]:
        dim, rank = self.loading.shape
        if u is None:
            u = self.shift + self.log_scale.exp() * (noise[:, :dim] + noise[:, dim:] @ self.loading.T)
        white = (u - self.shift) * (-self.log_scale).exp()
        root = torch.linalg.cholesky(torch.eye(rank).to(white) + self.loading.T @ self.loading)
        inner = torch.linalg.solve_triangular(root, (white @ self.loading).T, upper=False)
        log_det = root.diagonal().log().sum() + self.log_scale.sum()
        return u, _log_normal(white) + 0.5 * inner.square().sum(0) - log_det


class Net(nn.Module):
    """One hidden layer of SiLU units and several outputs, small at first; `finish` is applied to the last of them."""

    def __init__(self, inputs: int, width: int, sizes: Sequence[int], finish: Callable[[Any], Any]) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(inputs, width), calm(nn.Linear(width, sum(sizes)))
        self.sizes, self.finish = list(sizes), finish

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        *parts, last = self.last(nn.functional.silu(self.first(x))).split(self.sizes, -1)
        return *parts, self.finish(last)


def calm(linear: Any) -> Any:
    """A linear layer made small, so that the flow begins near the identity."""
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.mul_(0.01)
    return linear


def flow(dim: int, layers: Sequence[nn.Module], invert: bool = False) -> Flow:
    """The layers with a random permutation after each, and an affine map behind them."""
    permuted = [part for layer in layers for part in (layer, Shuffle(dim))]
    return Flow(dim, permuted, Affine(dim, dense=dim <= LARGEST), invert)


class Shuffle(nn.Module):
    """A fixed permutation: the reverse order of two unknowns, a random one of more."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        order = torch.arange(dim).flip(0) if dim == 2 else torch.randperm(dim)
        self.permute: Any = Permute(order)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.permute(x)

    def inv(self, y: torch.Tensor) -> torch.Tensor:
        """The inverse permutation."""
        return self.permute.inv(y)

    def log_abs_det_jacobian(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Zero, for every row."""
        return x.new_zeros(x.shape[:-1])
