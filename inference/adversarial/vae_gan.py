"""A variational autoencoder that learns from a critic what makes two points alike, and plays against it.

    guide:     minimise KL(q(z | x) || p(z)) + L,                        L = E_q |F(x) - F(x')|^2 / 2,  x' = E[x | z]
    program:   minimise gamma L - mean log s(D(x')),                     x' rebuilt, and from z ~ p(z)
    critic:    minimise -log s(D(x)) - mean log(1 - s(D(x')))

D is the critic's logit, F its features, s the logistic function. With `likelihood` -log p(x | z), weighed, stands beside L; without
it the program's own noise is not learned. Larsen, Sonderby, Larochelle and Winther 2016 (arXiv:1512.09300).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from probgen.algorithm import Incompatible
from probgen.inference._learner import RowLearner, State
from probgen.target import Judged


class Progress(NamedTuple):
    """The step; of the last batch see `Info`."""

    step: Any
    kl: Any
    active: Any
    distance: Any
    right: Any


class Info(NamedTuple):
    """loss: minus the bound on log p of a row of the batch, in nats, which is not what is minimised; kl: of guide and prior.

    active: hidden coordinates in use; distance: L; right: the share of points that the critic tells right.
    """

    loss: Any
    kl: Any
    active: Any
    distance: Any
    right: Any
    learning_rate: Any
    rollbacks: Any


@dataclass(frozen=True, kw_only=True)
class VAEGAN(RowLearner[Judged]):
    """Program, guide and critic against each other, by Adam (beta_1 = 1/2) on minibatches.

    gamma: weight of likeness beside the critic's judgement, in what the program minimises.
    likelihood: weight of -log p(x | z) beside the distance of features; 0 as in the paper.
    kl_warmup: steps over which the weight of the KL rises from 0.
    """

    loss_of: ClassVar[str] = "loss"  # the bound, which is not what is minimised
    period: ClassVar[int] = 100

    num_steps: int = 10_000
    batch_size: int = 64
    optimizer: Literal["sgd", "adam"] = "adam"
    learning_rate: float = 0.003
    gamma: float = 1.0
    likelihood: float = 1.0
    kl_warmup: int = 2000

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("gamma", "likelihood", "kl_warmup"):
            if not getattr(self, name) >= 0:  # NaN as well
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0")

    def prepare(self, target: Any) -> Any:
        if other := [v.name for v in target.hidden if v.kind != "reals"] or list(target.beside):
            raise Incompatible(
                f"{other[0]!r} is no hidden site of unbounded reals, and vae_gan learns no others.\n"
                "Try inference='svi', or 'vq' for the codes of a codebook."
            )
        self.check_batch(target)
        return target

    # ---- the kernel

    def _optimiser(self) -> Any:
        import optax

        return optax.scale_by_adam(b1=0.5) if self.optimizer == "adam" else super()._optimiser()

    def first_chains(self, key: Any, target: Any, parameters: Any, batch: Any) -> Progress:
        import jax.numpy as jnp

        return Progress(jnp.int32(0), jnp.zeros(()), jnp.int32(0), jnp.zeros(()), jnp.zeros(()))

    def first_loss(self, key: Any, target: Any, state: State, batch: Any) -> Any:
        return self._losses(key, target, state.parameters, batch, 1.0)[1][0]

    def looked(self, state: State, target: Any) -> State:
        from probgen.inference.likelihood.amortised_svi import with_activity

        return with_activity(state, target)

    def told(self, state: State, info: Any) -> Info:
        return Info._make((info.loss, *state.chains[1:], info.learning_rate, info.rollbacks))

    def monitor(self, key: Any, target: Any, state: Any, batch: Any, gap: Any) -> Any:
        return gap

    def gradient(self, key: Any, target: Any, parameters: Any, batch: Any, progress: Progress) -> tuple[Any, Any, Any]:
        import jax.numpy as jnp

        from probgen.inference.adversarial._critic import by_owner

        owners = (target.structure.parameters, target.guide.parameters, target.critic.parameters)
        weight = jnp.minimum(1.0, progress.step / self.kl_warmup) if self.kl_warmup else 1.0
        losses = lambda p: self._losses(key, target, p, batch, weight)  # noqa: E731
        gradient, (loss, kl, said) = by_owner(losses, parameters, owners)
        return gradient, loss, Progress(progress.step + 1, kl, progress.active, said.distance, said.right)

    def _losses(self, key: Any, target: Any, parameters: Any, batch: Any, weight: Any) -> tuple[Any, Any]:
        """What program, guide and critic minimise; minus the bound, the KL, and what the critic says."""
        import jax
        import jax.numpy as jnp

        from probgen.inference.adversarial._critic import judgement, rebuilt

        k_guide, k_prior = jax.random.split(key)
        count = len(next(iter(batch.values())))
        keys = jax.random.split(k_guide, count)
        terms = jax.vmap(lambda k, row: target.terms(k, parameters, row))(keys, batch)  # of the same draws
        new = jax.vmap(lambda k, row: target.imagined(k, parameters, row))(jax.random.split(k_prior, count), batch)
        said = judgement(target, parameters, batch, rebuilt(target, keys, parameters, batch), new)
        kl = sum(jnp.sum(x) / count for x in terms.kl.values())
        unlike = said.distance - self.likelihood * jnp.mean(terms.likelihood)
        loss = kl - jnp.mean(terms.likelihood)
        return (self.gamma * unlike + said.model, weight * kl + unlike, said.critic), (loss, kl, said)
