"""A Pyro program on its whole data, with the author's guide of its unknowns; see `probgen.engine.paired`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, config_enumerate
from torch.distributions import biject_to, transform_to

from probgen.data import check_drawn, taken
from probgen.engine.pyro_density import Given, innermost, whole_plates
from probgen.engine.pyro_kernel import OPS, Key
from probgen.engine.pyro_learned import looked, sample_nodes
from probgen.engine.pyro_names import looked_at
from probgen.engine.pyro_parameters import Parameter, given
from probgen.engine.pyro_target import PyroContinuous
from probgen.engine.pyro_whole import Whole, registered


class PyroGuided(PyroContinuous):
    """Unknowns, parameters, and a guide that draws the unknowns.

    Parameters of program and guide are one flat array, (parameter,), unconstrained; what both call by one name is one parameter.
    """

    def __init__(self, base: PyroContinuous, guide: Callable[..., Any]) -> None:
        super().__init__(base.structure, base.tensors, base.data)
        self.author_guide, self.notes = guide, base.notes
        self._arguments = {**self.structure.static, **dict(zip(self.structure.arrays, self.tensors, strict=True))}
        own: Any = self.structure.program
        self._base = own.program if isinstance(own, Whole) else own
        self._seen = taken(guide, self._arguments)
        self._parameters, self._roots, self.guide_is_point = self._looked_at()

    def _looked_at(self) -> tuple[dict[str, Parameter], list[Any], bool]:
        """Parameters of program and guide, the modules that hold them, and whether the guide draws a point mass."""
        own = registered(self._base, self._arguments, self.precision)
        try:
            with whole_plates():
                self.author_guide, (trace, seen), notes = looked_at(
                    self.author_guide, lambda guide: looked(guide, self._seen, self.precision), own.found
                )
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"The guide does not run on the data: {error}") from error
        self.notes = (*self.notes, *notes)
        drawn = {k: n for k, n in sample_nodes(trace).items() if not n["is_observed"]}
        if found := sorted(self.structure.finite & set(drawn)):
            raise ValueError(
                f"The guide draws {found[0]!r}, which is finite and is summed out exactly: leave it out of the guide."
            )
        names = [k for k in self.structure.blocks if k not in self.points]
        shapes = {s.name: tuple(s.shape) for s in self.sites}
        check_drawn({k: shapes[k] for k in names}, {k: tuple(n["value"].shape) for k, n in drawn.items()})
        point = any(isinstance(innermost(n["fn"]), dist.Delta) for n in drawn.values())
        return seen.found | own.found, [*own.roots, *seen.roots], point

    def guide_start(self, key: Key) -> np.ndarray:
        """The parameters before the first step: (parameter,)."""
        values = self._begun(OPS.seed(key))
        return np.concatenate([np.zeros(0), *(values[k].cpu().numpy().ravel() for k in self._parameters)]).astype(float)

    def _begun(self, seed: int) -> dict[str, torch.Tensor]:
        own = registered(self._base, self._arguments, self.precision, seed)
        _, guide = looked(self.author_guide, self._seen, self.precision, seed)
        self._shapes = {k: v.shape for k, v in (guide.values | own.values).items()}
        return guide.values | own.values

    def _named(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        if not hasattr(self, "_shapes"):
            self._begun(0)
        parts = flat.split([self._shapes[k].numel() for k in self._parameters])
        return {k: part.view(self._shapes[k]) for k, part in zip(self._parameters, parts, strict=True)}

    def _running(self, named: Mapping[str, torch.Tensor], seed: int, train: bool) -> ExitStack:
        stack = ExitStack()
        stack.enter_context(self.structure.scope(seed))
        stack.enter_context(given(tuple(self._parameters.values()), named, self._roots, train=train))
        return stack

    def guide_loss_and_gradient(self, key: Key, parameters: np.ndarray, num_particles: int) -> tuple[Any, np.ndarray]:
        """Minus the ELBO by draws of the guide, and its gradient: (), (parameter,)."""
        flat = torch.from_numpy(np.array(parameters)).to(getattr(torch, self.precision)).requires_grad_()
        finite, kind = bool(self.structure.finite), TraceEnum_ELBO if self.structure.finite else Trace_ELBO
        elbo = kind(num_particles=num_particles, max_plate_nesting=self.structure.nesting if finite else float("inf"))
        program = config_enumerate(self._base) if finite else self._base
        with self._running(self._named(flat), OPS.seed(key), train=True), torch.enable_grad():
            loss = elbo.differentiable_loss(program, lambda **_: self.author_guide(**self._seen), **self._arguments)
            if not (isinstance(loss, torch.Tensor) and loss.requires_grad):
                return np.float64(float(loss)), np.zeros(len(parameters))
            (gradient,) = torch.autograd.grad(loss, flat, allow_unused=True, materialize_grads=True)
        return np.float64(loss.item()), gradient.double().numpy()

    def guide_draws(self, key: Key, parameters: np.ndarray, num_draws: int) -> tuple[np.ndarray, np.ndarray]:
        """Draws of the guide as points z, (draw, dim), and log q with the log-Jacobians of the unknowns' bijections, (draw,)."""
        named = self._named(torch.from_numpy(np.array(parameters)).to(getattr(torch, self.precision)))
        with torch.no_grad(), self._running(named, OPS.seed(key), train=False), whole_plates():
            try:
                draw = torch.vmap(lambda _: self._draw(named), randomness="different")
                found = draw(torch.zeros(num_draws))
            except Exception:  # what vmap cannot follow a loop can; what neither can raises there
                rows = [self._draw(named) for _ in range(num_draws)]
                found = tuple(torch.stack(part) for part in zip(*rows, strict=True))
        z, log_q = found
        return z.double().cpu().numpy(), log_q.double().cpu().numpy()

    def _draw(self, named: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        nodes = sample_nodes(poutine.trace(self.author_guide).get_trace(**self._seen))
        values = {k: n["value"] for k, n in nodes.items() if not n["is_observed"]}
        put = Given(values, invert=True)
        with poutine.block(), put:
            told = sample_nodes(poutine.trace(self._base).get_trace(**self._arguments))
        parts, log_q = [], torch.zeros(())
        for name in self.structure.blocks:
            if name in self.points:
                constraint = self._parameters[name].constraint
                parts.append(biject_to(constraint).inv(transform_to(constraint)(named[name])).reshape(-1))
                continue
            u, transform = put.unconstrained[name], biject_to(told[name]["fn"].support)
            log_q = log_q + nodes[name]["fn"].log_prob(values[name]).sum()
            log_q = log_q + transform.log_abs_det_jacobian(u, values[name]).sum()
            parts.append(u.reshape(-1))
        return torch.cat(parts), log_q
