"""Inference: an algorithm with its settings, as a frozen dataclass that names what it needs of a target.

    @dataclass(frozen=True, kw_only=True)
    class NUTS(Sampler[Continuous]): ...

One line gives the static error, the run-time error and the row of the matrix. The dataclass is at once the Python
signature, the command line's flags and the saved record.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar, Generic, TypeVar, get_args, get_origin

from probgen.data.whole_numbers import settled
from probgen.programs.bridging import Bridging
from probgen.target import Continuous, Generative, Implicit, Mixed, Target

T = TypeVar("T", bound=Target, contravariant=True)


class Incompatible(TypeError):
    """The target does not offer what the algorithm needs; instead: names of algorithms that it serves."""

    instead: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Inference(Generic[T]):
    """An algorithm with its settings: a pure kernel that one runner drives.

    `init(key, target) -> state` and `step(key, state, target) -> (state, info)`: the state holds what the next step
    needs, info what diagnostics need. `needs` and `engines` are derived: from the type parameter, from the class.
    """

    needs: ClassVar[type[Target]]
    engines: ClassVar[tuple[str, ...]] = ("numpyro", "pyro")
    bias: ClassVar[str | None] = None  # stated in the verdict of every fit
    together: ClassVar[bool] = False  # whether all chains advance in one vectorised step on every device
    steady: ClassVar[bool] = False  # whether every step costs the same, so that many chains advance best in one
    takes_guide: ClassVar[bool] = False  # whether it learns the author's guide of a program on its whole data
    learns_points: ClassVar[bool] = False  # whether it learns parameters beside unknowns, or parameters alone
    flat_prior: ClassVar[bool] = False  # whether the unknowns of independent rows may be learned as parameters
    begins_anywhere: ClassVar[bool] = False  # whether it can begin at given values of the unknowns
    density_alone: ClassVar[bool] = (
        False  # whether it reads nothing of unknowns in R^n but how many they are and their density
    )
    period: ClassVar[int] = 0  # steps between two looks at the state; 0: none (NumPyro engine)
    precision: ClassVar[str | None] = None  # None: float64 on a CPU, float32 on an accelerator

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for base in getattr(cls, "__orig_bases__", ()):
            origin, arguments = get_origin(base), get_args(base)
            if isinstance(origin, type) and issubclass(origin, Inference) and isinstance(arguments[0], type):
                cls.needs = arguments[0]

    @property
    def name(self) -> str:
        """The catalogue's name: that of the file."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def total_steps(self) -> int:
        """Steps of the kernel in a whole run, warm-up included."""
        raise NotImplementedError

    def prepare(self, target: Any) -> Any:
        """The target with what this algorithm must know of it before anything compiles; raises where it does not fit."""
        return target

    def check_begun(self, target: Any, fit: Any) -> None:
        """Raises where a fit whose parameters the target begins at, given by init=, is none that this algorithm can go on from."""

    def precision_on(self, target: Any) -> str | None:
        """The precision that suits this target, where it is not the algorithm's own; see `precision`."""
        return self.precision

    def unshared(self, target: Any) -> str:
        """Why processes cannot make a run together; empty where they can."""
        return (
            "Processes share the chains of a sampler, or the rows of a learner whose step is a mean over them; "
            f"{self.name} is neither.\nFit it in one process."
        )

    def kernel(self) -> Inference[T]:
        """The settings with those that `init` and `step` do not read at a fixed value: the key of compiled code."""
        return self

    def on(self, engine: str) -> Any:
        """What runs `init`, `step` and `answer` on an engine: by default the settings themselves."""
        return self

    def settings(self) -> dict[str, Any]:
        """The settings as a dictionary that can be written to JSON."""
        return asdict(self)

    def init(self, key: Any, target: Any) -> Any:
        """The state before the first step."""
        raise NotImplementedError

    def step(self, key: Any, state: Any, target: Any) -> tuple[Any, Any]:
        """One step of the kernel."""
        raise NotImplementedError

    def look(self, state: Any, info: Any, target: Any) -> tuple[Any, Any]:
        """The state and the info of the last step, after each `period` steps: for what would cost too much at every one."""
        return state, info


@dataclass(frozen=True, kw_only=True)
class Sampler(Inference[T]):
    """Markov chains: `num_chains` of `num_warmup` adapting steps, then `num_samples` kept ones.

    num_warmup: adapting steps of each chain, not kept as draws.
    num_samples: draws kept of each chain.
    num_chains: independent chains.
    thin: transitions between two kept draws: each chain makes num_samples * thin of them after warm-up.

    thins_itself: whether a step is `thin` transitions by itself, in warm-up as well: so with samplers whose single transitions
    move little, and which make many of them for a draw by default.
    The info of every step has `z` (dim,), the position, and `log_density` (), beside what the algorithm adds.
    """

    begins_anywhere: ClassVar[bool] = True
    thins_itself: ClassVar[bool] = False

    num_warmup: int = 400
    num_samples: int = 1000
    num_chains: int = 4
    thin: int = 1

    def __post_init__(self) -> None:
        positive(self, "num_samples", "num_chains", "thin")
        if self.num_warmup < 0:
            raise ValueError(f"num_warmup is {self.num_warmup}; it must be 0 or more")

    def unshared(self, target: Any) -> str:
        return ""

    def kernel(self) -> Sampler[T]:
        return replace(self, num_samples=1, num_chains=1)

    @property
    def total_steps(self) -> int:
        return self.num_warmup + self.num_samples


