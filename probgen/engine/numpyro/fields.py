"""Targets of a picture that a NumPyro program says by its conditionals alone: one site of `Patches`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers

from probgen import runtime
from probgen.distributions.patches import Patches
from probgen.engine.numpyro.targets.base import NumpyroTarget
from probgen.programs.fields import Field

BESIDE = (
    "{0!r} is said by its conditionals (Patches), which have no density; {1!r} beside it could not be learned.\nWrite a program "
    "whose only unknown is {0!r}."
)


class NumpyroField(NumpyroTarget, Field):
    """One site of `Patches`, and nothing else that is unknown."""

    @property
    def site(self) -> Any:
        return next(site for site in self.sites if site.kind == "latent")

    @property
    def law(self) -> Patches:
        """The site's distribution, of the data's arrays."""
        with runtime.tracing(self.precision), handlers.block():
            zeros = {self.site.name: jnp.zeros(self.site.shape, self.precision)}
            program = handlers.substitute(self.structure.closed(self.arrays), data=zeros)
            return handlers.trace(program).get_trace()[self.site.name]["fn"]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.site.shape

    @property
    def dim(self) -> int:
        return self.structure.dim

    @property
    def picture(self) -> np.ndarray:
        return np.asarray(self.law.picture)

    @property
    def window(self) -> int:
        return self.law.window

    def lowered(self) -> str:
        """The sample as the program makes it of its data, and the law's settings: what the compiled kernel depends on."""
        settings: list[Any] = []

        def said(arrays: Any) -> Any:
            law = type(self)(self.structure, arrays).law
            settings[:] = type(law).__qualname__, law.window, law.tolerance, law.event_shape
            return law.picture

        with runtime.jax_scope(self.precision):
            text = jax.jit(said).lower(self.arrays).as_text()
        return f"{super().lowered()} {settings} {text}"

    def constrain(self, draws: np.ndarray) -> dict[str, np.ndarray]:
        """The site at draws (chain, picture, dim): (chain, picture, *event)."""
        return {self.site.name: np.asarray(draws).reshape(*np.shape(draws)[:2], *self.shape)}


def is_field(sites: Any) -> bool:
    """Whether a program says a picture by its conditionals; raises ValueError where it has other unknowns beside."""
    latent = [site for site in sites if site.kind == "latent"]
    found = [site.name for site in latent if site.distribution == Patches.__name__]
    if found and len(latent) > 1:
        raise ValueError(BESIDE.format(found[0], next(site.name for site in latent if site.name != found[0])))
    return bool(found)
