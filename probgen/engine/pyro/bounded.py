"""Pyro programs with hidden sites, and a guide that draws them: a bound on every row's log probability.

    log p(x) >= E_{h ~ q(h | x)} [log p(x, h) - log q(h | x)]

As in `probgen.engine.numpyro.targets.bounded`, but a batch of rows at a time. Hidden sites of finitely many values are summed
over, by copies of the rows, one for each value.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch.distributions import Independent, TransformedDistribution, kl_divergence

from probgen.data.checks import by_place, check_drawn, taken
from probgen.engine.pyro.continuous import PyroDiscrete, all_drawn
from probgen.engine.pyro.executor import OPS
from probgen.engine.pyro.learnable import PyroImplicit, PyroLearnable
from probgen.engine.pyro.programs.density import Given
from probgen.engine.pyro.programs.looks import (
    FEW,
    identities,
    log_prob,
    looked,
    refuse_batch_norm,
    sample_nodes,
    traced,
)
from probgen.engine.pyro.programs.names import looked_at
from probgen.engine.pyro.programs.parameters import Parameter, given
from probgen.engine.pyro.programs.sites import is_weighed
from probgen.engine.pyro.row_data import in_rows
from probgen.engine.pyro.rows import AT_ONCE, Learning, PyroRows, host, parts
from probgen.programs.autoguides import is_auto, own_program, unwrapped
from probgen.programs.pinned import check_pins, innermost_pin, pinned
from probgen.target import Bounded, Variable

Rows = Mapping[str, Any]
Noise = tuple[torch.Tensor, list[torch.Tensor]]  # the states of torch's generators: the CPU's, and every other device's
MOST = 1024  # states of finite sites of a row that copies of it are made for


class Terms(NamedTuple):
    """Of rows and one draw h of the guide for each, in nats.

    likelihood: log p(x | h), (row,); kl: by hidden site log q(h | x) - log p(h), (row,), or its mean in closed form, then
    (row, coordinate); log_ratio: log p(x, h) - log q(h | x), (row,), finite sites summed out of p; beside: log q of what the guide
    observes, (row,).
    """

    likelihood: Any
    kl: dict[str, Any]
    log_ratio: Any
    beside: Any


class Guide(NamedTuple):
    """A guide as a look at it tells; beside: sites that it observes; weighed: those it draws, whose density a scale counts."""

    program: Callable[..., Any]
    parameters: tuple[Parameter, ...]
    roots: tuple[Any, ...]
    beside: tuple[str, ...]
    weighed: tuple[str, ...]


class PyroBounded(PyroLearnable, Bounded):
    """Rows, a program of a batch of them with hidden sites, and its guide."""

    def __init__(self, structure: Learning, tensors: Any, data: Mapping[str, Any], guide: Guide) -> None:
        super().__init__(structure, tensors, data)
        self.guide, self.beside, self.weighed_by_guide = guide, guide.beside, guide.weighed

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        own = {p.name: p for p in (*self.structure.parameters, *self.guide.parameters)}
        return tuple(own.values())

    @property
    def roots(self) -> tuple[Any, ...]:
        return (*self.structure.roots, *self.guide.roots)

    @property
    def plain(self) -> PyroLearnable:
        """The target without its guide."""
        return PyroLearnable(self.structure, self.tensors, self.data)

    @property
    def finite(self) -> list[Variable]:
        """Hidden sites of finitely many values."""
        return [v for v in self.hidden if v.kind in ("bits", "levels", "one-hot")]

    def initial(self, seed: int) -> dict[str, torch.Tensor]:
        found = self._looked(self.guide.program, OPS.seed(OPS.fold_in(OPS.key(seed), 1)))
        begin = getattr(self.guide.program, "begin", None)  # of the default guide
        if begin:
            found |= begin(self.batch(torch.arange(self.num_rows)))
        return found | super().initial(seed)

    # ---- runs, inside `running`

    def guided(self, rows: Rows, *handlers: Messenger) -> dict[str, Any]:
        """The guide's sites on rows."""
        data = taken(self.guide.program, {**self.structure.static, **self._named(rows)})
        return traced(self.guide.program, data, handlers)

    def draw(self, rows: Rows, centre: bool = False) -> dict[str, torch.Tensor]:
        """Hidden sites of rows drawn from the guide; centre: its middle."""
        nodes = self.guided(rows, *([_Centred({v.name for v in self.finite})] if centre else []))
        return {k: n["value"] for k, n in nodes.items() if not n["is_observed"]}

    def log_ratio(
        self, rows: Rows, hidden: Rows, fixed: Rows | None = None, noise: Noise | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """log p(x, h) - log q(h | x) at given h, and log p(x | h): (row,), (row,); fixed: the guide's parameters in log q.

        noise: `noise()` before h was drawn, so that what the guide draws beside, such as dropout's, is that of the draw.
        """
        with ExitStack() as stack:
            if fixed is not None:
                stack.enter_context(given(self.guide.parameters, fixed, self.guide.roots, train=True))
            if noise is not None:
                stack.enter_context(_again(noise))
            q = self.guided(rows, Given(hidden) if noise is None else _Replaced(hidden))
        log_q: Any = sum(log_prob(n) for k, n in q.items() if k in hidden)
        log_p: dict[str, Any] = {k: log_prob(n) for k, n in self.told(rows, Given(hidden)).items()}
        likelihood: Any = sum(x for k, x in log_p.items() if k not in hidden)
        return sum(log_p.values()) - log_q, likelihood

    def terms(self, rows: Rows) -> Terms:
        """What a bound is made of, by one draw of the guide; finite sites at all their values."""
        if not self.finite:
            return self._terms(rows, {})[0]
        states = self._states()
        count, number = len(next(iter(states.values()))), len(next(iter(rows.values())))
        copies = {k: v.repeat_interleave(count, 0) for k, v in rows.items()}
        chosen = {k: v.repeat((number, *(1,) * (v.dim() - 1))) for k, v in states.items()}
        terms, log_q = self._terms(copies, chosen)
        log_q = log_q.view(number, count)
        q = log_q.exp()
        mean = lambda x: (x.view(number, count, -1) * q[..., None]).sum(1).view(number, *x.shape[1:])  # noqa: E731
        log_ratio = torch.logsumexp(terms.log_ratio.view(number, count) + log_q, 1)
        kl = {k: mean(x) for k, x in terms.kl.items()}
        return Terms(mean(terms.likelihood), kl, log_ratio, mean(terms.beside))

    def _terms(self, rows: Rows, chosen: Mapping[str, Any]) -> tuple[Terms, Any]:
        """The terms with some hidden sites given, and log q of those: (row,)."""
        sites = self.guided(rows, Given(chosen))
        q = {k: n for k, n in sites.items() if not n["is_observed"]}
        p = self.told(rows, Given({k: n["value"] for k, n in q.items()}))
        likelihood: Any = sum(log_prob(n) for k, n in p.items() if k not in q)
        log_q = {k: log_prob(n) for k, n in q.items()}
        apart = {k: log_q[k] - log_prob(p[k]) for k in q}
        ordered = [k for k in p if k in q] == list(q)  # else a site's prior depends on what is drawn after it
        plain = [k for k in q if ordered and k not in chosen and _plain(q[k]) and _plain(p[k])]
        kl = {k: _kl(q[k]["fn"], p[k]["fn"]) if k in plain else None for k in q}
        kl = {k: apart[k] if x is None else x for k, x in kl.items()}
        zero = torch.zeros_like(likelihood)
        beside = sum((log_prob(n) for k, n in sites.items() if k not in q), zero)
        terms = Terms(likelihood, kl, likelihood - sum(apart.values()), beside)
        return terms, sum((log_q[k] for k in chosen), zero)

    def _states(self) -> dict[str, torch.Tensor]:
        """All values of finite sites together: (state, *event)."""
        units = [v.levels for v in self.finite for _ in range(v.units)]
        grid = torch.cartesian_prod(*(torch.arange(n) for n in units)).view(-1, len(units))
        chunks = grid.split([v.units for v in self.finite], 1)
        return {v.name: self._values(v, chunk) for v, chunk in zip(self.finite, chunks, strict=True)}

    def _values(self, variable: Variable, index: torch.Tensor) -> torch.Tensor:
        """Values of a finite site by the numbers of its units' values, (state, unit): (state, *event)."""
        if variable.kind == "one-hot":
            index = torch.nn.functional.one_hot(index, variable.levels)
        found = index.reshape(len(index), *variable.shape)
        return found if variable.kind == "levels" else found.to(getattr(torch, self.precision))

    # ---- many rows at once, of NumPy arrays

    def log_ratios(self, answer: Any, rows: Any, seed: tuple[int, int], num_particles: int) -> np.ndarray:
        found = []
        with self._evaluating(answer, seed):
            for part in parts(self.from_host(rows), max(1, AT_ONCE // num_particles)):
                copies = {k: v.repeat_interleave(num_particles, 0) for k, v in part.items()}
                found.append(self.terms(copies).log_ratio.view(-1, num_particles).cpu().numpy())
        return np.concatenate(found).astype(float)

    def codes(self, answer: Any, rows: Any, seed: tuple[int, int], num_samples: int) -> dict[str, np.ndarray]:
        found, count = [], max(num_samples, 1)
        with self._evaluating(answer, seed):
            for part in parts(self.from_host(rows), max(1, AT_ONCE // count)):
                copies = {k: v.repeat_interleave(count, 0) for k, v in part.items()}
                drawn = self.draw(copies, centre=not num_samples)
                found.append({v.name: host(drawn[v.name], v).reshape(-1, count, *v.shape) for v in self.hidden})
        return {k: np.concatenate([part[k] for part in found]) for k in found[0]}

    def decoded(self, answer: Any, values: Any) -> dict[str, np.ndarray]:
        found = []
        finite = {v.name: torch.int64 if v.kind == "levels" else None for v in self.finite}
        with self._evaluating(answer, (0, 0)):
            chosen = self.from_host(values)
            chosen = {k: v if finite.get(k) is None else v.to(torch.int64) for k, v in chosen.items()}
            for part in parts(chosen, AT_ONCE):
                hidden = {v.name: part[v.name] for v in self.hidden}
                rows = self.stand_ins(len(next(iter(part.values())))) | {k: part[k] for k in self.inputs}
                rows |= {v.name: part[v.name].to(rows[v.name].dtype) for v in self.visible if v.name in part}
                told = self.told(rows, Given(hidden))
                found.append({v.name: host(middle(told[v.name]["fn"]), v) for v in self.visible})
        return {k: np.concatenate([part[k] for part in found]) for k in found[0]}

    def _evaluating(self, answer: Any, seed: tuple[int, int]) -> Any:
        check_pins(self)
        stack = ExitStack()
        stack.enter_context(self.running(self.as_tensors(answer), OPS.seed(OPS.fold_in(OPS.key(seed[0]), seed[1]))))
        stack.enter_context(torch.no_grad())
        return stack


class _Replaced(Messenger):
    """Puts given values in the place of what is drawn, after it was: what else is drawn is then as it is without them."""

    def __init__(self, values: Rows) -> None:
        super().__init__()
        self.values = values

    def _pyro_post_sample(self, msg: Any) -> None:
        msg["value"] = self.values.get(msg["name"], msg["value"])


def noise() -> Noise:
    """Where torch's generators stand."""
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []


@contextmanager
def _again(found: Noise) -> Iterator[None]:
    """Inside, torch's generators go on from `found`; afterwards they are as before."""
    with torch.random.fork_rng(range(len(found[1]))):
        torch.set_rng_state(found[0])
        if found[1]:
            torch.cuda.set_rng_state_all(found[1])
        yield


class _Centred(Messenger):
    """Every hidden site at its middle, those of finitely many values at the most probable one."""

    def __init__(self, finite: set[str]) -> None:
        super().__init__()
        self.finite = finite

    def _pyro_sample(self, msg: Any) -> None:
        if not (msg["is_observed"] or msg["done"] or isinstance(msg["fn"], _Subsample)):
            msg["value"] = _mode(msg["fn"]) if msg["name"] in self.finite else middle(msg["fn"])
            msg["done"] = True


def middle(fn: Any) -> torch.Tensor:
    """The middle of a distribution: its mean, or what its transforms make of their base's."""
    if isinstance(fn, TransformedDistribution):
        x: Any = middle(fn.base_dist)
        for transform in fn.transforms:
            x = transform(x)
        return x
    return fn.mean.expand(fn.shape())


def _mode(fn: Any) -> torch.Tensor:
    """The most probable value of a distribution over finitely many, its units independent."""
    while isinstance(fn, Independent):
        fn = fn.base_dist
    values = fn.enumerate_support(expand=True)
    best = fn.log_prob(values).argmax(0)
    return torch.take_along_dim(values, best.reshape(1, *best.shape, *(1,) * len(fn.event_shape)), 0)[0]


def _kl(q: Any, p: Any) -> Any:
    """KL(q || p) in closed form, (row, *coordinates) where they are independent; None where there is no such form."""
    while isinstance(q, Independent) and isinstance(p, Independent):
        if q.reinterpreted_batch_ndims != p.reinterpreted_batch_ndims:
            return None
        q, p = q.base_dist, p.base_dist
    try:
        return kl_divergence(q, p)
    except NotImplementedError:
        return None


def _plain(node: Any) -> bool:
    return node["mask"] in (None, True) and isinstance(node["scale"], int | float) and node["scale"] == 1


def guided(target: PyroLearnable, program: Callable[..., Any] | None, critic: Any = None) -> PyroLearnable:
    """The target with a guide, a default one where none is given; as it was where no guide can be.

    A critic is kept for learners that play against one. Raises ValueError where the guide does not run on rows, or does not draw
    just the hidden sites.
    """
    if isinstance(target, PyroRows):
        target.author_critic = None if critic is None else pinned(critic)
    if isinstance(target, PyroImplicit):
        target.author_guide = program
        return target
    if not isinstance(target, PyroLearnable):
        plain = program is not None and not is_auto(unwrapped(program)[0])
        own = own_program(target.structure.program) if plain else None
        target.author_guide = by_place(program, own) if plain else program
        if program is None and (unlisted := getattr(target.structure, "unlisted", "")):
            raise ValueError(unlisted)
        return all_drawn(target) if plain and isinstance(target, PyroDiscrete) else target
    hidden = {v.name: v for v in target.hidden}
    if program is None:
        if not hidden or not target.proper or any(v.kind != "reals" for v in hidden.values()):
            return target
        from probgen.nets.pyro_encoder import Encoder

        program = Encoder(tuple((v.name, v.shape) for v in hidden.values()), (*target.keywords, *target.inputs))
    program = by_place(pinned(program), own_program(target.structure.program))
    data = {**target.structure.static, **target._named(target.batch(torch.arange(FEW) % target.num_rows))}
    try:
        program, (trace, seen), notes = looked_at(
            program,
            lambda guide: looked(guide, taken(guide, data), target.precision),
            {p.name: p for p in target.structure.parameters},
        )
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"The guide does not run on rows: {error}") from error
    nodes = sample_nodes(trace)
    drawn = {k: tuple(n["value"].shape[1:]) for k, n in nodes.items() if not n["is_observed"]}
    check_drawn({k: v.shape for k, v in hidden.items()}, drawn)
    if not in_rows(nodes, FEW):
        raise ValueError(
            "The guide's sites must stand in a plate over the rows, the first axis of each: pyro.plate('row', len(x))."
        )
    _check_shapes(target, program, seen)
    refuse_batch_norm(seen.roots)
    beside = tuple(k for k, n in nodes.items() if n["is_observed"])
    counted = tuple(k for k, n in nodes.items() if not n["is_observed"] and is_weighed(n))
    if (held := innermost_pin(program)) is not None:
        held.given(functools.partial(identities, tuple(seen.found.values())))
    found = Guide(program, tuple(seen.found.values()), tuple(seen.roots), beside, counted)
    bounded = PyroBounded(target.structure, target.tensors, target.data, found)
    bounded.notes, bounded.author_critic = (*bounded.notes, *notes), target.author_critic
    return bounded


def _check_shapes(target: PyroLearnable, program: Callable[..., Any], seen: Any) -> None:
    """ValueError for a guide with parameters of its own for every row, which batches of rows do not learn."""
    more = {**target.structure.static, **target._named(target.batch(torch.arange(FEW + 2) % target.num_rows))}
    again = looked(program, taken(program, more), target.precision)[1]
    for name, value in seen.values.items():
        if name not in again.values or again.values[name].shape != value.shape:
            raise ValueError(
                f"The guide's parameter {name!r} has an entry for every row, and batches of rows do not learn it.\n"
                "Say by_row=False, which learns on the whole data."
            )


def fits_rows(target: PyroLearnable, program: Callable[..., Any]) -> bool:
    """Whether a guide is one of rows, as the target's program is, and draws what can be learned row by row."""
    try:
        found: Any = guided(target, program)
    except (TypeError, ValueError, RuntimeError, IndexError):
        return False
    states = math.prod(float(v.levels) ** v.units for v in found.finite)
    return states <= MOST and all(v.kind == "reals" or v in found.finite for v in found.hidden)
