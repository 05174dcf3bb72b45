"""A Pyro program on its whole data, with the author's guide of its unknowns; see `probgen.engine.numpyro.targets.paired`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from pyro import infer, poutine
from pyro.infer import config_enumerate
from torch.distributions import (
    biject_to,
    lowrank_multivariate_normal,
    multivariate_normal,
    normal,
    transform_to,
)
from torch.nn.modules.batchnorm import _BatchNorm

from probgen.data.checks import LISTED, check_drawn, taken
from probgen.data.fixed import plain as as_given
from probgen.engine.pyro.continuous import PyroContinuous
from probgen.engine.pyro.executor import OPS, Key
from probgen.engine.pyro.programs.automatic import Automatic
from probgen.engine.pyro.programs.density import Given, whole_plates
from probgen.engine.pyro.programs.looks import looked, sample_nodes
from probgen.engine.pyro.programs.names import looked_at, wrapped_like
from probgen.engine.pyro.programs.onto import onto
from probgen.engine.pyro.programs.parameters import Parameter, given
from probgen.engine.pyro.programs.sites import is_discrete
from probgen.engine.pyro.programs.types import is_mixed, lifting
from probgen.engine.pyro.programs.whole import Whole, registered
from probgen.programs.autoguides import is_auto, unwrapped

OF_ALL_ROWS = "{} takes the mean and the variance of all rows of the data, in learning and after it."
_NORMALS: tuple[Any, ...] = (normal, multivariate_normal, lowrank_multivariate_normal)  # modules that draw them


@contextmanager
def fresh_normals() -> Iterator[None]:
    """Torch draws normals into an empty tensor, in which `torch.vmap` sees one draw for all: here each has its own."""
    original = _NORMALS[0]._standard_normal
    drawn = lambda shape, dtype, device: torch.randn(shape, dtype=dtype, device=device)  # noqa: E731
    try:
        for module in _NORMALS:
            module._standard_normal = drawn
        yield
    finally:
        for module in _NORMALS:
            module._standard_normal = original


class PyroGuided(PyroContinuous):
    """Unknowns, parameters, and a guide that draws the unknowns.

    Parameters of program and guide are one flat array, (parameter,), unconstrained; what both call by one name is one parameter.
    """

    def __init__(self, base: PyroContinuous, guide: Callable[..., Any]) -> None:
        super().__init__(base.structure, base.tensors, base.data)
        self.notes, self._lift = base.notes, False
        self._arguments = {**self.structure.static, **dict(zip(self.structure.arrays, self.tensors, strict=True))}
        own: Any = self.structure.program
        self._base = own.program if isinstance(own, Whole) else own
        auto = is_auto(unwrapped(guide)[0])
        self.author_guide = Automatic(guide, self._base, self.structure.finite) if auto else guide
        self._guide = self.author_guide.fresh() if auto else guide
        seen = self._arguments if auto else taken(guide, self._arguments)
        self._seen = {k: as_given(v) for k, v in seen.items()}
        self._parameters, self._roots, self.guide_is_point = self._looked_at()
        if mixing := [type(m).__name__ for root in self._roots for m in root.modules() if isinstance(m, _BatchNorm)]:
            self.notes = (*self.notes, OF_ALL_ROWS.format(mixing[0]))

    def _looked_at(self) -> tuple[dict[str, Parameter], list[Any], bool]:
        """Parameters of program and guide, the modules that hold them, and whether the guide draws a point mass."""
        own = registered(self._base, self._arguments, self.precision)
        try:
            with whole_plates(given=self.structure.given):
                self._guide, (trace, seen), notes = looked_at(
                    self._guide, lambda guide: looked(guide, self._seen, self.precision), own.found
                )
                again, _ = looked(self._guide, self._seen, self.precision, 1)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"The guide does not run on the data: {error}") from error
        self.notes = (*self.notes, *notes)
        drawn = {k: n for k, n in sample_nodes(trace).items() if not n["is_observed"]}
        listed = sorted(self.structure.finite & set(drawn))
        if listed:
            self.notes = (*self.notes, LISTED.format(", ".join(map(repr, listed))))
        drawn = {k: n for k, n in drawn.items() if k not in listed}
        names = [k for k in self.structure.blocks if k not in self.points]
        shapes = {s.name: tuple(s.shape) for s in self.sites}
        found = {k: tuple(n["value"].shape) for k, n in drawn.items() if not n["infer"].get("is_auxiliary")}
        check_drawn({k: shapes[k] for k in names}, found)
        mine = sum(n["value"].numel() for n in drawn.values() if n["infer"].get("is_auxiliary"))
        self._density = not listed and mine <= sum(
            self.structure.blocks[k].stop - self.structure.blocks[k].start for k in names
        )
        reals = {k: n for k, n in drawn.items() if not is_discrete(n["fn"])}
        point = any(torch.equal(n["value"], again.nodes[k]["value"]) for k, n in reals.items())
        return seen.found | own.found, [*own.roots, *seen.roots], point

    @property
    def guide_has_density(self) -> bool:
        """Whether log q of a draw is that of its unknowns, and not of more that the guide draws on the way to them."""
        return not self.guide_is_point and self._density

    guide_has_state = False  # what a module of torch keeps beside its parameters is its own

    @property
    def guide_is_laplace(self) -> bool:
        """Whether the guide learns a mode, about which its draws are normal."""
        return getattr(self.author_guide, "laplace", False)

    def guide_start(self, key: Key) -> np.ndarray:
        """The parameters before the first step: (parameter,)."""
        values = self._begun(OPS.seed(key))
        return np.concatenate([np.zeros(0), *(values[k].cpu().numpy().ravel() for k in self._parameters)]).astype(float)

    def _begun(self, seed: int) -> dict[str, torch.Tensor]:
        own = registered(self._base, self._arguments, self.precision, seed)
        with whole_plates(given=self.structure.given):
            fresh = self._guide
            if isinstance(self.author_guide, Automatic):
                fresh = wrapped_like(self.author_guide.fresh(), self._guide)
            _, guide = looked(fresh, self._seen, self.precision, seed)
        self._lengths = {k: v.shape for k, v in (guide.values | own.values).items()}
        return guide.values | own.values

    def _named(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        if not hasattr(self, "_lengths"):
            self._begun(0)
        parts = flat.split([self._lengths[k].numel() for k in self._parameters])
        return {k: part.view(self._lengths[k]) for k, part in zip(self._parameters, parts, strict=True)}

    def _running(self, named: Mapping[str, torch.Tensor], seed: int, train: bool) -> ExitStack:
        stack = ExitStack()
        stack.enter_context(self.structure.scope(seed))
        if self._lift:
            stack.enter_context(lifting(getattr(torch, self.precision)))
        stack.enter_context(given(tuple(self._parameters.values()), named, self._roots, train=train))
        return stack

    def guide_loss_and_gradient(self, key: Key, parameters: np.ndarray, bound: Any) -> tuple[Any, np.ndarray]:
        """Minus the ELBO by draws of the guide, and its gradient: (), (parameter,); bound: its kind, particles, and alpha."""
        return self._in_its_type(lambda: self._loss(key, parameters, bound))

    def _in_its_type(self, run: Callable[[], Any]) -> Any:
        """What `run` gives; with all tensors lifted from where program and guide are found to mix types together."""
        try:
            return run()
        except (RuntimeError, ValueError) as error:
            if self._lift or not is_mixed(error):
                raise
        self._lift = True
        return run()

    def _loss(self, key: Key, parameters: np.ndarray, bound: Any) -> tuple[Any, np.ndarray]:
        flat = torch.from_numpy(np.array(parameters)).to(getattr(torch, self.precision)).requires_grad_()
        elbo, guide = self._elbo(*bound), lambda **_: self._guide(**self._seen)
        program = self._base
        if self.structure.finite:
            program, guide = config_enumerate(program), config_enumerate(guide)
        with self._running(self._named(flat), OPS.seed(key), train=True), torch.enable_grad():
            if bound.kind in ("graph", "renyi"):  # which say their gradients alone
                loss = elbo.loss_and_grads(program, guide, **self._arguments)
                gradient = torch.zeros_like(flat) if flat.grad is None else flat.grad
                return np.float64(loss), gradient.double().numpy()
            loss = elbo.differentiable_loss(program, guide, **self._arguments)
            if not (isinstance(loss, torch.Tensor) and loss.requires_grad):
                return np.float64(float(loss)), np.zeros(len(parameters))
            (gradient,) = torch.autograd.grad(loss, flat, allow_unused=True, materialize_grads=True)
        return np.float64(loss.item()), gradient.double().numpy()

    def _elbo(self, kind: str, num_particles: int, alpha: Any) -> Any:
        if self.structure.finite or kind == "enum":
            return infer.TraceEnum_ELBO(num_particles=num_particles, max_plate_nesting=self.structure.nesting)
        if kind == "renyi":
            return infer.RenyiELBO(alpha=alpha, num_particles=num_particles)
        kinds = {"trace": infer.Trace_ELBO, "mean_field": infer.TraceMeanField_ELBO, "graph": infer.TraceGraph_ELBO}
        return kinds[kind](num_particles=num_particles)

    def guide_draws(self, key: Key, parameters: np.ndarray, num_draws: int) -> tuple[np.ndarray, np.ndarray]:
        """Draws of the guide as points z, (draw, dim), and log q with the log-Jacobians of the unknowns' bijections, (draw,)."""
        return self._in_its_type(lambda: self._draws(key, parameters, num_draws))

    def _draws(self, key: Key, parameters: np.ndarray, num_draws: int) -> tuple[np.ndarray, np.ndarray]:
        named = self._named(torch.from_numpy(np.array(parameters)).to(getattr(torch, self.precision)))
        with (
            torch.no_grad(),
            self._running(named, OPS.seed(key), train=False),
            whole_plates(given=self.structure.given),
        ):
            try:
                draw = torch.vmap(lambda _: self._draw(named), randomness="different")
                with fresh_normals():
                    found = draw(torch.zeros(num_draws))
            except Exception:  # what vmap cannot follow a loop can; what neither can raises there
                rows = [self._draw(named) for _ in range(num_draws)]
                found = tuple(torch.stack(part) for part in zip(*rows, strict=True))
        z, log_q = found
        return z.double().cpu().numpy(), log_q.double().cpu().numpy()

    def _draw(self, named: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        nodes = sample_nodes(poutine.trace(self._guide).get_trace(**self._seen))
        nodes = {k: n for k, n in nodes.items() if not n["is_observed"] and k not in self.structure.finite}
        values = {k: n["value"] for k, n in nodes.items() if k in self.structure.blocks}
        put = Given(values, invert=True)
        with poutine.block(), put:
            told = sample_nodes(poutine.trace(self._base).get_trace(**self._arguments))
        parts, log_q = [], torch.zeros(()) + sum(n["fn"].log_prob(n["value"]).sum() for n in nodes.values())
        for name in self.structure.blocks:
            if name in self.points:
                constraint = self._parameters[name].constraint
                parts.append(onto(constraint).inv(transform_to(constraint)(named[name])).reshape(-1))
                continue
            if name in self.structure.drawn:
                parts.append(values[name].to(log_q.dtype).reshape(-1))
                continue
            u, transform = put.unconstrained[name], biject_to(told[name]["fn"].support)
            log_q = log_q + transform.log_abs_det_jacobian(u, values[name]).sum()
            parts.append(u.reshape(-1))
        return torch.cat(parts), log_q
