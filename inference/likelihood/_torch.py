"""Learners of parameters from rows on the Pyro engine: the kernels of settings that `_learner` and the learners define.

A step changes the tensors of its state in place.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from probgen.engine.pyro.bounded import noise
from probgen.engine.pyro.executor import OPS
from probgen.engine.pyro.together import ALONE, Alone
from probgen.inference import _learner
from probgen.inference.likelihood._told import ACTIVE, ROWS, OfBound, OfLikelihood, Watch
from probgen.nets.pyro_modules import running
from probgen.target import Diffused

Tensors = dict[str, torch.Tensor]


class State(NamedTuple):
    """As `_learner.State`; extra: the learner's own."""

    step: int
    parameters: Tensors
    average: Tensors
    optimiser: dict[str, Tensors]
    order: torch.Tensor
    loss: float
    guard: _learner.Guard
    extra: Any


class Kernel:
    """A learner's settings, and its steps in torch. rows: whose rows those of a batch are."""

    rows: Alone = ALONE

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    def init(self, key: Any, target: Any) -> State:
        self.settings.check_precision(target)
        k_parameters, k_order, k_loss = OPS.split(key, 3)
        parameters = target.initial(OPS.seed(k_parameters))
        words = {"adam": ("first", "second"), "sgd": ("velocity",)}[self.settings.optimizer]
        optimiser = {word: {k: torch.zeros_like(p) for k, p in parameters.items()} for word in words}
        order = torch.from_numpy(OPS.generator(k_order).permutation(target.num_rows))
        zero = np.float64(0)
        guard = _learner.Guard(
            _copy(parameters), _copy(optimiser), (), zero + np.nan, zero, zero, zero, zero, zero + 1, np.int64(0)
        )
        state = State(0, parameters, _copy(parameters), optimiser, order, 0.0, guard, ())
        state = self.begun(state, target)
        rows = target.batch(state.order[: self.settings.batch_size], OPS.seed(k_loss))
        with target.running(parameters, OPS.seed(k_loss)), torch.no_grad(), running(False, False) as runs:
            loss = np.float64(self.monitored(target, rows))
        if not runs.used and (asked := [k for k in ("compiled", "mixed_precision") if getattr(self.settings, k)]):
            raise ValueError(
                f"{asked[0]} is for networks that `probgen.nets.pyro_modules.registered` makes; the program has none.\n"
                "Use torch.compile or torch.autocast inside the program."
            )
        return state._replace(loss=float(loss), guard=guard._replace(best=loss, last=loss, worst=loss))

    def step(self, key: Any, state: State, target: Any) -> tuple[State, Any]:
        s = self.settings
        k_order, k_model = OPS.split(key, 2)
        order, rows = self._batch(k_order, state, target)
        leaves = {k: p.detach().requires_grad_() for k, p in state.parameters.items()}
        networks = running(s.compiled, s.mixed_precision)
        seed = OPS.seed(self.rows.key(k_model, OPS.fold_in))
        with target.running(leaves, seed, train=True), torch.enable_grad(), networks:
            gradient = lambda some: self.gradient(target, leaves, some, state.step)  # noqa: E731
            gradients, loss, told = self.rows.mean(gradient, rows, leaves)
        rate = float(s.rate(state.step, np) * state.guard.factor)
        with torch.no_grad():
            self._update(state, gradients, rate)
            if state.step >= s.averaged_from - 1:
                weight = float(s.share(state.step, np))
                torch._foreach_lerp_(list(state.average.values()), list(state.parameters.values()), weight)
        guard = state.guard._replace(worst=np.maximum(state.guard.worst, loss))
        state = state._replace(step=state.step + 1, order=order, loss=loss, guard=guard)
        if state.step % s.period == 0 or state.step == s.num_steps:
            state = self.looked(self._guarded(state), target)
        return state, self.info(state, loss, rate, told)

    def answer(self, key: Any, state: State, target: Any) -> Tensors:
        del key, target
        return dict(state.average if state.step >= self.settings.averaged_from else state.parameters)

    # ---- what learners say

    def begun(self, state: State, target: Any) -> State:
        """The state with the learner's own part."""
        return state

    def looked(self, state: State, target: Any) -> State:
        """What is looked at after each `period` steps."""
        return state

    def monitored(self, target: Any, rows: Any) -> float:
        """The loss to be shown, before the first step."""
        raise NotImplementedError

    def gradient(self, target: Any, leaves: Tensors, rows: Any, step: int) -> tuple[Any, float, Any]:
        """The gradient of what is minimised, the loss to be shown, and more for the record."""
        raise NotImplementedError

    def info(self, state: State, loss: float, rate: float, told: Any) -> Any:
        """The record of a step."""
        raise NotImplementedError

    # ---- parts

    def _batch(self, key: Any, state: State, target: Any) -> tuple[torch.Tensor, Any]:
        """The rows of this step, in an order that is drawn anew after each pass."""
        size = min(self.settings.batch_size, len(state.order))
        at, order = state.step % (len(state.order) // size), state.order
        if at == 0 and state.step:
            order = order[torch.from_numpy(OPS.generator(key).permutation(len(order)))]
        return order, target.batch(order[at * size : (at + 1) * size], OPS.seed(OPS.fold_in(key, 1)))

    def _update(self, state: State, gradients: Any, rate: float) -> None:
        s, names = self.settings, list(state.parameters)
        parameters = list(state.parameters.values())
        gradients = [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, parameters, strict=True)]
        if s.weight_decay:
            gradients = [
                g + s.weight_decay * p if p.dim() >= 2 else g for g, p in zip(gradients, parameters, strict=True)
            ]
        moments: Any = [[tree[k] for k in names] for tree in state.optimiser.values()]
        if s.optimizer == "adam":
            steps = [torch.tensor(float(state.step)) for _ in names]
            fused, gradients = _in_one_pass(parameters, gradients)
            adam(
                parameters, gradients, moments[0], moments[1], [], steps, foreach=not fused, fused=fused, amsgrad=False, beta1=0.9,
                beta2=0.999, lr=rate, weight_decay=0.0, eps=1e-8, maximize=False,
            )  # fmt: skip
        else:
            sgd(
                parameters, gradients, moments[0], foreach=True, weight_decay=0.0, momentum=s.momentum, lr=rate, dampening=0.0,
                nesterov=False, maximize=False,
            )  # fmt: skip

    def _guarded(self, state: State) -> State:
        """Keep a good state, go back to the last one kept from a runaway; see `_learner.judged`."""
        finite = all(bool(torch.isfinite(p).all()) for p in state.parameters.values())
        bad, good, guard = _learner.judged(state.guard, np.float64(state.loss), finite, self.settings.spike, np)
        guard = guard._replace(**{k: x[()] for k, x in guard._asdict().items() if isinstance(x, np.ndarray)})
        if bad:
            _put(state.parameters, guard.parameters)
            _put(state.average, guard.parameters)
            for word, tree in guard.optimiser.items():
                _put(state.optimiser[word], tree)
        elif good:
            _put(guard.parameters, state.parameters)
            for word, tree in state.optimiser.items():
                _put(guard.optimiser[word], tree)
        loss = float(guard.best) if bad else state.loss
        return state._replace(guard=guard, loss=loss if math.isfinite(loss) else 0.0)


