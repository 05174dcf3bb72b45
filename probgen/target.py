"""Target: what can be computed from a program conditioned on data, as types.

    Target
    ├── Simulable       draws of the data only
    ├── Generative      parameters, rows of data to learn them from, draws that can be differentiated
    │   ├── Implicit    ... and no density
    │   ├── Learnable   ... and a density
    │   ├── Diffused    with a denoiser, which takes noise from a point
    │   └── Bounded     with hidden sites and a guide: a stochastic bound on log p(x)
    │       └── Judged  and a critic, which tells points of the data from the model's
    └── Unnormalised    log density of the unknowns, up to a constant
        ├── Continuous  unknowns in R^n after the engine's bijections, differentiable
        ├── Conditional each unknown can be drawn given the rest
        │   ├── Discrete    finite unknowns
        │   └── Mixed       both; `marginalise()` sums the finite ones out and is Continuous
        └── Normalised  the constant is known

`Subsampled` is a trait: plates that draw minibatches. An algorithm names the type that it needs, once
(`class NUTS(Sampler[Continuous])`); an engine's targets are subclasses of those that they offer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import numpy as np

Arrays = Mapping[str, np.ndarray]
START = " start"  # ending of the data that are where a parameter begins
CRITIC = " (critic)"  # ending of a critic's parameters in an answer


class Bounds(NamedTuple):
    """A support that depends on no unknown: low <= x <= high, or low < x where `strict`; integers where `whole`."""

    low: float
    high: float
    strict: bool
    whole: bool


@dataclass(frozen=True)
class Site:
    """One named site of a program's trace.

    kind: "latent", "observed", "deterministic" or "factor"; shape: batch and event shape together, without chain and draw.
    discrete: whether the support is countable; enumerable: whether it is finite and can be listed; subsampled: whether it stands in
    a plate that draws a minibatch; source: the data keyword whose array it is observed at; bounds: that array's known support;
    circular: whether it is angles; masked: whether a mask may leave out some of it; weighed: whether a scale counts its density.
    """

    name: str
    kind: str
    shape: tuple[int, ...] = ()
    discrete: bool = False
    enumerable: bool = False
    subsampled: bool = False
    distribution: str = ""
    source: str = ""
    bounds: Bounds | None = None
    circular: bool = False
    masked: bool = False
    weighed: bool = False


@dataclass(frozen=True)
class Variable:
    """A site's unknowns.

    kind: "bits", "levels", "one-hot" (units along the last axis are one), "reals", or "other"; levels: of a unit, 0 for reals;
    event: whether the units are one event of the site's distribution.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    levels: int = 0
    event: bool = False

    @property
    def units(self) -> int:
        """Units that take values by themselves."""
        return self.size // self.levels if self.kind == "one-hot" else self.size

    @property
    def size(self) -> int:
        return math.prod(self.shape)


