"""Two maps and their critics on the Pyro engine: the kernel of `probgen.inference.adversarial.cycle_gan`, in torch."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from probgen.engine.pyro.executor import OPS
from probgen.engine.pyro.games.critics import as_reals
from probgen.engine.pyro.games.unpaired import named
from probgen.engine.pyro.programs.density import scoped
from probgen.inference.adversarial._distance import SHOWN
from probgen.inference.adversarial._torch import _draws
from probgen.inference.adversarial._torch._draws import Looked, Player, Tensors


class State(NamedTuple):
    """As `_draws.State`, with both critics by the keyword of what they see; cycle: at the last look."""

    step: int
    model: Player
    average: Tensors
    critics: dict[str, Player]
    order: torch.Tensor
    order_given: torch.Tensor
    held: torch.Tensor
    looked: Looked
    cycle: float


class Kernel(_draws.Kernel):
    """The settings of `cycle_gan`, and its steps in torch."""

    def opposed(self, key: Any, state: _draws.State, target: Any) -> State:
        critics = {k: self.player(v) for k, v in target.critics_initial(OPS.seed(key)).items()}
        order = torch.from_numpy(OPS.generator(OPS.fold_in(key, 1)).permutation(target.num_given))
        return State(**state._asdict(), critics=critics, order_given=order, cycle=0.0)

    def of_rival(self, state: State) -> Tensors:
        return named({k: player.parameters for k, player in state.critics.items()})

    def prepared(
        self, k_rows: Any, k_rival: Any, state: State, target: Any, rate: float
    ) -> tuple[State, Any, Tensors, Any]:
        k_made, k_given = OPS.split(k_rows, 2)
        order, batch = self.rows(k_made, state.order, state.step, target)
        order_given, index = self.indices(k_given, state.order_given, state.step)
        batch = {**batch, **target.rows_given(index)}
        with torch.no_grad():
            fakes = self.settings.fakes(self.ways(target, state.model.parameters), *self._sides(target, batch))
        leaves = {k: _draws.as_leaves(player.parameters) for k, player in state.critics.items()}
        with torch.enable_grad():
            ways = self.ways(target, state.model.parameters, leaves)
            loss = self.settings.critics_loss(ways, *self._sides(target, batch), fakes)
        every = [v for own in leaves.values() for v in own.values()]
        slopes = iter(torch.autograd.grad(loss, every, materialize_grads=True, allow_unused=True))
        for player in state.critics.values():
            self.move(player, [next(slopes) for _ in player.parameters], rate * self.settings.critic_rate)
        critics = {k: player._replace(turn=player.turn + 1) for k, player in state.critics.items()}
        state = state._replace(critics=critics, order=order, order_given=order_given)
        return state, {k: player.parameters for k, player in critics.items()}, batch, loss.detach()

    def loss_of_draws(self, key: Any, target: Any, opponent: Any, leaves: Tensors, batch: Tensors) -> torch.Tensor:
        with torch.enable_grad():
            return self.settings.maps_loss(self.ways(target, leaves, opponent), *self._sides(target, batch))

    def ways(self, target: Any, parameters: Tensors, critics: Any = None) -> Any:
        """Both maps and what the critics say, by parameters, inside a scope."""

        def moved(way: Any) -> Any:
            def one(x: torch.Tensor) -> torch.Tensor:
                with target.holding(parameters, train=True):
                    return way(x)

            return one

        say = lambda k, x: target.said(k, critics[k], x, True)  # noqa: E731
        return self.settings.ways(target.given, target.made, moved(target.forth), moved(target.back), say)

    @staticmethod
    def _sides(target: Any, rows: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows of a and of b."""
        return rows[target.given], rows[target.keywords[target.made]]

    # ---- looks

    def look(self, state: State, target: Any) -> State:
        state = super().look(state, target)
        index = state.held if len(state.held) > 1 else state.order
        rows = as_reals(target, target.batch(index[:SHOWN]))
        with scoped(target.precision), torch.no_grad():
            found = self.settings.around(self.ways(target, state.average), *self._sides(target, rows))
        return state._replace(cycle=found.item())

    def seen(self, state: State) -> dict[str, float]:
        return {**super().seen(state), "cycle": state.cycle}

    def judgement(self, key: Any, state: State, target: Any, rows: Tensors) -> tuple[float, float]:
        a, b = self._sides(target, rows)
        with scoped(target.precision, seed=OPS.seed(key)), torch.enable_grad():
            critics = {k: player.parameters for k, player in state.critics.items()}
            ways = self.ways(target, state.model.parameters, critics)
            b = b.detach().requires_grad_()
            real, fake = ways.say(target.made, b), ways.say(target.made, ways.forth(a).detach())
            (slope,) = torch.autograd.grad(real.sum(), b)
        right = 0.5 * (real > 0.5).double().mean() + 0.5 * (fake < 0.5).double().mean()
        return right.item(), (slope**2).sum().div(len(b)).sqrt().item()
