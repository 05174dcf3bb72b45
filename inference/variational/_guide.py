"""What all guides share: stochastic ascent of the ELBO by Adam, a rule when to stop, an average of the last iterates.

A guide is a distribution q over R^dim, the target's unconstrained space, with parameters theta. It is learned by

    maximise over theta   ELBO = E_{z ~ q} [log p(z) - log q(z)]   in nats

through z = f_theta(noise). Parameters of the program itself are learned by the same ascent: they are the last entries of theta,
and every draw has them. With `gradient="path"` the parameters inside log q are held fixed when it is differentiated
("sticking the landing", Roeder, Wu and Duvenaud 2017, arXiv:1703.09194): the part left out has mean zero, and what
remains has no variance at all once q = p. Guides are learned in whitened coordinates u, z = shift + factor u, with a
point and a covariance from Pathfinder (`probgen.inference.mcmc._start`): one learning rate suits every posterior.

Parameters are one flat vector: this file is the same for both engines, and `_jax` and `_torch` know the guides.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

from probgen.algorithm import Learner, positive
from probgen.data.points import AtPoints
from probgen.inference.mcmc import _start
from probgen.target import Continuous

B1, B2, EPSILON = 0.9, 0.999, 1e-8  # Adam's (Kingma and Ba 2015, arXiv:1412.6980)
GROWTH = 8  # before the first cut step t counts as t**8 in the average of iterates (Shamir and Zhang 2013)
LARGEST = 200  # dimensions up to which the affine map behind a flow is dense

T = TypeVar("T")


class Anchor(NamedTuple):
    """The whitening z = shift + factor u; shift: (dim,), factor: lower triangular (dim, dim), or (dim,) if diagonal."""

    shift: Any
    factor: Any

    def place(self, u: Any) -> Any:
        """Points u (batch, dim) in the target's coordinates."""
        return self.shift + (u @ self.factor.T if self.factor.ndim == 2 else u * self.factor)

    def log_det(self, xp: Any) -> Any:
        """log |dz / du|."""
        return xp.sum(xp.log(xp.diagonal(self.factor) if self.factor.ndim == 2 else self.factor))


class Plan(NamedTuple):
    """The stopping rule: the block in progress, the best block so far, and how often the learning rate was cut."""

    learning_rate: Any
    total: Any  # of the losses of the block in progress
    count: Any
    best: Any
    stalls: Any  # blocks in a row without progress
    cuts: Any
    since: Any  # steps since the last cut: the weight of the average
    converged: Any


class State(NamedTuple):
    """Parameters (parameter,) with Adam's two moments and their running average, beside the whitening and the plan."""

    step: Any
    parameters: Any
    first: Any
    second: Any
    average: Any
    loss: Any
    anchor: Anchor
    plan: Plan


class Info(NamedTuple):
    """loss: minus the ELBO in nats; skipped: its gradient was not finite, so the parameters stayed as they were."""

    loss: Any
    learning_rate: Any
    skipped: Any
    converged: Any


class Answer(NamedTuple):
    """Draws z (chain, draw, dim) of the final guide, with log q(z) and log p(z, data) in nats: (chain, draw)."""

    z: Any
    log_q: Any
    log_p: Any


