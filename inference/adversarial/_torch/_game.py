"""The game on the Pyro engine: the kernel of settings and losses that `probgen.inference.adversarial` defines.

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
from probgen.inference.adversarial._torch import _augment, _weights
from probgen.inference.adversarial._torch._play import Play
from probgen.target import CRITIC

Tensors = dict[str, torch.Tensor]
SHOWN = 512  # rows at a look
LINES = 64  # directions of a look
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
    """As `_draws.State`; vectors: of the largest singular value of the critic's weights."""

    step: int
    model: Player
    average: Tensors
    critic: Player
    vectors: Tensors
    order: torch.Tensor
    held: torch.Tensor
    looked: Looked


class Kernel:
    """A learner's settings, and its steps in torch."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    def init(self, key: Any, target: Any) -> State:
        s = self.settings
        k_model, k_critic, k_order = OPS.split(key, 3)
        parameters = target.started(self._first(k_model, target.initial(OPS.seed(k_model))))
        critic = self._first(k_critic, target.critic_initial(OPS.seed(k_critic)))
        named = target.started({f"{k}{CRITIC}": v for k, v in critic.items()})  # where it begins elsewhere, it does
        critic = self._bounded({k: named[f"{k}{CRITIC}"] for k in critic})
        generator = _generator(OPS.fold_in(k_critic, 1))
        vectors = _weights.first_vectors(generator, critic) if s.spectral_norm else {}
        order = torch.from_numpy(OPS.generator(k_order).permutation(target.num_rows))
        count = s.held_rows(target.num_rows)
        players = (self._player(parameters), _copy(parameters), self._player(critic))
        return State(0, *players, vectors, order[count:].clone(), order[:count].clone(), Looked(0.0, 0.0, 0.0, 0.0))

    def step(self, key: Any, state: State, target: Any) -> tuple[State, dict[str, Any]]:
        s = self.settings
        k_rows, k_critic, k_model = OPS.split(key, 3)
        rate = float(s.rate(state.step, np))
        with scoped(target.precision, seed=OPS.seed(k_model)):
            opponent = (_copy(state.critic.parameters), _copy(state.vectors)) if s.simultaneous else None
            for i in range(s.critic_steps):
                order, batch = self._rows(OPS.fold_in(k_rows, i), state, target)
                k_play = OPS.fold_in(k_critic, i)
                critic, vectors, told = self._train(k_play, state, target, batch, rate * s.critic_rate)
                state = state._replace(critic=critic, vectors=vectors, order=order)
            loss = self._learn(k_model, state, target, opponent or (critic.parameters, vectors), batch, rate)
        model = state.model._replace(turn=state.model.turn + 1)
        weight = max(1 - s.ema, 1 / (state.step + 1.0)) if s.ema else 1.0
        with torch.no_grad():
            torch._foreach_lerp_(list(state.average.values()), list(model.parameters.values()), weight)
        state = state._replace(step=state.step + 1, model=model)
        if state.step % s.period == 0 or state.step == s.num_steps:
            state = state._replace(looked=self._look(state, target))
        seen = state.step >= min(s.period, s.num_steps)  # else there was no look yet
        looked = state.looked._asdict() if seen else dict.fromkeys(Looked._fields, float("nan"))
        return state, {"loss": loss, "critic_loss": told, **looked, "learning_rate": rate}

    def answer(self, key: Any, state: State, target: Any) -> Tensors:
        del key, target
        critic = _weights.divided(state.critic.parameters, state.vectors)
        return {**state.average, **{f"{k}{CRITIC}": v for k, v in critic.items()}}

    # ---- steps, inside a scope

    def _train(self, key: Any, state: State, target: Any, batch: Any, rate: float) -> tuple[Player, Tensors, Any]:
        """The critic after one step, the vectors of its weights, and its loss before."""
        critic = state.critic
        with target.holding(state.model.parameters, train=True), torch.no_grad():
            fake = as_reals(target, target.simulated(batch))
        vectors = _weights.iterated(critic.parameters, state.vectors)
        leaves = _leaves(critic.parameters)
        done = critic.turn / (self.settings.num_steps * self.settings.critic_steps)
        loss = self._played(key, target, leaves, vectors, self.settings.critic_loss, batch, fake, done)
        slopes = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True, allow_unused=True)
        self._move(critic, slopes, rate)
        bounded = self._bounded(critic.parameters)
        return Player(bounded, critic.moments, critic.turn + 1), vectors, loss.detach()

    def _learn(self, key: Any, state: State, target: Any, opponent: Any, batch: Any, rate: float) -> Any:
        """One step of the program against a critic's parameters and vectors; its loss before."""
        leaves = _leaves(state.model.parameters)
        with target.holding(leaves, train=True), torch.enable_grad():
            fake = as_reals(target, target.simulated(batch))
        critic, vectors = opponent
        loss = self._played(key, target, critic, vectors, self.settings.model_loss, batch, fake)
        objective = loss
        if self.settings.orthogonal:
            with torch.enable_grad():
                objective = loss + self.settings.orthogonal * _weights.off_diagonal(leaves)
        slopes = torch.autograd.grad(objective, list(leaves.values()), materialize_grads=True, allow_unused=True)
        self._move(state.model, slopes, rate)
        return loss.detach()

    def _played(
        self, key: Any, target: Any, critic: Any, vectors: Any, loss: Any, real: Any, fake: Any, done: float = 0.0
    ) -> torch.Tensor:
        """A loss at rows and draws, by a critic's parameters."""
        with torch.enable_grad():
            own = _weights.divided(critic, vectors)
            with target.judging(own, train=True):
                return loss(self.play(OPS.seed(key), target, done), real, fake)

    def play(self, seed: int, target: Any, done: float = 0.0) -> Play:
        """What a loss is written with, inside the scope of a critic's parameters."""
        sites, kind = tuple(v.name for v in target.visible), self.settings.augment
        return Play(lambda points: target.logits(_augment.changed(seed, points, sites, kind)), sites, seed, done)

    # ---- looks

    def _look(self, state: State, target: Any) -> Looked:
        key = OPS.fold_in(OPS.key(1), state.step)
        held = state.held if len(state.held) > 1 else state.order
        known, others = (as_reals(target, target.batch(index[:SHOWN])) for index in (state.order, held))
        right, slope = self._judgement(key, state, target, known)
        distances = [self._distance(key, target, p, others) for p in (state.average, state.model.parameters)]
        return Looked(right, slope, *distances)

    def _judgement(self, key: Any, state: State, target: Any, rows: Tensors) -> tuple[float, float]:
        """The share of rows and draws that the critic tells right, and the root mean square of its slope at rows."""
        size = len(rows[target.visible[0].name]) // self.settings.pack * self.settings.pack
        rows = {k: v[:size] for k, v in rows.items()}
        fake = self._drawn(key, target, state.model.parameters, rows)
        own = _weights.divided(state.critic.parameters, state.vectors)
        with scoped(target.precision, seed=OPS.seed(key)), target.judging(own), torch.enable_grad():
            play = self.play(OPS.seed(key), target)
            real, other = play.judge(rows), play.judge(fake)
            slope = play.square_slope(rows).mean().sqrt().item()
        middle = 0.0 if self.settings.has_middle else 0.5 * (real.mean() + other.mean())
        right = 0.5 * (real > middle).double().mean() + 0.5 * (other < middle).double().mean()
        return right.item(), slope

    def _drawn(self, key: Any, target: Any, parameters: Tensors, rows: Tensors) -> Tensors:
        with target.running(parameters, OPS.seed(key)), torch.no_grad():
            return as_reals(target, target.simulated(rows))

    def _distance(self, key: Any, target: Any, parameters: Tensors, rows: Tensors) -> float:
        """The sliced Wasserstein-2 distance of as many draws from rows, by random directions."""
        drawn = self._drawn(key, target, parameters, rows)
        real, fake = (
            torch.cat([points[v.name].flatten(1) if v.shape else points[v.name][:, None] for v in target.visible], 1)
            for points in (rows, drawn)
        )
        lines = torch.randn(real.shape[1], LINES, generator=_generator(OPS.fold_in(key, 1)), dtype=real.dtype)
        lines = (lines / torch.linalg.vector_norm(lines, dim=0)).to(real.device)
        gap = (real @ lines).sort(0).values - (fake @ lines).sort(0).values
        return (real.shape[1] * (gap**2).mean()).sqrt().item()

    # ---- parts

    def _first(self, key: Any, parameters: Tensors) -> Tensors:
        return _weights.equalised(_generator(key), parameters) if self.settings.equalised else dict(parameters)

    def _player(self, parameters: Tensors) -> Player:
        words = ("first", "second") if self.settings.optimizer == "adam" else ()
        return Player(parameters, {w: {k: torch.zeros_like(p) for k, p in parameters.items()} for w in words}, 0)

    def _bounded(self, parameters: Tensors) -> Tensors:
        with torch.no_grad():
            return dict(self.settings.bound_critic(parameters))

    def _rows(self, key: Any, state: State, target: Any) -> tuple[torch.Tensor, Tensors]:
        """The rows of the critic's next step, in an order that is drawn anew after each pass."""
        order, turn = state.order, state.critic.turn
        size = min(self.settings.batch_size, len(order))
        at = turn % (len(order) // size)
        if at == 0 and turn:
            order = order[torch.from_numpy(OPS.generator(key).permutation(len(order)))]
        rows = target.batch(order[at * size : (at + 1) * size], OPS.seed(OPS.fold_in(key, 1)))
        return order, as_reals(target, rows)

    @torch.no_grad()
    def _move(self, player: Player, slopes: Any, rate: float) -> None:
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
        if s.equalised:
            updates = [u * _weights.scale(u) for u in updates]
        torch._foreach_add_(values, updates, alpha=-rate)


def _generator(key: Any) -> torch.Generator:
    return torch.Generator().manual_seed(OPS.seed(key))


def _copy(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    return {k: v.clone() for k, v in tensors.items()}


def _leaves(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """The same numbers, as what is differentiated."""
    return {k: v.detach().requires_grad_() for k, v in tensors.items()}
