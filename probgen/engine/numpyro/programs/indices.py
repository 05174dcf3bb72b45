"""What a trace of a program says of numbers that depend on data alone: its indices, and where observed values may lie.

JAX raises nothing for an index out of range: it takes the nearest entry, NaN, or drops an update. So a program's jaxpr is read
once: calls are put in line, what depends on data and constants alone is found, and of that what leads to an index is kept, as a
few steps that NumPy runs on each data set (JAX runs those that NumPy has no word for). Unknowns and random numbers are never run.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.lax import GatherScatterMode as Mode

from probgen.data.inputs import OutOfRange, first, told
from probgen.engine.numpyro.programs.supports import OF
from probgen.engine.numpyro.sums.steps import RANDOM, SCATTERS, Flat, Step, run

LONGEST = 100_000  # turns of a loop that are looked at
ARGUMENT = (
    "{} is out of its range{}: below 0, probabilities whose sum is not 1, or a matrix that is not symmetric, or triangular.\n"
    "NumPyro computes with it without a word: correct what the program makes of its data."
)


@dataclass(frozen=True)
class Check:
    """An index that must lie in a range.

    index: the numbers of its values; sizes: of each component how many places there are, along an axis of `lengths` entries;
    low: whether it may not be negative; sources: the data that it depends on.
    """

    index: tuple[int, ...]
    sizes: tuple[int, ...]
    lengths: tuple[int, ...]
    low: bool
    sources: frozenset[str]


@dataclass(frozen=True)
class Inner:
    """A loop or branch with checks inside: the step, and for each body what of it depends on data alone."""

    step: Step
    bodies: tuple[Known, ...]
    needs: tuple[int, ...]
    sources: frozenset[str]


@dataclass(frozen=True)
class Bad:
    """An index out of range: its value, the length of the axis, and the data that it depends on."""

    value: int
    length: int
    sources: frozenset[str]


@dataclass(frozen=True)
class Known:
    """What of a jaxpr depends on what is known of its arguments, cut down to what is asked of it.

    arguments: number of the value of each argument; given: which of them are known; names: of the data among them.
    outputs: numbers of the values it gives; known: those of them that are known.
    """

    arguments: tuple[int, ...]
    given: tuple[bool, ...]
    outputs: tuple[int, ...]
    known: frozenset[int]
    constants: Mapping[int, Any]
    steps: tuple[Step, ...]
    checks: tuple[Check | Inner, ...]
    names: tuple[str, ...] = ()

    def run(self, values: Sequence[Any]) -> tuple[list[Bad], dict[int, Any]]:
        """The indices out of range given the arguments (None where unknown), and all numbers found on the way."""
        found = dict(self.constants)
        found |= {n: np.asarray(v) for n, v, given in zip(self.arguments, values, self.given, strict=True) if given}
        for step in self.steps:
            found |= zip(step.gives, run(step, [found[n] for n in step.takes]), strict=True)
        return [bad for check in self.checks for bad in _bad(check, found)], found

    def on(self, data: Mapping[str, Any]) -> tuple[list[Bad], list[Any]]:
        """The same of data by name, and the outputs (None where they depend on more than data)."""
        bad, found = self.run([data[name] for name in self.names])
        return bad, [found.get(n) if n in self.known else None for n in self.outputs]

    def named(self, last: Sequence[str]) -> set[str]:
        """Which of the last outputs, of these names, are known."""
        ends = self.outputs[len(self.outputs) - len(last) :]
        return {name for name, n in zip(last, ends, strict=True) if n in self.known}

    @property
    def used(self) -> set[int]:
        """The numbers of what the checks, and the steps to them, take."""
        return {n for step in self.steps for n in step.takes} | {n for check in self.checks for n in _needs(check)}

    def uses(self, argument: int) -> bool:
        """Whether an argument is looked at."""
        return self.arguments[argument] in self.used

    @property
    def sources(self) -> frozenset[str]:
        """The data that indices depend on."""
        return frozenset().union(*(check.sources for check in self.checks))


def of(closed: Any, names: Sequence[str]) -> Known | None:
    """What a closed jaxpr computes from its arguments alone, which are data of these names; None for one that cannot be read."""
    try:
        found = _analysed(
            closed, [frozenset([name]) for name in names], itertools.count(), range(len(closed.jaxpr.outvars))
        )
    except (
        AttributeError,
        KeyError,
        NotImplementedError,
        TypeError,
        ValueError,
    ):  # a primitive of another release of JAX
        return None
    return dataclasses.replace(found, names=tuple(names))


def _analysed(
    closed: Any, given: Sequence[frozenset[str] | None], number: Iterator[int], wanted: Iterable[int] = ()
) -> Known:
    """What depends on known arguments alone.

    given: of every argument the data that it depends on, None where it is unknown; wanted: outputs to compute beside the checks.
    """
    flat = Flat(number)
    arguments = tuple(next(number) for _ in closed.jaxpr.invars)
    outputs = flat.add(closed.jaxpr, closed.consts, arguments)
    known = {n: frozenset() for n in flat.constants}
    known |= {n: sources for n, sources in zip(arguments, given, strict=True) if sources is not None}
    checks: list[Check | Inner] = []
    for step in flat.steps:
        checks += _checks(step, known, number)
        if isinstance(step.primitive, str) or step.name.startswith(RANDOM) or not all(n in known for n in step.takes):
            continue
        known |= dict.fromkeys(step.gives, frozenset().union(*(known[n] for n in step.takes)))
    needed = {n for check in checks for n in _needs(check) if n in known}
    needed |= {outputs[i] for i in wanted if outputs[i] in known}
    steps = []
    for step in reversed(flat.steps):
        if needed.intersection(step.gives) and all(n in known for n in step.gives):
            steps.append(step)
            needed.update(step.takes)
    kept = {n: value for n, value in flat.constants.items() if n in needed}
    given_flags = tuple(sources is not None for sources in given)
    return Known(arguments, given_flags, outputs, frozenset(known), kept, tuple(reversed(steps)), tuple(checks))


# ---- which indices are looked at


def _checks(step: Step, known: Mapping[int, frozenset[str]], number: Iterator[int]) -> list[Check | Inner]:
    """The checks of one step whose indices are known."""
    if step.name in ("scan", "while", "cond"):
        return _inner(step, known, number)
    index, sizes, lengths, low = _indexed(step) if step.own else ((), (), (), True)
    if not index or not all(n in known for n in index):
        return []
    return [Check(index, sizes, lengths, low, frozenset().union(*(known[n] for n in index)))]


def _indexed(step: Step) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], bool]:
    """Of a step that takes indices which JAX would quietly move: their numbers, the places and the lengths of axes.

    Nothing where the program asked for that itself (mode="clip", a fill value).
    """
    nothing = ((), (), (), True)
    shape: tuple[Any, ...] = step.shapes[0] if step.shapes else ()
    params = step.params
    if step.name == "one_hot":  # labels below 0 are a usual sign of no label
        whole = params["classes"]
        classes = next(n for d, n in enumerate(whole) if (*whole[:d], *whole[d + 1 :]) == shape)
        return step.takes[:1], (classes,), (classes,), False
    if step.name in ("dynamic_slice", "dynamic_update_slice"):
        starts = step.takes[1:] if step.name == "dynamic_slice" else step.takes[2:]
        window = params["slice_sizes"] if step.name == "dynamic_slice" else step.shapes[1]
        return starts, tuple(n - w + 1 for n, w in zip(shape, window, strict=True)), shape, True
    if step.name == "gather":
        numbers = params["dimension_numbers"]
        if (params["mode"] == Mode.CLIP and numbers.collapsed_slice_dims) or _filled(step):
            return nothing
        at, window = numbers.start_index_map, params["slice_sizes"]
    elif step.name in SCATTERS:
        numbers = params["dimension_numbers"]
        if params["mode"] == Mode.CLIP:
            return nothing
        at, window = numbers.scatter_dims_to_operand_dims, _scattered(step, numbers)
    else:
        return nothing
    return (
        step.takes[1:2],
        tuple(shape[d] - window[d] + 1 for d in at),
        tuple(shape[d] for d in at),
        step.name == "gather",
    )


def _filled(step: Step) -> bool:
    """Whether a gather gives a value of the program's own choice for indices out of range."""
    if step.params["mode"] != Mode.FILL_OR_DROP:
        return False
    value, dtype = step.params["fill_value"], np.dtype(step.dtypes[0])
    if value is None:
        return False
    usual = {
        "f": np.isnan,
        "c": np.isnan,
        "i": lambda v: v == np.iinfo(dtype).min,
        "u": lambda v: v == np.iinfo(dtype).max,
    }
    return not usual.get(dtype.kind, bool)(value)


