"""Vector quantisation: a guide whose values are vectors of a codebook is learned through them, the codebook by running means.

    minimise   -log p(x | z) - log p(z) + commitment |f - sg(e)|^2,   e: of the codebook the nearest to f = f(x), sg: as a constant
    N_k <- decay N_k + (1 - decay) n_k,   m_k <- decay m_k + (1 - decay) sum of the f nearest to e_k,   e_k = m_k / N_k

n_k: how many of a batch's f are nearest to e_k. With codebook="gradient" |sg(f) - e|^2 is minimised as well instead. Squares are
summed over a vector's coordinates, and averaged over grid and rows. The prior p(z) is learned with the rest, on the codes as they
come; it moves neither guide nor codebook. Van den Oord, Vinyals and Kavukcuoglu 2017 (arXiv:1711.00937; running means: appendix
A.1); several codebooks: Razavi, van den Oord and Vinyals 2019 (arXiv:1906.00446). With a critic (`Model.critic`) its features say
beside the likelihood what makes two points alike, and the program plays against it:

    L = what is minimised above + perceptual |F(x) - F(x')|^2 / 2,   A = -log s(D(x')),   x' = E[x | z]
    minimise   L + w A,   w = adversarial lambda,   lambda = |dL/dW| / (|dA/dW| + 1e-4), at most 1e4, W: the decoder's last layer

w is 0 until `adversarial_from`, while the critic learns: switched on together the first gradients that the decoder feels are those
of a critic that knows nothing. Esser, Rombach and Ommer 2021 (arXiv:2012.09841).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from probgen.algorithm import Incompatible
from probgen.inference._learner import RowLearner, State
from probgen.target import Bounded, Judged

ROWS = 500  # on which the use of codes is judged
SETTLED = 0.75  # of the steps, after which no code is moved any more


class Progress(NamedTuple):
    """The step, -log p(z) of the last batch in nats a row; what `Info` says; by site the codes' running counts (code,).

    books: vectors (code, dim) by site that take the codebook's place where `moved` (code,).
    """

    step: Any
    kl: Any
    used: Any
    perplexity: Any
    right: Any
    weight: Any
    counts: Any
    books: Any
    moved: Any


class Info(NamedTuple):
    """loss: minus the bound on log p of a row of the batch, in nats; kl: -log p(z), of guide and prior.

    used, perplexity: over 500 rows the share of codes that occur, and exp of the codes' entropy; of several codebooks the least.
    right: the share of points of the last batch that the critic tells right; zero without one. weight: w, of its judgement.
    """

    loss: Any
    kl: Any
    used: Any
    perplexity: Any
    right: Any
    weight: Any
    learning_rate: Any
    rollbacks: Any


@dataclass(frozen=True, kw_only=True)
class VQ(RowLearner[Bounded]):
    """Program, guide and codebooks together, by Adam on minibatches.

    commitment: weight of the squared distance that draws the guide's outputs to the codebook.
    codebook: "ema", running means of the outputs, or "gradient".
    ema_decay: of the running means and counts.
    revive: a code whose running count falls below this share of the mean count is moved to an output of the batch; 0: never.
    average: 0: codes and networks of different steps do not go together.
    perceptual: weight of the distance of the critic's features of a row and of what the program makes of its codes.
    adversarial: weight of the critic's judgement of the latter, -log s(D(x')); with either the critic is learned beside.
    adaptive: whether the judgement's gradient is first made as long as that of all else, at the program's last layer: its last
        parameter of two axes or more that moves x'.
    adversarial_from: the share of the steps in which the critic learns alone, and the program does not feel it.
    """

    num_steps: int = 10_000
    batch_size: int = 128
    optimizer: Literal["sgd", "adam"] = "adam"
    learning_rate: float = 0.0002
    average: float = 0.0
    commitment: float = 0.25
    codebook: Literal["ema", "gradient"] = "ema"
    ema_decay: float = 0.99
    revive: float = 0.1
    perceptual: float = 0.0
    adversarial: float = 0.0
    adaptive: bool = False
    adversarial_from: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.codebook not in ("ema", "gradient"):
            raise ValueError(f"codebook is {self.codebook!r}; known: ema, gradient")
        if kept := [name for name in ("average", "ema") if getattr(self, name)]:
            told = f"{kept[0]} is {getattr(self, kept[0])}"
            raise ValueError(f"{told}; codes and networks of different steps do not go together: 0.")
        for name in ("commitment", "perceptual", "adversarial"):
            if not getattr(self, name) >= 0:  # NaN as well
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0")
        for name in ("ema_decay", "revive", "adversarial_from"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0 and below 1")

    def prepare(self, target: Any) -> Any:
        from probgen.distributions.codebook import label

        codes = {site.name for site in target.sites if site.distribution == "Codes"}
        if other := [v.name for v in target.hidden if v.name not in codes]:
            raise Incompatible(f"Hidden site {other[0]!r} does not hold codes of a codebook: use inference='svi'.")
        if missing := [k for k in sorted(codes) if label(k) not in target.guide.parameters]:
            raise Incompatible(
                f"The guide has no parameter {label(missing[0])!r}.\n"
                f"Use codebook({missing[0]!r}, num_codes, dim) of probgen.distributions.codebook in program and guide."
            )
        if self._critical and not isinstance(target, Judged):
            raise Incompatible("perceptual and adversarial need a critic: pg.Model(program, guide=..., critic=...).")
        critical: Any = target
        if self.adversarial and self.adaptive and not critical.last_layer:
            raise Incompatible(
                "adaptive weighs the critic at the program's last layer, and no parameter of two axes or more moves what it makes "
                "of its codes.\nUse adaptive=False."
            )
        self.check_batch(target)
        return target.unjudged if isinstance(target, Judged) and not self._critical else target

    @property
    def _critical(self) -> bool:
        return bool(self.perceptual or self.adversarial)

    # ---- the kernel

    def _optimiser(self) -> Any:
        import optax

        players = self._critical and self.optimizer == "adam"
        return optax.scale_by_adam(b1=0.5) if players else super()._optimiser()

    def first_parameters(self, key: Any, target: Any) -> Any:
        """The codebooks begin at outputs of the guide, as it begins."""
        import jax

        k_first, k_rows, k_guide, k_pick = jax.random.split(key, 4)
        parameters = super().first_parameters(k_first, target)
        rows = target.rows(jax.random.permutation(k_rows, target.num_rows)[: self.batch_size])
        found = _outputs(k_guide, target, parameters, rows)
        return parameters | _labelled({k: _some(k_pick, f, parameters[_label(k)]) for k, f in found.items()})

    def first_chains(self, key: Any, target: Any, parameters: Any, batch: Any) -> Progress:
        import jax.numpy as jnp

        zero = jnp.zeros(())
        books = {k: parameters[_label(k)] for k in _sites(target)}
        positions = {v.name: v.size // v.shape[-1] for v in target.hidden}
        rows = len(next(iter(batch.values())))
        counts = {k: jnp.full(len(e), rows * positions[k] / len(e), e.dtype) for k, e in books.items()}
        moved = {k: jnp.zeros(len(e), bool) for k, e in books.items()}
        return Progress(jnp.int32(0), zero, zero, zero, zero, zero, counts, books, moved)

    def first_loss(self, key: Any, target: Any, state: State, batch: Any) -> Any:
        return -self._losses(key, target, state.parameters, batch)[1][0]

    def step(self, key: Any, state: State, target: Any) -> tuple[State, Info]:
        import jax.numpy as jnp

        info: Any
        state, info = super().step(key, state, target)
        chains, parameters = state.chains, dict(state.parameters)
        for k, moved in chains.moved.items():
            parameters[_label(k)] = jnp.where(moved[:, None], chains.books[k], parameters[_label(k)])
        return state._replace(parameters=parameters, average=parameters), info

    def looked(self, state: State, target: Any) -> State:
        used, perplexity = use(target, state.parameters, target.rows(state.order[:ROWS]))
        return state._replace(chains=state.chains._replace(used=used, perplexity=perplexity))

    def told(self, state: State, info: Any) -> Info:
        chains = state.chains
        said = chains.kl, chains.used, chains.perplexity, chains.right, chains.weight
        return Info(info.loss, *said, info.learning_rate, info.rollbacks)

    def monitor(self, key: Any, target: Any, state: Any, batch: Any, gap: Any) -> Any:
        return -gap

    def gradient(self, key: Any, target: Any, parameters: Any, batch: Any, progress: Progress) -> tuple[Any, Any, Any]:
        import jax
        import jax.numpy as jnp

        k_draw, k_pick = jax.random.split(key)
        losses = lambda p: self._losses(k_draw, target, p, batch)  # noqa: E731
        gradient, weight, (bound, kl, right, outputs) = self._followed(losses, target, parameters, progress.step)
        counts, books, moved = {}, {}, {}
        late = progress.step >= SETTLED * self.num_steps
        for k, f in outputs.items():
            book = parameters[_label(k)]
            count, mean = running(f, book, progress.counts[k], self.ema_decay)
            least = self.revive * jnp.mean(count)
            dead = jnp.logical_and(count < least, jnp.logical_not(late))
            books[k] = jnp.where(dead[:, None], _some(k_pick, f, book), mean)
            counts[k] = jnp.where(dead, least, count)
            moved[k] = dead if self.codebook == "gradient" else jnp.ones_like(dead)
        progress = progress._replace(
            step=progress.step + 1, kl=kl, right=right, weight=weight, counts=counts, books=books, moved=moved
        )
        return gradient, bound, progress

    # ---- what is minimised

    def _followed(self, losses: Any, target: Any, parameters: Any, step: Any) -> tuple[Any, Any, Any]:
        """The gradient that each parameter follows, by label; w; and what else `losses` gives."""
        import jax.numpy as jnp

        from probgen.inference.adversarial._critic import balance, weighed

        along, rest = weighed(losses, parameters)
        weight = jnp.zeros(())
        if self.adversarial:
            last = target.last_layer if self.adaptive else ""
            size = balance(along(1.0, 0.0, 0.0)[last], along(0.0, 1.0, 0.0)[last]) if last else 1.0
            weight = jnp.where(step >= self.adversarial_from * self.num_steps, self.adversarial * size, 0.0)
        gradient = along(1.0, weight, 0.0)
        if self._critical:
            judging = along(0.0, 0.0, 1.0)
            gradient |= {k: judging[k] for k in target.critic.parameters}
        return gradient, weight, rest

    def _losses(self, key: Any, target: Any, parameters: Any, batch: Any) -> tuple[Any, Any]:
        """L, A, and what the critic minimises; the bound and the KL, both in nats a row, `right`, and the guide's outputs by site
        (vector, dim).
        """
        import jax
        import jax.numpy as jnp

        from probgen.inference.adversarial._critic import judgement, rebuilt

        keys = jax.random.split(key, len(next(iter(batch.values()))))
        terms = jax.vmap(lambda k, row: target.terms(k, parameters, row))(keys, batch)
        outputs = _outputs(key, target, parameters, batch)
        kl, bound = sum(jnp.mean(x) for x in terms.kl.values()), jnp.mean(terms.log_ratio)
        loss = -bound
        for k, f in outputs.items():
            commitment, distance = distances(f, parameters[_label(k)])
            loss = loss + self.commitment * commitment + (distance if self.codebook == "gradient" else 0.0)
        if not self._critical:
            return (loss, jnp.zeros(()), jnp.zeros(())), (bound, kl, jnp.zeros(()), outputs)
        said = judgement(target, parameters, batch, rebuilt(target, keys, parameters, batch))
        return (loss + self.perceptual * said.distance, said.model, said.critic), (bound, kl, said.right, outputs)


def distances(outputs: Any, book: Any) -> tuple[Any, Any]:
    """The mean squared distance of outputs (vector, dim) to their nearest vectors of a codebook: as a function of either."""
    import jax.numpy as jnp
    from jax.lax import stop_gradient as fixed

    from probgen.distributions.codebook import nearest

    chosen = book[nearest(outputs, book)]
    square = lambda f, e: jnp.mean(jnp.sum((f - e) ** 2, -1))  # noqa: E731
    return square(outputs, fixed(chosen)), square(fixed(outputs), chosen)


def running(outputs: Any, book: Any, counts: Any, decay: float) -> tuple[Any, Any]:
    """The running counts (code,) and means (code, dim) with some outputs (vector, dim); a code that hardly counts stays."""
    import jax
    import jax.numpy as jnp

    from probgen.distributions.codebook import nearest

    ones = jax.nn.one_hot(nearest(outputs, book), len(book), dtype=outputs.dtype)
    new = decay * counts + (1 - decay) * ones.sum(0)
    sums = decay * counts[:, None] * book + (1 - decay) * ones.T @ outputs
    return new, jnp.where(new[:, None] > 1e-6, sums / jnp.maximum(new, 1e-6)[:, None], book)


def use(target: Any, parameters: Any, rows: Any) -> tuple[Any, Any]:
    """The share of codes that occur in rows, and their perplexity; the least over codebooks."""
    import jax
    import jax.numpy as jnp

    from probgen.distributions.codebook import nearest

    shares, perplexities = [], []
    for k, f in _outputs(jax.random.key(0), target, parameters, rows).items():
        book = parameters[_label(k)]
        p = jnp.mean(jax.nn.one_hot(nearest(f, book), len(book)), 0)
        shares.append(jnp.mean(p > 0))
        perplexities.append(jnp.exp(-jnp.sum(jax.scipy.special.xlogy(p, p))))
    return jnp.min(jnp.stack(shares)), jnp.min(jnp.stack(perplexities))


def _outputs(key: Any, target: Any, parameters: Any, rows: Any) -> dict[str, Any]:
    """The guide's outputs before they are quantised, all positions of all rows one below the other: (vector, dim)."""
    import jax

    from probgen.distributions.codebook import Nearest

    def one(row: Any) -> dict[str, Any]:
        sites = target.guided(key, parameters, row)
        if other := [k for k, site in sites.items() if not isinstance(site["fn"], Nearest)]:
            raise Incompatible(f"The guide must draw {other[0]!r} from Nearest of probgen.distributions.codebook.")
        return {k: site["fn"].outputs for k, site in sites.items()}

    return {k: f.reshape(-1, f.shape[-1]) for k, f in jax.vmap(one)(rows).items()}


def _some(key: Any, outputs: Any, book: Any) -> Any:
    """As many outputs as a codebook has vectors, at random."""
    import jax

    return jax.lax.stop_gradient(outputs[jax.random.randint(key, (len(book),), 0, len(outputs))])


def _sites(target: Any) -> list[str]:
    return [v.name for v in target.hidden]


def _label(site: str) -> str:
    from probgen.distributions.codebook import label

    return label(site)


def _labelled(books: dict[str, Any]) -> dict[str, Any]:
    return {_label(k): book for k, book in books.items()}
