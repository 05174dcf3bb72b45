"""Finite unknowns of a NumPyro program, summed out: the factors of its density, and their sum.

    log p(z, y) = log sum_k p(z, k, y)

NumPyro enumerates every finite site along a dimension of its own, and Funsor contracts the factors. They are gathered here, and not
by NumPyro's `log_density`, which (0.22.0) enumerates 0, 1, ... whatever the support is, and sums within every step of a `scan` over
finite sites outside of it, or twice over those that come before the first Markov one.
"""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import funsor
import jax.numpy as jnp
from funsor.optimizer import apply_optimizer
from numpyro import handlers
from numpyro.contrib.control_flow.scan import scan_wrapper
from numpyro.contrib.funsor import enum, enum_messenger
from numpyro.contrib.funsor import trace as packed_trace
from numpyro.contrib.funsor.infer_util import _get_shift, _shift_name, plate_to_enum_plate
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.batch_util import promote_batch_shape
from numpyro.distributions.util import is_identically_one
from numpyro.primitives import Messenger

from probgen.distributions.flags import dependent_property
from probgen.engine.numpyro.programs.supports import listable, support_of
from probgen.engine.numpyro.sums import loose
from probgen.engine.numpyro.sums.loose import PREVIOUS

LOG_SUM, PRODUCT = funsor.ops.logaddexp, funsor.ops.add
BACKWARD = """scan(..., reverse=True) over finite unknowns is summed in the wrong order by NumPyro.
Reverse the data and scan forward."""


HINT = "Put independent rows into a numpyro.plate: the dimensions to the left of all plates are those of the finite unknowns."


class NotSummable(ValueError):
    """A program whose finite unknowns enumeration does not follow."""


class Indexed(Distribution):
    """The index of a value in a finite support: NumPyro's enumeration supposes 0, 1, ....

    values: the support, a tuple (of tuples, for events); static, so that a scan leaves it as it is.
    """

    pytree_data_fields, pytree_aux_fields = ("base",), ("values",)
    has_enumerate_support = True

    def __init__(self, base: Distribution, values: tuple, *, validate_args: bool | None = None):
        self.base, self.values = base, values
        super().__init__(base.batch_shape, (), validate_args=validate_args)

    @dependent_property(is_discrete=True)
    def support(self) -> Any:
        return constraints.integer_interval(0, len(self.values) - 1)

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        return self.base.log_prob(jnp.asarray(self.values)[value])

    def enumerate_support(self, expand: bool = True) -> Any:
        values = jnp.arange(len(self.values)).reshape((-1,) + (1,) * len(self.batch_shape))
        return jnp.broadcast_to(values, (len(self.values), *self.batch_shape)) if expand else values


_promote: Any = promote_batch_shape


@_promote.register
def _(fn: Indexed) -> Indexed:
    return Indexed(promote_batch_shape(fn.base), fn.values)


class Indices(Messenger):
    """Effect handler: every finite unknown is enumerated, by the index of its value; the program gets the value."""

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "control_flow" and msg["fn"] is scan_wrapper:
            step, *rest = msg["args"]
            if rest[3]:
                raise NotSummable(BACKWARD)
            msg["args"] = (lambda carry, x: Indices(step)(carry, x), *rest)
        if msg["type"] != "sample" or msg["is_observed"] or msg["value"] is not None or not listable(msg["fn"]):
            return
        msg["infer"] = {**msg["infer"], "enumerate": "parallel"}
        if (values := support_of(msg["fn"])) is not None:
            msg["fn"], msg["indexed"] = Indexed(msg["fn"], values), (self, values)

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        handler, values = msg.get("indexed", (None, None))
        if handler is self:  # the same message passes another one outside of a scan
            msg["value"] = jnp.asarray(values)[msg["value"]]


# ---- factors -----------------------------------------------------------------------------------------------------


class Chain(NamedTuple):
    """The steps of a `scan` with memory, the first ones apart.

    time: the name of their axis; factors: by site. carried: sites that a later step sees, history: how many steps later; plates:
    those of the carried sites, the others' are `inner`.
    """

    time: str
    size: int
    factors: dict[str, Any]
    own: frozenset[str]
    carried: tuple[str, ...]
    history: int
    plates: frozenset[str]
    inner: frozenset[str]

    def previous(self, shift: int) -> tuple[str, ...]:
        """The names of the carried sites some steps before."""
        return tuple(shift * PREVIOUS + name for name in self.carried)


class Factors(NamedTuple):
    """The factors of a program's density.

    plain: by site, outside of chains; chains: of every scan with memory. summed: names of finite sites; plates: of plates, and of
    the time of a scan without memory. trace: NumPyro's, of the enumerated program.
    """

    plain: dict[str, Any]
    chains: tuple[Chain, ...]
    summed: frozenset[str]
    plates: frozenset[str]
    trace: Mapping[str, Any]


_alone = threading.RLock()


@contextlib.contextmanager
def _own_dimensions() -> Iterator[None]:
    """NumPyro's one stack of names and dimensions as new: an enumeration that failed, ours or the user's, leaves its names on it,
    and the next one of any program stops at them (KeyError)."""
    stack = enum_messenger._DIM_STACK
    with _alone:
        before = dict(vars(stack))
        vars(stack).update(vars(enum_messenger.DimStack()))
        try:
            yield
        finally:
            vars(stack).update(before)


