"""Weights of torch networks by their labels: the twin of `probgen.inference.adversarial._weights`, which says what they mean."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

Tensors = dict[str, torch.Tensor]
TINY = 1e-12  # below which a norm counts as that


def _matrix(weight: torch.Tensor) -> torch.Tensor:
    return weight.reshape(weight.shape[0], -1)


def _unit(x: torch.Tensor) -> torch.Tensor:
    return x / torch.linalg.vector_norm(x).clamp(min=TINY)


def first_vectors(generator: torch.Generator, parameters: Mapping[str, torch.Tensor]) -> Tensors:
    """A random unit vector (outputs,) for every weight."""
    weights = {k: v for k, v in sorted(parameters.items()) if v.dim() >= 2}
    return {k: _unit(torch.randn(v.shape[:1], generator=generator, dtype=v.dtype)) for k, v in weights.items()}


def iterated(parameters: Mapping[str, torch.Tensor], vectors: Mapping[str, torch.Tensor]) -> Tensors:
    """The vectors after one power iteration; none of it is differentiated."""
    still = {k: _matrix(parameters[k].detach()) for k in vectors}
    return {k: _unit(w @ _unit(w.T @ vectors[k])) for k, w in still.items()}


def divided(parameters: Mapping[str, torch.Tensor], vectors: Mapping[str, torch.Tensor]) -> Tensors:
    """The parameters, weights with a vector divided by u' W v, which is their largest singular value once u has come to rest."""
    found = dict(parameters)
    for k, u in vectors.items():
        w = _matrix(parameters[k])
        v = _unit(w.detach().T @ u)
        found[k] = parameters[k] / (u @ w @ v).clamp(min=TINY)
    return found


def scale(weight: torch.Tensor) -> float:
    """sqrt(2 / inputs) of a weight, 1 of others."""
    return math.sqrt(2 * weight.shape[0] / weight.numel()) if weight.dim() >= 2 else 1.0


def equalised(generator: torch.Generator, parameters: Mapping[str, torch.Tensor]) -> Tensors:
    """Weights drawn anew from N(0, 2 / inputs), others as they are."""

    def drawn(v: torch.Tensor) -> torch.Tensor:
        return scale(v) * torch.randn(v.shape, generator=generator, dtype=v.dtype) if v.dim() >= 2 else v

    return {k: drawn(parameters[k]) for k in sorted(parameters)}


def off_diagonal(parameters: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """sum over weights W of |W W' * (1 - I)|^2, W (outputs, inputs): how far from orthogonal the outputs' rows are."""
    found = torch.zeros(())
    for weight in parameters.values():
        if weight.dim() >= 2:
            w = _matrix(weight)
            products = w @ w.T
            found = found + ((products - torch.diag(products.diagonal())) ** 2).sum()
    return found
