"""What a program with a denoiser says of a point that is known in part: the denoiser, and how it measures the point."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from numpyro import handlers
from numpyro.primitives import Messenger

from probgen.engine.combined import sites_of
from probgen.engine.numpyro.noise.diffused import apart
from probgen.engine.numpyro.programs.structure import parts
from probgen.engine.numpyro.wrapped import innermost
from probgen.nets.diffusion.denoiser import Denoiser, Posterior
from probgen.nets.diffusion.schedules import Schedule


class Found(NamedTuple):
    """denoiser; variance: of the chain's steps, see `Ancestral`; point: what a point that it sees is in the program's units."""

    denoiser: Denoiser
    variance: str
    point: Any


class Says(Denoiser):
    """A denoiser that believes one point, whatever it sees: by it a chain's decoder shows its units."""

    schedule: Schedule
    mean: Any

    def __call__(self, z: Any, t: Any) -> Posterior:
        return Posterior(self.mean, jnp.zeros(()))


class Look(Messenger):
    """Effect handler: nothing is drawn; `found` is what the program says where its denoiser sees the point `at`."""

    def __init__(self, fn: Any, name: str, at: Any) -> None:
        super().__init__(fn)
        self.name, self.at, self.changed = name, at, None
        self.denoiser, self.variance, self.point = None, "posterior", None

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] != "sample" or msg["value"] is not None:
            return
        fn = innermost(msg["fn"])
        if hasattr(fn, "end_gap") and hasattr(fn, "denoiser"):
            self.denoiser, self.variance = fn.denoiser, fn.kind
            self.changed = fn
            fn.denoiser = Says(fn.denoiser.schedule, self.at)
            msg["value"] = jnp.zeros(fn.event_shape, self.at.dtype)
        elif msg["name"] == self.name:
            self.point = self._of(fn)
            msg["value"] = jnp.zeros(msg["fn"].shape(), self.at.dtype)

    def _of(self, fn: Any) -> Any:
        if (found := apart(fn)) is None:
            return getattr(fn, "loc", None)
        self.denoiser, point = found[1].velocity.denoiser, self.at
        for transform in found[2]:
            point = transform(point)
        return point


def site_of(arrays: Any) -> str | None:
    """The one site that is known in part, or of which combinations were seen."""
    names = [*parts(arrays), *sites_of(arrays)]
    return names[0] if len(names) == 1 else None


def look(structure: Any, arrays: Any, at: Any) -> Found | None:
    """What the program says where its denoiser sees a point, (*event); None where it has no denoiser of what is known in part."""
    name = site_of(arrays)
    looking = Look(structure.closed(arrays), str(name), at)
    try:
        with handlers.block():
            looking()
    finally:
        if looking.changed is not None:  # the program's own, which may outlive this run
            looking.changed.denoiser = looking.denoiser
    if looking.denoiser is None or looking.point is None:
        return None
    return Found(looking.denoiser, looking.variance, looking.point)
