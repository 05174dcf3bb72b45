"""What Pyro's examples hand to MCMC, SVI and an ELBO is shown, and their own runs are cut down to a few steps."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

MOST = 20_000  # steps that an example may ask for before it is taken to wait for something that does not come


def hook(seen: Any, steps: int) -> None:
    """Show `seen.take(kind, program, guide, args, kwargs)` what is handed over; steps: of the example's own runs."""
    _mcmc(seen, steps)
    _svi(seen, steps)
    _elbos(seen)


def _mcmc(seen: Any, steps: int) -> None:
    from pyro.infer import MCMC

    run = MCMC.run

    def few(self: Any, *args: Any, **kwargs: Any) -> Any:
        if (model := getattr(self.kernel, "model", None)) is not None:
            with fresh():
                seen.take("mcmc", model, None, args, kwargs)
        self.num_samples, self.warmup_steps = steps, steps
        for sampler in (self, getattr(self, "sampler", None)):
            if hasattr(sampler, "num_samples"):
                sampler.num_samples, sampler.warmup_steps = steps, steps
        return run(self, *args, **kwargs)

    MCMC.run = few  # type: ignore[method-assign]


def _svi(seen: Any, steps: int) -> None:
    """After a few steps of one SVI object a step gives the last loss again, so that what follows in the file is reached."""
    from pyro.infer import SVI

    step = SVI.step

    def few(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.steps_done = getattr(self, "steps_done", 0) + 1
        if self.steps_done > MOST:
            raise SystemExit
        if self.steps_done <= steps:  # what Pyro itself does not run is no model of ours to run
            self.last_loss = step(self, *args, **kwargs)
        with fresh():
            seen.take("svi", self.model, self.guide, args, kwargs)
        return self.last_loss

    SVI.step = few  # type: ignore[method-assign]


def _elbos(seen: Any) -> None:
    """Losses that an example differentiates by itself."""
    from pyro import infer

    for kind in (infer.Trace_ELBO, infer.TraceEnum_ELBO, infer.TraceMeanField_ELBO, infer.TraceGraph_ELBO):
        if "differentiable_loss" not in vars(kind):
            continue
        kind.differentiable_loss = _shown(kind.differentiable_loss, seen)  # type: ignore[method-assign]


def _shown(loss: Any, seen: Any) -> Any:
    @functools.wraps(loss)
    def differentiable_loss(self: Any, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Any:
        with fresh():
            seen.take("svi", model, guide, args, kwargs)
        return loss(self, model, guide, *args, **kwargs)

    return differentiable_loss


@contextlib.contextmanager
def fresh() -> Iterator[None]:
    """Pyro's parameters as they were before."""
    import pyro

    kept = pyro.get_param_store().get_state()
    try:
        yield
    finally:
        pyro.get_param_store().set_state(kept)


def difference(target: Any, z: Any, program: Any, args: tuple, kwargs: dict[str, Any]) -> float | None:
    """Relative difference of our log density at a point from Pyro's own; finite unknowns are summed out by both."""
    import torch
    from pyro.infer import config_enumerate
    from pyro.infer.mcmc.util import initialize_model

    finite = target.structure.finite
    told = config_enumerate(program) if finite else program
    potential = initialize_model(told, args, kwargs, max_plate_nesting=target.structure.nesting if finite else None)[1]
    values = {k: torch.as_tensor(z[b.start : b.stop]).reshape(b.shape) for k, b in target.structure.blocks.items()}
    ours, theirs = float(target.log_density(torch.as_tensor(z))), -float(potential(values))
    return abs(ours - theirs) / max(1.0, abs(theirs))
