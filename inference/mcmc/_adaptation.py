"""Warm-up as part of the kernel's state: step size by dual averaging, metric by windows of draws and gradients.

A warm-up of n steps is a tenth for the step size alone, then equal windows that each end in a new metric, then a tenth
for the step size under the last metric.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from probgen.inference.mcmc import _metric, _start

SHRINK, OFFSET, DECAY = 0.2, 10.0, 0.75  # gamma, t0, kappa of Hoffman and Gelman 2014, section 3.2.1
UNEVEN = 1.5  # times the variance of a chi-squared


class StepSize(NamedTuple):
    """Dual averaging of the log step size (Nesterov 2009; Hoffman and Gelman 2014, JMLR 15)."""

    log: Any
    average: Any
    error: Any
    count: Any
    centre: Any

    def update(self, xp: Any, accept: Any, target_accept: Any) -> StepSize:
        """The state after one transition with mean acceptance probability `accept`."""
        count = self.count + 1
        weight = 1 / (count + OFFSET)
        error = (1 - weight) * self.error + weight * (target_accept - accept)
        log = self.centre - xp.sqrt(count) / SHRINK * error
        decay = count**-DECAY
        return StepSize(log, decay * log + (1 - decay) * self.average, error, count, self.centre)


def restart(xp: Any, log_step: Any) -> StepSize:
    """Dual averaging from a step size, pulled towards one twice as large."""
    zero = log_step * 0
    return StepSize(log_step, log_step, zero, zero, log_step + xp.log(2.0))


class Warmup(NamedTuple):
    """What a chain has learned so far; `draws` and `gradients`: (window + 1, dim), the last row a bin."""

    step: Any
    step_size: StepSize
    metric: Any
    draws: Any
    gradients: Any
    squares: Any  # count, sum and sum of squares of the whitened gradient's squared norm: (3,)
    start: _start.Start


class Schedule(NamedTuple):
    """Step numbers: windows of `length` from `first`, `count` of them, in a warm-up of `total` steps."""

    first: int
    length: int
    count: int
    total: int


def schedule(num_warmup: int) -> Schedule:
    """The windows of a warm-up; none where it has fewer than 40 steps."""
    if num_warmup < 40:
        return Schedule(num_warmup, 1, 0, num_warmup)
    first = num_warmup // 10
    length = max(20, min(num_warmup // 5, 150))
    count = (num_warmup - 2 * first) // length
    return Schedule(num_warmup - first - count * length, length, count, num_warmup)


def begin(key: Any, target: Any, settings: Any) -> tuple[Any, Warmup]:
    """The position where a chain starts, (dim,), and the state of its warm-up."""
    xp = target.ops.xp
    start = _start.find(key, target, settings.start)
    metric = _metric.initial(xp, _metric.choose(settings.metric, target.dim), start.covariance)
    rows = schedule(settings.num_warmup).length + 1
    buffer = xp.zeros((rows, target.dim), start.z.dtype)
    zero = start.z[0] * 0
    log_step = zero + xp.log(settings.first_step(target.dim))
    return start.z, Warmup(
        xp.int32(0), restart(xp, log_step), metric, buffer, buffer, xp.zeros(3, start.z.dtype), start
    )


def current_step_size(xp: Any, warmup: Warmup, num_warmup: int) -> Any:
    """The adapting step size during warm-up, its average afterwards."""
    return xp.exp(xp.where(warmup.step < num_warmup, warmup.step_size.log, warmup.step_size.average))


def advance(ops: Any, settings: Any, warmup: Warmup, z: Any, gradient: Any, accept: Any) -> Warmup:
    """The state after one transition to z with the given gradient and mean acceptance probability."""
    xp, plan = ops.xp, schedule(settings.num_warmup)
    t = warmup.step
    inside = xp.logical_and(t >= plan.first, t < plan.first + plan.count * plan.length)
    row = xp.where(inside, (t - plan.first) % plan.length, plan.length)
    warmup = warmup._replace(
        step=t + 1,
        draws=ops.put(warmup.draws, row, z),
        gradients=ops.put(warmup.gradients, row, gradient),
        squares=_squares(xp, warmup, gradient, plan),
    )
    ending = xp.logical_and(inside, row == plan.length - 1)

    def learn(warmup: Warmup) -> Warmup:
        target_accept = settings.acceptance(xp, uneven(xp, warmup.squares, len(z)))
        warmup = warmup._replace(step_size=warmup.step_size.update(xp, accept, target_accept))
        return ops.cond(ending, lambda w: _relearn(xp, w), lambda w: w, warmup)

    return ops.cond(t < plan.total, learn, lambda w: w, warmup)


def _squares(xp: Any, warmup: Warmup, gradient: Any, plan: Schedule) -> Any:
    """Count, sum and sum of squares of |L' g|^2 over the draws after the first window."""
    pulled = warmup.metric.pull(gradient)
    square = pulled @ pulled
    late = warmup.step >= plan.first + min(plan.count, 1) * plan.length
    return warmup.squares + xp.where(late, 1, 0) * xp.stack([square * 0 + 1, square, square**2])


def uneven(xp: Any, squares: Any, dim: int) -> Any:
    """Whether the curvature varies over the target.

    On a Gaussian |L' g|^2 is chi-squared, of variance 2 dim. An excess beyond `UNEVEN` tells of necks and heavy tails, where
    the step size that suits most of the target is too long for some of it.
    """
    count, total, total_squares = squares[0], squares[1], squares[2]
    dispersion = (count * total_squares / total**2 - 1) * dim / 2
    return xp.logical_and(count > 30, dispersion > UNEVEN)


def _relearn(xp: Any, warmup: Warmup) -> Warmup:
    draws, gradients = warmup.draws[:-1], warmup.gradients[:-1]
    metric = warmup.metric.update(xp, draws, gradients)
    finite = xp.all(xp.stack([xp.all(xp.isfinite(leaf)) for leaf in metric]))
    metric = type(metric)(*(xp.where(finite, new, old) for new, old in zip(metric, warmup.metric, strict=True)))
    return warmup._replace(metric=metric, step_size=restart(xp, warmup.step_size.average))


def check(settings: Any) -> None:
    """Raise ValueError for a target acceptance outside (0, 1) or an unknown metric or start."""
    if settings.target_accept is not None and not 0 < settings.target_accept < 1:
        raise ValueError(f"target_accept is {settings.target_accept}; it must lie between 0 and 1")
    for word, known in (("metric", ("auto", "dense", "low_rank", "diagonal")), ("start", ("pathfinder", "uniform"))):
        if getattr(settings, word) not in known:
            raise ValueError(f"{word} is {getattr(settings, word)!r}; known: {', '.join(known)}")