@dataclass(frozen=True, kw_only=True)
class Learner(Inference[T]):
    """Optimisation: steps each with a `loss` in its info; `draw` reads the answer off the state.

    num_steps: at most so many; a learner that has converged stops before.
    loss_of: what its loss measures: "likelihood" and "pseudo-likelihood" in nats a row, or "loss", something else.
    """

    loss_of: ClassVar[str] = "likelihood"

    num_steps: int = 10_000

    def __post_init__(self) -> None:
        positive(self, "num_steps")

    @property
    def total_steps(self) -> int:
        return self.num_steps


def positive(settings: Any, *names: str) -> None:
    """Raise ValueError if one of the named settings is not above zero."""
    for name in names:
        if not getattr(settings, name) > 0:
            raise ValueError(f"{name} is {getattr(settings, name)}; it must be above 0")


def closest(word: str, known: Any) -> str:
    """' Did you mean ...?' where a known word is close, capitals aside, else nothing."""
    lower = {str(k).lower(): k for k in known}
    close = difflib.get_close_matches(str(word).lower(), list(lower), n=1)
    return f" Did you mean {lower[close[0]]!r}?" if close else ""


def configure(inference: Inference, keywords: dict[str, Any]) -> Inference:
    """The inference with some settings changed; an unknown one is a TypeError that lists the known ones."""
    known = [f.name for f in fields(inference)]
    keywords = _as_named_now(keywords, known)
    for word in keywords:
        if word not in known:
            raise TypeError(
                f"Unknown setting {word!r} of {inference.name}.{_meant_by(word, known)}\nKnown: {', '.join(known)}."
            )
    own = {f.name: getattr(inference, f.name) for f in fields(inference)}
    return replace(inference, **settled(inference, own | keywords))


OTHERS = {
    "lr": "learning_rate",
    **dict.fromkeys(("n_iter", "num_iter", "max_iter", "niter", "num_iterations"), "num_steps"),
    **dict.fromkeys(("tune", "warmup_steps", "burn_in", "burnin", "iter_warmup", "num_burnin"), "num_warmup"),
    **dict.fromkeys(("draws", "n_draws", "iter", "iter_sampling", "num_results"), "num_samples"),
    **dict.fromkeys(("num_samples", "n_samples"), "num_draws"),
    **dict.fromkeys(("dense_mass", "full_mass"), "metric"),
    **{"loss": "elbo", "init_strategy": "start", "target_accept_prob": "target_accept", "adapt_delta": "target_accept"},
}  # settings by the names that other libraries have for them
OF_FIT = {
    **dict.fromkeys(("rng_key", "random_seed", "random_state", "rng_seed", "prng_key"), "seed"),
    **dict.fromkeys(("progress_bar", "progressbar", "disable_progbar", "verbose"), "progress"),
    **dict.fromkeys(("initial_params", "init_params", "initial_values", "initvals", "inits"), "init"),
}


def _meant_by(word: str, known: list[str]) -> str:
    """What an unknown setting may mean: one of another library's name, one of `fit` itself, or one that is spelt alike."""
    plain = str(word).lower()
    if OTHERS.get(plain) in known:
        return f" Did you mean {OTHERS[plain]!r}?"
    if plain in OF_FIT:
        return f" Did you mean {OF_FIT[plain]!r}?"
    if plain in ("optim", "optimizer", "optimiser") and "learning_rate" in known:
        return " It learns by Adam: say its learning_rate."
    return closest(word, known)


FORMER = {"thinning": "thin"}  # settings by the names that they once had, in old runs and scripts


def _as_named_now(keywords: dict[str, Any], known: list[str]) -> dict[str, Any]:
    """The keywords by today's names. An old run has both words for thinning, which multiplied."""
    found = dict(keywords)
    for old, new in FORMER.items():
        if old in found and old not in known and new in known:
            value = found.pop(old)
            found[new] = value * found[new] if new in found else value
    return found


def offered(inference: Inference | type[Inference], target: type[Target] | Target) -> bool:
    """Whether the target offers what the algorithm needs, finite unknowns summed out where they can be."""
    kind = target if isinstance(target, type) else type(target)
    if not isinstance(target, type) and target.points and not inference.learns_points:
        return False
    if target.only_guided and not inference.takes_guide:
        return False
    if issubclass(kind, inference.needs) or (issubclass(kind, Mixed) and inference.needs is Continuous):
        return True
    return inference.flat_prior and isinstance(target, Continuous) and target.by_row() is not None


