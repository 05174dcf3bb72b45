"""The bandwidth of a kernel density by cross-validated likelihood: what the density of some rows says of the others.

    h = argmax over a grid of  sum over folds F, sum over x in F of log p(x; rows outside F, h)

p, an equal mixture over its centres, is the program's density.
One step tries one bandwidth. Folds are consecutive rows, as those of scikit-learn's KFold without shuffling: rows that are sorted
should be shuffled before. Stone 1974 (doi:10.1111/j.2517-6161.1974.tb00994.x); Habbema, Hermans and van den Broek 1974.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from probgen.algorithm import Learner
from probgen.engine.drawable import check_counted
from probgen.target import Learnable

FACTORS = 20  # bandwidths where none are given


class State(NamedTuple):
    """Steps done; the best bandwidth so far, where in the grid it is, and its loss."""

    step: Any
    bandwidth: Any
    index: Any
    loss: Any


class Info(NamedTuple):
    """loss: minus the mean log likelihood of a row that is held out, in nats, at this step's bandwidth; best: the bandwidth of
    the least loss so far; edge: whether it is an end of the grid."""

    loss: Any
    bandwidth: Any
    best: Any
    edge: Any
    converged: Any


@dataclass(frozen=True, kw_only=True)
class CrossValidation(Learner[Learnable]):
    """The rows as centres, and the bandwidth of a grid under which held-out rows are most probable.

    bandwidths: the grid, in the units of the data; by default 20, from a tenth of Scott's rule, sd n^(-1 / (dim + 4)), to ten
        times it.
    num_folds: parts of the rows that are held out, one after the other.
    Raises ValueError for a program that is not an equal mixture over an array of centres with one bandwidth, and where there are
    fewer rows than folds.
    """

    engines: ClassVar[tuple[str, ...]] = ("numpyro",)

    bandwidths: tuple[float, ...] = ()
    num_folds: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        grid = tuple(float(h) for h in self.bandwidths)
        object.__setattr__(self, "bandwidths", grid)  # arrays have no hash
        if bad := [h for h in grid if not 0 < h < float("inf")]:
            raise ValueError(f"bandwidths has {bad[0]}; all must be above 0 and finite")
        if self.num_folds < 2:
            raise ValueError(f"num_folds is {self.num_folds}; it must be 2 or more")

    @property
    def total_steps(self) -> int:
        return min(self.num_steps, len(self.bandwidths) or FACTORS)

    def prepare(self, target: Any) -> Any:
        from probgen import runtime

        check_counted(target, self.name)
        if target.num_rows < self.num_folds:
            raise ValueError(f"There are {target.num_rows} rows; num_folds={self.num_folds} needs as many or more.")
        with runtime.jax_scope(target.precision):
            if not (_roles(target) and _is_mixture(target)):
                told = ", ".join(f"{k}: {v}" for k, v in _shapes(target).items()) or "none"
                raise ValueError(
                    f"cross_validation needs an equal mixture over rows of centres with one bandwidth, as kernel_density is; "
                    f"this program has the parameters {told}.\nUse inference='mle'."
                )
        return target

    # ---- the kernel

    def init(self, key: Any, target: Any) -> State:
        import jax.numpy as jnp

        return State(jnp.int32(0), self._grid(target)[0], jnp.int32(-1), jnp.full((), jnp.inf, target.precision))

    def step(self, key: Any, state: State, target: Any) -> tuple[State, Info]:
        import jax.numpy as jnp

        bandwidth = self._grid(target)[state.step]
        loss = -self._held_out(target, bandwidth) / target.num_rows
        better = loss < state.loss
        new = State(
            state.step + 1,
            jnp.where(better, bandwidth, state.bandwidth),
            jnp.where(better, state.step, state.index),
            jnp.where(better, loss, state.loss),
        )
        edge = (new.index <= 0) | (new.index == self.total_steps - 1)
        return new, Info(loss, bandwidth, new.bandwidth, edge, new.step == self.total_steps)

    def answer(self, key: Any, state: State, target: Any) -> dict[str, Any]:
        import jax.numpy as jnp

        return _parameters(target, _values(target, jnp.arange(target.num_rows)), state.bandwidth)

    # ---- parts

    def _grid(self, target: Any) -> Any:
        import jax.numpy as jnp

        if self.bandwidths:
            return jnp.asarray(self.bandwidths, target.precision)
        rows = _values(target, jnp.arange(target.num_rows)).reshape(target.num_rows, -1)
        scott = jnp.sqrt(jnp.mean(jnp.var(rows, axis=0))) * target.num_rows ** (-1 / (rows.shape[1] + 4))
        return scott * jnp.logspace(-1, 1, FACTORS, dtype=target.precision)

    def _held_out(self, target: Any, bandwidth: Any) -> Any:
        """The log likelihood of every row under the density of the rows outside its fold, summed."""
        import jax
        import jax.numpy as jnp

        size, longer = divmod(target.num_rows, self.num_folds)
        site = target.visible[0].name

        def fold(start: Any, size: int) -> Any:
            others = jnp.arange(target.num_rows - size)
            others = jnp.where(others < start, others, others + size)
            parameters = _parameters(target, _values(target, others), bandwidth)
            one = lambda x: target.joint(parameters, {site: x})  # noqa: E731
            return jnp.sum(jax.lax.map(one, _values(target, start + jnp.arange(size)), batch_size=256))

        total, end = jnp.zeros((), target.precision), longer * (size + 1)
        if longer:
            total += jnp.sum(jax.lax.map(lambda start: fold(start, size + 1), jnp.arange(0, end, size + 1)))
        return total + jnp.sum(jax.lax.map(lambda start: fold(start, size), jnp.arange(end, target.num_rows, size)))


def _values(target: Any, index: Any) -> Any:
    return target.rows(index)[target.visible[0].name]


def _shapes(target: Any) -> dict[str, tuple[int, ...]]:

    return {k: v.shape for k, v in target.first_shapes().items()}


def _roles(target: Any) -> tuple[str, str] | None:
    """Which parameter holds the centres, and which the bandwidth, by their shapes; None where that cannot be told."""
    if not target.normalised or len(target.visible) != 1 or target.inputs:
        return None
    shapes, event = _shapes(target), target.visible[0].shape
    centres = [k for k, shape in shapes.items() if len(shape) == len(event) + 1 and shape[1:] == event]
    bandwidth = [k for k, shape in shapes.items() if shape == () and k not in centres]
    return (centres[0], bandwidth[0]) if len(centres) == len(bandwidth) == 1 and len(shapes) == 2 else None


def _parameters(target: Any, centres: Any, bandwidth: Any) -> dict[str, Any]:
    """The parameters, unconstrained, of given centres and a bandwidth."""
    from numpyro.distributions import biject_to

    program = target.structure.one.program
    constraints = {site: c for (site, _), c in zip(program.trees, program.constraints, strict=True)}
    roles: Any = _roles(target)
    values = dict(zip(roles, (centres, bandwidth), strict=True))
    return {k: biject_to(constraints[k]).inv(v) for k, v in values.items()}


def _is_mixture(target: Any) -> bool:
    """Whether the density of two centres is the mean of those of either, at some points."""
    import jax
    import jax.numpy as jnp

    c, name = _values(target, jnp.arange(2)), target.visible[0].name

    def log_p(centres: Any, x: Any) -> Any:
        return target.joint(_parameters(target, centres, jnp.asarray(1.0, target.precision)), {name: x})

    points = jnp.stack([c[0], c[1], 0.7 * c[0] + 0.3 * c[1]])
    both, first, second = (jax.vmap(lambda x, m=m: log_p(m, x))(points) for m in (c, c[:1], c[1:]))
    return bool(jnp.allclose(both, jnp.logaddexp(first, second) - jnp.log(2), rtol=1e-3, atol=1e-3))
