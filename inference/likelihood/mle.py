"""Maximum likelihood with the exact gradient, for programs whose constant is known or can be counted.

    gradient of the mean of log p(x) over a batch;   log p(x) = log sum_h exp f(x, h) - log Z

A program without factors is a probability: log Z = 0. Hidden reals that are jointly normal given the data are integrated at once.
Else sums over hidden units, and log Z of an energy, are enumerated: the units of the largest block that do not interact are summed
in closed form, the states of all others one by one, so that an RBM takes 2^min(visible, hidden) states a step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from probgen.algorithm import Incompatible, positive
from probgen.data.values import series
from probgen.engine.drawable import check_counted
from probgen.inference._learner import RowLearner, State
from probgen.inference.likelihood import _mixture
from probgen.inference.likelihood._told import OfLikelihood, Watch
from probgen.target import Learnable

SMOOTHING = 1.0  # rows that every component of a mixture is given at the start


@dataclass(frozen=True, kw_only=True)
class MLE(RowLearner[Learnable]):
    """Exact maximum likelihood by Adam on minibatches.

    validation: share of the rows that is held out of learning; the answer is then the parameters that were best on them, and
        learning stops after `patience` looks that bettered nothing. 0 for none: the answer is an average, see `average`. Of windows
        of one series that overlap the last are held out, and those that overlap them are left out.
    held: which rows these are: some at "random", or the "last", of rows that follow each other in time.
    patience: looks; one is taken every hundred steps, on at most 2000 of the held-out rows.
    compiled: of Pyro programs, whether networks of `probgen.nets.pyro_modules.registered` learn through `torch.compile`, for which
        the first step waits, half a minute for a small convolutional net.
    The loss is minus the mean log likelihood of a row, in nats.
    Raises TooLarge where more than 20 units have to be enumerated or real units interact, NotConditional where a unit's sum or
    integral has no closed form.
    """

    engines: ClassVar[tuple[str, ...]] = ("numpyro", "pyro")
    flat_prior: ClassVar[bool] = True
    shared: ClassVar[bool] = True

    num_steps: int = 5000
    batch_size: int = 512
    optimizer: Literal["sgd", "adam"] = "adam"
    learning_rate: float = 0.003
    validation: float = 0.0
    held: Literal["random", "last"] = "random"
    patience: int = 20
    compiled: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "patience")
        if not 0 <= self.validation < 1:
            raise ValueError(f"validation is {self.validation}; it must be at least 0 and below 1")
        if self.held not in ("random", "last"):
            raise ValueError(f"held is {self.held!r}; known: random, last")

    def on(self, engine: str) -> Any:
        from probgen.inference.likelihood import _torch

        return _torch.Likelihood(self) if engine == "pyro" else self

    def prepare(self, target: Any) -> Any:
        if target.engine == "pyro":
            if not target.normalised:
                raise Incompatible("The hidden sites of a Pyro program are not integrated out.\nUse inference='svi'.")
            return target
        self._check_held(target)
        if target.normalised:
            target = target.biased() if self.start == "data" else target
            with contextlib.suppress(Incompatible):  # then parameters begin where the program says
                _mixture.found(target)
            return target
        check_counted(target, f"{self.name} of hidden sites")
        from probgen.engine.numpyro.sums import exact as exact_sums
        from probgen.engine.numpyro.sums.energy import NotConditional

        if target.inputs and not target.proper:
            raise Incompatible(
                f"The constant of this energy is another for every row's inputs: {', '.join(target.inputs)}.\n"
                "Use inference='pseudo_likelihood' or 'cd', which do without it."
            )
        try:
            target = target.blocked()
        except NotConditional as error:
            why = str(error).splitlines()[0]
            if target.proper:
                raise NotConditional(
                    f"The hidden sites cannot be integrated out: {why}\nUse inference='svi'."
                ) from None
            raise NotConditional(f"The constant cannot be enumerated: {why}\nUse inference='score_matching'.") from None
        exact_sums.marginal(target, None)  # both raise where there are too many states
        if not target.proper:
            exact_sums.split(target, list(target.variables.values()))
        return target

    # ---- the kernel

    def init(self, key: Any, target: Any) -> State:
        import jax.numpy as jnp

        state = super().init(key, target)
        held, learned = self._apart(state.order, target)
        infinite = jnp.full((), jnp.inf, target.precision)
        watch = Watch(held[:2000], state.parameters, infinite, infinite, jnp.int32(0))
        return state._replace(order=learned, chains=watch, guard=state.guard._replace(chains=watch))

    def _apart(self, order: Any, target: Any) -> tuple[Any, Any]:
        """The rows that are held out and those that are learned from, each in the order that was drawn."""
        import jax.numpy as jnp

        held, left = self._counts(target)
        if not held or not (target.structure.overlap or self.held == "last"):
            return order[:held], order[held:]
        first = lambda chosen, count: order[jnp.argsort(~chosen, stable=True)][:count]  # noqa: E731
        return first(order >= target.num_rows - held, held), first(order < left, left)

    def _counts(self, target: Any) -> tuple[int, int]:
        """How many rows are held out, and how many learned from."""
        held = min(int(self.validation * target.num_rows), target.num_rows - 1)
        return held, target.num_rows - held - (target.structure.overlap if held else 0)

    def _check_held(self, target: Any) -> None:
        """Tell of rows that overlap, and raise ValueError where none are left to learn from."""
        held, left = self._counts(target)
        if not held or not target.structure.overlap:
            return
        if left < 1:
            raise ValueError(
                f"The rows are {target.num_rows} windows of one series, each overlapping {target.structure.overlap} after it: with "
                f"validation={self.validation} none are left to learn from.\nUse validation=0, or more data."
            )
        notes = [series.note(keyword, target.structure.overlap) for keyword, _ in target.structure.rows]
        target.notes = (*target.notes, *(n for n in notes if n not in target.notes))

    def first_parameters(self, key: Any, target: Any) -> Any:
        """With start="data" a mixture of exponential families begins at the clusters of k-means."""
        parameters, mixture = super().first_parameters(key, target), _mixture.known(target)
        if self.start != "data" or mixture is None or mixture.num_components == 1:
            return parameters
        learned = target.structure.one.program
        begun = _mixture.started(key, mixture, target, learned.constrained(parameters), SMOOTHING)
        return {k: x.astype(target.precision) for k, x in learned.unconstrained(begun).items()}

    def gradient(self, key: Any, target: Any, parameters: Any, batch: Any, watch: Watch) -> tuple[Any, Any, Any]:
        import jax

        loss, gradient = jax.value_and_grad(self.loss, argnums=1)(target, parameters, batch)
        return gradient, -loss, watch

    def looked(self, state: State, target: Any) -> State:
        import jax

        watch: Watch = state.chains
        if not len(watch.rows):
            return state
        tried = state.average if self.ema else state.parameters
        look = lambda: self._watched(watch, target, tried)  # noqa: E731
        return state._replace(chains=jax.lax.cond(state.step % 100 == 0, look, lambda: watch))

    def told(self, state: State, info: Any) -> OfLikelihood:
        import jax.numpy as jnp

        converged = jnp.asarray(state.chains.age >= self.patience)
        return OfLikelihood(info.loss, info.learning_rate, info.rollbacks, state.chains.last, converged)

    def _watched(self, watch: Watch, target: Any, parameters: Any) -> Watch:
        import jax
        import jax.numpy as jnp

        loss = self.loss(target, parameters, target.rows(watch.rows))
        better = loss < watch.best
        kept = jax.tree.map(lambda new, old: jnp.where(better, new, old), parameters, watch.parameters)
        age = jnp.where(better, 0, watch.age + 1)
        return watch._replace(parameters=kept, best=jnp.where(better, loss, watch.best), last=loss, age=age)

    def answer(self, key: Any, state: State, target: Any) -> dict[str, Any]:
        import jax
        import jax.numpy as jnp

        watch: Watch = state.chains
        if not len(watch.rows):
            return self.averaged(state)
        looked = jnp.isfinite(watch.best)  # a short run has no look
        return dict(jax.tree.map(lambda a, b: jnp.where(looked, a, b), watch.parameters, self.averaged(state)))

    def held_apart(self, state: Mapping[str, Any], num_rows: int) -> Any:
        """Indices of the rows that were not learned from, of a checkpoint: (row,)."""
        import numpy as np

        if not (count := min(int(self.validation * num_rows), num_rows - 1)):
            return np.zeros(0, int)
        whole = [state[k] for k in sorted(state) if np.asarray(state[k]).dtype.kind == "i" and np.ndim(state[k]) == 1]
        named = [state[k] for k in sorted(state) if k.partition("|")[0].endswith(".order")]  # of Pyro
        apart = np.setdiff1d(np.arange(num_rows), (named or whole[1:])[0])  # JAX numbers the leaves
        return apart if len(apart) == count else np.zeros(0, int)

    # ---- the likelihood

    def loss(self, target: Any, parameters: Any, batch: Any) -> Any:
        """Minus the mean log likelihood of rows, in nats."""
        import jax
        import jax.numpy as jnp

        if target.normalised:
            return -jnp.mean(target.joints(parameters, batch))
        f = lambda values: target.joint(parameters, values)  # noqa: E731
        from probgen.engine.numpyro.sums.exact import log_sum, marginal, split

        constant = 0.0 if target.proper else log_sum(f, split(target, list(target.variables.values())), {})
        return constant - jnp.mean(jax.vmap(marginal(target, f))(batch))

    def first_loss(self, key: Any, target: Any, state: State, batch: Any) -> Any:
        return self.loss(target, state.parameters, batch)

    def monitor(self, key: Any, target: Any, state: Any, batch: Any, gap: Any) -> Any:
        return -gap
