"""The log density of a Pyro program as a function of one flat point and of the program's arrays.

A program is run under handlers: one puts the values of the latent sites, one makes subsampling plates whole or gives
them a minibatch. The bijection of a latent site is that of its distribution at that moment, so that a support may
depend on other sites. For unknowns u_s with values v_s = T_s(u_s),

    log_density(u) = sum over sites of log p(v_s | parents) + sum over latent s of log |det dT_s / du_s|

where finite latent sites are summed out by Pyro's enumeration.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine.enum_messenger import EnumMessenger
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import SubsampleMessenger, _Subsample
from torch.distributions import Distribution

from probgen.engine.pyro.programs import edges as pyro_edges
from probgen.engine.pyro.programs import minibatch as pyro_minibatch
from probgen.engine.pyro.programs.parameters import unmoved
from probgen.engine.pyro.programs.sites import FLAT, bijection, is_discrete, is_latent
from probgen.engine.pyro.programs.types import is_lifted, lifting
from probgen.engine.pyro.sums import drawn as pyro_drawn
from probgen.engine.pyro.sums.logs import vectorised
from probgen.target import Site

Tensors = Sequence[torch.Tensor]


Indices = Mapping[str, torch.Tensor]


_VALIDATION = ("validate_poutine", "validate_infer", "validate_distributions_pyro", "validate_distributions_torch")


MARKOV = " markov"  # stands for the steps of a Markov chain where names of plates are told


@contextmanager
def scoped(
    precision: str = "float64", *, seed: int = 0, validate: bool | None = False, params: Any = None
) -> Iterator[None]:
    """A scope in which a program may run; every global of torch and Pyro is as before when it ends.

    precision: the default dtype inside, for programs write `torch.zeros(3)`.
    seed: of torch's generators inside.
    validate: Pyro's and torch's validation inside; None leaves it as the caller has it.
    params: the whole parameter store inside (a state of it, filled by what the program adds); none by default.

    One thread at a time: these globals, and Pyro's stack of handlers, are the process's.
    """
    with _one_thread, _scoped(precision, seed, validate, params):
        yield


_one_thread = threading.RLock()


@contextmanager
def _scoped(precision: str, seed: int, validate: bool | None, params: Any) -> Iterator[None]:
    settings, default, threads = pyro.settings.get(), torch.get_default_dtype(), torch.get_num_threads()
    checks = Distribution._validate_sample
    grad, devices = torch.is_grad_enabled(), range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices), pyro.get_param_store().scope(params), vectorised(), unmoved():
        try:
            torch.set_default_dtype(getattr(torch, precision))
            torch.default_generator.manual_seed(seed)  # 1 us; torch.manual_seed, over all kinds of device, takes 250
            if devices:
                torch.cuda.manual_seed_all(seed)
            if validate is not None:
                pyro.settings.set(**dict.fromkeys(_VALIDATION, validate))
            if validate is False:  # distributions that were made before keep their own validation
                Distribution._validate_sample = _accept  # pyright: ignore[reportAttributeAccessIssue]
            yield
        finally:
            Distribution._validate_sample = checks
            torch.set_default_dtype(default)
            torch.set_grad_enabled(grad)
            pyro.settings.set(**settings)
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)


def _accept(distribution: Distribution, value: torch.Tensor) -> None:
    """Stands for the check of a value against a support, which reads the value into Python."""


@contextmanager
def whole_plates(
    noticed: dict[str, tuple[int, int]] | None = None, given: Mapping[str, tuple[int, int]] | None = None
) -> Iterator[None]:
    """Let plates ignore their `subsample_size`; `noticed` takes name -> (size, subsample_size) of those that had one.

    given: plates of which the data are a minibatch, see `Structure`; they keep theirs.

    A plate fixes its size before any handler hears of it, so this steps in where the plate asks for its indices.
    """
    original = SubsampleMessenger._subsample

    def whole(name: str, size: Any = None, subsample_size: Any = None, subsample: Any = None, *rest: Any) -> Any:
        if given and name in given:
            return original(name, size, None, torch.arange(given[name][1]), *rest)
        if noticed is not None and subsample is None and subsample_size is not None and subsample_size < size:
            noticed[name] = (int(size), int(subsample_size))
        return original(name, size, None, subsample, *rest)

    SubsampleMessenger._subsample = staticmethod(whole)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        SubsampleMessenger._subsample = staticmethod(original)


class Enumerated(EnumMessenger):
    """Pyro's enumeration, which looks at no more than the shapes of values: `torch.vmap` does not give their data away."""

    def _pyro_post_sample(self, msg: Any) -> None:
        value = msg["value"]
        if isinstance(value, torch.Tensor):
            msg["value"] = torch.empty(value.shape, device="meta")
        super()._pyro_post_sample(msg)
        msg["value"] = value


