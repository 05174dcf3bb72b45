"""The exact mode of bits that attract each other, by a maximum flow.

    f(x) = a + sum_i b_i x_i + sum_{i<j} W_ij x_i x_j,   W_ij >= 0
    -2 f(x) + 2 a = sum_{i<j} W_ij |x_i - x_j| - sum_i c_i x_i,   c_i = 2 b_i + sum_j W_ij

is the weight of a cut between a source (1) and a sink (0): an edge of W_ij between i and j, one of c_i from the source
where c_i > 0, one of -c_i to the sink where not. b and W are the first two derivatives of f where all free bits are 0.
Hammer 1965; Greig, Porteous and Seheult 1989; Kolmogorov and Zabih 2004 (doi:10.1109/TPAMI.2004.1262177).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from probgen import runtime
from probgen.engine.numpyro.programs.structure import VALUE
from probgen.engine.numpyro.sums import energy
from probgen.engine.numpyro.targets.conditional import NumpyroDiscrete

LARGEST = 2**30 - 1  # capacity: SciPy's flows are 32-bit integers, and a residual is up to twice a capacity
CUT, GAP = "minimum cut" + VALUE, "minimum cut gap" + VALUE  # names that the program is not given
TOLERANCE = 1e-9  # of a coefficient, relative to the largest
CHUNK = 256  # rows of the Hessian at a time
ADVICE = "Use inference='annealing' or 'icm'."


class NotSubmodular(ValueError):
    """The log density is not that of bits that attract each other in pairs."""


class Cut(NamedTuple):
    """A highest mode: x (dim,) of zeros and ones; gap: by how much, in nats, rounding may have missed the highest."""

    x: np.ndarray
    gap: float


class Solved(NumpyroDiscrete):
    """A target that carries its minimum cut."""

    @property
    def data(self) -> Mapping[str, Any]:
        return {k: v for k, v in super().data.items() if k not in (CUT, GAP)}

    @property
    def cut(self) -> Cut:
        """As arrays of the engine."""
        return Cut(self.arrays[CUT], self.arrays[GAP])


def solved(target: Any) -> Solved:
    """The target with its minimum cut; NotSubmodular where it has none."""
    cut = solve(target)
    with runtime.jax_scope(target.precision):
        arrays = {CUT: jnp.asarray(cut.x, target.precision), GAP: jnp.asarray(cut.gap, target.precision)}
        return Solved(target.structure, {**target.arrays, **arrays})


def solve(target: Any) -> Cut:
    """The minimum cut of a target of bits; units that are known stay. Capacities are rounded to 30 bits."""
    x, free, b, W = quadratic(target)
    c = 2 * b + W.sum(axis=1)
    largest = max(np.abs(c).max(initial=0.0), W.data.max(initial=0.0))
    scale = LARGEST / largest if largest > 0 else 1.0
    x[free] = _source_side(np.rint(scale * c).astype(np.int32), W, scale)
    return Cut(x, 0.5 * (len(c) + W.nnz / 2) / scale)


def _source_side(c: np.ndarray, W: Any, scale: float) -> np.ndarray:
    """Booleans (unit,): what the source still reaches once the flow is largest."""
    pairs, count = W.tocoo(), len(c)
    source, sink, units = np.full(count, count), np.full(count, count + 1), np.arange(count)
    tails = np.concatenate([pairs.row, np.where(c > 0, source, units)])
    heads = np.concatenate([pairs.col, np.where(c > 0, units, sink)])
    capacities = np.concatenate([np.rint(scale * pairs.data).astype(np.int32), abs(c)])
    graph = sparse.csr_array((capacities, (tails, heads)), shape=(count + 2, count + 2))
    residual = sparse.csr_array(graph - csgraph.maximum_flow(graph, count, count + 1).flow)
    residual.eliminate_zeros()
    reached = np.zeros(count + 2, bool)
    reached[csgraph.breadth_first_order(residual, count, return_predecessors=False)] = True
    return reached[:count]


# ---- the coefficients --------------------------------------------------------------------------------------------


def quadratic(target: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, Any]:
    """The point (dim,) with known units in place and 0 elsewhere, the free units' indices, b, and W (free, free) sparse.

    Raises NotSubmodular where a site is not of bits, where f has terms of more than two bits, or where a pair repels.
    """
    if other := [v for v in target.variables if v.kind != "bits"]:
        raise NotSubmodular(f"Site {other[0].name!r} is not of bits: a minimum cut has two sides.\n{ADVICE}")
    with runtime.jax_scope("float64"):
        arrays = {k: jnp.asarray(v, float) if v.dtype.kind == "f" else v for k, v in target.arrays.items()}
        x, free = _known(target)
        gradient = lambda z: np.asarray(_gradient(target.structure, arrays, jnp.asarray(z)))  # noqa: E731
        b, W = gradient(x), _hessian(target.structure, arrays, x, free)
        scale = max(np.abs(b[free]).max(initial=0.0), np.abs(W.data).max(initial=0.0), 1e-300)
        for seed in range(3):  # inside of the unit cube, where every other polynomial differs
            z = x.copy()
            z[free] = np.random.default_rng(seed).random(len(free))
            off = abs(gradient(z)[free] - b[free] - W @ z[free])
            if not off.max(initial=0.0) < 1e-6 * scale * (1 + abs(W).sum(axis=1).max(initial=0.0) / scale):
                unit = _label(target, free[int(np.argmax(np.where(np.isnan(off), np.inf, off)))])
                raise NotSubmodular(f"The log density is not a sum of terms of one and two bits in {unit}.\n{ADVICE}")
    W.data[abs(W.data) <= TOLERANCE * scale] = 0.0
    W.eliminate_zeros()
    _check_attraction(target, free, W.tocoo())
    return x, free, b[free], W


def _check_attraction(target: Any, free: np.ndarray, W: Any) -> None:
    """Raise NotSubmodular, naming the pair that repels most."""
    if W.data.min(initial=0.0) < 0:
        k = int(np.argmin(W.data))
        one, two = (_label(target, int(free[i])) for i in (W.row[k], W.col[k]))
        raise NotSubmodular(
            f"{one} and {two} repel each other (by {-W.data[k]:.3g} nats where both are 1): "
            f"a minimum cut needs every pair to attract.\n{ADVICE}"
        )


def _known(target: Any) -> tuple[np.ndarray, np.ndarray]:
    """What is known, 0 elsewhere: (dim,); and the indices of free units."""
    known = {k: (np.asarray(where), np.asarray(value)) for k, (where, value) in target.known.items()}
    nothing = lambda v: (np.zeros(v.shape, bool), np.zeros(v.shape))  # noqa: E731
    parts = [known.get(v.name, nothing(v)) for v in target.variables]
    held = np.concatenate([where.ravel() for where, _ in parts])
    values = np.concatenate([np.where(where, value, 0.0).ravel() for where, value in parts])
    return values, np.flatnonzero(~held)


def _label(target: Any, unit: int) -> str:
    """A unit as the user knows it: x[0, 1]."""
    for v in target.variables:
        if unit < v.size:
            index = ", ".join(str(i) for i in np.unravel_index(unit, v.shape))
            return f"{v.name}[{index}]" if v.shape else v.name
        unit -= v.size
    raise IndexError(unit)


@functools.partial(jax.jit, static_argnums=0)
def _gradient(structure: Any, arrays: Any, z: Any) -> Any:
    return jax.grad(lambda z: structure.joint(arrays, energy.split(structure.variables, z)))(z)


@functools.partial(jax.jit, static_argnums=0)
def _columns(structure: Any, arrays: Any, z: Any, units: Any) -> Any:
    """Columns of the Hessian: (column, dim)."""
    gradient = jax.grad(lambda z: structure.joint(arrays, energy.split(structure.variables, z)))
    each = lambda unit: jax.jvp(gradient, (z,), ((jnp.arange(len(z)) == unit).astype(z.dtype),))[1]  # noqa: E731
    return jax.vmap(each)(units)


def _hessian(structure: Any, arrays: Any, x: np.ndarray, free: np.ndarray) -> Any:
    """The Hessian among free units, sparse."""
    parts = [sparse.csr_array((0, len(free)))]
    for start in range(0, len(free), CHUNK):
        units = np.resize(free[start : start + CHUNK], min(CHUNK, len(free)))
        rows = np.asarray(_columns(structure, arrays, jnp.asarray(x), jnp.asarray(units)))[:, free]
        parts.append(sparse.csr_array(rows[: min(CHUNK, len(free) - start)]))
    return sparse.csr_array(sparse.vstack(parts))
