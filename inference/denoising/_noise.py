"""What learners of a denoiser share: rows with noise put on them, at times that a batch shares out, and rows held out.

The rows that are held out are never learned from: the loss by level of noise, and the verdict's tests of the draws, are of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, ClassVar, Literal

from probgen.algorithm import Incompatible
from probgen.inference._learner import Guard, RowLearner, State
from probgen.inference._times import spread_out
from probgen.inference.denoising._teacher import taught_by
from probgen.inference.denoising._told import GRID, Held, Info
from probgen.target import Diffused

LEAST = 0.05  # share of the levels that times="normal" asks for that a schedule has
HELD = 2000  # rows that are held out, at most
AFTER = len(Guard._fields) - 3  # numbers of a guard that come after what it keeps of the rows


@dataclass(frozen=True, kw_only=True)
class FromNoise(RowLearner[Diffused]):
    """Settings of all learners of a denoiser.

    times: of the noise: "even" in the schedule's own time, or "normal": log sigma / alpha ~ N(log_mean, log_sd^2), within the
        schedule, as EDM has it (Karras et al. 2022), in units of the data's spread.
    log_mean, log_sd: of "normal".
    held_out: share of the rows, at most 2000, that are held out of learning for the verdict.
    unlabelled: share of rows that are shown without their whole-number inputs, as -1, so that samples can be guided; 0 for none.
    compiled: of Pyro programs, whether networks of `probgen.nets.pyro_modules.registered` learn through `torch.compile`, for which
        the first step waits, a minute for a small U-Net.
    """

    engines: ClassVar[tuple[str, ...]] = ("numpyro", "pyro")
    precision: ClassVar[str] = "float32"
    loss_of: ClassVar[str] = "noise"
    teaches: ClassVar[bool] = False  # whether a fit that is given by init= is a teacher, and not a start alone

    num_steps: int = 10_000
    batch_size: int = 256
    optimizer: Literal["sgd", "adam"] = "adam"
    learning_rate: float = 0.001
    decay: Literal["linear", "cosine", "constant"] = "cosine"
    ema: float = 0.999
    start: Literal["data", "program"] = "program"
    times: Literal["even", "normal"] = "even"
    log_mean: float = -0.5
    log_sd: float = 1.2
    held_out: float = 0.1
    unlabelled: float = 0.1
    compiled: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.times not in ("even", "normal"):
            raise ValueError(f"times is {self.times!r}; known: even, normal")
        for name in ("held_out", "unlabelled"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0 and below 1")
        if self.log_sd <= 0:
            raise ValueError(f"log_sd is {self.log_sd}; it must be above 0")

    @property
    def coupled(self) -> bool:
        """Whether noise is chosen for its point: the velocity then moves noise to points, but says no score and no mean of x."""
        return False

    def held_rows(self, num_rows: int) -> int:
        """How many rows are held out."""
        return min(int(self.held_out * num_rows), HELD)

    def held(self, state: Mapping[str, Any], num_rows: int) -> Any:
        """Indices of the rows that were held out, of a checkpoint: (row,)."""
        named = [
            k for k in state if k.partition("|")[0].endswith(".held")
        ]  # of Pyro; JAX numbers leaves in their order
        found = state[named[0] if named else sorted(state)[-1 - AFTER]]
        if found.shape != (self.held_rows(num_rows),) or found.dtype.kind != "i":
            raise ValueError(f"The checkpoint has no indices of {self.held_rows(num_rows)} rows held out.")
        return found

    def prepare(self, target: Any) -> Any:
        rows = target.num_rows - self.held_rows(target.num_rows)
        default = type(self).__dataclass_fields__["batch_size"].default
        if self.batch_size > rows and self.batch_size != default:
            raise ValueError(
                f"batch_size is {self.batch_size}; {rows} of {target.num_rows} rows are learned from: use at most that."
            )
        if why := target.cannot_denoise():
            raise Incompatible(why)
        if self.times == "normal":
            self._check_times(*target.log_ratios())
        if self.unlabelled and (taken := target.label_that_wraps()):
            raise ValueError(
                f"The program takes -1 for {taken!r}, which says that it is hidden, as its last value: a negative index counts "
                "from the end.\nGive what it looks up a row more, or learn with unlabelled=0."
            )
        return target

    def _check_times(self, low: float, high: float) -> None:
        """Raise ValueError where hardly any of the levels asked for are among the schedule's, from low to high."""
        inside = NormalDist(self.log_mean, self.log_sd)
        if not inside.cdf(high) - inside.cdf(low) > LEAST:
            raise ValueError(
                f"times='normal' asks for log sigma / alpha round {self.log_mean:g}, give or take {self.log_sd:g}; the schedule's "
                f"reach from {low:.3g} to {high:.3g}.\nChoose log_mean and log_sd among them, or times='even'."
            )

    def check_begun(self, target: Any, fit: Any) -> None:
        if self.teaches:
            taught_by(self, target, fit)

    # ---- the kernel

    def init(self, key: Any, target: Any) -> State:
        state = super().init(key, target)
        count = self.held_rows(target.num_rows)
        chains = Held(state.order[:count])
        return state._replace(order=state.order[count:], chains=chains, guard=state.guard._replace(chains=chains))

    def gradient(self, key: Any, target: Any, parameters: Any, batch: Any, chains: Any) -> tuple[Any, Any, Any]:
        import jax

        loss, gradient = jax.value_and_grad(lambda p: self.of_batch(key, target, p, batch))(parameters)
        return gradient, -loss, chains

    def first_loss(self, key: Any, target: Any, state: State, batch: Any) -> Any:
        return self.of_batch(key, target, state.parameters, batch)

    def monitor(self, key: Any, target: Any, state: Any, batch: Any, gap: Any) -> Any:
        return -gap

    def told(self, state: State, info: Any) -> Info:
        return Info(info.loss, info.learning_rate, info.rollbacks)

    # ---- the loss

    def of_batch(self, key: Any, target: Any, parameters: Any, batch: Any) -> Any:
        """The mean loss of rows, at times that they share out: ()."""
        import jax
        import jax.numpy as jnp

        k_time, k_noise, k_label = jax.random.split(key, 3)
        count = len(next(iter(batch.values())))
        times = spread_out(k_time, (count,))
        batch = self._shown(k_label, target, batch)
        noise, batch = self.paired(k_noise, target, parameters, batch)
        return jnp.mean(jax.vmap(lambda *each: self.of_row(target, parameters, *each))(batch, times, noise))

    def of_row(self, target: Any, parameters: Any, row: Any, u: Any, noise: Any) -> Any:
        """The loss of a row at a time in [0, 1): ()."""
        import jax
        import jax.numpy as jnp

        denoiser, x = target.denoised(parameters, row)
        t, share = jax.jvp(lambda u: self.time(denoiser, u), (u,), (jnp.ones_like(u),))
        return self.loss(denoiser, x, noise, t, share)

    def loss(self, denoiser: Any, x: Any, noise: Any, t: Any, share: Any) -> Any:
        """What is minimised, of one point: (); share: dt / du, by which a mean over drawn times is an integral over time."""
        raise NotImplementedError

    def torch_loss(self, denoiser: Any, x: Any, noise: Any, t: Any, share: Any) -> Any:
        """What is minimised, of rows of a Pyro program, a mean: (); t, share: (row,)."""
        raise NotImplementedError

    def torch_paired(self, noise: Any, x: Any) -> Any:
        """The noise of rows of a Pyro program, in the order in which they take it: (row, *event)."""
        return noise

    def paired(self, key: Any, target: Any, parameters: Any, batch: Any) -> tuple[Any, Any]:
        """Noise for every row, (row, *event), and the rows."""
        import jax

        shape = jax.eval_shape(lambda: jax.vmap(lambda row: target.denoised(parameters, row)[1])(batch))
        return jax.random.normal(key, shape.shape, shape.dtype), batch

    def time(self, denoiser: Any, u: Any) -> Any:
        """The time of a number in [0, 1)."""
        import jax
        import jax.numpy as jnp

        schedule = denoiser.schedule
        if self.times == "even":
            return schedule.first + (1 - schedule.first) * u
        times = jnp.linspace(max(schedule.first, 1e-5), 1.0, GRID)
        ratio = -0.5 * jax.vmap(schedule.log_snr)(times) - jnp.log(getattr(denoiser, "spread", 1.0))
        cdf = jax.scipy.stats.norm.cdf(ratio, self.log_mean, self.log_sd)
        return jnp.interp(cdf[0] + u * (cdf[-1] - cdf[0]), cdf, times)

    def _shown(self, key: Any, target: Any, batch: Any) -> Any:
        """The batch with some whole-number inputs hidden."""
        import jax
        import jax.numpy as jnp

        if not self.unlabelled or not (labels := target.labels):
            return batch
        count = len(next(iter(batch.values())))
        hidden = jax.random.bernoulli(key, self.unlabelled, (count,))
        of = lambda x: hidden.reshape(-1, *[1] * (x.ndim - 1))  # noqa: E731
        return batch | {k: jnp.where(of(batch[k]), -1, batch[k]).astype(batch[k].dtype) for k in labels}