@dataclass(frozen=True, kw_only=True)
class Guide(Learner[Continuous]):
    """Settings of all guides.

    num_steps: at most so many steps; learning ends earlier when it has converged.
    learning_rate: Adam's, in whitened coordinates, where posterior sds are about one; it rises over the first block.
    num_particles: draws a step.
    gradient: "path", or "total" (the plain reparametrised gradient).
    block: steps over which losses are averaged before they are compared.
    patience: blocks without progress after which the learning rate is cut.
    tolerance: nats by which the mean loss of a block must fall to be progress.
    num_cuts: cuts after which learning has converged, each to a third of the learning rate.
    num_draws: draws of the answer, in each of its four chains.
    minibatch: learn from the minibatches that the program's plates draw, where it has such plates.
    """

    num_steps: int = 20_000
    learning_rate: float = 0.01
    num_particles: int = 32
    gradient: Literal["path", "total"] = "path"
    block: int = 200
    patience: int = 4
    tolerance: float = 0.002
    num_cuts: int = 3
    num_draws: int = 1000
    minibatch: bool = True

    learns_points: ClassVar[bool] = True
    density_alone: ClassVar[bool] = True
    whitening: ClassVar[Literal["dense", "diagonal"]] = "dense"
    smallest: ClassVar[int] = 1  # dimensions below which the family is not defined
    has_density: ClassVar[bool] = True  # whether log q can be evaluated at any point, as "path" needs
    rises: ClassVar[bool] = True  # whether the learning rate does over the first block, for Adam is blind at first

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "learning_rate", "num_particles", "block", "patience", "num_cuts", "num_draws")
        if self.gradient not in ("path", "total"):
            raise ValueError(f"gradient is {self.gradient!r}; known: path, total")
        if self.gradient == "path" and not self.has_density:
            raise ValueError(f"gradient='path' needs the inverse of the guide, which {self.name} lacks; use 'total'.")

    def kernel(self: T) -> T:
        settings: Any = self
        return replace(settings, num_steps=1)

    def jax_guide(self, key: Any, dim: int) -> Any:
        """The guide on u, a `flowjax.distributions.AbstractDistribution` of shape (dim,)."""
        raise NotImplementedError

    def torch_guide(self, dim: int) -> Any:
        """The guide on u, a module of `probgen.inference.variational._torch`."""
        raise NotImplementedError

    def backend(self, target: Continuous) -> Any:
        """What knows the guide: the file of the target's engine."""
        return _backend(target)

    def init(self, key: Any, target: Continuous) -> State:
        ops, xp = target.ops, target.ops.xp
        k_start, k_guide = ops.split(key, 2)
        points = target.first_points(k_guide) if target.points else xp.zeros(0)
        unknowns = AtPoints(target, points) if target.points else target
        if unknowns.dim < self.smallest:
            few = "Use inference='flow'." if unknowns.dim else "Use inference='mle': all that it has are parameters."
            raise ValueError(
                f"{self.name} needs at least {self.smallest} unknowns; this program has {unknowns.dim}.\n{few}"
            )
        anchor = _whitening(ops, _start.find(k_start, unknowns, "pathfinder"), self.whitening)
        parameters = self.backend(target).initial(self, k_guide, unknowns)
        parameters = xp.concatenate([parameters, points.astype(parameters.dtype)]) if target.points else parameters
        none, zero, nought = xp.zeros_like(parameters), anchor.shift[0] * 0, xp.int32(0)
        rate, worst = zero + self.learning_rate, zero + xp.inf
        plan = Plan(rate, zero, nought, worst, nought, nought, nought, xp.bool_(False))
        return State(nought, parameters, none, none, parameters, zero, anchor, plan)

    def step(self, key: Any, state: State, target: Continuous) -> tuple[State, Info]:
        def stay(state: State) -> tuple[State, Info]:
            return state, Info(state.loss, state.plan.learning_rate, xp.bool_(False), xp.bool_(True))

        xp = target.ops.xp
        return target.ops.cond(state.plan.converged, stay, lambda s: self._learn(key, s, target), state)

    def _learn(self, key: Any, state: State, target: Continuous) -> tuple[State, Info]:
        xp = target.ops.xp
        loss, gradient = self.backend(target).loss_and_gradient(self, key, state.parameters, state.anchor, target)
        finite = xp.logical_and(xp.isfinite(loss), xp.all(xp.isfinite(gradient)))
        ramp = xp.minimum(1.0, (state.step + 1.0) / self.block) if self.rises else 1.0
        rate = ramp * state.plan.learning_rate
        state = target.ops.cond(finite, lambda: _adam(xp, state, gradient, rate), lambda: state)
        plan = _advance(xp, self, state.plan, xp.where(finite, loss, 0.0), finite)
        average = state.average + _share(xp, self, plan) * (state.parameters - state.average)
        state = state._replace(average=average, loss=loss, plan=plan)
        return state, Info(loss, plan.learning_rate, xp.logical_not(finite), plan.converged)

    def answer(self, key: Any, state: State, target: Continuous) -> Answer:
        draws = self.backend(target).draws
        z, log_q = target.ops.map(
            lambda k: draws(self, k, state.average, state.anchor, target), target.ops.split(key, 4)
        )
        return evaluated(target, z, log_q)