class Likelihood(Kernel):
    """Of `mle.MLE`."""

    def begun(self, state: State, target: Any) -> State:
        held = min(int(self.settings.validation * target.num_rows), target.num_rows - 1)
        order = state.order
        if self.settings.held == "last":
            order = order[torch.argsort((order < target.num_rows - held).int(), stable=True)]
        watch = Watch(order[:held][:2000].clone(), _copy(state.parameters), math.inf, math.inf, 0)
        return state._replace(order=order[held:].clone(), extra=watch)

    def monitored(self, target: Any, rows: Any) -> float:
        return -target.joint(rows).mean().item()

    def gradient(self, target: Any, leaves: Tensors, rows: Any, step: int) -> tuple[Any, float, Any]:
        loss = -target.joint(rows).mean()
        return torch.autograd.grad(loss, list(leaves.values()), allow_unused=True), loss.item(), None

    def looked(self, state: State, target: Any) -> State:
        watch = state.extra
        if not len(watch.rows) or state.step % 100:
            return state
        tried = state.average if self.settings.ema else state.parameters
        with target.running(tried, 0), torch.no_grad():
            loss = self.monitored(target, target.batch(watch.rows))
        if loss < watch.best:
            _put(watch.parameters, tried)
            return state._replace(extra=watch._replace(best=loss, last=loss, age=0))
        return state._replace(extra=watch._replace(last=loss, age=watch.age + 1))

    def info(self, state: State, loss: float, rate: float, told: Any) -> OfLikelihood:
        converged = state.extra.age >= self.settings.patience
        return OfLikelihood(loss, rate, state.guard.rollbacks, state.extra.last, converged)

    def answer(self, key: Any, state: State, target: Any) -> Tensors:
        return dict(state.extra.parameters) if len(state.extra.rows) else super().answer(key, state, target)


