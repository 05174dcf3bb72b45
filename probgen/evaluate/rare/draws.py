"""The draws of a fit that events and expectations are counted in: new independent ones where it can, else those of its chains."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from probgen import runtime
from probgen.algorithm import Incompatible, Sampler
from probgen.evaluate.rare.event import Row
from probgen.fitted import Fitted, FittedParameters

NUM_SAMPLES = 4000


class Drawn:
    """Draws by name, (chain, draw, *event); some are computed when they are first asked for.

    independent: whether every draw is by itself; law: whose draws they are; shape: chains and draws.
    """

    def __init__(
        self, arrays: Mapping[str, Any], independent: bool, law: str, notes: tuple[str, ...] = (),
        later: tuple[str, ...] = (), compute: Callable[[], Mapping[str, Any]] | None = None, scope: Any = None,
    ) -> None:  # fmt: skip
        self.arrays, self._later, self._compute = dict(arrays), later, compute
        self.independent, self.law, self.notes, self.scope = independent, law, notes, scope
        self.ends = False  # whether each is the end of a Markov chain of its own
        self.guided = False  # whether a guide's draws stand for the posterior's
        self.shape = next(iter(self.arrays.values())).shape[:2]

    @property
    def kind(self) -> str:
        """What kind of number a mean over these draws is."""
        if not self.independent:
            return "estimate by autocorrelated draws"
        if self.ends:
            return "estimate by ends of Markov chains"
        return "unbiased estimate" if not self.guided else "estimate under a guide's law"

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.arrays, *(name for name in self._later if name not in self.arrays))

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.arrays and self._compute is not None:
            self.arrays |= self._compute()
        return self.arrays[name]

    def row(self) -> Row:
        """The first draw."""
        return Row(self.names, lambda name: self[name][0, 0])

    def columns(self, names: tuple[str, ...]) -> dict[str, np.ndarray]:
        """Draws in one row: {name: (draw, *event)}; of an event that reads nothing, any one."""
        return {name: self[name].reshape(-1, *self[name].shape[2:]) for name in names or self.names[:1]}


def drawn(fit: Fitted, num_samples: int | None, seed: int, given: Mapping[str, Any]) -> Drawn:
    """The draws of a fit: of a learned model `fit.sample`'s, of a program on no data its own, else posterior draws and predictions.

    given: inputs of a conditional model, or new data to predict on.
    """
    target: Any = fit.target
    scope = functools.partial(runtime.jax_scope, fit.precision) if target.engine == "numpyro" else None
    count = NUM_SAMPLES if num_samples is None else num_samples
    if isinstance(fit, FittedParameters):
        notes = (
            ()
            if getattr(target, "proper", True)
            else ("Each draw is the end of a Markov chain of its own: see fit.sample.",)
        )
        new = fit.sample(count, seed, **given)
        found = Drawn({k: v[None] for k, v in new.items()}, True, "the learned model", notes, scope=scope)
        found.ends = bool(notes)
        return found
    own = None if given else by_itself(fit, count, seed)
    if own is not None:
        return Drawn({k: v[None] for k, v in own.items()}, True, "the program, run forward", scope=scope)
    return _posterior(fit, num_samples, given, scope)


def by_itself(fit: Fitted, count: int, seed: int) -> Mapping[str, np.ndarray] | None:
    """Independent draws of a program of which nothing is known; None where it is conditioned, weighed, or an energy."""
    target: Any = fit.target
    if (
        any(site.weighed or site.masked for site in target.sites)
        or target.named("observed")
        or target.named("factor")
        or target.points
    ):
        return None
    try:
        return target.sample(count, seed)
    except (Incompatible, NotImplementedError):
        return None


def _posterior(fit: Fitted, num_samples: int | None, given: Mapping[str, Any], scope: Any) -> Drawn:
    chains, count = fit.z.shape[:2]
    if num_samples is not None:
        raise ValueError(
            f"num_samples is of new draws; a posterior fit has the draws of its run ({chains} chains of {count}).\n"
            "Leave it out, or fit with more: pg.fit(..., num_samples=...)."
        )
    chain = isinstance(fit.inference, Sampler)
    if not chain and chains > count == 1:
        raise Incompatible(
            f"{fit.inference.name} gives the ends of {chains} searches for a mode, which are no draws: use a sampler, as 'gibbs'."
        )
    if chains * count < 10:
        raise Incompatible(
            f"{fit.inference.name} gives {chains * count} draw(s), of which nothing is counted: use a sampler, as 'nuts'."
        )
    observed = () if not fit.target.named("observed") else fit.target.named("observed")

    def predict() -> dict[str, Any]:
        found = fit.predict(**given)
        return {name: np.asarray(found[name]) for name in found.data_vars}

    law = "the posterior" if chain else f"what {fit.inference.name} draws"
    independent = not chain and "log_evidence" not in fit.answer
    found = Drawn(fit.draws, independent, law, _about(fit), observed, predict, scope)
    found.guided = independent
    if given and observed:
        found[observed[0]]
    elif given:
        raise TypeError(f"{next(iter(given))!r} is unknown: nothing is predicted by a program that observes nothing.")
    return found


def _about(fit: Fitted) -> tuple[str, ...]:
    """What to know of draws that are no Markov chain's."""
    if "log_evidence" in fit.answer:
        return ("Particles of one run share ancestors: the error may be too small; see fit.log_evidence.",)
    if not {"log_q", "log_p"} <= set(fit.answer):
        return ()
    from arviz_stats.base import array_stats

    ratios = np.asarray(fit.answer["log_p"], float) - np.asarray(fit.answer["log_q"], float)
    khat = float(array_stats.psislw(ratios.ravel())[1])
    return (
        f"Draws are the guide's, whose tails are not the posterior's (k-hat {khat:.2f}): 'nuts' draws from the posterior.",
    )