def _scattered(step: Step, numbers: Any) -> list[int]:
    """The size of an update along every axis of what it is put into."""
    flat = {*numbers.inserted_window_dims, *numbers.operand_batching_dims}
    sizes = iter(step.shapes[2][d] for d in numbers.update_window_dims)
    return [1 if d in flat else next(sizes) for d in range(len(step.shapes[0]))]


def _inner(step: Step, known: Mapping[int, frozenset[str]], number: Iterator[int]) -> list[Check | Inner]:
    """The checks inside a loop or a branch, where it is known how it runs."""
    given: list[frozenset[str] | None] = [known.get(n) for n in step.takes]
    params = step.params
    if step.name == "cond":
        bodies = [_analysed(b, given[1:], number) for b in params["branches"]] if given[0] is not None else []
        needs = {0} | {i + 1 for i in range(len(given) - 1) if any(body.uses(i) for body in bodies)}
    elif step.name == "scan":
        first, last = params["num_consts"], params["num_consts"] + params["num_carry"]
        bodies = [_settled(params["jaxpr"], given, first, last, number)]
        needs = {i for i in range(len(given)) if bodies[0].uses(i)}
    else:
        split, at = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
        body = _settled(params["body_jaxpr"], given[split:], at - split, len(given) - split, number)
        carry = [s if g else None for s, g in zip(given[at:], body.given[at - split :], strict=True)]
        test = _analysed(params["cond_jaxpr"], [*given[:split], *carry], number, (0,))
        asked = {i for i in range(len(carry)) if test.uses(split + i) or test.outputs[0] == test.arguments[split + i]}
        body = _settled(params["body_jaxpr"], given[split:], at - split, len(given) - split, number, asked)
        bodies = [body, test] if test.outputs[0] in test.known else []
        needs = {split + i for i in range(len(given) - split) if body.uses(i)} | {at + i for i in asked}
        needs |= {i for i in range(split) if test.uses(i)}
    sources = frozenset().union(*(given[i] or () for i in needs))
    taken = tuple(step.takes[i] for i in sorted(needs) if given[i] is not None)
    return [Inner(step, tuple(bodies), taken, sources)] if any(body.checks for body in bodies) else []


