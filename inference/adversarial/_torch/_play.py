"""What losses of the game are written with, in torch: the twin of `probgen.inference.adversarial._game.Play`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

Points = Mapping[str, torch.Tensor]


class Play:
    """judge: points -> logits (row,); seed: of what is random in a loss, the same of rows and of draws; done: the
    share of all steps.

    logits: of points, by the critic. What was said of points is kept, so that a penalty on the slope at points that were judged
    does not judge them again.
    """

    def __init__(
        self, logits: Callable[[Points], torch.Tensor], sites: tuple[str, ...], seed: int, done: float = 0.0
    ) -> None:
        self.logits, self.sites, self.seed, self.done = logits, sites, seed, done
        self._said: dict[int, tuple[Points, Points, torch.Tensor]] = {}

    def judge(self, points: Points) -> torch.Tensor:
        return self._judged(points)[2]

    def _judged(self, points: Points) -> tuple[Points, Points, torch.Tensor]:
        """The points, their visible sites as they can be differentiated, and the logits."""
        if id(points) not in self._said:
            own = {k: v if v.requires_grad else v.detach().requires_grad_() for k in self.sites for v in (points[k],)}
            self._said[id(points)] = (points, own, self.logits({**points, **own}))
        return self._said[id(points)]

    def square_slope(self, points: Points) -> torch.Tensor:
        """The squared norm of the critic's gradient, over all axes of a row, or of the rows that are judged at once: (row,)."""
        _, own, logits = self._judged(points)
        slopes = torch.autograd.grad(logits.sum(), list(own.values()), create_graph=True, materialize_grads=True)
        found: Any = sum((s.reshape(len(logits), -1) ** 2).sum(1) for s in slopes)
        return found

    def between(self, real: Points, fake: Points) -> dict[str, torch.Tensor]:
        """Points anywhere on the lines from draws to rows, with the rows' inputs."""
        first = fake[self.sites[0]]
        share = self.shares(len(first)).to(first.device)

        def mix(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            weight = share.reshape(-1, *(1,) * (a.dim() - 1)).to(b.dtype)
            return weight * a + (1 - weight) * b

        return {k: mix(real[k], v) if k in self.sites else v for k, v in fake.items()}

    def shares(self, count: int) -> torch.Tensor:
        """Where on its line each point is, uniform: (row,)."""
        return torch.rand(count, generator=torch.Generator().manual_seed(self.seed))

    def mean(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean()

    def softplus(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.softplus(x)

    def relu(self, x: Any) -> torch.Tensor:
        return torch.relu(x)