class Minibatch(Messenger):
    """Gives subsampling plates their indices: plate name -> (subsample_size,)."""

    def __init__(self, indices: Indices) -> None:
        super().__init__()
        self.indices = indices

    def _pyro_sample(self, msg: Any) -> None:
        if isinstance(msg["fn"], _Subsample) and msg["name"] in self.indices:
            msg["value"], msg["done"] = self.indices[msg["name"]], True


class Unknowns(Messenger):
    """Puts the continuous latent sites' values from unconstrained ones, and adds up the log-Jacobians.

    give: (site, unconstrained shape) -> its unconstrained value, with the rows of the whole of every plate.
    indices: the rows of a minibatch; a site in such a plate takes those, and its log-Jacobian is scaled up like its
        density, which keeps the estimate unbiased.
    drawn: discrete sites that have a place in the point, see `sums.drawn`.
    """

    def __init__(
        self,
        give: Callable[[str, tuple[int, ...]], torch.Tensor],
        indices: Indices | None = None,
        drawn: Mapping[str, torch.dtype] | None = None,
    ) -> None:
        super().__init__()
        self.give, self.indices, self.drawn = give, indices or {}, drawn or {}
        self.log_jacobian: torch.Tensor | float = 0.0
        self.of_bijections: torch.Tensor | float = 0.0  # what of it a density of the unknowns themselves does not have
        self.observed: dict[str, torch.Tensor] = {}  # of sites with obs_mask

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] and msg["name"].endswith(pyro_edges.OBSERVED):
            self.observed[msg["name"].removesuffix(pyro_edges.OBSERVED)] = msg["value"]
        if msg["name"] in self.drawn and not msg["done"]:
            pyro_drawn.put(msg, self.give, self.drawn, self.indices)
        if msg["done"] or not is_latent(msg) or is_discrete(msg["fn"]):
            return
        transform, scale = bijection(msg), 1.0
        u = self.give(msg["name"], tuple(transform.inverse_shape(msg["fn"].shape())))
        for frame in msg["cond_indep_stack"]:
            if frame.name in self.indices and frame.vectorized:
                u = u.index_select(frame.dim - transform.domain.event_dim, self.indices[frame.name])
                scale *= frame.full_size / frame.size
        value: Any = transform(u)
        domain, codomain = transform.domain.event_dim, transform.codomain.event_dim
        if value.shape[: value.dim() - codomain] != u.shape[: u.dim() - domain]:
            raise ValueError(
                f"The support of site {msg['name']!r} depends on a finite latent site, so that cannot be summed out.\n"
                "Scale a variable of fixed support instead."
            )
        jacobian: Any = transform.log_abs_det_jacobian(u, value)
        if pyro_edges.is_filler(msg):
            jacobian = pyro_edges.filled(msg, u, jacobian)
            known = self.observed.get(msg["name"].removesuffix(pyro_edges.UNOBSERVED))
            value = value if known is None else torch.where(pyro_edges.missing(msg), value, known)
        self.log_jacobian = self.log_jacobian + scale * jacobian.sum()
        if not (pyro_edges.is_filler(msg) or pyro_edges.is_angle(msg["fn"]) or type(msg["fn"]).__name__ == FLAT):
            self.of_bijections = self.of_bijections + scale * jacobian.sum()
        msg["value"], msg["done"] = value, True