def _settled(
    closed: Any,
    given: list[frozenset[str] | None],
    first: int,
    last: int,
    number: Iterator[int],
    asked: Iterable[int] = (),
) -> Known:
    """A loop's body, whose carried values (arguments from first to last) are known where they stay known.

    asked: carried values that are wanted; with them those that they, and the checks, depend on.
    """
    given, wanted = list(given), set(asked)
    while True:
        body = _analysed(closed, given, number, wanted)
        lost = [i for i in range(first, last) if given[i] is not None and body.outputs[i - first] not in body.known]
        for i in lost:
            given[i] = None
        used = {i - first for i in range(first, last) if given[i] is not None and body.uses(i)}
        if not lost and used <= wanted:
            return body
        wanted |= used


def _needs(check: Check | Inner) -> tuple[int, ...]:
    return check.index if isinstance(check, Check) else check.needs


# ---- looking


def _bad(check: Check | Inner, found: Mapping[int, Any]) -> list[Bad]:
    """The first index out of range."""
    if isinstance(check, Inner):
        return _bad_inside(check, found)
    values = [np.asarray(found[n]) for n in check.index]
    columns = (
        [v.ravel() for v in values]
        if len(values) == len(check.sizes)
        else [c.ravel() for c in np.moveaxis(values[0], -1, 0)]
    )
    for column, size, length in zip(columns, check.sizes, check.lengths, strict=True):
        wrong = (column >= size) | ((column < 0) & check.low)
        if wrong.any():
            value = int(column[int(np.argmax(wrong))])
            return [Bad(value - length if value < 0 else value + length - size, length, check.sources)]
    return []