def gathered(program: Callable[[], Any], nesting: int, is_loose: bool = False) -> Factors:
    """The factors of a program whose continuous sites have values.

    nesting: its dimensions of plates; is_loose: whether those without a plate are taken for one, see `loose`.
    """
    funsor.set_backend("jax")  # Pyro's automatic guides by funsor leave it at torch
    kind = loose.tracer(loose.of_program(program, nesting)) if is_loose else packed_trace
    with _own_dimensions(), handlers.block(), plate_to_enum_plate(), loose.in_scans(kind):
        trace = kind(enum(Indices(program), -nesting - 1)).get_trace()
    sites = {k: site for k, site in trace.items() if site["type"] == "sample"}
    plates = {f.name for site in sites.values() for f in site["cond_indep_stack"] if f.dim is not None}
    summed = frozenset(k for k, site in sites.items() if not site["is_observed"] and _enumerated(site))
    factors = {k: _factor(site) for k, site in sites.items()}
    steps = defaultdict(dict)
    for key, site in sites.items():
        if time := _time(site):
            steps[time][key] = factors[key]
    chains = []
    for time, members in steps.items():
        chain, apart = _chain(time, members, summed, frozenset(plates))
        factors = {k: f for k, f in factors.items() if k not in members or k in apart}
        plates |= {time}
        chains += [chain] if chain else []
    return Factors(factors, tuple(chains), summed, frozenset(plates), trace)


def _enumerated(site: Mapping[str, Any]) -> bool:
    return site["infer"].get("enumerate") == "parallel" and listable(site["fn"])


def _time(site: Mapping[str, Any]) -> str | None:
    return next((name for name in site["infer"]["dim_to_name"].values() if name.startswith("_time")), None)


def _factor(site: Mapping[str, Any]) -> Any:
    """The log density of a site as a function of the finite sites that it depends on, and of plates."""
    given = (site["intermediates"],) if site["intermediates"] else ()
    log_prob, scale, names = site["fn"].log_prob(site["value"], *given), site["scale"], site["infer"]["dim_to_name"]
    if scale is not None and not is_identically_one(scale):
        log_prob = scale * log_prob
    if not names and all(size == 1 for size in log_prob.shape):
        log_prob = log_prob.squeeze()
    return funsor.to_funsor(log_prob, output=funsor.Real, dim_to_name=names)


def _chain(
    time: str, members: dict[str, Any], summed: frozenset[str], plates: frozenset[str]
) -> tuple[Chain | None, set[str]]:
    """The chain of a scan's sites, None for one without memory; and the sites that have no part in it, whose time is a plate."""
    names = {name for f in members.values() for name in f.inputs}
    before = {name for name in names if name.startswith(PREVIOUS)}
    carried = tuple(k for k in members if any(_shift_name(name, -_get_shift(name)) == k for name in before))
    if not carried:
        return None, set(members)
    own = summed & set(members)
    sets = {k: frozenset(members[k].inputs) & plates for k in carried}
    ground = sets[carried[0]]
    if other := next((k for k in carried if sets[k] != ground), None):
        raise NotSummable(
            f"Sites {carried[0]!r} and {other!r} of a scan lie in different plates and cannot be summed out."
        )
    apart = set()
    for key, f in members.items():
        if not ground <= set(f.inputs):
            if set(f.inputs) & (own | before):
                raise NotSummable(
                    f"Site {key!r} of a scan joins units of the plate of {carried[0]!r}, which cannot be summed out."
                )
            apart.add(key)
    kept = {k: f for k, f in members.items() if k not in apart}
    size = next(f.inputs[time].size for f in kept.values() if time in f.inputs)
    inner = frozenset(name for f in kept.values() for name in f.inputs) & plates - ground
    return Chain(time, size, kept, own, carried, max(map(_get_shift, before)), ground, inner), apart


# ---- sums --------------------------------------------------------------------------------------------------------


def summed_over(
    factors: Iterable[Any], names: frozenset[str], plates: frozenset[str], kept: frozenset[str] = frozenset()
) -> Any:
    """The log sum over `names` of the product of factors, and the product over `plates` without those `kept`."""
    with funsor.interpretations.lazy:
        lazy = funsor.sum_product.sum_product(
            LOG_SUM, PRODUCT, list(factors), eliminate=(names | plates) - kept, plates=plates
        )
    return apply_optimizer(lazy)


def step(chain: Chain, without: str = "") -> Any:
    """The log density of a step of a chain given the one before, sites that are not carried summed out; all steps along `time`."""
    factors = [f for k, f in chain.factors.items() if k != without]
    names = chain.own - set(chain.carried)
    return summed_over(factors, names, chain.inner | chain.plates, chain.plates)


def over_time(chain: Chain) -> Any:
    """The log sum over a chain's steps, as a function of what comes before, of its last step, and of its plates."""
    time = funsor.Variable(chain.time, funsor.Bint[chain.size])
    if chain.history == 1:
        pairs = dict(zip(chain.previous(1), chain.carried, strict=True))
        return funsor.sum_product.sequential_sum_product(LOG_SUM, PRODUCT, step(chain), time, pairs)
    trans = step(chain)
    shared = frozenset(trans.inputs) - {chain.time}
    shared -= {name for shift in range(chain.history + 1) for name in chain.previous(shift)}
    return funsor.sum_product.sarkka_bilmes_product(LOG_SUM, PRODUCT, trans, time, shared)


def log_sum(factors: Factors) -> Any:
    """The log density with all finite sites summed out, ()."""
    found = summed_over([*factors.plain.values(), *map(over_time, factors.chains)], factors.summed, factors.plates)
    if found.inputs:
        raise NotSummable(_beyond(found.inputs))
    return jnp.reshape(found.data, ())


def _beyond(names: Iterable[str]) -> str:
    told = ", ".join(sorted({name.split("__BOUND")[0] for name in names}))
    return f"The finite unknowns cannot be summed out: {told} is left.\n{HINT}"