def fitting(inference: Inference, target: Target, alternatives: Callable[[], list[str]]) -> Target:
    """The target as the algorithm takes it; raises Incompatible, naming what would work."""
    if target.only_guided and not inference.takes_guide:
        raise ValueError(target.only_guided)
    if target.points and not inference.learns_points:
        raise Incompatible(_points_left(inference, target))
    if inference.flat_prior and isinstance(target, Continuous) and target.engine in inference.engines:
        target = target.by_row() or target
    if target.engine in inference.engines and offered(inference, target):
        summed = isinstance(target, Mixed) and not isinstance(target, inference.needs)
        taken: Any = target.marginalise() if isinstance(target, Mixed) and summed else target
        taken.author_guide = target.author_guide
        if taken.needs_guide and not (inference.takes_guide and taken.author_guide is not None):
            raise Incompatible(taken.needs_guide)
        found = inference.prepare(taken)
        unused = target.author_guide is not None and not inference.takes_guide
        told = (*dict.fromkeys((*target.notes, *found.notes)),)
        found.notes = (*told, *((f"{inference.name} does not use the program's guide.",) if unused else ()))
        return found
    instead = alternatives()
    hint = f"\nTry inference={' or '.join(map(repr, instead))}." if instead else ""
    if target.engine == "pyro" and target.offers == "Discrete":
        raise _refused(f"{inference.name} cannot be run: {FINITE}", instead)
    if target.engine not in inference.engines:
        engines = " and ".join(inference.engines)
        raise _refused(f"{inference.name} runs on {engines}; this is a {target.engine} program.{hint}", instead)
    why = "" if target.named("latent") else " It has no unknowns: every site is observed."
    if inference.flat_prior and target.named("latent"):
        why = " Its rows are not independent given its unknowns, or the program does not take a single one."
    if isinstance(target, Implicit):
        raise _refused(f"{_without_density(inference, target)}{hint}", instead)
    meant = [f"{kind}: {MEANT[kind]}." for kind in (inference.needs.offers, target.offers) if kind in MEANT]
    said = f"{inference.name} needs a {inference.needs.offers} target; this program offers {target.offers}.{why}{hint}"
    raise _refused("\n".join([said, *meant]), instead)


MEANT = {
    "Learnable": "rows, and parameters that are learned from them, by a density without other unknowns",
    "Bounded": "rows with hidden sites, and a guide that draws them",
    "Judged": "rows with hidden sites, a guide, and a critic",
    "Diffused": "rows that a denoiser makes of noise",
    "Implicit": "rows that the program draws, without a density of them",
    "Continuous": "unknowns that are real numbers, with a density that has a gradient",
    "Mixed": "unknowns that are real numbers beside some of finitely many values",
    "Discrete": "unknowns of finitely many values alone",
    "Completable": "a point of a diffusion model, of which something was seen and the denoiser draws the rest",
    "Conditional": "bits, levels and reals, each of which can be drawn given all others",
}  # of the kinds of target, to who has not read `probgen.target`


FINITE = (
    "all of this Pyro program's are finite, which only 'gibbs' takes, and that is for NumPyro programs.\n"
    "Write it for NumPyro, or ask pyro.infer.infer_discrete."
)


def _refused(message: str, instead: list[str]) -> Incompatible:
    error = Incompatible(message)
    error.instead = tuple(instead)
    return error


def _without_density(inference: Inference, target: Implicit) -> str:
    """Why what needs a density does not take a program without one."""
    name = target.visible[0].name
    if isinstance(target, Bridging):
        return (
            f"{inference.name} needs a density, and the program has none that is known: {name!r} is where a diffusion ends.\n"
            "inference='bridge_matching' learns it, there and back."
        )
    return (
        f"{inference.name} needs a density, and the program has none: {name!r} is Delta(...), which says how a point arises "
        "(an implicit model).\nIt is learned from its draws, or give it noise with a density (Normal in place of Delta)."
    )


def _points_left(inference: Inference, target: Target) -> str:
    """Why an algorithm does not take parameters beside unknowns, and what to do."""
    names, primitive = ", ".join(map(repr, target.points[:3])), f"{target.engine}.param"
    unknowns = [site.name for site in target.sites if site.kind == "latent" and site.name not in target.points]
    if issubclass(inference.needs, Generative) and not target.named("observed"):
        return (
            f"{inference.name} learns {names} from rows of data, and the program observes none: pass them, data={{'x': rows}} "
            "for a program with x=None and obs=x."
        )
    if inference.name == "mle" and unknowns:
        return (
            f"The likelihood of the parameter {names} is an integral over {unknowns[0]!r}, which mle does not compute.\n"
            "Use inference='svi', which raises a bound on it, or 'map' for the joint mode; by_row=True if every row has its own."
        )
    if unknowns:
        return (
            f"{inference.name} would leave the parameter {names} ({primitive}) at its start: it learns no parameters beside "
            f"unknowns ({', '.join(unknowns[:3])}).\nGive it a prior ({target.engine}.sample), or use inference='svi', "
            "'mean_field' or 'map', which learn it."
        )
    return (
        f"{inference.name} does not learn the parameter {names} ({primitive}) of a program that is no sum over rows.\n"
        "Use inference='mle', or give it a prior for a posterior."
    )
