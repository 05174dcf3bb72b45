"""Learners of denoisers on the Pyro engine: the kernel of settings and losses that `probgen.inference.denoising` defines."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from probgen.inference.denoising._told import GRID, Held, Info
from probgen.inference.likelihood._torch import Kernel, State, Tensors
from probgen.nets.torch_diffusion.chains import spread_out


class Noised(Kernel):
    """Of `denoising.Denoising` and `flow_matching.FlowMatching`: rows with noise put on them, at times that a batch shares out."""

    def begun(self, state: State, target: Any) -> State:
        self._check_hidden(state, target)
        count = self.settings.held_rows(target.num_rows)
        return state._replace(order=state.order[count:].clone(), extra=Held(state.order[:count].clone()))

    def monitored(self, target: Any, rows: Any) -> float:
        return self._loss(target, rows).item()

    def gradient(self, target: Any, leaves: Tensors, rows: Any, step: int) -> tuple[Any, float, Any]:
        loss = self._loss(target, rows)
        return torch.autograd.grad(loss, list(leaves.values()), allow_unused=True), loss.item(), None

    def info(self, state: State, loss: float, rate: float, told: Any) -> Info:
        return Info(loss, rate, state.guard.rollbacks)

    def _loss(self, target: Any, rows: Any) -> Tensor:
        denoiser, x = target.denoised(self._shown(target, rows))
        t, share = self._time(denoiser, spread_out(len(x), x))
        noise = self.settings.torch_paired(torch.randn(x.shape, dtype=x.dtype).to(x), x)
        return self.settings.torch_loss(denoiser, x, noise, t, share)

    def _time(self, denoiser: Any, u: Tensor) -> tuple[Tensor, Tensor]:
        """The times of numbers u in [0, 1), and dt / du: (row,), (row,)."""
        s, schedule = self.settings, denoiser.schedule
        if s.times == "even":
            span = 1 - schedule.first
            return schedule.first + span * u, torch.full_like(u, float(span))
        times = torch.linspace(max(schedule.first, 1e-5), 1.0, GRID).to(u)
        ratio = -0.5 * schedule.log_snr(times) - torch.log(torch.tensor(getattr(denoiser, "spread", 1.0)))
        cdf = torch.special.ndtr((ratio - s.log_mean) / s.log_sd)
        wanted = cdf[0] + u * (cdf[-1] - cdf[0])
        after = torch.searchsorted(cdf, wanted).clamp(1, GRID - 1)
        low, high = cdf[after - 1], cdf[after]
        apart, step = (high - low).clamp(min=1e-12), times[after] - times[after - 1]
        return times[after - 1] + ((wanted - low) / apart).clamp(0, 1) * step, (cdf[-1] - cdf[0]) * step / apart

    def _check_hidden(self, state: State, target: Any) -> None:
        """Raises ValueError for a program that does not take -1 for an input that is hidden."""
        if not self.settings.unlabelled or not target.labels:
            return
        rows = target.few()
        rows |= {k: torch.full_like(rows[k], -1) for k in target.labels}
        try:
            with target.running(state.parameters, 0), torch.no_grad():
                denoiser, x = target.denoised(rows)
                denoiser(x, torch.full((len(x),), 0.5).to(x))
        except (IndexError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"The program does not take -1 for {target.labels[0]!r}, which says that it is hidden: "
                f"{str(error).splitlines()[0]}\nGive its network a class more for that, or learn with unlabelled=0."
            ) from error

    def _shown(self, target: Any, rows: Any) -> Any:
        """The rows with some whole-number inputs hidden."""
        if not self.settings.unlabelled or not target.labels:
            return rows
        hidden = torch.rand(len(rows[target.labels[0]])) < self.settings.unlabelled
        return {**rows, **{k: torch.where(hidden, -1, rows[k]) for k in target.labels}}


def coupled(noise: Tensor, x: Tensor) -> Tensor:
    """The noise in the order that has the least total squared distance from rows, both (row, *event)."""
    from scipy.optimize import linear_sum_assignment

    with torch.no_grad():
        centred = (x - x.mean(0)).flatten(1).double()  # |e|^2 and |x|^2 are the same for every assignment
        cost = torch.nan_to_num(-centred @ noise.flatten(1).double().T, 0.0, 1e300, -1e300)  # a run watches for NaN
    return noise[torch.from_numpy(linear_sum_assignment(cost.numpy())[1])]