def parted(target: Continuous, parameters: Any) -> tuple[Any, Any]:
    """The guide's own parameters, and what it asks: the target, or its unknowns at the parameters of the program."""
    if not target.points:
        return parameters, target
    count = len(target.point_index)
    return parameters[:-count], AtPoints(target, parameters[-count:])


def evaluated(target: Continuous, z: Any, log_q: Any) -> Answer:
    """The answer of draws (chain, draw, dim) and their log q; log p is computed a hundred points or so at a time."""
    blocks = z.reshape(-1, math.gcd(z.shape[1], 100), target.dim)
    return Answer(z, log_q, target.ops.map(target.log_density_batch, blocks).reshape(z.shape[:2]))


def _backend(target: Continuous) -> Any:
    word = {"numpyro": "jax", "pyro": "torch"}[target.engine]
    return importlib.import_module(f"probgen.inference.variational._{word}")


def _whitening(ops: Any, start: _start.Start, kind: str) -> Anchor:
    """Pathfinder's draw, and a square root of its covariance; its diagonal where Cholesky fails."""
    xp, covariance = ops.xp, start.covariance
    if covariance.ndim == 1 or kind == "diagonal":
        variance = covariance if covariance.ndim == 1 else xp.diagonal(covariance)
        return Anchor(start.z, xp.sqrt(variance))
    scale = xp.sqrt(xp.diagonal(covariance))
    factor = scale[:, None] * ops.cholesky(covariance / xp.outer(scale, scale))
    return Anchor(start.z, xp.where(xp.all(xp.isfinite(factor)), factor, xp.diag(scale)))


def _adam(xp: Any, state: State, gradient: Any, rate: Any) -> State:
    """One step of Adam."""
    step = state.step + 1
    first = B1 * state.first + (1 - B1) * gradient
    second = B2 * state.second + (1 - B2) * gradient**2
    direction = first / (1 - B1**step) / (xp.sqrt(second / (1 - B2**step)) + EPSILON)
    moved = state.parameters - rate * direction
    return state._replace(step=step, parameters=moved, first=first, second=second)


def _share(xp: Any, settings: Guide, plan: Plan) -> Any:
    """The weight of a step's parameters in the average.

    A plain mean from the last cut on, over about two spans of patience. Before the first cut the way from the start is still part
    of it: weights grow there, so that a run of few steps is not an average of where it began (arXiv:1212.1824).
    """
    lead = xp.where(plan.cuts == 0, GROWTH, 0)
    return xp.maximum((1.0 + lead) / (1.0 + lead + plan.since), 1 / (2.0 * settings.block * settings.patience))


def _advance(xp: Any, settings: Guide, plan: Plan, loss: Any, counts: Any) -> Plan:
    """Count a loss; at the end of a block cut the learning rate if progress has stalled."""
    total, count = plan.total + loss, plan.count + counts
    ending = count == settings.block
    mean = total / settings.block
    progress = mean < plan.best - settings.tolerance
    stalls = xp.where(ending, xp.where(progress, 0, plan.stalls + 1), plan.stalls)
    cut = xp.logical_and(ending, stalls == settings.patience)
    cuts = plan.cuts + cut
    return Plan(
        xp.where(cut, plan.learning_rate / 3, plan.learning_rate),
        xp.where(ending, 0.0, total),
        xp.where(ending, 0, count),
        xp.where(ending, xp.minimum(mean, plan.best), plan.best),
        xp.where(cut, 0, stalls),
        cuts,
        xp.where(cut, 0, plan.since + 1),
        cuts == settings.num_cuts,
    )
