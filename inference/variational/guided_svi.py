"""Stochastic variational inference with the author's own guide, on the whole data.

    maximise over the parameters of program and guide   E_q [log p(z, data) - log q(z)]

What "svi" means for a program on its whole data with a guide. The bound and its gradient are the library's (Trace_ELBO of NumPyro
or Pyro, TraceEnum_ELBO where finite unknowns are summed out), with its plates, minibatches and reparametrisations.
Hoffman, Blei, Wang and Paisley 2013, JMLR 14; Wingate and Weber 2013 (arXiv:1301.1299).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from probgen.algorithm import Incompatible
from probgen.data.points import AtPoints
from probgen.inference.variational._guide import Anchor, Answer, Guide, Plan, State, evaluated
from probgen.inference.variational.map import Answer as Point

HELD = 2**26  # numbers in all draws together, half a gigabyte in double precision
FEWEST = 10  # draws of a chain
FEWER = "Each chain has {} draws, not {}: a draw holds all unknowns and parameters, {} numbers."


class Elbo(NamedTuple):
    """A bound and its estimate: see `GuidedSVI`."""

    kind: str
    num_particles: int
    alpha: float


class _Own:
    """The guide of the target itself, in place of a family of ours."""

    @staticmethod
    def loss_and_gradient(
        settings: GuidedSVI, key: Any, parameters: Any, anchor: Anchor, target: Any
    ) -> tuple[Any, Any]:
        bound = Elbo(settings.elbo, settings.num_particles, settings.alpha)
        return target.guide_loss_and_gradient(key, parameters, bound)

    @staticmethod
    def draws(settings: GuidedSVI, key: Any, parameters: Any, anchor: Anchor, target: Any) -> tuple[Any, Any]:
        return target.guide_draws(key, parameters, settings.held(target))


@dataclass(frozen=True, kw_only=True)
class GuidedSVI(Guide):
    """The author's guide, learned together with the parameters of the program.

    num_particles: draws of the guide a step; minibatches are those of the program's plates, whatever `minibatch` says.
    elbo: the library's: "trace"; "mean_field", with divergences in closed form; "graph", whose gradients of what has no
        reparametrisation have less variance; "renyi", the bound of order `alpha` (0 is that of importance weights, IWAE), with two
        particles or more; "enum" sums finite unknowns out, and is what "trace" means where there are some.
    Learning is in the coordinates of the program: a larger or smaller learning_rate may suit it. It is Adam's from the first step
    on, as in the library's own loop with the same number of particles; it is cut where progress stalls.
    """

    num_particles: int = 4
    elbo: Literal["trace", "enum", "mean_field", "graph", "renyi"] = "trace"
    alpha: float = 0.0
    gradient: Literal["path", "total"] = "total"

    has_density: ClassVar[bool] = False  # at points other than the guide's own draws
    takes_guide: ClassVar[bool] = True
    rises: ClassVar[bool] = False  # step by step what the library's own loop does with Adam
    density_alone: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.elbo not in (known := ("trace", "enum", "mean_field", "graph", "renyi")):
            raise ValueError(f"elbo is {self.elbo!r}; known: {', '.join(known)}")
        if self.elbo == "renyi" and (self.alpha == 1 or self.num_particles < 2):
            raise ValueError("elbo='renyi' needs two particles or more, and an alpha that is not 1: use elbo='trace'.")

    def prepare(self, target: Any) -> Any:
        if target.author_guide is None:
            raise Incompatible("guided_svi needs the author's guide: pg.fit(program, data, 'svi', guide=guide).")
        finite = [site.name for site in target.sites if site.kind == "latent" and site.discrete]
        if finite and not target.needs_guide and self.elbo not in ("trace", "enum"):
            told = f"{finite[0]!r} is finite and is summed out, which elbo={self.elbo!r} does not do"
            raise Incompatible(f"{told}: use elbo='enum'.")
        found = target.paired()
        if (held := self.held(found)) < self.num_draws:
            found.notes = (*found.notes, FEWER.format(held, self.num_draws, found.dim))
        return found

    def held(self, target: Any) -> int:
        """How many draws each of the four chains has: fewer than asked for where a draw, with all parameters, is large."""
        return min(self.num_draws, max(FEWEST, HELD // (4 * target.dim)))

    def backend(self, target: Any) -> Any:
        return _Own

    def init(self, key: Any, target: Any) -> State:
        xp = target.ops.xp
        parameters = target.guide_start(key)
        none, zero, nought = xp.zeros_like(parameters), xp.zeros((), target.precision), xp.int32(0)
        plan = Plan(zero + self.learning_rate, zero, nought, zero + xp.inf, nought, nought, nought, xp.bool_(False))
        anchor = Anchor(xp.zeros(1, target.precision), xp.ones(1, target.precision))
        return State(nought, parameters, none, none, parameters, zero, anchor, plan)

    def _learn(self, key: Any, state: State, target: Any) -> tuple[State, Any]:
        new, info = super()._learn(key, state, target)
        if target.guide_has_state:
            new = new._replace(parameters=target.guide_moved(key, state.parameters, new.parameters))
        return new, info

    def answer(self, key: Any, state: State, target: Any) -> Any:
        if target.guide_is_laplace:
            return _about_the_mode(self, key, state, target)
        z, log_q = target.ops.map(
            lambda k: _Own.draws(self, k, state.average, state.anchor, target), target.ops.split(key, 4)
        )
        found: Answer = evaluated(target, z, log_q)
        return found if target.guide_has_density else Point(found.z, found.log_p)


def _about_the_mode(settings: GuidedSVI, key: Any, state: State, target: Any) -> Answer:
    """Draws of the normal at a guide's mode, its precision minus the Hessian of the log density of the unknowns there.

    The Hessian is by central differences of the gradient. NaN, which the verdict names, where the guide is at no mode.
    """
    ops, xp = target.ops, target.ops.xp
    mode = target.guide_draws(key, state.average, 1)[0][0]
    unknowns = AtPoints(target, mode[target.point_index])
    at, dim = mode[unknowns.free], unknowns.dim
    width = (1e-4 if mode.dtype == xp.float64 else 1e-2) * xp.eye(dim, dtype=mode.dtype)
    gradients = unknowns.gradient_batch(xp.concatenate([at + width, at - width]))
    precision = (gradients[dim:] - gradients[:dim]) / (2 * width[0, 0])
    root = ops.cholesky(xp.linalg.inv((precision + precision.T) / 2))
    noise = ops.normal(key, (4, settings.num_draws, dim))
    log_q = -0.5 * xp.sum(noise**2 + xp.log(2 * xp.pi), axis=-1) - xp.sum(xp.log(xp.diagonal(root)))
    return evaluated(target, unknowns.whole(at + noise @ root.T), log_q)
