"""What learners from draws share on the Pyro engine: the twin of `probgen.inference.adversarial._draws`, in torch.

A step changes the tensors of its state in place. All that is random in a step is drawn by its own seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from probgen.engine.pyro.executor import OPS
from probgen.engine.pyro.games.critics import as_reals
from probgen.engine.pyro.programs.density import scoped
from probgen.inference.adversarial._distance import LINES, SHOWN, sliced
from probgen.inference.adversarial._torch import _transport

Tensors = dict[str, torch.Tensor]
EPSILON = 1e-8  # of Adam


class Player(NamedTuple):
    """A player's parameters, the moments of their optimiser, and how many steps it took."""

    parameters: Tensors
    moments: dict[str, Tensors]
    turn: int


class Looked(NamedTuple):
    """What the last look found; see `_draws.Info`."""

    right: float
    slope: float
    distance: float
    last: float


class State(NamedTuple):
    """As `_draws.State`, of a program that learns alone."""

    step: int
    model: Player
    average: Tensors
    order: torch.Tensor
    held: torch.Tensor
    looked: Looked


class Words:
    """What distances of points are written with: `_distance.Words` in torch; seed: of what is random in one."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    exp, clip, trace = staticmethod(torch.exp), staticmethod(torch.clip), staticmethod(torch.trace)

    def sort(self, x: torch.Tensor) -> torch.Tensor:
        return x.sort(0).values

    def normal(self, shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn(shape, generator=generator, dtype=like.dtype).to(like.device)

    def divergence(self, x: torch.Tensor, y: torch.Tensor, epsilon: torch.Tensor, most: int) -> torch.Tensor:
        return _transport.divergence(x, y, epsilon, most)


class Kernel:
    """A learner's settings, and its steps in torch."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    def init(self, key: Any, target: Any) -> Any:
        k_model, k_rival, k_order = OPS.split(key, 3)
        parameters = target.started(self.first(k_model, target.initial(OPS.seed(k_model))))
        order = torch.from_numpy(OPS.generator(k_order).permutation(target.num_rows))
        count = self.settings.held_rows(target.num_rows)
        state = State(
            0, self.player(parameters), copied(parameters), order[count:].clone(), order[:count].clone(), Looked(*4 * (0.0,))
        )  # fmt: skip
        return self.opposed(k_rival, state, target)

    def step(self, key: Any, state: Any, target: Any) -> tuple[Any, dict[str, Any]]:
        s = self.settings
        k_rows, k_rival, k_model = OPS.split(key, 3)
        rate = float(s.rate(state.step, np))
        with scoped(target.precision, seed=OPS.seed(k_model)):
            state, opponent, batch, told = self.prepared(k_rows, k_rival, state, target, rate)
            loss = self._learn(k_model, state, target, opponent, batch, rate)
        model = state.model._replace(turn=state.model.turn + 1)
        weight = max(1 - s.ema, 1 / (state.step + 1.0)) if s.ema else 1.0
        with torch.no_grad():
            torch._foreach_lerp_(list(state.average.values()), list(model.parameters.values()), weight)
        state = state._replace(step=state.step + 1, model=model)
        if state.step % s.period == 0 or state.step == s.num_steps:
            state = self.look(state, target)
        seen = state.step >= min(s.period, s.num_steps)  # else there was no look yet
        looked = {k: v if seen else float("nan") for k, v in self.seen(state).items()}
        return state, {"loss": loss, "critic_loss": told, **looked, "learning_rate": rate}

    def answer(self, key: Any, state: Any, target: Any) -> Tensors:
        del key, target
        return {**state.average, **self.of_rival(state)}

    # ---- what learners say

    def first(self, key: Any, parameters: Tensors) -> Tensors:
        """Parameters before the first step."""
        del key
        return dict(parameters)

    def opposed(self, key: Any, state: State, target: Any) -> Any:
        """The state with that of the opponent."""
        del key, target
        return state

    def of_rival(self, state: Any) -> Tensors:
        """The opponent's part of the answer."""
        return {}

    def prepared(
        self, k_rows: Any, k_rival: Any, state: Any, target: Any, rate: float
    ) -> tuple[Any, Any, Tensors, Any]:
        """The state after the opponent's move, whom the program moves against, its batch, and the opponent's loss."""
        order, batch = self.rows(OPS.fold_in(k_rows, 0), state.order, state.step, target)
        return state._replace(order=order), None, batch, 0.0

    def loss_of_draws(self, key: Any, target: Any, opponent: Any, leaves: Tensors, batch: Tensors) -> torch.Tensor:
        """What the program minimises on a batch, by the parameters `leaves`: ()."""
        x, y = (flat(target, points) for points in (batch, self.made(target, leaves, batch)))
        with torch.enable_grad():
            return self.settings.distance(Words(OPS.seed(key)), x, y)

    def regularised(self, loss: torch.Tensor, leaves: Tensors) -> torch.Tensor:
        """The loss with a penalty on the program's parameters."""
        del leaves
        return loss

    def scaled(self, updates: list[torch.Tensor]) -> list[torch.Tensor]:
        """The directions of a step."""
        return updates

    def judgement(self, key: Any, state: Any, target: Any, rows: Tensors) -> tuple[float, float]:
        """The share of rows and draws that the opponent tells right, and the root mean square of its slope at rows."""
        return 0.0, 0.0

    # ---- steps, inside a scope

    def _learn(self, key: Any, state: Any, target: Any, opponent: Any, batch: Any, rate: float) -> Any:
        """One step of the program; its loss before."""
        leaves = as_leaves(state.model.parameters)
        loss = self.loss_of_draws(key, target, opponent, leaves, batch)
        with torch.enable_grad():
            objective = self.regularised(loss, leaves)
        slopes = torch.autograd.grad(objective, list(leaves.values()), materialize_grads=True, allow_unused=True)
        self.move(state.model, slopes, rate)
        return loss.detach()

    def made(self, target: Any, leaves: Tensors, batch: Tensors) -> Tensors:
        """Draws for the inputs of a batch, differentiable in the parameters."""
        with target.holding(leaves, train=True), torch.enable_grad():
            return as_reals(target, target.simulated(batch))

    # ---- looks

    def look(self, state: Any, target: Any) -> Any:
        """The state with what a look at it finds."""
        key = OPS.fold_in(OPS.key(1), state.step)
        held = state.held if len(state.held) > 1 else state.order
        known, others = (as_reals(target, target.batch(index[:SHOWN])) for index in (state.order, held))
        right, slope = self.judgement(key, state, target, known)
        distances = [self._distance(key, target, p, others) for p in (state.average, state.model.parameters)]
        return state._replace(looked=Looked(right, slope, *distances))

    def seen(self, state: Any) -> dict[str, float]:
        """What the last look found, as it is recorded."""
        return state.looked._asdict()

    def drawn(self, key: Any, target: Any, parameters: Tensors, rows: Tensors) -> Tensors:
        with target.running(parameters, OPS.seed(key)), torch.no_grad():
            return as_reals(target, target.simulated(rows))

    def _distance(self, key: Any, target: Any, parameters: Tensors, rows: Tensors) -> float:
        """The sliced Wasserstein-2 distance of as many draws from rows, by random directions."""
        real, fake = (flat(target, points) for points in (rows, self.drawn(key, target, parameters, rows)))
        return sliced(Words(OPS.seed(OPS.fold_in(key, 1))), real, fake, LINES).sqrt().item()

    # ---- parts

    def player(self, parameters: Tensors) -> Player:
        words = ("first", "second") if self.settings.optimizer == "adam" else ()
        return Player(parameters, {w: {k: torch.zeros_like(p) for k, p in parameters.items()} for w in words}, 0)

    def rows(self, key: Any, order: torch.Tensor, turn: int, target: Any) -> tuple[torch.Tensor, Tensors]:
        """The order of rows, drawn anew after each pass, and the rows of a turn."""
        order, index = self.indices(key, order, turn)
        return order, as_reals(target, target.batch(index, OPS.seed(OPS.fold_in(key, 1))))

    def indices(self, key: Any, order: torch.Tensor, turn: int) -> tuple[torch.Tensor, torch.Tensor]:
        size = min(self.settings.batch_size, len(order))
        at = turn % (len(order) // size)
        if at == 0 and turn:
            order = order[torch.from_numpy(OPS.generator(key).permutation(len(order)))]
        return order, order[at * size : (at + 1) * size]

    @torch.no_grad()
    def move(self, player: Player, slopes: Any, rate: float) -> None:
        """One step of Adam (Kingma and Ba 2015), or along the gradient."""
        s, values, updates = self.settings, list(player.parameters.values()), list(slopes)
        if s.optimizer == "adam":
            first, second = (list(player.moments[word].values()) for word in ("first", "second"))
            torch._foreach_lerp_(first, updates, 1 - s.beta1)
            torch._foreach_mul_(second, s.beta2)
            torch._foreach_addcmul_(second, updates, updates, 1 - s.beta2)
            count = player.turn + 1
            scale = torch._foreach_sqrt(second)
            torch._foreach_div_(scale, (1 - s.beta2**count) ** 0.5)
            torch._foreach_add_(scale, EPSILON)
            updates = list(torch._foreach_div(first, scale))
            rate = rate / (1 - s.beta1**count)
        torch._foreach_add_(values, self.scaled(updates), alpha=-rate)


def flat(target: Any, points: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Visible sites side by side: (row, number)."""
    return torch.cat([points[v.name].reshape(len(points[v.name]), -1) for v in target.visible], 1)


def generator(key: Any) -> torch.Generator:
    return torch.Generator().manual_seed(OPS.seed(key))


def copied(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    return {k: v.clone() for k, v in tensors.items()}


def as_leaves(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """The same numbers, as what is differentiated."""
    return {k: v.detach().requires_grad_() for k, v in tensors.items()}