class Bound(Kernel):
    """Of `amortised_svi.AmortisedSVI`."""

    def begun(self, state: State, target: Any) -> State:
        return state._replace(extra=0)  # active units

    def monitored(self, target: Any, rows: Any) -> float:
        return -self._loss(target, rows, 1.0)[1].item()

    def gradient(self, target: Any, leaves: Tensors, rows: Any, step: int) -> tuple[Any, float, Any]:
        if self.settings.estimator == "path":
            gradients, bound, kl = self._path(target, leaves, rows)
        else:
            loss, bound, kl = self._loss(target, rows, float(self.settings.weight(step, np)))
            gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        return gradients, -bound.item(), kl.item()

    def looked(self, state: State, target: Any) -> State:
        if isinstance(target, Diffused):  # a fixed guide cannot collapse
            return state
        rows = target.batch(state.order[:ROWS])
        with target.running(state.parameters, 0), torch.no_grad():
            means = target.draw(rows, centre=True)
        reals = [v.name for v in target.hidden if v.kind == "reals"]
        return state._replace(extra=sum(int((means[k].var(0, correction=0) > ACTIVE).sum()) for k in reals))

    def info(self, state: State, loss: float, rate: float, told: Any) -> OfBound:
        return OfBound(loss, told, state.extra, rate, state.guard.rollbacks)

    # ---- the bound

    def _copies(self, rows: Any) -> Any:
        """Every row as often as it has draws."""
        count = self.settings.num_particles
        return rows if count == 1 else {k: v.repeat_interleave(count, 0) for k, v in rows.items()}

    def _bound(self, log_ratio: torch.Tensor) -> torch.Tensor:
        """Mean over rows, by the log ratios of their draws (row, particle)."""
        if self.settings.objective == "elbo":
            return log_ratio.mean()
        return (torch.logsumexp(log_ratio, 1) - math.log(self.settings.num_particles)).mean()

    def _loss(self, target: Any, rows: Any, weight: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What is minimised; the bound and the KL, both in nats a row."""
        s, terms = self.settings, target.terms(self._copies(rows))
        kl = [x.mean(0) for x in terms.kl.values()]
        total: Any = sum(x.sum() for x in kl)
        likelihood, beside = terms.likelihood.mean(), terms.beside.mean()
        if s.objective == "iwae":
            bound = self._bound(terms.log_ratio.view(-1, s.num_particles))
            return -bound - beside, bound, total
        held = sum(x.clamp(min=s.free_bits).sum() for x in kl) if s.free_bits else total
        return weight * held - likelihood - beside, likelihood - total, total

    def _path(self, target: Any, leaves: Tensors, rows: Any) -> tuple[Any, torch.Tensor, torch.Tensor]:
        """The gradient through the draws alone, the bound and the KL; weights as in `AmortisedSVI._path`."""
        s, copies, before = self.settings, self._copies(rows), noise()
        drawn = target.draw(copies)
        hidden = {k: x.detach().requires_grad_() for k, x in drawn.items()}
        log_ratio, likelihood = target.log_ratio(copies, hidden, {k: p.detach() for k, p in leaves.items()}, before)
        ratios = log_ratio.detach().view(-1, s.num_particles)
        weights = torch.softmax(ratios, 1) if s.objective == "iwae" else torch.full_like(ratios, 1 / s.num_particles)
        loss = -(weights.flatten() * log_ratio).sum() / len(ratios)
        names, points = list(leaves), list(hidden.values())
        found = torch.autograd.grad(loss, [*leaves.values(), *points], allow_unused=True)
        direct, slopes = found[: len(names)], found[len(names) :]
        if s.objective == "iwae":
            slopes = [x * weights.reshape(-1, *(1,) * (x.dim() - 1)) for x in slopes]
        through = torch.autograd.grad(list(drawn.values()), list(leaves.values()), slopes, allow_unused=True)
        gradients = [a if b is None else b if a is None else a + b for a, b in zip(direct, through, strict=True)]
        return gradients, self._bound(ratios), (likelihood - log_ratio).detach().mean()


def _in_one_pass(parameters: list[torch.Tensor], gradients: list[torch.Tensor]) -> tuple[bool, list[torch.Tensor]]:
    """Whether Adam may go through its numbers once, on a CPU, and the gradients laid out as it takes them then.

    torch's fused Adam goes through memory in order, whatever the strides are: of a gradient in another layout than its parameter's,
    as convolutions in channels-last give, it would take the wrong entries.
    """
    if not all(p.device.type == "cpu" and p.is_floating_point() and p.is_contiguous() for p in parameters):
        return False, gradients
    return True, [g.contiguous() for g in gradients]


def _copy(tree: Any) -> Any:
    return {k: _copy(v) if isinstance(v, dict) else v.clone() for k, v in tree.items()}


def _put(into: Tensors, values: Tensors) -> None:
    """Copy values into tensors that are there."""
    torch._foreach_copy_(list(into.values()), list(values.values()))
