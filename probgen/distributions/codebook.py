"""Vectors of a codebook: a prior on grids of them, and the guide that takes the nearest one to what a network gives.

    p(z) = prior(k),   z_i = e[k_i],      q(z | x): all mass at z_i = e[argmin_k |f_i(x) - e_k|]

Both are masses, so that log p(x | z) + log p(z) is a lower bound on log p(x). Van den Oord, Vinyals and Kavukcuoglu 2017
(arXiv:1711.00937). Shapes: e, the codebook: (code, dim); z, f: (*grid, dim); k: (*grid).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpyro
from jax import lax
from numpyro.distributions import Distribution, constraints

from probgen.distributions.flags import dependent_property


def codebook(site: str, num_codes: int, dim: int) -> Any:
    """The codebook (code, dim) of a hidden site, the parameter "<site> codebook", in program and guide alike."""
    for name, size, least in (("num_codes", num_codes, 2), ("dim", dim, 1)):
        if not isinstance(size, int) or isinstance(size, bool) or size < least:
            raise ValueError(f"{name} is {size!r}; expected a whole number, {least} or more.")
    return numpyro.param(label(site), lambda key: jax.random.normal(key, (num_codes, dim)))


def label(site: str) -> str:
    """The parameter that is the codebook of a hidden site."""
    return f"{site} codebook"


def nearest(vectors: Any, codebook: Any) -> Any:
    """The codes whose vectors are nearest, of equally near ones the first: (..., dim) -> (...)."""
    return jnp.argmin(jnp.sum(codebook**2, -1) - 2 * vectors @ codebook.T, -1)


class Vectors(constraints.Constraint):
    """Grids of a codebook's vectors: finitely many points, which no map from R^n covers."""

    is_discrete = True

    def __init__(self, codebook: Any, event_dim: int):
        self.codebook, self.event_dim = codebook, event_dim

    def __call__(self, x: Any) -> Any:
        close = jnp.isclose(x, self.codebook[nearest(x, self.codebook)], rtol=1e-4, atol=1e-4)
        return close.all(tuple(range(-self.event_dim, 0)))

    def tree_flatten(self) -> Any:
        return (self.codebook,), (("codebook",), {"event_dim": self.event_dim})


class Codes(Distribution):
    """A grid of a codebook's vectors, the prior being any distribution of one grid of whole numbers 0 ... code - 1.

    A vector counts as the code that is nearest to it.
    """

    pytree_data_fields = ("prior", "codebook")

    def __init__(self, prior: Distribution, codebook: Any, *, validate_args: bool | None = None):
        if prior.batch_shape:
            raise ValueError(f"The prior has batch shape {prior.batch_shape}; make it one event: prior.to_event().")
        self.prior, self.codebook = prior, codebook
        super().__init__((), (*prior.event_shape, codebook.shape[1]), validate_args=validate_args)

    @dependent_property(is_discrete=True)
    def support(self) -> Any:
        return Vectors(self.codebook, self.event_dim)

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        """log p of the codes, in nats; its slope in the value and the codebook is zero."""
        return self.prior.log_prob(nearest(value, self.codebook))

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        return self.codebook[jnp.asarray(self.prior.sample(key, sample_shape)).astype(int)]


class Nearest(Distribution):
    """All mass at the codebook's vectors that are nearest to some outputs, whose slope is taken for theirs (straight through)."""

    pytree_data_fields = ("outputs", "codebook")

    def __init__(self, outputs: Any, codebook: Any, *, validate_args: bool | None = None):
        if jnp.shape(outputs)[-1] != jnp.shape(codebook)[1]:
            raise ValueError(
                f"The outputs have shape {jnp.shape(outputs)}; expected (..., {jnp.shape(codebook)[1]}), as the codebook's vectors."
            )
        self.outputs, self.codebook = outputs, codebook
        super().__init__((), jnp.shape(outputs), validate_args=validate_args)

    @dependent_property(is_discrete=True)
    def support(self) -> Any:
        return Vectors(self.codebook, self.event_dim)

    @property
    def codes(self) -> Any:
        """(*grid)."""
        return nearest(self.outputs, self.codebook)

    @property
    def mean(self) -> Any:
        return self.codebook[self.codes]

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        """Zero: the value is certain."""
        return jnp.zeros(jnp.shape(value)[: jnp.ndim(value) - self.event_dim])

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        through = self.outputs + lax.stop_gradient(self.mean - self.outputs)
        return jnp.broadcast_to(through, (*sample_shape, *self.event_shape))
