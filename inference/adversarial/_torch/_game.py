"""The game on the Pyro engine: the kernel of settings and losses that `probgen.inference.adversarial` defines."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from probgen.engine.pyro.executor import OPS
from probgen.engine.pyro.games.critics import as_reals
from probgen.engine.pyro.programs.density import scoped
from probgen.inference.adversarial._torch import _augment, _draws, _weights
from probgen.inference.adversarial._torch._draws import Looked, Player, Tensors
from probgen.inference.adversarial._torch._play import Play
from probgen.target import CRITIC


class State(NamedTuple):
    """As `_draws.State`, with the critic; vectors: of the largest singular value of the critic's weights."""

    step: int
    model: Player
    average: Tensors
    critic: Player
    vectors: Tensors
    order: torch.Tensor
    held: torch.Tensor
    looked: Looked


class Kernel(_draws.Kernel):
    """A game's settings, and its steps in torch."""

    def first(self, key: Any, parameters: Tensors) -> Tensors:
        equalised = self.settings.equalised
        return _weights.equalised(_draws.generator(key), parameters) if equalised else dict(parameters)

    def opposed(self, key: Any, state: _draws.State, target: Any) -> State:
        critic = self.first(key, target.critic_initial(OPS.seed(key)))
        named = target.started({f"{k}{CRITIC}": v for k, v in critic.items()})  # where it begins elsewhere, it does
        critic = self._bounded({k: named[f"{k}{CRITIC}"] for k in critic})
        generator = _draws.generator(OPS.fold_in(key, 1))
        vectors = _weights.first_vectors(generator, critic) if self.settings.spectral_norm else {}
        return State(**state._asdict(), critic=self.player(critic), vectors=vectors)

    def of_rival(self, state: State) -> Tensors:
        critic = _weights.divided(state.critic.parameters, state.vectors)
        return {f"{k}{CRITIC}": v for k, v in critic.items()}

    def prepared(
        self, k_rows: Any, k_rival: Any, state: State, target: Any, rate: float
    ) -> tuple[State, Any, Tensors, Any]:
        s = self.settings
        before = (_draws.copied(state.critic.parameters), _draws.copied(state.vectors)) if s.simultaneous else None
        batch, told = {}, None
        for i in range(s.critic_steps):
            order, batch = self.rows(OPS.fold_in(k_rows, i), state.order, state.critic.turn, target)
            k_play = OPS.fold_in(k_rival, i)
            critic, vectors, told = self._train(k_play, state, target, batch, rate * s.critic_rate)
            state = state._replace(critic=critic, vectors=vectors, order=order)
        return state, before or (state.critic.parameters, state.vectors), batch, told

    def _train(self, key: Any, state: State, target: Any, batch: Any, rate: float) -> tuple[Player, Tensors, Any]:
        """The critic after one step, the vectors of its weights, and its loss before."""
        critic = state.critic
        with target.holding(state.model.parameters, train=True), torch.no_grad():
            fake = as_reals(target, target.simulated(batch))
        vectors = _weights.iterated(critic.parameters, state.vectors)
        leaves = _draws.as_leaves(critic.parameters)
        done = critic.turn / (self.settings.num_steps * self.settings.critic_steps)
        loss = self._played(key, target, leaves, vectors, self.settings.critic_loss, batch, fake, done)
        slopes = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True, allow_unused=True)
        self.move(critic, slopes, rate)
        bounded = self._bounded(critic.parameters)
        return Player(bounded, critic.moments, critic.turn + 1), vectors, loss.detach()

    def loss_of_draws(self, key: Any, target: Any, opponent: Any, leaves: Tensors, batch: Tensors) -> torch.Tensor:
        fake, weight = self.made(target, leaves, batch), self.settings.reconstruction
        critic, vectors = opponent
        loss = self._played(key, target, critic, vectors, self.settings.model_loss, batch, fake)
        if not weight:
            return loss
        with torch.enable_grad():
            return loss + weight * (_draws.flat(target, batch) - _draws.flat(target, fake)).abs().mean()

    def regularised(self, loss: torch.Tensor, leaves: Tensors) -> torch.Tensor:
        weight = self.settings.orthogonal
        return loss + weight * _weights.off_diagonal(leaves) if weight else loss

    def scaled(self, updates: list[torch.Tensor]) -> list[torch.Tensor]:
        return [u * _weights.scale(u) for u in updates] if self.settings.equalised else updates

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

    def judgement(self, key: Any, state: State, target: Any, rows: Tensors) -> tuple[float, float]:
        size = len(rows[target.visible[0].name]) // self.settings.pack * self.settings.pack
        rows = {k: v[:size] for k, v in rows.items()}
        fake = self.drawn(key, target, state.model.parameters, rows)
        own = _weights.divided(state.critic.parameters, state.vectors)
        with scoped(target.precision, seed=OPS.seed(key)), target.judging(own), torch.enable_grad():
            play = self.play(OPS.seed(key), target)
            real, other = play.judge(rows), play.judge(fake)
            slope = play.square_slope(rows).mean().sqrt().item()
        middle = 0.0 if self.settings.has_middle else 0.5 * (real.mean() + other.mean())
        right = 0.5 * (real > middle).double().mean() + 0.5 * (other < middle).double().mean()
        return right.item(), slope

    def _bounded(self, parameters: Tensors) -> Tensors:
        with torch.no_grad():
            return dict(self.settings.bound_critic(parameters))