def _bad_inside(check: Inner, found: Mapping[int, Any]) -> list[Bad]:
    """The same inside a loop or a branch, run on what is known."""
    step = check.step
    values: list[Any] = [found.get(n) for n in step.takes]
    if step.name == "cond":
        branch = check.bodies[min(max(int(values[0]), 0), len(check.bodies) - 1)]
        return branch.run(values[1:])[0][:1]
    one, *others = check.bodies
    runs = _scanned(step, one, values) if step.name == "scan" else _repeated(step, one, others[0], values)
    return next(([bad] for found_there in runs for bad in found_there), [])


def _scanned(step: Step, body: Known, values: list[Any]) -> Iterator[list[Bad]]:
    first, last = step.params["num_consts"], step.params["num_consts"] + step.params["num_carry"]
    carry, turns = values[first:last], range(min(step.params["length"], LONGEST))
    slices = [v if v is not None and body.uses(last + i) else None for i, v in enumerate(values[last:])]
    if not any(
        body.uses(i) for i in range(first, last)
    ):  # the turns do not depend on each other: one for all that are alike
        held = [np.asarray(v).reshape(len(v), -1)[: len(turns)] for v in slices if v is not None]
        turns = np.unique(np.concatenate(held, 1), axis=0, return_index=True)[1] if held else turns[:1]
    for i in reversed(turns) if step.params["reverse"] else turns:
        bad, found = body.run([*values[:first], *carry, *(None if v is None else v[i] for v in slices)])
        carry = [found.get(n) for n in body.outputs[: last - first]]
        yield bad


def _repeated(step: Step, body: Known, test: Known, values: list[Any]) -> Iterator[list[Bad]]:
    split, at = step.params["cond_nconsts"], step.params["cond_nconsts"] + step.params["body_nconsts"]
    carry = values[at:]
    for _ in range(LONGEST):
        if not bool(test.run([*values[:split], *carry])[1][test.outputs[0]]):
            return
        bad, found = body.run([*values[split:at], *carry])
        carry = [found.get(n) for n in body.outputs]
        yield bad


# ---- what the user is told


def check(known: Known | None, data: Mapping[str, Any], sites: Sequence[str], what: str = "") -> None:
    """Raise ValueError for an index, computed from data alone, that is out of range, or an observed value outside its support.

    sites: of the outputs, each of them booleans that say where values are in the support; what: said of an index.
    """
    if known is None or not (known.checks or sites):
        return
    bad, outputs = known.on(data)
    if bad:
        _refuse(bad[0], data, what)
    for site, good in zip(sites, outputs[-len(sites) :] if sites else (), strict=True):
        if good is not None and not np.all(good):
            if OF in site:
                refuse_argument(site, good)
            raise OutOfRange(
                f"The value observed at site {site!r} lies outside the support of its distribution{_where(good)}.\n"
                "Correct the data, or the bounds that the program computes from them."
            )


def check_rows(known: Known | None, data: Mapping[str, Any], sliced: Sequence[str]) -> None:
    """The same of a program of one row, for every row; sliced: the data of which it takes one slice."""
    if known is None or not known.checks:
        return
    used = [k for k in sliced if k in known.sources]
    flat = (
        np.concatenate([np.asarray(data[k]).reshape(len(data[k]), -1) for k in used], 1) if used else np.zeros((1, 0))
    )
    for i in np.unique(flat, axis=0, return_index=True)[1]:
        if bad := known.on({k: data[k][i] if k in sliced else data[k] for k in known.names})[0]:
            _refuse(bad[0], data)


def _refuse(bad: Bad, data: Mapping[str, Any], what: str = "") -> None:
    raise OutOfRange(
        f"{told(bad.value, bad.length, bad.sources, data, what)}\nJAX would take another entry without a word."
    )


def refuse_argument(which: str, good: Any) -> None:
    """Raise OutOfRange for the argument of a distribution, "argument of site", that is not good at every index."""
    argument, site = which.split(OF)
    raise OutOfRange(ARGUMENT.format(f"{argument!r} of site {site!r}", _where(good)))


def _where(good: Any) -> str:
    return f", first at index {first(~np.asarray(good, bool))}" if np.ndim(good) else ""