class Target:
    """A program conditioned on data.

    engine: "numpyro" or "pyro"; sites: every site of its trace; data: the arrays and settings it is conditioned on; notes:
    sentences about how the data or the program were read that a result must tell.
    """

    offers: ClassVar[str] = "Target"
    notes: tuple[str, ...] = ()  # sentences that a fit's reader should see
    seen: Any = None  # see `probgen.fits.seal.remember`
    engine: str
    precision: str  # "float64" or "float32"
    structure: Any  # what the engine knows of the program
    sites: tuple[Site, ...]
    data: Mapping[str, Any]
    author_guide: Any = None  # the author's program that draws the unknowns
    author_critic: Any = None  # the author's program that judges points
    needs_guide: str = ""  # why no algorithm without that guide can take it
    points: tuple[str, ...] = ()  # parameters that are learned beside unknowns, by the names of their arrays
    only_guided: str = ""  # why no algorithm but that of an author's guide takes it
    begin_at: Any = None  # where a chain begins, while its first state is made; see `probgen.run.starts`
    axes: Mapping[str, tuple[str | None, ...]] = MappingProxyType({})  # of sites in plates, the plate of every axis

    def named(self, kind: str) -> tuple[str, ...]:
        """Names of the sites of one kind, in the order of the program."""
        return tuple(site.name for site in self.sites if site.kind == kind)

    def prior(self, seed: int, num_samples: int, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Draws of every site run forward, or of those named, the observed ones unconditioned: arrays (num_samples, *shape)."""
        raise NotImplementedError

    def sample(self, num_samples: int = 1, seed: int = 0) -> dict[str, np.ndarray]:
        """Draws of all sites run forward, given what is known, (num_samples, *shape); Incompatible where they cannot be had."""
        raise NotImplementedError

    def predict(self, posterior: Arrays, data: Mapping[str, Any], seed: int) -> dict[str, np.ndarray]:
        """Draws of the observed sites given `posterior` (chain, draw, *event), the program run on `data`."""
        raise NotImplementedError

    def by_row(self) -> Learnable | None:
        """The program of one row, its unknowns as parameters; None where the rows are not independent given the unknowns."""
        return None

    def observed_values(self) -> dict[str, np.ndarray]:
        """What every observed site is observed at, in the order of the program: arrays of the sites' shapes."""
        raise NotImplementedError

    def log_likelihood(self, posterior: Arrays, data: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Pointwise log likelihood of the observed sites, in nats: arrays (chain, draw, *batch)."""
        raise NotImplementedError


class Generative(Target):
    """Parameters (`numpyro.param`, `pyro.param`) of a program, and rows of data to learn them from, by the program's draws alone.

    visible: the sites that rows give, in the shape of one row; hidden: the others.
    """

    offers = "Generative"
    num_rows: int
    proper: bool  # whether what is drawn forward is of the program's law: no factors, no measures
    keywords: Mapping[str, str]  # data that hold rows, and their sites
    inputs: tuple[str, ...]  # data of which every row has a slice
    row_sites: tuple[Site, ...]  # the sites that rows give, with the keywords and the bounds of their data
    grey: tuple[str, ...]  # sites of bits whose data are grey levels: bits are drawn of them at every use
    visible: list[Variable]
    hidden: list[Variable]

    def check_indices(self, rows: Arrays, answer: Arrays | None = None) -> None:
        """Raises OutOfRange for rows whose inputs are indices out of range in the program, its parameters as learned."""
        raise NotImplementedError

    def drawn(self, rows: Arrays) -> Arrays:
        """Bits drawn of grey levels {site: (row, *event)}; the same at every call."""
        raise NotImplementedError

    def all_rows(self) -> Arrays:
        """The visible sites, and inputs by keyword, of all rows: (row, *event)."""
        raise NotImplementedError

    def constrained(self, answer: Arrays) -> Arrays:
        """Learned parameters in their constraints."""
        raise NotImplementedError

    def begun(self, answer: Arrays) -> Generative:
        """The target whose parameters begin where they are named, unconstrained; raises ValueError for other shapes or names."""
        raise NotImplementedError

    def learned(self, answer: Arrays, given: Mapping[str, Any] | None = None) -> Target:
        """The target of a new point, given learned parameters; given: what is known of it, NaN where a part is not."""
        raise NotImplementedError

    def drawable(self) -> tuple[str, ...]:
        """Notes on what stands for draws that have no gradient in the parameters; raises Incompatible where nothing does."""
        raise NotImplementedError


class Implicit(Generative):
    """Rows whose program says how a point arises, and no density: an observed site is `Delta(f(noise))`."""

    offers = "Implicit"


class Learnable(Generative):
    """Rows whose program has a density as well."""

    offers = "Learnable"
    normalised: bool  # whether that of a point's data is a log probability, at once: proper, and nothing hidden


class Diffused(Learnable):
    """Rows whose program takes noise from a point by a denoiser: a chain of latents with a fixed guide, or a flow by an ODE."""

    offers = "Diffused"
    chained: bool  # whether it is a chain of latents, with a bound
    labels: tuple[str, ...]  # inputs that are whole numbers, which -1 hides
    cannot_denoise: Callable[[], str]  # why nothing is learned by noise on points; empty where it is


class Bounded(Learnable):
    """Rows with hidden sites that a guide draws: a stochastic lower bound on the log probability of a row.

    answer: parameters by name, unconstrained; rows: visible sites and inputs, (row, *event); seed: of the draws, two integers.
    """

    offers = "Bounded"
    finite: list[Variable]  # the hidden sites of finitely many values

    def log_ratios(self, answer: Arrays, rows: Arrays, seed: tuple[int, int], num_particles: int) -> np.ndarray:
        """log p(x, h) - log q(h | x) at draws of the guide, in nats: (row, draw)."""
        raise NotImplementedError

    def codes(self, answer: Arrays, rows: Arrays, seed: tuple[int, int], num_samples: int) -> Arrays:
        """Hidden sites drawn by the guide, or at its middle for no samples: (row, draw, *event)."""
        raise NotImplementedError

    def decoded(self, answer: Arrays, values: Arrays) -> Arrays:
        """The visible sites' means given hidden sites and inputs: (row, *event)."""
        raise NotImplementedError


class Judged(Bounded):
    """Rows with hidden sites, a guide, and a critic that tells points of the data from the model's."""

    offers = "Judged"

    @property
    def unjudged(self) -> Bounded:
        """The same without its critic, for learners that have no use for one."""
        raise NotImplementedError


class Simulable(Target):
    """Draws of the data, no density."""

    offers = "Simulable"


class Unnormalised(Target):
    """The log density of the unknowns and the data, up to a constant in the unknowns."""

    offers = "Unnormalised"


class Continuous(Unnormalised):
    """Unknowns in R^dim after the engine's bijections, with a differentiable log density.

    A point z is a flat array (dim,). Densities carry the bijections' log-Jacobians and are in nats.
    """

    offers = "Continuous"
    dim: int
    ops: Any  # the engine's array words: see `probgen.engine.numpyro.Ops`

    @property
    def point_index(self) -> np.ndarray:
        """The coordinates of z that are parameters to be learned, not unknowns: (coordinate,)."""
        return np.zeros(0, int)

    def first_points(self, key: Any) -> Any:
        """Where the program says that its parameters begin: (point,), in the order of `point_index`."""
        raise NotImplementedError

    def paired(self) -> Continuous:
        """The target with its author's guide, which then says its loss and its draws; ValueError where that does not fit."""
        raise NotImplementedError

    def log_density(self, z: Any) -> Any:
        """log p(unknowns, data) + log|Jacobian| at z: (dim,) -> ()."""
        raise NotImplementedError

    def value_and_grad(self, z: Any) -> tuple[Any, Any]:
        """The log density and its gradient at z: (dim,) -> (), (dim,)."""
        raise NotImplementedError

    def log_density_batch(self, z: Any) -> Any:
        """The log density at many points: (batch, dim) -> (batch,)."""
        raise NotImplementedError

    def own_value_and_grad(self, z: Any) -> tuple[Any, Any]:
        """The log density of the unknowns themselves, log p(unknowns, data) without a Jacobian, and its gradient in z."""
        raise NotImplementedError

    def own_gradients(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same at points (point, dim), for callers outside a kernel: (point,), (point, dim)."""
        values, gradients = zip(*(self.own_value_and_grad(z) for z in points), strict=True)
        return np.array(values), np.array(gradients)

    def gradients(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log densities and gradients at points (point, dim), for callers outside a kernel: (point,), (point, dim)."""
        values, gradients = zip(*(self.value_and_grad(z) for z in points), strict=True)
        return np.array(values), np.array(gradients)

    def densities(self, points: np.ndarray) -> np.ndarray:
        """Log densities at points (point, dim), for callers outside a kernel: (point,)."""
        return np.asarray(self.gradients(points)[0])

    def gradient_batch(self, z: Any) -> Any:
        """The gradient at many points: (batch, dim) -> (batch, dim)."""
        raise NotImplementedError

    def constrain(self, draws: np.ndarray) -> dict[str, np.ndarray]:
        """Latent and deterministic sites at draws (chain, draw, dim), without those `summed`: arrays (chain, draw, *event)."""
        raise NotImplementedError

    @property
    def summed(self) -> tuple[str, ...]:
        """The sites that have no one value at a point: finite unknowns, which are summed out, and what depends on them."""
        return ()

    def drawn(self, draws: np.ndarray, seed: int) -> dict[str, np.ndarray]:
        """The sites at draws (chain, draw, dim), with the `summed` ones: finite unknowns are drawn, for every draw anew, from their
        exact joint conditional given it and the data. Arrays (chain, draw, *event); a function of the draw's place and the seed."""
        return self.constrain(draws)

    def begun_at(self, values: Mapping[str, Any], seed: int) -> np.ndarray:
        """A point z (dim,) with given values of some latent sites, the others anywhere near zero in unconstrained space."""
        raise NotImplementedError

    def unconstrain(self, values: Mapping[str, Any]) -> np.ndarray:
        """The point z (dim,) of given values of the latent sites, the inverse of `constrain`."""
        raise NotImplementedError


class Subsampled(Target):
    """Trait: minibatch plates; `minibatch(key)` gives an unbiased estimate of the log density and its gradient."""

    offers = "Subsampled"

    def minibatch_value_and_grad(self, key: Any, z: Any) -> tuple[Any, Any]:
        """An unbiased estimate of the log density at z from one random minibatch, and its gradient."""
        raise NotImplementedError


class SubsampledContinuous(Continuous, Subsampled):
    """Continuous unknowns, and likelihood terms in minibatch plates."""

    offers = "Continuous and Subsampled"


class Conditional(Unnormalised):
    """Bits, levels and reals, each of which can be drawn given all others.

    variables: the sites with unknowns. A point is a mapping from their names to arrays.
    """

    offers = "Conditional"
    variables: tuple[Any, ...]
    dim: int

    def joint(self, values: Any) -> Any:
        """The log density of the sites' values, up to a constant, in nats: ()."""
        raise NotImplementedError

    def constrain(self, draws: np.ndarray) -> dict[str, np.ndarray]:
        """The sites at draws (chain, draw, dim): arrays (chain, draw, *event)."""
        raise NotImplementedError

    def pruned(self) -> Unnormalised:
        """The target without the sites on which no other depends, which has the same constant; itself where there are none."""
        return self

    def completed(self, draws: Arrays, seed: int) -> dict[str, np.ndarray]:
        """All sites of points, given those of the pruned target: arrays (point, *event)."""
        raise NotImplementedError


class Discrete(Conditional):
    """Every unknown has a finite support."""

    offers = "Discrete"


class Mixed(Conditional):
    """Continuous and finite unknowns; the finite ones can be summed out."""

    offers = "Mixed"

    def marginalise(self) -> Continuous:
        """The same program with its finite unknowns summed out exactly."""
        raise NotImplementedError


class Normalised(Unnormalised):
    """The log density is a log probability: its constant is known."""

    offers = "Normalised"