class Given(Messenger):
    """Puts given values of latent sites, constrained; `unconstrained` keeps their images under the bijections."""

    def __init__(self, values: Mapping[str, torch.Tensor], *, invert: bool = False) -> None:
        super().__init__()
        self.values, self.invert = values, invert
        self.unconstrained: dict[str, torch.Tensor] = {}

    def _pyro_sample(self, msg: Any) -> None:
        if not is_latent(msg) or msg["name"] not in self.values:
            return
        value, expected = self.values[msg["name"]], msg["fn"].shape()
        if value.shape != expected:
            raise ValueError(
                f"Site {msg['name']!r} is given a value of shape {tuple(value.shape)}; the program, on these data, has "
                f"{tuple(expected)} there.\nGive values of that shape, or data of the size that the values belong to."
            )
        if self.invert and not is_discrete(msg["fn"]):
            image: Any = bijection(msg).inv(value)
            self.unconstrained[msg["name"]] = image
        msg["value"], msg["done"] = value, True


@dataclass(frozen=True)
class Block:
    """Where the unconstrained value of a latent site lies in the flat point."""

    start: int
    stop: int
    shape: tuple[int, ...]


@dataclass
class Structure:
    """What one trace tells of a program on data of given shapes; the data themselves are arguments.

    arrays: names of the data that are tensors, in the order of `tensors` everywhere; static: all other data.
    blocks: the continuous latent sites; finite: those that are summed out, to the left of `nesting` plate dimensions.
    plates: name -> (size, subsample_size) of the plates that draw minibatches.
    given: name -> (size, rows) of plates of which the data are a minibatch: each of its rows counts size / rows times.
    tiles: minibatches that make up the whole, of a program that does not run on all rows at once; see `minibatch`.
    params: state of the parameter store that the first trace left; the program always sees these values.
    unlisted: why discrete unknowns are not summed out; drawn: their types where so, see `sums.drawn`.
    gradients: compiled gradients by name, shared by every target of this structure.
    dtypes, events: of finite sites, the type of their values and the number of event dimensions; frames: of every site, the names
        of its plates, MARKOV among them for a step of `pyro.markov`; axes: the plate of every axis; reached: `Continuous.summed`;
        checked: whether enumeration was found to follow the program; noisy: see `given.held_noise`;
        largest: numbers of the largest array that it computes.
    """

    program: Callable[..., Any]
    arrays: tuple[str, ...]
    static: dict[str, Any]
    precision: str
    device: torch.device
    sites: tuple[Site, ...] = ()
    blocks: dict[str, Block] = field(default_factory=dict)
    finite: frozenset[str] = frozenset()
    nesting: int = 0
    plates: dict[str, tuple[int, int]] = field(default_factory=dict)
    given: dict[str, tuple[int, int]] = field(default_factory=dict)
    params: dict = field(default_factory=lambda: {"params": {}, "constraints": {}})
    gradients: dict[str, Any] = field(default_factory=dict)
    reads_data: bool = False
    is_random: bool = False
    largest: int = 1 << 30
    tiles: list[tuple[torch.Tensor, ...]] = field(default_factory=list)
    evaluator: Any = None
    dtypes: dict[str, torch.dtype] = field(default_factory=dict)
    unlisted: str = ""
    drawn: dict[str, torch.dtype] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    frames: dict[str, frozenset[str]] = field(default_factory=dict)
    axes: dict[str, tuple[str | None, ...]] = field(default_factory=dict)
    reached: tuple[str, ...] | None = None
    checked: bool = False
    noisy: bool | None = None

    @property
    def dim(self) -> int:
        """Length of the flat point."""
        return max((block.stop for block in self.blocks.values()), default=0)

    def scope(self, seed: int = 0) -> Any:
        """A scope for runs of this program."""
        if not is_lifted(self.program):
            return scoped(self.precision, seed=seed, params=self.params)
        return self._lifted(seed)

    @contextmanager
    def _lifted(self, seed: int) -> Iterator[None]:
        with scoped(self.precision, seed=seed, params=self.params), lifting(getattr(torch, self.precision)):
            yield

    @cached_property
    def enumerated(self) -> Callable[..., Any]:
        """The program with its finite latent sites enumerated, each along a dimension of its own."""
        finite = self.finite

        def mark(msg: Any) -> Any:
            return {"enumerate": "parallel"} if msg["name"] in finite else {}

        marked = poutine.infer_config(self.program, config_fn=mark)
        return Enumerated(-1 - self.nesting)(marked)

    def trace(self, tensors: Tensors, *handlers: Messenger, enumerate_finite: bool = False) -> Any:
        """The trace of a run on the data under handlers, the last one innermost; plates are whole without Minibatch."""
        program = self.enumerated if enumerate_finite and self.finite else self.program
        with ExitStack() as stack:
            if (self.plates or self.given) and not any(isinstance(handler, Minibatch) for handler in handlers):
                if self.tiles:
                    handlers = (*handlers, Minibatch(self.pieces()[0]))
                else:
                    stack.enter_context(whole_plates(given=self.given))
            for handler in (pyro_edges.Edges(), *handlers):
                stack.enter_context(handler)
            return poutine.trace(program).get_trace(**self.static, **dict(zip(self.arrays, tensors, strict=True)))

    def values(
        self, tensors: Tensors, names: Sequence[str], *handlers: Messenger, densities: bool = False
    ) -> dict[str, torch.Tensor]:
        """Values of sites on all rows, or their unscaled log densities, in runs under handlers."""
        found = pyro_minibatch.Whole()
        for rows in self.pieces():
            trace = self.trace(tensors, *handlers, *([Minibatch(rows)] if rows else []))
            if densities:
                trace.compute_log_prob()
            for name in [name for name in names if name in trace.nodes]:
                node = trace.nodes[name]
                part = node["value"]
                if densities:  # Pyro's unscaled ones forget the mask
                    part = scale_and_mask(node["unscaled_log_prob"], mask=node["mask"])
                found.put(name, node, part, rows, 0 if densities else node["fn"].event_dim)
        return found.values

    def unknowns(self, z: torch.Tensor, indices: Indices | None = None) -> Unknowns:
        """The handler that puts the values of the flat point z: (dim,)."""

        def give(name: str, _: tuple[int, ...]) -> torch.Tensor:
            block = self.blocks[name]
            return z[block.start : block.stop].reshape(block.shape)

        return Unknowns(give, indices, self.drawn)

    def log_density(self, z: torch.Tensor, tensors: Tensors, *rows: torch.Tensor) -> torch.Tensor:
        """The log density at z: (dim,) -> ().

        rows: indices of a minibatch, one tensor for each of `plates`; with them the value is an unbiased estimate.
        """
        return self._density(z, tensors, *rows)[0]

    def _density(self, z: torch.Tensor, tensors: Tensors, *rows: torch.Tensor) -> torch.Tensor:
        """The log density at z, and that of the unknowns themselves, without their bijections' log-Jacobians: (2,)."""
        if self.tiles and not rows:
            return torch.stack([self._density(z, tensors, *tile) for tile in self.tiles]).mean(0)
        indices = dict(zip(self.plates, rows, strict=True)) if rows else {}
        unknowns = self.unknowns(z, indices)
        handlers = (unknowns, Minibatch(indices)) if rows else (unknowns,)
        trace = self.trace(tensors, *handlers, enumerate_finite=True)
        if rows and self.finite:
            total = pyro_minibatch.log_prob(trace, self.evaluator, self.plates)
        else:
            total = self.evaluator.log_prob(trace) if self.finite else trace.log_prob_sum()
        total = total + unknowns.log_jacobian
        return torch.stack([total, total - unknowns.of_bijections])

    def pieces(self) -> list[dict[str, torch.Tensor]]:
        """Rows of the minibatches that make up the whole data; one piece, with no plates, where the program runs on all rows."""
        return [dict(zip(self.plates, tile, strict=True)) for tile in self.tiles] or [{}]

    def own_density(self, z: torch.Tensor, tensors: Tensors) -> torch.Tensor:
        """The log density of the unknowns themselves at z, without their bijections' log-Jacobians: (dim,) -> ()."""
        return self._density(z, tensors)[1]
