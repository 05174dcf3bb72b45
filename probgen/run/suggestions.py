"""Which algorithms serve a target, best first: only those that take it, tried as a run would try them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from probgen import catalog
from probgen.algorithm import Inference, Sampler, fitting
from probgen.programs.completable import Completable
from probgen.target import Diffused, Target

AUTO = "auto"


FEW = 3  # that an error names


# Best first: exact before approximate, of general use before special. What is not here comes last, in the catalogue's order.
ORDER = (
    "nuts", "gibbs", "guided_svi", "mle", "maximum_likelihood", "amortised_svi", "em", "pca", "iwae", "vq", "pcd", "hmc",
    "full_rank", "mean_field", "laplace", "map", "random_walk", "mala", "tempering", "metropolis", "low_rank", "sgld", "icm",
    "minimum_cut", "score_matching", "sliced_score_matching", "pseudo_likelihood", "cd", "greedy", "annealing",
    "bridge_matching", "cycle_gan", "r3gan", "wgan_gp", "gan", "sinkhorn", "sliced_wasserstein", "mmd", "wgan",
)  # fmt: skip


SPOKEN = {
    "amortised_svi": "svi",
    "guided_svi": "svi",
    "maximum_likelihood": "mle",
}  # what users call them: see `run.meant`


def takes(word: str, target: Target) -> bool:
    """Whether an algorithm with its own settings takes a target: it is asked to."""
    try:
        fitting(catalog.algorithm(word)(), target, list)
    except Exception:  # whatever it would say
        return False
    return True


def working(target: Target, like: Inference | None = None) -> Iterator[str]:
    """Names of the algorithms that take a target, best first; samplers first for one `like` a sampler, learners for a learner."""
    place = {word: i for i, word in enumerate(ORDER)}
    offered = catalog.algorithms_for(target, target.engine)
    if isinstance(target, Completable):  # by the denoiser in seconds; others draw all levels of a chain, or solve ODEs
        place |= {"twisted_smc": -2.0, "guided": -1.0}
    if isinstance(target, Diffused) and takes("mle", target):  # through an ODE: minutes for what these do in seconds
        place |= {"denoising": place["mle"] - 0.2, "flow_matching": place["mle"] - 0.1}
    words = sorted(offered, key=lambda word: place.get(word, len(place)))
    if like is not None:
        words.sort(key=lambda word: issubclass(catalog.algorithm(word), Sampler) != isinstance(like, Sampler))
    return (word for word in words if takes(word, target))


def best(target: Target, like: Inference | None = None, most: int = FEW) -> list[str]:
    """The few best, at most so many, by the words that users know them by."""
    return list(dict.fromkeys(SPOKEN.get(word, word) for word in itertools.islice(working(target, like), most)))
