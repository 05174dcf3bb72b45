"""Variational inference with an amortised guide: program and guide are learned together, by a bound on log p(x).

    ELBO = E_q [log p(x | h)] - KL(q(h | x) || p(h)),   IWAE_K = E_q [log 1/K sum_k p(x, h_k) / q(h_k | x)]
    ELBO <= IWAE_K <= log p(x)

A program without a guide of its own (`Model.guide`) is given normals whose means and scales are a network of the row. Hidden sites
of finitely many values are summed over; what the guide observes is learned by maximum likelihood beside the bound (Kingma et al.
2014, arXiv:1406.5298).
Kingma and Welling 2014 (arXiv:1312.6114); IWAE: Burda, Grosse and Salakhutdinov 2016 (arXiv:1509.00519); estimator="path": Roeder,
Wu and Duvenaud 2017 (arXiv:1703.09194), with IWAE the doubly reparametrised gradient of Tucker et al. 2019 (arXiv:1810.04152);
kl_weight: Higgins et al. 2017 (beta-VAE); free_bits: Kingma et al. 2016 (arXiv:1606.04934).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from probgen.algorithm import Incompatible, positive
from probgen.inference._learner import RowLearner, State
from probgen.inference._times import spread_out
from probgen.inference.likelihood._told import ACTIVE, ROWS, OfBound
from probgen.target import Bounded, Diffused, Judged

KINDS = ("reals", "bits", "levels", "one-hot")  # of hidden sites
STATES = 1024  # of finite hidden sites, over which every term is summed


class Progress(NamedTuple):
    """The step, the KL of the last batch in nats a row, and how many hidden coordinates are active."""

    step: Any
    kl: Any
    active: Any


@dataclass(frozen=True, kw_only=True)
class AmortisedSVI(RowLearner[Bounded]):
    """A bound on the log likelihood, raised by Adam on minibatches.

    objective: "elbo", or "iwae": the importance-weighted bound of `num_particles` draws.
    num_particles: draws of the guide for each row and step.
    estimator: of the gradient: "total", with the KL in closed form where there is one, or "path", without the
        guide's score.
    kl_weight: of the KL in what is maximised; only with 1 is that a bound on log p(x).
    kl_warmup: steps over which the weight of the KL rises from 0.
    free_bits: nats of KL of every hidden coordinate, averaged over the batch, that are not held against it.
    compiled: of Pyro programs, whether networks of `probgen.nets.pyro_modules.registered` learn through `torch.compile`, for which
        the first step waits, half a minute for a small convolutional net.
    The loss that is recorded is minus the bound itself, whatever is maximised. Where `pg.fit` is given a guide, decay is "constant"
    by default and the learning rate does not rise at first: step by step this is then the library's own loop with Adam.
    """

    engines: ClassVar[tuple[str, ...]] = ("numpyro", "pyro")
    shared: ClassVar[bool] = True

    num_steps: int = 10_000
    batch_size: int = 128
    optimizer: Literal["sgd", "adam"] = "adam"
    learning_rate: float = 0.002
    objective: Literal["elbo", "iwae"] = "elbo"
    num_particles: int = 1
    estimator: Literal["total", "path"] = "total"
    kl_weight: float = 1.0
    kl_warmup: int = 0
    free_bits: float = 0.0
    compiled: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "num_particles")
        for name, known in {"objective": ("elbo", "iwae"), "estimator": ("total", "path")}.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; known: {', '.join(known)}")
        for name in ("kl_weight", "kl_warmup", "free_bits"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0")
        if self._weighted and (self.objective == "iwae" or self.estimator == "path"):
            raise ValueError("kl_weight, kl_warmup and free_bits are for objective='elbo' with estimator='total'.")

    def weight(self, step: Any, xp: Any) -> Any:
        """Of the KL at a step."""
        return self.kl_weight * (xp.minimum(1.0, step / self.kl_warmup) if self.kl_warmup else 1.0)

    def rate(self, step: Any, xp: Any = None) -> Any:
        """The learning rate of a step; a constant one is that from the first step on, as in the libraries' own loops."""
        if self.decay == "constant":
            return self.learning_rate
        return super().rate(step, xp) if xp else super().rate(step)

    @property
    def _weighted(self) -> bool:
        return self.kl_weight != 1 or bool(self.kl_warmup) or bool(self.free_bits)

    def unshared(self, target: Any) -> str:
        if target.engine == "pyro" and self.free_bits:
            return "free_bits are of a whole batch, of which each process sees its rows.\nLeave them out, or fit in one process."
        return super().unshared(target)

    def on(self, engine: str) -> Any:
        from probgen.inference.likelihood import _torch

        return _torch.Bound(self) if engine == "pyro" else self

    def prepare(self, target: Any) -> Any:
        chained = _is_chain(target)  # whose chains may be of tokens, which nothing sums over
        if not chained and (other := [v.name for v in target.hidden if v.kind not in KINDS]):
            raise Incompatible(
                f"Hidden site {other[0]!r} holds neither unbounded reals nor finitely many values.\n"
                "Write a bounded site as a function of an unbounded one; a codebook's codes are learned by inference='vq'."
            )
        states = math.prod(float(v.levels) ** v.units for v in target.finite)
        if chained and (self.estimator == "path" or self.objective == "iwae"):
            raise Incompatible(
                "A chain's bound is estimated at random levels, whose weights are no log ratios.\n"
                "Use objective='elbo' and estimator='total'."
            )
        if states > STATES:
            from probgen.engine.numpyro.sums.exact import TooLarge

            names = ", ".join(repr(v.name) for v in target.finite)
            raise TooLarge(
                f"The states of {names} cannot be enumerated: there are {states:.3g}, at most {STATES}.\n"
                "Use fewer of them, or hidden reals."
            )
        if self.estimator == "path" and (other := [v.name for v in target.finite] or list(target.beside)):
            raise Incompatible(
                f"estimator='path' is for hidden reals alone; {other[0]!r} is summed over or observed by the guide.\n"
                "Use estimator='total'."
            )
        self.check_batch(target)
        return target.unjudged if isinstance(target, Judged) else target

    # ---- the kernel

    def first_chains(self, key: Any, target: Any, parameters: Any, batch: Any) -> Progress:
        import jax.numpy as jnp

        return Progress(jnp.int32(0), jnp.zeros(()), jnp.int32(0))

    def first_loss(self, key: Any, target: Any, state: State, batch: Any) -> Any:
        return -self._loss(key, target, state.parameters, batch, 1.0)[1][0]

    def looked(self, state: State, target: Any) -> State:
        return with_activity(state, target)

    def told(self, state: State, info: Any) -> OfBound:
        return OfBound(info.loss, state.chains.kl, state.chains.active, info.learning_rate, info.rollbacks)

    def monitor(self, key: Any, target: Any, state: Any, batch: Any, gap: Any) -> Any:
        return -gap

    def gradient(self, key: Any, target: Any, parameters: Any, batch: Any, progress: Progress) -> tuple[Any, Any, Any]:
        import jax

        if self.estimator == "path":
            gradient, bound, kl = self._path(key, target, parameters, batch)
        else:
            weight = self.weight(progress.step, jax.numpy)
            loss = jax.value_and_grad(lambda p: self._loss(key, target, p, batch, weight), has_aux=True)
            (_, (bound, kl)), gradient = loss(parameters)
        return gradient, bound, progress._replace(step=progress.step + 1, kl=kl)

    # ---- the bound

    def _keys(self, key: Any, batch: Any) -> Any:
        """A key for every row and draw: (row, particle)."""
        import jax

        return jax.random.split(key, (len(next(iter(batch.values()))), self.num_particles))

    def _terms(self, key: Any, target: Any, parameters: Any, batch: Any) -> Any:
        """Of every row and draw: arrays (row, particle, ...)."""
        import jax

        keys = self._keys(key, batch)
        if _is_chain(target):  # one level of the chain stands for all: rows share them out
            times = spread_out(key, keys.shape)
            level = lambda row, keys, times: jax.vmap(lambda k, t: target.terms(k, parameters, row, t))(keys, times)  # noqa: E731
            return jax.vmap(level)(batch, keys, times)
        one = lambda row, keys: jax.vmap(lambda k: target.terms(k, parameters, row))(keys)  # noqa: E731
        return jax.vmap(one)(batch, keys)

    def _bounds(self, log_ratio: Any) -> Any:
        """Of rows, by the log ratios of their draws (row, particle)."""
        import jax
        import jax.numpy as jnp

        if self.objective == "elbo":
            return jnp.mean(log_ratio, 1)
        return jax.nn.logsumexp(log_ratio, 1) - jnp.log(self.num_particles)

    def _loss(self, key: Any, target: Any, parameters: Any, batch: Any, weight: Any) -> tuple[Any, tuple[Any, Any]]:
        """What is minimised; the bound and the KL, both in nats a row."""
        import jax.numpy as jnp

        terms = self._terms(key, target, parameters, batch)
        kl = {k: jnp.mean(x, (0, 1)) for k, x in terms.kl.items()}
        total, likelihood = sum(jnp.sum(x) for x in kl.values()), jnp.mean(terms.likelihood)
        beside = jnp.mean(terms.beside)
        if self.objective == "iwae":
            bound = jnp.mean(self._bounds(terms.log_ratio))
            return -bound - beside, (bound, total)
        held = sum(jnp.sum(jnp.maximum(x, self.free_bits)) for x in kl.values()) if self.free_bits else total
        return weight * held - likelihood - beside, (likelihood - total, total)

    def _path(self, key: Any, target: Any, parameters: Any, batch: Any) -> tuple[Any, Any, Any]:
        """The gradient through the draws alone, the bound and the KL.

        A draw of normalised weight w counts with w in the program's gradient and with w^2 in the guide's; without weights with
        1 / particles in both.
        """
        import jax
        import jax.numpy as jnp

        keys = self._keys(key, batch)

        def draw(parameters: Any) -> Any:
            return jax.vmap(lambda row, ks: jax.vmap(lambda k: target.draw(k, parameters, row))(ks))(batch, keys)

        def ratio(free: Any, hidden: Any) -> Any:
            one = lambda row, *drawn: jax.vmap(lambda h, k: target.log_ratio(free, parameters, row, h, k))(*drawn)  # noqa: E731
            return jax.vmap(one)(batch, hidden, keys)

        hidden, through_draws = jax.vjp(draw, parameters)
        log_ratio, pull, likelihood = jax.vjp(ratio, parameters, hidden, has_aux=True)
        weighted = self.objective == "iwae"
        weights = jax.nn.softmax(log_ratio, 1) if weighted else jnp.full(log_ratio.shape, 1 / self.num_particles)
        direct, slopes = pull(weights / len(weights))
        if weighted:
            slopes = jax.tree.map(lambda s: s * weights.reshape(weights.shape + (1,) * (s.ndim - 2)), slopes)
        gradient = jax.tree.map(lambda a, b: -(a + b), direct, through_draws(slopes)[0])
        return gradient, jnp.mean(self._bounds(log_ratio)), jnp.mean(likelihood - log_ratio)


def _is_chain(target: Any) -> bool:
    """Whether the hidden site is a chain of noise."""
    return isinstance(target, Diffused)


def with_activity(state: State, target: Any) -> State:
    """The state with the hidden coordinates in use, `state.chains.active`, counted anew."""
    if _is_chain(target):  # a fixed guide cannot collapse
        return state
    active = active_units(target, state.parameters, target.rows(state.order[:ROWS]))
    return state._replace(chains=state.chains._replace(active=active))


def active_units(target: Any, parameters: Any, rows: Any) -> Any:
    """How many hidden coordinates have a posterior mean that varies over rows by more than 0.01: ()."""
    import jax
    import jax.numpy as jnp

    means = jax.vmap(lambda row: target.draw(jax.random.key(0), parameters, row, centre=True))(rows)
    reals = [v.name for v in target.hidden if v.kind == "reals"]
    return sum((jnp.sum(jnp.var(means[k], 0) > ACTIVE) for k in reals), jnp.zeros(())).astype(jnp.int32)
